"""The kernels of sentiment against plain loops, and numpy's own correlation."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.sentiment import (
    COPY_WINDOW,
    DECAY_HALF_LIVES,
    Documents,
    Windows,
    counted,
)

from .documents import BEGIN, HOUR, Document, counting, documents, table


@settings(max_examples=120, deadline=None)
@given(documents(), st.sampled_from([None, "BTCUSDT", "ETHUSDT"]))
def test_what_counts_is_what_a_look_at_all_pairs_says(given_ones: list[Document], symbol: str | None) -> None:
    found = counted(table(given_ones), "news", symbol)
    assert list(zip(found.available_at.tolist(), found.scores.tolist(), strict=True)) == counting(given_ones, symbol)


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(given_ones: list[Document], seed: int) -> None:
    rows = table(given_ones)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    first, second = counted(rows, "news", None), counted(shuffled, "news", None)
    assert first.available_at.tolist() == second.available_at.tolist()
    assert first.scores.tolist() == second.scores.tolist()


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(0, 90 * 24))
def test_a_document_counts_or_not_by_what_came_before_it_alone(given_ones: list[Document], hour: int) -> None:
    rows, cut = table(given_ones), BEGIN + hour * HOUR
    known = rows.filter(rows["available_at"].dt.epoch("us") <= cut)
    all_of_it, early = counted(rows, "news", None), counted(known, "news", None)
    assert early.available_at.tolist() == [at for at in all_of_it.available_at.tolist() if at <= cut]


@settings(max_examples=100, deadline=None)
@given(documents(), st.integers(1, 24 * 40), st.integers(1, 24 * 5))
def test_aggregates_are_what_a_loop_over_each_window_says(given_ones: list[Document], hours: int, half: int) -> None:
    found = counted(table(given_ones), "news", None)
    at = BEGIN + np.arange(0, 100 * 24, 7) * HOUR
    windows = Windows.of(found, at, hours * HOUR)
    mean, spread = windows.mean(), windows.dispersion()
    decayed = windows.decayed_mean(half * HOUR)
    for row, instant in enumerate(at.tolist()):
        inside = [(t, x) for t, x in counting(given_ones, None) if instant - hours * HOUR < t <= instant]
        assert windows.count[row] == len(inside)
        if not inside:
            assert math.isnan(mean[row])
            assert math.isnan(decayed[row])
            continue
        weights = [2.0 ** ((t - inside[-1][0]) / (half * HOUR)) for t, _ in inside]
        expected = math.fsum(w * x for w, (_, x) in zip(weights, inside, strict=True)) / math.fsum(weights)
        average = math.fsum(x for _, x in inside) / len(inside)
        assert mean[row] == pytest.approx(average, rel=1e-9, abs=1e-14)
        assert decayed[row] == pytest.approx(expected, rel=1e-9, abs=1e-14)
        assert -1 - 1e-12 <= decayed[row] <= 1 + 1e-12
        if len(inside) < 2:
            assert math.isnan(spread[row])
        else:
            variance = math.fsum((x - average) ** 2 for _, x in inside) / len(inside)
            assert spread[row] == pytest.approx(math.sqrt(variance), rel=1e-9, abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(documents(), st.integers(1, 24 * 5))
def test_the_decayed_mean_is_that_of_all_documents_to_1e_12(given_ones: list[Document], half: int) -> None:
    found = counted(table(given_ones), "news", None)
    at = BEGIN + np.arange(0, 120 * 24, 11) * HOUR
    decayed = Windows.behind_newest(found, at, DECAY_HALF_LIVES * half * HOUR).decayed_mean(half * HOUR)
    for row, instant in enumerate(at.tolist()):
        before = [(t, x) for t, x in counting(given_ones, None) if t <= instant]
        if not before:
            assert math.isnan(decayed[row])
            continue
        weights = [2.0 ** ((t - instant) / (half * HOUR)) for t, _ in before]
        if math.fsum(weights) > 1e-250:
            expected = math.fsum(w * x for w, (_, x) in zip(weights, before, strict=True)) / math.fsum(weights)
            assert decayed[row] == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_many_windows_are_summed_in_parts_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    at = np.sort(generator.integers(0, 1_000 * HOUR, 3_000))
    found = Documents(at, generator.uniform(-1, 1, 3_000))
    instants = np.arange(0, 1_000, 1) * HOUR
    whole = Windows.of(found, instants, 48 * HOUR)
    means, spreads = whole.mean(), whole.dispersion()
    monkeypatch.setattr("mdplatform.features.sentiment._CHUNK", 500)
    in_parts = Windows.of(found, instants, 48 * HOUR)
    assert np.array_equal(means, in_parts.mean(), equal_nan=True)
    assert np.array_equal(spreads, in_parts.dispersion(), equal_nan=True)


def test_a_text_counts_again_only_after_it_was_forgotten() -> None:
    rows = table(
        [(BEGIN, 0.5, "", "a"), (BEGIN + COPY_WINDOW, 0.6, "", "a"), (BEGIN + 2 * COPY_WINDOW + 1, 0.7, "", "a")]
    )
    assert counted(rows, "news", None).scores.tolist() == [0.5, 0.7]


def test_a_text_that_keeps_returning_is_remembered_from_when_it_last_came_wherever_loading_begins() -> None:
    step = 25 * 24 * HOUR
    rows = table([(BEGIN + number * step, 0.5, "", "a") for number in range(8)])
    assert len(counted(rows, "news", None)) == 1
    for number in range(1, 8):
        start = BEGIN + number * step
        loaded = rows.filter(pl.col("available_at").dt.epoch("us") >= start - COPY_WINDOW)
        assert len(counted(loaded, "news", None).since(start)) == 0


def test_a_document_that_comes_again_at_another_instant_is_a_copy_of_the_first() -> None:
    rows = table([(BEGIN, 0.5, "", "a"), (BEGIN + HOUR, 0.9, "", "as mended"), (BEGIN + 2 * HOUR, 0.1, "", "b")])
    again = rows.with_columns(doc_id=pl.Series(["1", "1", "2"]))
    found = counted(again, "news", None)
    assert (found.available_at.tolist(), found.scores.tolist()) == ([BEGIN, BEGIN + 2 * HOUR], [0.5, 0.1])
    earlier = counted(again.head(1), "news", None)
    assert earlier.scores.tolist() == found.scores[:1].tolist(), "what came later does not change what counted"


def test_a_symbol_is_matched_whole() -> None:
    rows = table([(BEGIN, 0.1, "BTCUSD", None), (BEGIN, 0.2, "1BTCUSDT,BTCUSDTX", None), (BEGIN, 0.3, "", None)])
    assert len(counted(rows, "news", "BTCUSDT")) == 0
    assert counted(rows, "news", None).scores.tolist() == [0.3]
    assert len(counted(rows, "other", None)) == 0
