"""The kernels of sentiment against plain loops, and numpy's own correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.features.guard import DEGENERATE, INSUFFICIENT_HISTORY, SETTLED
from mdplatform.features.sentiment import (
    COPY_WINDOW,
    DECAY_HALF_LIVES,
    Documents,
    Windows,
    counted,
    rolling_correlation,
)

from .documents import BEGIN, HOUR, Document, counting, documents, table

NUMBERS = st.lists(st.none() | st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=40)


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


def test_a_symbol_is_matched_whole() -> None:
    rows = table([(BEGIN, 0.1, "BTCUSD", None), (BEGIN, 0.2, "1BTCUSDT,BTCUSDTX", None), (BEGIN, 0.3, "", None)])
    assert len(counted(rows, "news", "BTCUSDT")) == 0
    assert counted(rows, "news", None).scores.tolist() == [0.3]
    assert len(counted(rows, "other", None)) == 0


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.integers(3, 12), st.integers(3, 12), st.integers(0, 5))
def test_the_rolling_correlation_is_numpys_over_each_window(
    left: list[float | None], window: int, least: int, seed: int
) -> None:
    x = np.array([math.nan if each is None else each for each in left])
    y = np.random.default_rng(seed).normal(size=len(x))
    y[seed::7] = math.nan
    values, statuses, counts = rolling_correlation(x, y, window, least)
    for row in range(len(x)):
        first = max(0, row - window + 1)
        both = np.isfinite(x[first : row + 1]) & np.isfinite(y[first : row + 1])
        a, b = x[first : row + 1][both], y[first : row + 1][both]
        assert counts[row] == len(a)
        if len(a) < least:
            assert statuses[row] == INSUFFICIENT_HISTORY
        elif np.ptp(a) == 0:
            assert statuses[row] == DEGENERATE
        else:
            assert statuses[row] == SETTLED
            assert values[row] == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-7, abs=1e-9)
        assert math.isnan(values[row]) == (statuses[row] != SETTLED)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6), st.floats(-10, 10))
def test_a_correlation_is_bounded_symmetric_and_blind_to_scale(seed: int, scale: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=60), generator.normal(size=60)
    y = 0.999 * x + 0.001 * y if seed % 2 else y
    values, _, _ = rolling_correlation(x, y, 20, 5)
    swapped, _, _ = rolling_correlation(y, x, 20, 5)
    scaled, _, _ = rolling_correlation(x * scale + shift * scale, y, 20, 5)
    assert np.nanmax(np.abs(values)) <= 1
    assert np.array_equal(values, swapped, equal_nan=True)
    assert np.allclose(values, scaled, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_a_constant_with_rounding_in_its_mean_is_degenerate_and_not_noise() -> None:
    values, statuses, _ = rolling_correlation(np.full(30, 0.1), np.random.default_rng(1).normal(size=30), 10, 5)
    assert np.isnan(values).all()
    assert set(statuses[9:].tolist()) == {DEGENERATE}
