"""Each step against an oracle: pandas, scipy, scikit-learn, or numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import median_abs_deviation
from scipy.stats.mstats import winsorize
from sklearn.preprocessing import RobustScaler

from mdplatform.errors import InvalidPreprocessing, PlatformError, UnknownParameter
from mdplatform.strategy.preprocessing import (
    FractionalDifference,
    LogReturns,
    MissingData,
    RobustZScore,
    RollingZScore,
    Step,
    Windows,
    Winsorize,
)
from mdplatform.strategy.preprocessing.differencing import weights

from .rows import RSI, rows

NAN = float("nan")


def numbers(count: int = 300, columns: int = 3, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, 2, (count, columns))


@pytest.mark.parametrize("periods", [1, 5])
def test_log_returns_are_those_of_pandas(periods: int) -> None:
    prices = np.exp(numbers())
    expected = np.log(pd.DataFrame(prices)).diff(periods)
    assert np.allclose(LogReturns(periods).fit_transform(prices), expected, rtol=0, atol=1e-12, equal_nan=True)


def test_a_log_return_without_a_price_is_missing_and_a_price_of_nothing_is_no_training_row() -> None:
    step = LogReturns().fit(np.array([[1.0], [2.0]]))
    assert np.isnan(step.transform(np.array([[1.0], [NAN], [2.0], [0.0], [-1.0], [-2.0]]))).all()
    with pytest.raises(InvalidPreprocessing, match=r"^x0: A log return needs values above zero: 0\.0\."):
        step.fit(np.array([[1.0], [0.0]]))


def test_winsorizing_is_that_of_scipy_where_quantiles_are_rows() -> None:
    values = np.random.default_rng(1).permutation(101.0 + np.arange(101))[:, None]
    expected = winsorize(values[:, 0], limits=(0.05, 0.05))
    assert np.array_equal(Winsorize(0.05, 0.95).fit_transform(values)[:, 0], np.asarray(expected))


def test_what_was_not_seen_in_training_is_held_to_the_quantiles_of_training() -> None:
    step = Winsorize(0.25, 0.75).fit(np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [NAN]]))
    assert step.transform(np.array([[-100.0], [2.5], [100.0], [NAN]]))[:3, 0].tolist() == [1.0, 2.5, 3.0]
    assert np.isnan(step.transform(np.array([[NAN]])))


def test_the_robust_z_score_is_that_of_scikit_learn_and_scipy() -> None:
    values = numbers()
    values[3, 1] = NAN
    by_range = RobustScaler(unit_variance=True).fit_transform(values)
    assert np.allclose(RobustZScore("iqr").fit_transform(values), by_range, rtol=1e-12, equal_nan=True)
    centre = np.nanmedian(values, axis=0)
    spread = median_abs_deviation(values, axis=0, scale="normal", nan_policy="omit")
    assert np.allclose(
        RobustZScore("mad").fit_transform(values), (values - centre) / spread, rtol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("scale", ["mad", "iqr"])
def test_a_column_that_has_no_scale_is_refused_by_its_name(scale: str) -> None:
    frame = pl.DataFrame({"flat": [1.0] * 9, "close": np.arange(9.0)})
    with pytest.raises(
        InvalidPreprocessing, match=f"^flat: Half of the training rows are equal, so that the {scale} is 0"
    ):
        RobustZScore(scale).fit(frame)


@pytest.mark.parametrize(("window", "least"), [(2, None), (20, None), (20, 5), (250, 2)])
def test_the_rolling_z_score_is_that_of_pandas(window: int, least: int | None) -> None:
    values = numbers()
    values[np.random.default_rng(1).random(values.shape) < 0.1] = NAN
    rolling = pd.DataFrame(values).rolling(window, min_periods=window if least is None else least)
    expected = (values - rolling.mean()) / rolling.std(ddof=0)
    assert np.allclose(RollingZScore(window, least).fit_transform(values), expected, rtol=1e-9, equal_nan=True)


def test_a_rolling_z_score_keeps_its_precision_at_a_high_level_and_is_missing_where_all_is_equal() -> None:
    values = np.array([[1e12], [1e12 + 1], [1e12 + 2], [0.1], [0.1], [0.1]])
    made = RollingZScore(3).fit_transform(values)[:, 0]
    assert made[2] == pytest.approx(np.sqrt(1.5), rel=1e-12)
    assert np.isnan(made[5])


def test_the_weights_of_fractional_differencing_are_the_binomial_series() -> None:
    # (1 - B)^0.4 = 1 - 0.4 B - 0.12 B² - 0.064 B³ - 0.0416 B⁴ …
    assert np.allclose(weights(0.4, 0.04), [1, -0.4, -0.12, -0.064, -0.0416], rtol=1e-14)
    assert weights(1.0, 1e-9).tolist() == [1, -1]
    assert weights(0.0, 1e-9).tolist() == [1]


@pytest.mark.parametrize("logs", [False, True])
def test_fractional_differencing_is_the_convolution_with_its_weights(logs: bool) -> None:
    values = np.abs(numbers(400, 2)) + 1
    series = weights(0.4, 1e-2)
    levels = np.log(values) if logs else values
    expected = np.column_stack([np.convolve(levels[:, at], series, mode="valid") for at in range(2)])
    made = FractionalDifference(0.4, 1e-2, logs).fit_transform(values)
    assert np.isnan(made[: len(series) - 1]).all()
    assert np.allclose(made[len(series) - 1 :], expected, rtol=1e-12)


def test_a_missing_value_is_filled_with_what_was_fitted_and_the_mask_says_so() -> None:
    training = pl.DataFrame({"a": [1.0, 2.0, 9.0, None], "b": [1.0, 1.0, 1.0, 1.0]})
    for statistic, filled in (("median", 2.0), ("mean", 4.0), ("zero", 0.0)):
        step = MissingData("fill", statistic).fit(training)
        made = step.transform(
            pl.DataFrame({"a": [None, 5.0], "b": [2.0, None]}, schema={"a": pl.Float64, "b": pl.Float64})
        )
        assert made["a"].to_list() == [filled, 5.0]
        assert made["a.present"].to_list() == [0.0, 1.0]
        assert made["b.present"].to_list() == [1.0, 0.0]
        assert list(step.get_feature_names_out()) == made.columns


def test_a_value_is_carried_so_far_and_no_farther() -> None:
    values = pd.Series([NAN, 1.0, NAN, NAN, NAN, 2.0, NAN])
    made = MissingData("carry", most=2).fit_transform(values.to_frame("a"))
    assert made["a"].equals(values.ffill(limit=2))
    assert made["a.present"].tolist() == values.notna().astype(float).tolist()


def test_rows_that_lack_a_value_are_dropped_and_the_target_can_be_cut_alike() -> None:
    frame = rows(50)
    step = MissingData("drop").fit(frame)
    made, kept = step.transform(frame), step.kept(frame)
    assert made.equals(frame.drop_nulls(RSI))
    assert 0 < kept.sum() < 50
    assert frame.filter(kept)["open_time"].equals(made["open_time"])


def test_a_second_policy_leaves_the_mask_of_the_first_as_it_is() -> None:
    frame = pl.DataFrame({"a": [1.0, None, None, 3.0]})
    carried = MissingData("carry", most=1).fit_transform(frame)
    made = MissingData("fill", "zero").fit_transform(carried)
    assert made["a"].to_list() == [1.0, 1.0, 0.0, 3.0]
    assert made["a.present"].to_list() == [1.0, 0.0, 0.0, 1.0]


def test_windows_hold_the_newest_rows_and_a_mask() -> None:
    frame = pl.DataFrame({"a": [1.0, None, 3.0], "b": [4.0, 5.0, 6.0]})
    made = Windows(2).fit_transform(MissingData("fill", "zero", columns=["a"]).fit_transform(frame))
    assert made.values.dtype == np.float32
    assert made.values.tolist() == [[[0, 0], [1, 4]], [[1, 4], [0, 5]], [[0, 5], [3, 6]]]
    assert made.mask.tolist() == [
        [[False, False], [True, True]],
        [[True, True], [False, True]],
        [[False, True], [True, True]],
    ]
    assert made.complete.tolist() == [False, True, True]
    assert made.names == ("a", "b")
    assert np.asarray(made[1:]).shape == (2, 2, 2)
    assert made[2].mask.shape == (1, 2, 2)
    flat = Windows(2, flat=True).fit(frame)
    assert flat.transform(frame)[2].tolist() == [0, 5, 3, 6]
    assert list(flat.get_feature_names_out()) == ["a[-1]", "b[-1]", "a[0]", "b[0]"]


def test_symbols_do_not_look_into_each_other_however_their_rows_lie() -> None:
    frame = rows(80, ("BTCUSDT", "ETHUSDT"))
    mixed = frame.sort("open_time", "symbol")
    for step in (LogReturns(2, ["close"]), RollingZScore(5, 2), FractionalDifference(0.5, 0.05), MissingData("carry")):
        made = step.fit(frame).transform(frame)
        assert step.transform(mixed).sort("symbol", "open_time").equals(made)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            alone = frame.filter(pl.col("symbol") == symbol)
            assert step.transform(alone).equals(made.filter(pl.col("symbol") == symbol))


def test_what_is_fitted_by_symbol_is_each_symbols_own_and_a_strange_symbol_is_refused() -> None:
    frame = rows(80, ("BTCUSDT", "ETHUSDT"), missing=0)
    for step in (Winsorize(0.1, 0.9, by_symbol=True), RobustZScore(by_symbol=True), MissingData(by_symbol=True)):
        made = step.fit_transform(frame)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            alone = frame.filter(pl.col("symbol") == symbol)
            own = type(step)(**{**step.get_params(), "by_symbol": False}).fit_transform(alone)
            assert own.equals(made.filter(pl.col("symbol") == symbol))
        with pytest.raises(InvalidPreprocessing, match=r"^symbol: Nothing was fitted .*'ADAUSDT'.*BTCUSDT, ETHUSDT"):
            step.transform(rows(3, ("ADAUSDT",)))


def test_rows_come_back_in_the_form_that_they_came_in() -> None:
    frame = rows(40)
    step = RobustZScore().fit(frame)
    expected = step.transform(frame)
    assert expected.columns == frame.columns
    assert expected[f"{RSI}.status"].equals(frame[f"{RSI}.status"])
    assert expected[RSI].null_count() == frame[RSI].null_count() > 0
    in_pandas = step.transform(frame.to_pandas().set_index(["symbol", "open_time"]))
    assert in_pandas.index.names == ["symbol", "open_time"]
    array = step.transform(frame.select("close", RSI).fill_null(NAN).to_numpy())
    by_row = [step.transform(row) for row in frame.iter_rows(named=True)]
    for name, at in (("close", 0), (RSI, 1)):
        ours = expected[name].fill_null(NAN).to_numpy()
        assert np.array_equal(in_pandas[name].to_numpy(), ours, equal_nan=True)
        assert np.array_equal(array[:, at], ours, equal_nan=True)
        assert [row[name] for row in by_row] == expected[name].to_list()


def test_what_is_given_is_not_changed() -> None:
    values, frame = numbers(), rows(40)
    kept, held = values.copy(), frame.clone()
    for step in (LogReturns(columns=["x0"]), MissingData(), RobustZScore(), RollingZScore(3), Winsorize(), Windows(3)):
        step.fit(np.abs(values))
        step.transform(values)
        assert np.array_equal(values, kept)
    RobustZScore().fit_transform(frame)
    assert frame.equals(held)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LogReturns(0), r"^periods: Out of range: 0\. A whole number from 1"),
        (lambda: LogReturns(True), r"^periods: Out of range: True"),
        (lambda: LogReturns(columns=["clse"]), r"^columns: There is no such column: 'clse'\. There are: x0, x1"),
        (lambda: Winsorize(0.5, 0.5), r"^lower: It is not below `upper`"),
        (lambda: Winsorize(-0.1), r"^lower: Out of range: -0\.1\. A number from 0 to 1"),
        (lambda: Winsorize(NAN), r"^lower: Out of range: nan"),
        (lambda: RobustZScore("std"), r"^scale: Unknown scale: 'std'\. Known: mad, iqr"),
        (lambda: RobustZScore(by_symbol=True), r"^by_symbol: The rows name no symbols"),
        (lambda: RollingZScore(1), r"^window: Out of range"),
        (lambda: RollingZScore(5, 6), r"^least: Out of range: 6\. A whole number from 2 to 5"),
        (lambda: FractionalDifference(-1), r"^order: Out of range"),
        (lambda: FractionalDifference(0.01, 1e-12), r"^threshold: The window would be wider than 20,000 rows"),
        (lambda: MissingData("guess"), r"^policy: Unknown policy: 'guess'\. Known: drop, fill, carry"),
        (lambda: MissingData("fill", "mode"), r"^statistic: Unknown statistic"),
        (lambda: MissingData("carry", most=0), r"^most: Out of range"),
        (lambda: Windows(0), r"^length: Out of range"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_by_its_name(make: Callable[[], Step], told: str) -> None:
    with pytest.raises(PlatformError, match=told):
        make().fit(np.ones((4, 2)) + np.arange(4.0)[:, None])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.ones(4), r"An array of rows x columns of numbers is needed: '1-D of float64'"),
        (np.array([["a"]]), r"An array of rows x columns of numbers is needed"),
        (np.ones((0, 2)), r"There are no rows to fit on"),
        (np.array([[1.0], [np.inf]]), r"^x0: A value is infinite: 'row 1'"),
        (pl.DataFrame({"symbol": ["A"]}), r"There is no column of features"),
        (pl.DataFrame({"note": ["A"]}), r"^note: This column holds no numbers: 'String'"),
        (pl.DataFrame({"up": [True]}), r"^up: This column holds no numbers: 'Boolean'"),
        (pl.LazyFrame({"a": [1.0]}), r"These are no rows: 'LazyFrame'. .*collect a lazy one"),
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), r"^a: Two columns have one name"),
        (pd.DataFrame([[1.0]]), r"A column's name is no text: 0"),
        (pl.DataFrame({"a": [1.0], "open_time": ["today"]}), r"^open_time: This column holds no instants"),
        (pl.DataFrame({"a": [1.0], "symbol": [None]}), r"^symbol: A row names no symbol"),
        (rows(3).reverse(), r"^open_time: The rows of BTCUSDT do not ascend by time: 'row 1'"),
        ({"a": "high"}, r"^a: This is no number: 'high'"),
        ({"a": 1.0, "open_time": "now"}, r"^open_time: This is no instant: 'now'"),
        ({"a": 1.0, "open_time": pd.NaT}, r"^open_time: This is no instant: NaT"),
        ({"a": 1.0, "open_time": True}, r"^open_time: This is no instant: True"),
        ({"a": 1.0, "open_time": -5}, r"^open_time: Not from 2005 to 2099: -5\. Give microseconds"),
        ({"a": 1.0, "close_time": 1_735_689_600_000}, r"^close_time: Not from 2005 to 2099: 1735689600000"),
        ({"a": 1.0, "available_at": 4_102_444_800_000_000}, r"^available_at: Not from 2005 to 2099"),
        ("close", r"These are no rows: 'str'"),
    ],
)
def test_rows_that_cannot_be_taken_are_refused_with_what_is_wrong(given: object, told: str) -> None:
    with pytest.raises(InvalidPreprocessing, match=told):
        MissingData().fit(given)


def test_a_step_that_was_not_fitted_says_so() -> None:
    with pytest.raises(InvalidPreprocessing, match="RobustZScore was not fitted"):
        RobustZScore().transform(numbers())


def test_a_step_that_was_changed_after_it_was_fitted_says_so() -> None:
    step = RobustZScore().fit(numbers())
    step.set_params(columns=["x0"])
    with pytest.raises(InvalidPreprocessing, match=r"Parameters were changed .*: 'RobustZScore'\. Fit again"):
        step.transform(numbers())
    assert step.fit(numbers()).transform(numbers()).shape == (300, 3)


def test_a_column_without_a_training_value_is_refused() -> None:
    frame = pl.DataFrame({"a": [1.0, 2.0], "b": [None, None]})
    for step in (Winsorize(), RobustZScore(), MissingData()):
        with pytest.raises(InvalidPreprocessing, match=r"^b: All training rows lack this value"):
            step.fit(frame)


def test_an_unknown_parameter_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownParameter, match=r"'windw'\. Known: columns, least, window"):
        RollingZScore().set_params(windw=3)
    assert RollingZScore().set_params(window=3).get_params() == {"window": 3, "least": None, "columns": None}
    assert repr(RollingZScore(3)) == "RollingZScore(window=3, least=None, columns=None)"
