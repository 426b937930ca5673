"""A simulated market: seeded, correlated, with outages, and with a known answer for tests.

The same seed gives the same bars whatever range is asked for, in whatever order, process or machine. For one month:
1. Anchors: log prices at the month's two ends come from mean-reverting monthly walks of a market factor and of each symbol.
2. Volatility: an hourly log-volatility, a moving sum of the shocks of the last days, which lie on the absolute hour axis.
3. Paths: minute shocks times that volatility, bent into a bridge between the anchors, for the factor and for the symbol;
   `log price = log level + beta · factor + own`.
4. Closes are the path on the tick grid, each bar opens at the close before it, wicks and amounts follow volatility.
5. A few minutes have no trade (volume 0, flat at the previous close), and one outage leaves 10 to 40 minutes out.

Random bits are Philox counters keyed by a hash of (seed, stream, name, month); normals are sums of four 16-bit uniforms,
so that integer arithmetic alone decides them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from mdplatform.errors import ParameterOutOfRange
from mdplatform.market.bars import INSTANT, RAW_SCHEMA
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.months import month_number, month_start, month_text, months_between

Floats = npt.NDArray[np.float64]

DEFAULT_SEED = 7
_FIRST_MONTH, _LAST_MONTH = (2005 - 1970) * 12, (2100 - 1970) * 12 - 1
_FACTOR = "*factor*"
_VOLATILITY_MEMORY = 96  # hours
_VOLATILITY_WEIGHTS = 0.94 ** np.arange(_VOLATILITY_MEMORY)
_VOLATILITY_WEIGHTS *= 0.45 / math.sqrt(float(np.sum(_VOLATILITY_WEIGHTS**2)))
FACTOR_VOLATILITY = 4.5e-4
"""Standard deviation of the factor's one-minute log return, before volatility clusters."""
_MONTHLY_PULL, _MONTHLY_FACTOR, _MONTHLY_OWN = 0.96, 0.11, 0.07


@dataclass(frozen=True, slots=True)
class Character:
    """What a symbol is like: price level, beta to the factor, own minute volatility, decimals of price and of volume,
    and turnover (quote currency a minute)."""

    level: float
    beta: float
    volatility: float
    price_decimals: int
    volume_decimals: int
    turnover: float


@dataclass(frozen=True, slots=True)
class Truth:
    """The known answer of one symbol and month: `beta` to the factor, and the open times (µs) of the minutes that are
    `missing` (the outage) and of those with `no_trade`; `tick` is the price grid's step."""

    symbol: str
    month: str
    beta: float
    tick: float
    missing: tuple[int, ...]
    no_trade: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Minutes:
    """One month of one-minute bars, with the outage still in it and marked in `present`."""

    open_time: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]
    present: npt.NDArray[np.bool_]
    no_trade: npt.NDArray[np.int64]


_KNOWN = {
    "BTCUSDT": Character(95_000.0, 1.0, 1.5e-4, 2, 5, 1_200_000.0),
    "ETHUSDT": Character(3_300.0, 1.25, 2.5e-4, 2, 4, 700_000.0),
    "BNBUSDT": Character(650.0, 0.9, 2.5e-4, 2, 3, 120_000.0),
    "SOLUSDT": Character(190.0, 1.45, 4.0e-4, 2, 3, 250_000.0),
    "XRPUSDT": Character(2.3, 1.2, 4.0e-4, 4, 1, 220_000.0),
    "ADAUSDT": Character(0.9, 1.35, 4.2e-4, 4, 1, 60_000.0),
}


class SimulatedMarket:
    """The embedded source: any symbol, any month from 2005 to 2099, no network and no clock.

    >>> market = SimulatedMarket(seed=7)
    >>> january = next(market.bars("BTCUSDT", Timeframe.H1, month_start(660), month_start(661)))
    >>> january.rows.height + len(market.truth("BTCUSDT", "2025-01").missing) // 60 <= 744
    True
    """

    name = "simulated"

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.seed = int(seed)

    @classmethod
    def from_settings(cls, settings: Settings) -> SimulatedMarket:
        """Make the market of the demo."""
        return cls()

    def bars(self, symbol: str, timeframe: Timeframe, start: int, end: int) -> Iterator[Delivery]:
        """Give the bars that open at or after `start` and are closed by `end` (µs), one delivery a month.

        Longer bars are exact sums of the one-minute bars; those that an outage touches are left out.
        """
        symbol = parse_symbol(symbol)
        if start < end:
            _check_month(month_number(start))
            _check_month(month_number(end - 1))
        for month in months_between(start, end):
            first = timeframe.ceil(max(start, month_start(month)))
            last = min(end, month_start(month + 1) - 1 + timeframe.microseconds)
            stop = timeframe.floor(last)  # bars of this month are closed by then
            if first >= stop:
                continue
            rows = self._minute_rows(symbol, first, stop)
            if timeframe is not Timeframe.M1:
                rows = _aggregate(rows, timeframe)
            if rows.height:
                yield Delivery.of(symbol, timeframe, self.name, rows)

    def truth(self, symbol: str, month: str) -> Truth:
        """Give the known answer of a `month` such as `2025-01`."""
        symbol = parse_symbol(symbol)
        number = _parse_month(month)
        minutes = _minutes(self.seed, symbol, number)
        character = character_of(self.seed, symbol)
        return Truth(
            symbol=symbol,
            month=month,
            beta=character.beta,
            tick=10.0**-character.price_decimals,
            missing=tuple(minutes.open_time[~minutes.present].tolist()),
            no_trade=tuple(minutes.open_time[minutes.no_trade].tolist()),
        )

    def factor_returns(self, month: str) -> Floats:
        """Give the market factor's log returns of each minute of a `month`; symbols move by `beta` times these."""
        number = _parse_month(month)
        start, path = _path(self.seed, _FACTOR, number, FACTOR_VOLATILITY, _MONTHLY_FACTOR)
        return np.diff(path, prepend=start)

    def _minute_rows(self, symbol: str, start: int, stop: int) -> pl.DataFrame:
        """Give the one-minute bars that open in `[start, stop)`."""
        parts = []
        for number in months_between(start, stop):
            minutes = _minutes(self.seed, symbol, number)
            wanted = minutes.present & (minutes.open_time >= start) & (minutes.open_time < stop)
            opens = minutes.open_time[wanted]
            columns: dict[str, object] = {"open_time": opens, "close_time": opens + MINUTE_US}
            columns |= {name: values[wanted] for name, values in minutes.values.items()}
            parts.append(
                pl.DataFrame(columns).with_columns(
                    pl.col("open_time", "close_time").cast(pl.Datetime("us")).cast(INSTANT)
                )
            )
        return pl.concat(parts).select(RAW_SCHEMA.names()).cast(RAW_SCHEMA)  # type: ignore[arg-type]


def character_of(seed: int, symbol: str) -> Character:
    """Give what a symbol is like: stated for the known ones, drawn from the name for all others."""
    if symbol in _KNOWN:
        return _KNOWN[symbol]
    level, beta, own, turnover = (_bits(seed, "character", symbol, 0, 4) >> np.uint64(11)).astype(float) / 2.0**53
    price = 10.0 ** (-1.0 + 4.0 * level)
    return Character(
        level=price,
        beta=round(0.5 + 1.1 * beta, 3),
        volatility=2e-4 + 4e-4 * own,
        price_decimals=max(2, 5 - math.ceil(math.log10(price))),
        volume_decimals=3 if price > 10 else 1,
        turnover=10.0 ** (4.0 + 1.7 * turnover),
    )


def _parse_month(month: str) -> int:
    try:
        year, number = (int(part) for part in month.split("-"))
    except ValueError:
        raise ParameterOutOfRange("Not a month", value=month, remedy="Write it as 2025-01") from None
    return _check_month((year - 1970) * 12 + number - 1)


def _check_month(number: int) -> int:
    if not _FIRST_MONTH <= number < _LAST_MONTH:
        raise ParameterOutOfRange(
            "The simulated market has no such month",
            value=month_text(number) if -1970 * 12 <= number < 8029 * 12 else number,
            remedy=f"Allowed: {month_text(_FIRST_MONTH)} to {month_text(_LAST_MONTH - 1)}",
        )
    return number


def _bits(seed: int, stream: str, name: str, month: int, count: int) -> npt.NDArray[np.uint64]:
    key = hashlib.blake2b(f"{seed}/{stream}/{name}/{month}".encode(), digest_size=16).digest()
    words = np.frombuffer(key, dtype="<u8").astype(np.uint64)
    return np.asarray(np.random.Philox(key=words).random_raw(count), dtype=np.uint64)


def _normals(seed: int, stream: str, name: str, month: int, count: int) -> Floats:
    """Give standard normals (Irwin-Hall of four uniforms), the same on every machine."""
    bits = _bits(seed, stream, name, month, count)
    mask = np.uint64(0xFFFF)
    total = (bits & mask) + (bits >> np.uint64(16) & mask) + (bits >> np.uint64(32) & mask) + (bits >> np.uint64(48))
    return (total.astype(np.float64) - 131_070.0) / math.sqrt((65_536.0**2 - 1.0) / 3.0)


def _uniforms(seed: int, stream: str, name: str, month: int, count: int) -> Floats:
    return (_bits(seed, stream, name, month, count) >> np.uint64(11)).astype(np.float64) / 2.0**53


@lru_cache(maxsize=2048)
def _anchors(seed: int, name: str, step: float) -> tuple[float, ...]:
    """Give the walk's height at the start of each month: mean-reverting, so that a century stays plausible."""
    height, heights = 0.0, []
    for shock in _normals(seed, "anchor", name, 0, _LAST_MONTH - _FIRST_MONTH + 1).tolist():
        heights.append(height)
        height = _MONTHLY_PULL * height + step * shock
    return tuple(heights)


@lru_cache(maxsize=64)
def _hourly_volatility(seed: int, name: str, month: int) -> Floats:
    """Give a month's hourly volatility, 1 on average in its square; clusters run on across the month's edge."""
    hours = _month_minutes(month) // 60
    shocks = np.concatenate(
        [
            _normals(seed, "volatility", name, month - 1, _month_minutes(month - 1) // 60)[1 - _VOLATILITY_MEMORY :],
            _normals(seed, "volatility", name, month, hours),
        ]
    )
    logs = np.convolve(shocks, _VOLATILITY_WEIGHTS, mode="valid")
    return np.exp(logs - 0.45**2)


@lru_cache(maxsize=16)
def _path(seed: int, name: str, month: int, volatility: float, step: float) -> tuple[float, Floats]:
    """Give the height at the month's start, and at the end of each of its minutes: a bridge between two anchors."""
    count = _month_minutes(month)
    heights = _anchors(seed, name, step)
    start, stop = heights[month - _FIRST_MONTH], heights[month - _FIRST_MONTH + 1]
    scale = np.repeat(_hourly_volatility(seed, _FACTOR, month), 60)
    if name != _FACTOR:
        scale = scale * np.repeat(_hourly_volatility(seed, name, month), 60)
    walk = np.cumsum(_normals(seed, "shock", name, month, count) * scale * volatility)
    path = start + walk + (stop - start - walk[-1]) * (np.arange(1, count + 1) / count)
    path.flags.writeable = False
    return start, path


@lru_cache(maxsize=24)
def _minutes(seed: int, symbol: str, month: int) -> _Minutes:
    """Give one month of a symbol, outage included."""
    character = character_of(seed, symbol)
    count = _month_minutes(month)
    factor_start, factor = _path(seed, _FACTOR, month, FACTOR_VOLATILITY, _MONTHLY_FACTOR)
    own_start, own = _path(seed, symbol, month, character.volatility, _MONTHLY_OWN)
    level, beta, unit = math.log(character.level), character.beta, 10.0**character.price_decimals

    close = np.maximum(np.rint(np.exp(level + beta * factor + own) * unit), 2.0)
    open_first = max(round(math.exp(level + beta * factor_start + own_start) * unit), 2.0)
    present, no_trade = _interruptions(seed, symbol, month, count)
    close[no_trade] = close[no_trade - 1]
    open_ = np.concatenate([[open_first], close[:-1]])

    clusters = np.repeat(_hourly_volatility(seed, _FACTOR, month) * _hourly_volatility(seed, symbol, month), 60)
    spread = math.hypot(beta * FACTOR_VOLATILITY, character.volatility) * clusters * close
    up, down = np.abs(_normals(seed, "wick", symbol, month, 2 * count)).reshape(2, count)
    high = np.maximum(open_, close) + np.floor(0.5 * up * spread)
    low = np.maximum(np.minimum(open_, close) - np.floor(0.5 * down * spread), 1.0)
    high[no_trade] = low[no_trade] = open_[no_trade]

    amounts = _amounts(seed, symbol, month, character, (close - open_) / spread, clusters, low / unit, high / unit)
    for values in amounts.values():
        values[no_trade] = 0
    prices: dict[str, Floats] = {"open": open_ / unit, "high": high / unit, "low": low / unit, "close": close / unit}
    opens = month_start(month) + MINUTE_US * np.arange(count, dtype=np.int64)
    return _Minutes(opens, {**prices, **amounts}, present, no_trade)


def _amounts(
    seed: int,
    symbol: str,
    month: int,
    character: Character,
    move: Floats,
    clusters: Floats,
    low: Floats,
    high: Floats,
) -> dict[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]:
    """Give volumes, counts and taker sides: more of all where prices move, takers buying where prices rise."""
    count = len(move)
    noise, size = _normals(seed, "volume", symbol, month, 2 * count).reshape(2, count)
    place, side = _uniforms(seed, "side", symbol, month, 2 * count).reshape(2, count)
    lot = 10.0**character.volume_decimals
    price = low + place * (high - low)
    turnover = character.turnover * clusters * np.exp(0.6 * noise - 0.18) * (0.6 + 0.5 * np.minimum(np.abs(move), 4.0))
    lots = np.maximum(np.rint(turnover / price * lot), 2.0)
    share = np.clip(0.5 + 0.12 * np.clip(move, -3.0, 3.0) + 0.2 * (side - 0.5), 0.02, 0.98)
    taker_lots = np.clip(np.floor(lots * share), 1.0, lots - 1.0)
    trades = np.clip(np.rint(turnover / 900.0 * np.exp(0.25 * size)), 1.0, lots)
    volume, taker = lots / lot, taker_lots / lot
    return {
        "volume": volume,
        "quote_volume": volume * price,
        "trade_count": trades.astype(np.int64),
        "taker_buy_volume": taker,
        "taker_buy_quote_volume": taker * price,
    }


def _interruptions(
    seed: int, symbol: str, month: int, count: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Give which minutes there are (all but one outage), and the minutes without a trade, which never touch it."""
    where, length, *minutes = _uniforms(seed, "interruption", symbol, month, 10).tolist()
    first = 60 + int(where * (count - 180))
    after = first + 10 + int(length * 31)
    present = np.ones(count, dtype=np.bool_)
    present[first:after] = False
    quiet = {2 + int(each * (count - 4)) for each in minutes}
    return present, np.array(sorted(each for each in quiet if not first - 1 <= each <= after), dtype=np.int64)


def _month_minutes(month: int) -> int:
    return (month_start(month + 1) - month_start(month)) // MINUTE_US


def _aggregate(minutes: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Give the bars of which every minute is there."""
    length = timeframe.microseconds
    origin = timeframe.floor(0) + length
    opens = pl.col("open_time").cast(pl.Int64)
    sums = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")
    return (
        minutes.group_by((opens - (opens - origin) % length).alias("bar"), maintain_order=True)
        .agg(
            pl.len().alias("minutes"),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            *(pl.col(name).sum() for name in sums),
        )
        .filter(pl.col("minutes") == length // MINUTE_US)
        .with_columns(
            pl.col("bar").cast(pl.Datetime("us")).cast(INSTANT).alias("open_time"),
            (pl.col("bar") + length).cast(pl.Datetime("us")).cast(INSTANT).alias("close_time"),
        )
        .select(RAW_SCHEMA.names())
        .cast(RAW_SCHEMA)  # type: ignore[arg-type]
    )
