"""Live is training: the same bits, whatever comes together; and nothing knows what comes later."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidPreprocessing
from mdplatform.strategy.preprocessing import (
    FractionalDifference,
    LogReturns,
    MissingData,
    Preprocessing,
    RobustZScore,
    RollingZScore,
    Samples,
    Windows,
    Winsorize,
)
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.shape import Shape

from ...streaming.packets import LAYOUT, MINUTE, NOON, packet
from .rows import RSI, rows

STEPS: dict[str, Any] = {
    "returns": lambda: LogReturns(3, ["close"]),
    "winsorized": lambda: Winsorize(0.05, 0.95),
    "scaled": lambda: RobustZScore(by_symbol=True),
    "rolling": lambda: RollingZScore(7, 3),
    "long": lambda: RollingZScore(40, 10, ["close"]),
    "difference": lambda: FractionalDifference(0.4, 0.01),
    "logs": lambda: FractionalDifference(0.6, 0.02, True, ["close"]),
    "carried": lambda: MissingData("carry", most=2),
    "filled": lambda: MissingData("fill", by_symbol=True),
    "dropped": lambda: MissingData("drop"),
}
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def steps() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4, unique=True).filter(
        # a logarithm is of prices, so it comes first; what drops rows would leave none behind what makes many missing
        lambda names: all(name not in names[1:] for name in ("returns", "logs"))
    )


def made(names: list[str], windows: int) -> Preprocessing:
    last = [("windows", Windows(windows))] if windows else []
    return Preprocessing([*((name, STEPS[name]()) for name in names), *last])


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Samples):
        return (
            ours.values.tobytes() == theirs.values.tobytes()
            and np.array_equal(ours.mask, theirs.mask)
            and np.array_equal(ours.rows, theirs.rows)
            and np.array_equal(ours.times, theirs.times)
        )
    return bool(ours.equals(theirs))  # bit for bit: polars compares floats exactly


def joined(parts: list[Any]) -> Any:
    if not isinstance(parts[0], Samples):
        return pl.concat(parts)
    first = parts[0]
    each = ("values", "mask", "rows", "origin", "symbols", "times")
    return Samples(
        names=first.names, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in each}
    )


@settings(max_examples=40, deadline=None)
@given(
    names=steps(),
    windows=st.sampled_from([0, 5]),
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(1, 239), max_size=6, unique=True),
    holes=st.lists(st.integers(0, 239), max_size=4, unique=True),
)
def test_rows_that_come_in_parts_give_the_bits_of_all_rows_at_once(
    names: list[str], windows: int, seed: int, cuts: list[int], holes: list[int]
) -> None:
    frame = rows(120, SYMBOLS, seed).sort("open_time", "symbol")
    frame = frame.filter(~pl.int_range(pl.len()).is_in(holes))
    preprocessing = made(names, windows).fit(rows(200, SYMBOLS, 100))
    whole = preprocessing.transform(frame)
    live = preprocessing.live()
    edges = [0, *sorted(each for each in cuts if each < frame.height), frame.height]
    parts = [live.update(frame[start:stop]) for start, stop in pairwise(edges)]
    assert same(joined(parts), whole)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_row_at_a_time_gives_the_bits_of_training(name: str) -> None:
    frame = rows(90, SYMBOLS).sort("open_time", "symbol")
    preprocessing = made([name], 0).fit(frame)
    whole = preprocessing.transform(frame)
    live = preprocessing.live()
    mine = [each for row in frame.iter_rows(named=True) if (each := live.update(row)) is not None]
    assert mine == whole.to_dicts()


@settings(max_examples=30, deadline=None)
@given(names=steps(), windows=st.sampled_from([0, 4]), seed=st.integers(0, 99), cut=st.integers(40, 110))
def test_nothing_after_the_training_slice_nor_after_a_row_is_known(
    names: list[str], windows: int, seed: int, cut: int
) -> None:
    frame = rows(120, SYMBOLS, seed, missing=0.02).sort("open_time", "symbol")
    until = frame["available_at"][2 * cut - 1]
    past = frame[: 2 * cut]
    # another future: other prices, other nulls, a strange symbol's rows left out
    later = rows(120, SYMBOLS, seed + 1000, missing=0.5).sort("open_time", "symbol")[2 * cut :]
    other = pl.concat([past, later.with_columns(pl.col("close") * 1e6)])
    ours = made(names, windows).fit(frame, until=until)
    for theirs in (made(names, windows).fit(other, until=until), made(names, windows).fit(past)):
        for mine, step in zip(ours.named_steps.values(), theirs.named_steps.values(), strict=True):
            assert mine.state() == step.state()
    whole, changed = ours.transform(frame), ours.transform(other)
    if isinstance(whole, Samples):
        assert same(whole[whole.origin < 2 * cut], changed[changed.origin < 2 * cut])
    else:
        assert same(*(each.filter(pl.col("available_at") <= until) for each in (whole, changed)))


def test_history_warms_the_live_twin_so_that_its_first_row_is_that_of_training() -> None:
    frame = rows(120)
    steps = [LogReturns(columns=["close"]), RollingZScore(10, columns=["close"]), FractionalDifference(0.4, 0.02)]
    preprocessing = Preprocessing(steps).fit(rows(120, missing=0))
    before = preprocessing.rows_before
    assert before == 1 + 9 + steps[2].rows_before
    live = preprocessing.live(frame[119 - before : 119])
    assert live.update(frame[119:]).equals(preprocessing.transform(frame)[119:])


def test_a_hole_between_bars_begins_anew_unless_told_otherwise() -> None:
    frame = rows(30, missing=0)
    holed = pl.concat([frame[:10], frame[11:]])
    made = Preprocessing([LogReturns(columns=["close"])]).fit(frame).transform(holed)
    assert made["close"].null_count() == 2
    assert made["close"][10] is None
    across = Preprocessing([LogReturns(columns=["close"])], across_holes=True).fit(frame)
    closes = holed["close"]
    assert across.transform(holed)["close"][10] == pytest.approx(np.log(closes[10] / closes[9]))
    live = across.live(holed[:10])
    assert live.update(holed[10:11])["close"][0] == across.transform(holed)["close"][10]


def test_a_forming_bar_is_peeked_at_and_forgotten() -> None:
    frame = rows(30, missing=0)
    preprocessing = Preprocessing([LogReturns(columns=["close"]), RollingZScore(5, columns=["close"])]).fit(frame)
    live = preprocessing.live(frame[:29])
    forming = frame[29:].with_columns(pl.col("close") * 2)
    assert not live.peek(forming).equals(live.peek(frame[29:]))
    assert live.update(frame[29:]).equals(preprocessing.transform(frame)[29:])


def test_a_forming_bar_is_no_row_to_keep() -> None:
    frame = rows(30, missing=0)
    preprocessing = Preprocessing([LogReturns(columns=["close"])]).fit(frame)
    live = preprocessing.live(frame[:28].with_columns(pl.lit(True).alias("is_closed")))
    expected = preprocessing.transform(frame)["close"]
    forming = frame[28:].with_columns(pl.Series("is_closed", [None, False]))
    for wrong in (
        forming,
        forming.to_pandas(),
        frame.row(28, named=True) | {"is_closed": False},
        frame.row(28, named=True) | {"is_closed": np.False_},
    ):
        with pytest.raises(InvalidPreprocessing, match=r"^is_closed: A bar still forms: False. `peek` takes it"):
            live.update(wrong)
        peeked = live.peek(wrong)["close"]
        assert (peeked if isinstance(peeked, float) else next(iter(peeked))) == expected[28]
    with pytest.raises(InvalidPreprocessing, match=r"^is_closed: A bar still forms"):
        preprocessing.live(forming)
    assert live.update(forming[:1])["close"][0] == expected[28]  # what is not told is closed


def test_a_twin_stays_as_it_was_made_whatever_becomes_of_its_preprocessing() -> None:
    frame = rows(60, missing=0)
    preprocessing = Preprocessing([("scaled", RobustZScore())]).fit(frame)
    live, row = preprocessing.live(frame[:40]), frame[40:41]
    expected = live.peek(row)
    assert not preprocessing.fit(frame[:20]).transform(row).equals(expected)
    assert live.peek(row).equals(expected)
    preprocessing.set_params(scaled__by_symbol=True, across_holes=True)
    preprocessing.named_steps["scaled"].fitted_.clear()
    assert live.update(row).equals(expected)
    with pytest.raises(InvalidPreprocessing, match="was not fitted"):
        Preprocessing([RobustZScore()]).live()


def test_a_row_that_is_refused_leaves_the_twin_as_it_was() -> None:
    frame = rows(30, SYMBOLS, missing=0).sort("open_time", "symbol")
    preprocessing = Preprocessing([RollingZScore(4)]).fit(frame)
    live = preprocessing.live(frame[:40])
    for wrong in (
        frame[38:40],  # came before
        frame[40:41].drop(RSI),
        frame[40:41].with_columns(pl.lit(float("inf")).alias("close")),
        frame[40:42].reverse().vstack(frame[40:42]),
    ):
        with pytest.raises(InvalidPreprocessing):
            live.update(wrong)
    assert live.update(frame[40:]).equals(preprocessing.transform(frame)[40:])


def test_flat_windows_of_rows_that_are_all_dropped_are_no_rows() -> None:
    frame = rows(30, missing=0)
    steps = [RollingZScore(5), MissingData("drop"), Windows(4, flat=True)]
    preprocessing = Preprocessing(steps).fit(frame)
    live = preprocessing.live()
    assert preprocessing.transform(frame[:2]).shape == live.update(frame[:2]).shape == (0, 8)
    assert np.array_equal(live.update(frame[2:]), preprocessing.transform(frame))


def test_a_symbol_that_comes_late_begins_by_itself() -> None:
    frame = rows(30, SYMBOLS, missing=0)
    preprocessing = Preprocessing([RollingZScore(4)]).fit(frame)
    live = preprocessing.live(frame[:30])
    assert live.update(frame[30:]).equals(preprocessing.transform(frame)[30:])


def test_a_row_of_pandas_feeds_what_was_fitted_in_polars() -> None:
    frame = rows(30)
    preprocessing = Preprocessing([MissingData("carry", most=2), RobustZScore()]).fit(frame)
    expected = preprocessing.transform(frame)
    live = preprocessing.live()
    in_pandas = frame.to_pandas().set_index("open_time")
    for at in range(30):
        given = live.update(in_pandas.iloc[at : at + 1])
        ours, theirs = given["close"].iloc[0], expected["close"][at]
        assert ours == theirs
    assert in_pandas.index[-1] - in_pandas.index[0] == timedelta(hours=29)


def test_the_rows_of_a_subscriptions_frame_feed_what_was_fitted_on_history() -> None:
    history = rows(30, SYMBOLS, missing=0).sort("open_time", "symbol")
    preprocessing = Preprocessing([LogReturns(columns=["close"]), RobustZScore()]).fit(history[:-2])
    expected = preprocessing.transform(history)[-2:]
    # as `Frame.to_polars` lays it: a row a symbol and timeframe, with what else is known of each
    hourly = history[-2:].select(
        "symbol", pl.lit("1h").alias("timeframe"), pl.col("close_time").alias("time"), "open_time", "close_time",
        "available_at", pl.lit("fresh").alias("status"), pl.lit("observed").alias("state"),
        pl.lit(0, pl.Int32).alias("revision"), pl.lit(None, pl.Float64).alias("quality"), "close", RSI,
    )  # fmt: skip
    daily = hourly.with_columns(pl.lit("1d").alias("timeframe"), pl.lit("missing").alias("status"))
    frame = pl.concat([hourly, daily])
    live = preprocessing.live(history[:-2])
    with pytest.raises(InvalidPreprocessing, match="The rows are of several timeframes"):
        live.update(frame)
    due = frame.filter(timeframe="1h", status="fresh")
    assert live.peek(due).select("close", RSI).equals(expected.select("close", RSI))
    in_pandas = live.update(due.to_pandas().set_index(["symbol", "timeframe"]))
    assert in_pandas["close"].tolist() == expected["close"].to_list()


def test_real_frames_give_the_bits_of_training() -> None:
    wanted: Any = {"data_types": ["price", "indicators"], "features": [RSI], "grace": 2.0}
    assembler = Assembler(Shape.of(symbols=SYMBOLS, timeframes=["5m", "15m"], **wanted), {LAYOUT.id: LAYOUT})
    closes = np.exp(np.random.default_rng(3).normal(4.6, 0.01, (60, 2)))
    tables = []
    for step, of_symbols in enumerate(closes):
        for symbol, close in zip(SYMBOLS, of_symbols, strict=True):
            for frame in assembler.take(packet(symbol, NOON + step * 5 * MINUTE, close=float(close))):
                tables.append(frame.to_polars().filter(timeframe="5m", status="fresh"))
    assert [len(each) for each in tables] == [2] * 60
    history = pl.concat(tables)
    preprocessing = Preprocessing([LogReturns(columns=["close"]), MissingData(), RobustZScore(), Windows(4)])
    expected = preprocessing.fit(history[:80]).transform(history)
    live = preprocessing.live(history[:80])
    given = [live.update(each) for each in tables[40:]]
    assert np.concatenate([each.values for each in given]).tobytes() == expected.values[80:].tobytes()
    assert np.array_equal(np.concatenate([each.mask for each in given]), expected.mask[80:])
    assert len(np.unique(expected.values[80:, -1, expected.names.index("close")])) == 40
