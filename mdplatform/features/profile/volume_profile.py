"""Volume profiles: how much was traded in each price row, and what follows from it.

1. A price's row is `floor(price / row_size)` in exact decimal steps (`ticks`).
2. Volumes are counted in integers, of a power of ten so small that decimal quantities lose nothing (`units_of`).
3. The kernels (`value_area`) find the point of control, the value area and the nodes.

From trades, each trade's quantity lies in the row of its price. From bars, each bar's volume is spread evenly over the
rows from that of its low to that of its high; the answer's `method` says which: `trades` or `bars:15m`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features.bar_arrays import BarsLike, as_polars
from mdplatform.features.talib_functions import Floats
from mdplatform.features.ticks import checked_row_size, to_prices, to_rows
from mdplatform.features.trade_arrays import TradesLike, numbers, sides, trades_frame

if TYPE_CHECKING:
    import pandas as pd

VERSION = "1"
"""Changes when the value of any profile does."""

ALGORITHMS = ("two_row", "one_row")
MOST_ROWS = 5_000_000
NODE_REACH = 1
NODE_TURN = 0.1

_WHOLE = 2.0**50  # a product below is the decimal's integer, for all that doubles round
_MOST_UNITS = 2.0**60


@dataclass(frozen=True, eq=False)
class VolumeProfile:
    """A volume profile. Prices are in the quote asset, volumes in the base asset.

    `poc` is the middle of the row with the most volume (of equal ones the row nearest the profile's middle, then the
    lower); `vah` is the upper edge of the value area's highest row and `val` the lower edge of its lowest. The area
    grows from the point of control until it holds `value_area_pct` of the volume: by `algorithm` `two_row` the next
    two rows above are held against the next two below and the pair with more volume is added (as at the CBOT), by
    `one_row` it goes row by row; where both are equal, the upper side is taken.

    `hvn` and `lvn` are the middles of the rows of high and of low volume, ascending: where the profile, smoothed by the
    sum of three rows, turns by at least a tenth of its largest value. A low lies between each two highs.

    `rows` has a row for each price row from the lowest to the highest with volume: `price_low`, `price_high`,
    `volume`, `taker_buy_volume`, `taker_sell_volume` (null where the sides are not told). `method` is `trades` or
    `bars:<timeframe>`.
    """

    poc: float
    vah: float
    val: float
    value_area_pct: float
    row_size: float
    algorithm: str
    method: str
    hvn: tuple[float, ...]
    lvn: tuple[float, ...]
    volume: float
    rows: pl.DataFrame

    def to_pandas(self) -> pd.DataFrame:
        """Give the rows as a frame of pandas."""
        return self.rows.to_pandas()


def volume_profile(
    trades: TradesLike,
    row_size: float | Decimal | str = 0.5,
    value_area_pct: float = 0.70,
    algorithm: str = "two_row",
) -> VolumeProfile:
    """Give the volume profile of `trades`: a frame of polars or pandas or a table of Arrow, in any order.

    It has `price` and `quantity`; with `is_buyer_maker` the sides are told too, and times are not looked at. `row_size`
    is in the quote asset, and `value_area_pct` a share up to 1. Raises `InvalidTable` for trades that are none, or
    without any volume, and `ParameterOutOfRange`.

    >>> trades = pl.DataFrame({"price": [10.0, 10.4, 10.6, 11.2], "quantity": [1.0, 2.0, 4.0, 0.5]})
    >>> profile = volume_profile(trades, row_size=0.5)
    >>> profile.poc, profile.val, profile.vah, profile.volume
    (10.75, 10.0, 11.0, 7.5)
    """
    from mdplatform.features.profile import value_area

    size, share, step = checked(row_size, value_area_pct, algorithm)
    frame = trades_frame(trades, ("price", "quantity"))
    has_sides = "is_buyer_maker" in frame.columns
    prices = numbers(exact(frame["price"]), above_zero=True)
    quantities = numbers(exact(frame["quantity"]), above_zero=False)
    sold = sides(frame["is_buyer_maker"]) if has_sides else np.empty(0, np.bool_)
    if not len(prices) or not quantities.any():
        raise InvalidTable("A profile needs a trade with a quantity", value=f"{len(prices)} trades")
    lowest, highest = to_rows([prices.min(), prices.max()], size)
    check_span(lowest, highest, size)
    scale = units_of(float(quantities.sum()), float(quantities.max()))
    units = value_area.histogram(prices, quantities, sold, size, lowest, int(highest - lowest) + 1, scale)
    return _profile(units, has_sides, int(lowest), scale, (size, share, algorithm), step, 0, "trades")


def volume_profile_of_bars(
    bars: BarsLike,
    row_size: float | Decimal | str = 0.5,
    value_area_pct: float = 0.70,
    algorithm: str = "two_row",
) -> VolumeProfile:
    """Give the volume profile of `bars`, each one's volume spread evenly over the rows from its low to its high.

    Bars have `low`, `high` and `volume`, in any order; with `taker_buy_volume` the sides are told too, and with
    `timeframe` the `method` says `bars:1m`, else `bars`. Rows of state `gap` are left out. Raises `InvalidTable` for
    bars that are none, or without any volume, and `ParameterOutOfRange`.

    >>> bars = pl.DataFrame({"low": [10.0, 11.0], "high": [11.9, 11.5], "volume": [4.0, 1.0]})
    >>> profile = volume_profile_of_bars(bars, row_size=1)
    >>> profile.rows["volume"].to_list(), profile.poc
    ([2.0, 3.0], 11.5)
    """
    from mdplatform.features.profile import value_area

    size, share, step = checked(row_size, value_area_pct, algorithm)
    frame = as_polars(bars)
    missing = [name for name in ("low", "high", "volume") if name not in frame.columns]
    if missing:
        raise InvalidTable(
            "Bars lack columns", value=", ".join(missing), remedy=f"They have: {', '.join(frame.columns)}"
        )
    if "state" in frame.columns:
        frame = frame.filter(pl.col("state").ne_missing("gap"))
    timeframes = frame["timeframe"].unique().to_list() if "timeframe" in frame.columns else []
    if len(timeframes) > 1:
        raise InvalidTable("Bars of more than one timeframe", value=sorted(map(str, timeframes)))
    low, high = (numbers(exact(frame[name]), above_zero=True) for name in ("low", "high"))
    volumes = numbers(exact(frame["volume"]), above_zero=False)
    if not len(low) or not volumes.any():
        raise InvalidTable("A profile needs a bar with volume", value=f"{len(low)} bars")
    if (high < low).any():
        raise InvalidTable("A bar's high is below its low", value=float(high[np.argmax(high < low)]))
    taker = frame["taker_buy_volume"] if "taker_buy_volume" in frame.columns else None
    has_sides = taker is not None and not taker.null_count()
    bought = numbers(exact(taker), above_zero=False) if taker is not None and has_sides else volumes
    if (bought > volumes * (1 + 1e-9)).any():
        raise InvalidTable("Takers bought more than was traded", value=float(bought[np.argmax(bought > volumes)]))
    traded = volumes > 0
    low_rows, high_rows = to_rows(low[traded], size), to_rows(high[traded], size)
    lowest, highest = int(low_rows.min()), int(high_rows.max())
    check_span(lowest, highest, size)
    scale = units_of(float(volumes.sum()))
    at = (low_rows - lowest, high_rows - lowest)
    total = as_units(volumes[traded], scale)
    buy = np.minimum(as_units(bought[traded], scale), total)
    both = [value_area.spread(*at, each, highest - lowest + 1) for each in (buy, total - buy)]
    method = f"bars:{timeframes[0]}" if timeframes else "bars"
    return _profile(
        np.stack(both, axis=1), has_sides, lowest, scale, (size, share, algorithm), step, len(total), method
    )


def checked(row_size: float | Decimal | str, value_area_pct: float, algorithm: str) -> tuple[float, float, int]:
    """Give the row size, the share, and how many rows the algorithm takes at a time. Raises `ParameterOutOfRange`."""
    size = checked_row_size(row_size)
    is_number = isinstance(value_area_pct, float | int | np.number) and not isinstance(value_area_pct, bool)
    if not (is_number and 0 < value_area_pct <= 1):
        raise ParameterOutOfRange(
            "value_area_pct is out of range", value=value_area_pct, remedy="A share above 0 and up to 1, such as 0.7"
        )
    if algorithm not in ALGORITHMS:
        raise ParameterOutOfRange("Unknown algorithm", value=algorithm, remedy=f"Allowed: {', '.join(ALGORITHMS)}")
    return size, float(value_area_pct), rows_at_a_time(algorithm)


def rows_at_a_time(algorithm: str) -> int:
    """Give how many rows of a side the algorithm looks at."""
    return 2 if algorithm == "two_row" else 1


def check_span(lowest: int, highest: int, size: float) -> None:
    """Refuse a profile of more than `MOST_ROWS` rows. Raises `ParameterOutOfRange`."""
    if highest - lowest >= MOST_ROWS:
        raise ParameterOutOfRange(
            f"A row size makes {highest - lowest + 1:,} rows of these prices",
            value=size,
            remedy=f"At most {MOST_ROWS:,}: take at least {(highest - lowest + 1) / MOST_ROWS * size:.2g}",
        )


def automatic_row_size(price: float) -> float:
    """Give the largest step of 1, 2 or 5 × 10ᵏ that is not above a thousandth of `price`.

    >>> [automatic_row_size(price) for price in (65_000.0, 2000.0, 1999.0, 0.001413)]
    [50.0, 2.0, 1.0, 1e-06]
    """
    most = price / 1000 * (1 + 1e-12)
    power = math.floor(math.log10(most))
    steps = (float(f"{digit}e{exponent}") for exponent in (power + 1, power, power - 1) for digit in (5, 2, 1))
    return max(next(step for step in steps if step <= most), 1e-12)


def units_of(total: float, largest: float | None = None) -> float:
    """Give the power of ten by which volumes are multiplied to become integers.

    It is the largest with which `total` stays inside 64 bits, and `largest`, where it is given, small enough for each
    decimal to become the very integer that it is.
    """
    room = _MOST_UNITS / total if largest is None else min(_MOST_UNITS / total, _WHOLE / largest)
    return float(f"1e{math.floor(math.log10(min(room, 1e22)))}")


def as_units(volumes: Floats, scale: float) -> NDArray[np.int64]:
    """Give volumes as integers."""
    return np.rint(volumes * scale).astype(np.int64)


def exact(series: pl.Series) -> pl.Series:
    """Give a column of single precision as the doubles nearest to its decimals: 0.7, not 0.699999988."""
    return series.cast(pl.String).cast(pl.Float64) if series.dtype == pl.Float32 else series


def _profile(
    units: NDArray[np.int64],
    has_sides: bool,
    lowest: int,
    scale: float,
    told: tuple[float, float, str],
    step: int,
    bars: int,
    method: str,
) -> VolumeProfile:
    """Finish a profile of the units bought and sold (columns) by row, from `lowest` on; `bars` as for the kernel."""
    from mdplatform.features.profile import value_area

    size, share, algorithm = told
    volumes = units.sum(axis=1)
    traded = np.flatnonzero(volumes)
    if not len(traded):
        raise InvalidTable("A profile needs volume that a double can hold", value=0.0)
    first, last = int(traded[0]), int(traded[-1])
    volumes, units = np.ascontiguousarray(volumes[first : last + 1]), units[first : last + 1]
    lowest += first
    control, low, high = value_area.value_area(volumes, 0, len(volumes) - 1, share, step, bars)
    highs, lows = value_area.nodes(volumes, NODE_REACH, NODE_TURN)
    numbered = np.arange(lowest, lowest + len(volumes) + 1)
    edges = to_prices(numbered, size)
    columns = {"price_low": edges[:-1], "price_high": edges[1:], "volume": volumes / scale}
    rows = pl.DataFrame(columns).with_columns(
        pl.Series(name, units[:, at] / scale if has_sides else None, pl.Float64)
        if has_sides
        else pl.lit(None, pl.Float64).alias(name)
        for at, name in enumerate(("taker_buy_volume", "taker_sell_volume"))
    )
    return VolumeProfile(
        poc=float(to_prices(lowest + control + 0.5, size)),
        vah=float(edges[high + 1]),
        val=float(edges[low]),
        value_area_pct=share,
        row_size=size,
        algorithm=algorithm,
        method=method,
        hvn=tuple(to_prices(lowest + highs + 0.5, size).tolist()),
        lvn=tuple(to_prices(lowest + lows + 0.5, size).tolist()),
        volume=float(volumes.sum() / scale),
        rows=rows,
    )
