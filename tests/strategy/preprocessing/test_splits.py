"""Splits that leak nothing, against the overlap of labels worked out row by row."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold, TimeSeriesSplit

from mdplatform.errors import InvalidPreprocessing
from mdplatform.strategy.preprocessing import Preprocessing, PurgedKFold, WalkForward, Windows, train_validation

from .rows import rows


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(30, 120), splits=st.integers(2, 6), horizon=st.integers(0, 6), embargo=st.integers(0, 6),
)  # fmt: skip
def test_purging_takes_out_the_rows_whose_labels_overlap_and_no_others(
    size: int, splits: int, horizon: int, embargo: int
) -> None:
    values, validated = np.zeros((size, 1)), []
    for train, validation in PurgedKFold(splits, horizon, embargo).split(values):
        first, last = validation[0], validation[-1] + horizon  # the span of the validation labels
        for row in range(size):
            overlaps = row <= last and row + horizon >= first
            is_embargoed = last < row <= last + embargo
            assert (row in train) == (not overlaps and not is_embargoed)
        validated.extend(validation.tolist())
    assert validated == list(range(size))


def test_without_horizon_and_embargo_the_folds_are_those_of_scikit_learn() -> None:
    values = np.zeros((60, 1))
    for ours, theirs in zip(PurgedKFold(5, 0, 0).split(values), KFold(5).split(values), strict=True):
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])
    for most in (None, 15):
        other = TimeSeriesSplit(5, gap=3, max_train_size=most).split(values)
        for ours, theirs in zip(WalkForward(5, 2, 1, most).split(values), other, strict=True):
            assert np.array_equal(ours[0], theirs[0])
            assert np.array_equal(ours[1], theirs[1])


def test_rows_of_one_instant_stay_together_whatever_their_symbol() -> None:
    frame = rows(40, ("BTCUSDT", "ETHUSDT", "ADAUSDT"))
    alone = rows(40)
    samples = Preprocessing([Windows(4)]).fit_transform(frame)
    for splitter in (PurgedKFold(4, 2, 1), WalkForward(3, 1)):
        for given_rows in (frame, frame.to_pandas(), frame.to_pandas().set_index(["symbol", "open_time"]), samples):
            for ours, theirs in zip(splitter.split(given_rows), splitter.split(alone), strict=True):
                for part, single in zip(ours, theirs, strict=True):
                    assert np.array_equal(part, np.concatenate([single, single + 40, single + 80]))


def test_other_times_tell_instants_too_and_symbols_without_times_are_refused() -> None:
    frame = rows(40, ("BTCUSDT", "ETHUSDT")).sort("open_time", "symbol")
    expected = train_validation(frame, horizon=3)
    for lacking in (["open_time"], ["open_time", "close_time"]):
        other = frame.drop(lacking)
        for given_rows in (other, other.to_pandas(), other.to_pandas().set_index(["symbol", "available_at"])):
            for ours, theirs in zip(train_validation(given_rows, horizon=3), expected, strict=True):
                assert np.array_equal(ours, theirs)
    bare = frame.drop("open_time", "close_time", "available_at")
    samples = Preprocessing([Windows(4)]).fit_transform(bare)
    for given_rows in (bare, bare.to_pandas(), bare.to_pandas().set_index("symbol"), samples):
        with pytest.raises(InvalidPreprocessing, match=r"^open_time: The rows name symbols and no times"):
            train_validation(given_rows)
    assert len(train_validation(bare.drop("symbol"))[1]) == 16


def test_a_validation_slice_is_the_newest_share_with_a_gap_before_it() -> None:
    train, validation = train_validation(np.zeros((100, 2)), 0.2, horizon=3, embargo=2)
    assert train.tolist() == list(range(75))
    assert validation.tolist() == list(range(80, 100))
    frame = rows(100).sample(fraction=1.0, shuffle=True, seed=1)
    train, validation = train_validation(frame, 0.2)
    assert frame[train]["open_time"].max() < frame[validation]["open_time"].min()


@pytest.mark.parametrize(
    ("splitter", "told"),
    [
        (PurgedKFold(0), "^n_splits: Out of range"),
        (PurgedKFold(3, -1), "^horizon: Out of range"),
        (PurgedKFold(3, 1, 0.5), "^embargo: Out of range"),  # type: ignore[arg-type]
        (PurgedKFold(11), "^n_splits: 10 instants cannot be split so often: 11"),
        (PurgedKFold(2, 9), "^horizon: Purging leaves no training rows"),
        (WalkForward(10), "^n_splits: 10 instants cannot"),
        (WalkForward(3, most_train=0), "^most_train: Out of range"),
    ],
)
def test_splits_that_cannot_be_are_refused(splitter: PurgedKFold | WalkForward, told: str) -> None:
    with pytest.raises(InvalidPreprocessing, match=told):
        list(splitter.split(np.zeros((10, 1))))
    with pytest.raises(InvalidPreprocessing, match=r"^validation: Out of range"):
        train_validation(pl.DataFrame({"a": [1.0, 2.0]}), 1.0)
