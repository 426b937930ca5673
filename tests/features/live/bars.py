"""Bars with every trouble that there is, and the values of a batch to hold live ones against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.features import evaluate
from mdplatform.features.live import LiveFeatures, LiveValues
from mdplatform.features.parse import FeatureLike
from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

START = datetime(2025, 1, 20, tzinfo=UTC)


def market(rows: int, seed: int = 5, timeframe: Timeframe = Timeframe.M15, start: datetime = START) -> pl.DataFrame:
    """A market on a grid of cents, with all nine values and no hole."""
    random = np.random.default_rng(seed)
    close = np.round(250 * np.exp(np.cumsum(0.003 * random.standard_t(5, rows))), 2)
    opens = np.round(np.append(250.0, close[:-1]) + random.normal(0, 0.03, rows), 2)
    high = np.round(np.maximum(opens, close) * (1 + 0.002 * random.exponential(0.7, rows)), 2)
    low = np.round(np.minimum(opens, close) * (1 - 0.002 * random.exponential(0.7, rows)), 2)
    volume = np.round(random.lognormal(4, 0.8, rows), 3)
    bought = np.round(volume * random.uniform(0, 1, rows), 3)
    values = {
        "open": opens,
        "high": np.maximum(high, opens),
        "low": np.minimum(low, opens),
        "close": close,
        "volume": volume,
        "quote_volume": np.round(volume * close, 4),
        "trade_count": random.integers(2, 90, rows).astype(np.float64),
        "taker_buy_volume": bought,
        "taker_buy_quote_volume": np.round(bought * close, 4),
    }
    return table(values, timeframe, start)


def table(values: dict[str, NDArray[np.float64]], timeframe: Timeframe, start: datetime = START) -> pl.DataFrame:
    """Bars of `BAR_SCHEMA`; rows without a close are gaps."""
    rows, step = len(values["close"]), timeframe.microseconds
    opens = np.arange(rows) * step + timeframe.floor(int(start.timestamp()) * 1_000_000)
    instants = {"open_time": opens, "close_time": opens + step, "available_at": opens + step}
    states = np.where(np.isnan(values["close"]), "gap", np.where(values["volume"] == 0, "no_trade", "observed"))
    return pl.DataFrame(
        {
            "symbol": ["BTCUSDT"] * rows,
            "timeframe": [timeframe.value] * rows,
            "is_closed": [True] * rows,
            "state": states,
            "source": ["test"] * rows,
            "revision": [0] * rows,
            "ingested_at": pl.Series([None] * rows, dtype=BAR_SCHEMA["ingested_at"]),
            **{name: pl.Series(each).cast(BAR_SCHEMA[name]) for name, each in instants.items()},
            **{name: pl.Series(each, nan_to_null=True) for name, each in values.items()},
        }
    ).select(pl.col(name).cast(kind) for name, kind in BAR_SCHEMA.items())


def values_of(bars: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The nine columns, NaN for null."""
    return {name: bars[name].cast(pl.Float64).fill_null(np.nan).to_numpy().copy() for name in VALUE_COLUMNS}


def troubled(bars: pl.DataFrame, seed: int = 1, timeframe: Timeframe = Timeframe.M15) -> pl.DataFrame:
    """The same with gaps, flat stretches, rests without trades, and amounts that are not known."""
    random, values = np.random.default_rng(seed), values_of(bars)
    rows = bars.height

    def stretch(longest: int) -> slice:
        first = int(random.integers(1, rows))
        return slice(first, first + int(random.integers(1, longest)))

    for _ in range(rows // 200):
        at = stretch(60)
        for name in ("open", "high", "low", "close"):
            values[name][at] = values["close"][at.start - 1]
        if random.random() < 0.6:
            for name in VALUE_COLUMNS[4:]:
                values[name][at] = 0.0
    for _ in range(rows // 300):
        at = stretch(6)
        for name in VALUE_COLUMNS[4:] if random.random() < 0.5 else VALUE_COLUMNS[7:]:
            values[name][at] = np.nan
    for _ in range(rows // 300):
        at = stretch(4)
        for name in VALUE_COLUMNS:
            values[name][at] = np.nan
    return table(values, timeframe, bars["open_time"][0])


def batch(bars: pl.DataFrame, features: Iterable[FeatureLike], live: LiveFeatures) -> list[LiveValues]:
    """What a batch gives for each row, laid out as the live values are."""
    found = evaluate(bars, features)
    numbers = np.stack([found.values[name] for name in live.columns], axis=1)
    statuses = np.stack([found.statuses[str(spec)] for spec in live.specs], axis=1)
    return [LiveValues(*(part.tobytes() for part in each)) for each in zip(numbers, statuses, strict=True)]


def rows_of(bars: pl.DataFrame) -> list[tuple[int, tuple[float, ...], str]]:
    """What `update` takes of each bar."""
    columns = values_of(bars)
    opens = bars["open_time"].dt.epoch("us").to_list()
    values = zip(*(columns[name].tolist() for name in VALUE_COLUMNS), strict=True)
    return list(zip(opens, values, bars["state"].to_list(), strict=True))


def differences(live: LiveFeatures, given: LiveValues, expected: LiveValues, nearly: bool = False) -> list[str]:
    """The columns that are not the same to the bit, or `nearly` to 1e-9, and the statuses that are not."""
    same = given.numbers.view(np.int64) == np.ascontiguousarray(expected.numbers).view(np.int64)
    if nearly:
        same |= np.isclose(given.numbers, expected.numbers, rtol=1e-9, atol=0.0)
    found = [
        f"{name}: {number!r}, not {other!r}"
        for name, number, other, is_same in zip(live.columns, given.numbers, expected.numbers, same, strict=True)
        if not is_same
    ]
    pairs = zip(live.specs, given.statuses, expected.statuses, strict=True)
    return found + [f"{spec}: status {one}, not {other}" for spec, one, other in pairs if one != other]


def check(
    bars: pl.DataFrame,
    features: Sequence[FeatureLike],
    opened_at: Sequence[int],
    rows: int,
    timeframe: Timeframe = Timeframe.M15,
    peek_each: int = 7,
    nearly: bool = False,
) -> None:
    """Open after so many rows, go on for `rows`, and hold each row, and now and then a peek, against the batch."""
    expected: list[LiveValues] = []
    for at in opened_at:
        live = LiveFeatures(features, timeframe, bars.head(at))
        expected = expected or batch(bars, features, live)
        for row, (open_time, values, state) in enumerate(rows_of(bars)[at : at + rows], at):
            if row % peek_each == 0 and state != "gap":
                peeked = live.peek(open_time, values)
                assert not differences(live, peeked, expected[row], nearly), (at, row, "peek")
            given = live.update(open_time, values, state)
            wrong = differences(live, given, expected[row], nearly)
            assert not wrong, (at, row, wrong)
