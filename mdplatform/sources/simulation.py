"""The simulated market's numbers: one month of one symbol from a seed, as arrays.

1. Anchors: log prices at a month's two ends come from mean-reverting monthly walks, of a factor and of the symbol.
2. Volatility: an hourly log-volatility, a moving sum of the shocks of the last days, which lie on the absolute hours.
3. Paths: minute shocks times that volatility, bent into a bridge between the anchors, for factor and symbol;
   `log price = log level + beta · factor + own`.
4. Closes are the path on the tick grid, each bar opens at the close before it, wicks and amounts follow volatility.
5. A few minutes have no trade (volume 0, flat at the previous close), and each January and July an outage takes 10 to
   40 minutes.

Random bits are Philox counters keyed by a hash of (seed, stream, name, month); normals are sums of four 16-bit
uniforms, so that integer arithmetic alone decides them. Months are counted from 0 = January 1970.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mdplatform.errors import ParameterOutOfRange
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import MINUTE_US

Floats = npt.NDArray[np.float64]

FIRST_MONTH, LAST_MONTH = "2005-01", "2099-11"
_FIRST_NUMBER, _MONTHS = (2005 - 1970) * 12, 95 * 12
FACTOR = "*factor*"
_VOLATILITY_MEMORY = 96  # hours
_VOLATILITY_WEIGHTS: Floats = np.power(0.94, np.arange(_VOLATILITY_MEMORY), dtype=np.float64)
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
class Minutes:
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


def month_number(month: str) -> int:
    """Give the number of a month such as `2025-01`. Raises `ParameterOutOfRange` outside 2005-01 to 2099-11.

    >>> month_number("2025-01")
    660
    """
    try:
        year, number = (int(part) for part in month.split("-"))
    except ValueError:
        raise ParameterOutOfRange("Not a month", value=month, remedy="Write it as 2025-01") from None
    if not (1 <= number <= 12 and FIRST_MONTH <= month_text((year - 1970) * 12 + number - 1) <= LAST_MONTH):
        raise ParameterOutOfRange(
            "The simulated market has no such month", value=month, remedy=f"Allowed: {FIRST_MONTH} to {LAST_MONTH}"
        )
    return (year - 1970) * 12 + number - 1


def month_text(number: int) -> str:
    """Write a month.

    >>> month_text(660)
    '2025-01'
    """
    return f"{1970 + number // 12:04}-{number % 12 + 1:02}"


def _bits(seed: int, stream: str, name: str, month: int, count: int) -> npt.NDArray[np.uint64]:
    key = hashlib.blake2b(f"{seed}/{stream}/{name}/{month}".encode(), digest_size=16).digest()
    words = np.frombuffer(key, dtype="<u8").astype(np.uint64)
    return np.asarray(np.random.Philox(key=words).random_raw(count), dtype=np.uint64)


def _normals(seed: int, stream: str, name: str, month: int, count: int) -> Floats:
    """Give standard normals (Irwin-Hall of four uniforms), the same on every machine."""
    bits = _bits(seed, stream, name, month, count)
    mask = np.uint64(0xFFFF)
    total = (bits & mask) + (bits >> np.uint64(16) & mask) + (bits >> np.uint64(32) & mask) + (bits >> np.uint64(48))
    centred: Floats = total.astype(np.float64) - 131_070.0
    return centred / math.sqrt((65_536.0**2 - 1.0) / 3.0)


def _uniforms(seed: int, stream: str, name: str, month: int, count: int) -> Floats:
    return (_bits(seed, stream, name, month, count) >> np.uint64(11)).astype(np.float64) / 2.0**53


@lru_cache(maxsize=2048)
def _anchors(seed: int, name: str, step: float) -> tuple[float, ...]:
    """Give the walk's height at the start of each month: mean-reverting, so that a century stays plausible."""
    height, heights = 0.0, []
    for shock in _normals(seed, "anchor", name, 0, _MONTHS).tolist():
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
    return np.asarray(np.exp(logs - 0.45**2), dtype=np.float64)


def factor_path(seed: int, month: int) -> tuple[float, Floats]:
    """Give the market factor's height at the month's start, and at the end of each of its minutes."""
    return _path(seed, FACTOR, month, FACTOR_VOLATILITY, _MONTHLY_FACTOR)


@lru_cache(maxsize=16)
def _path(seed: int, name: str, month: int, volatility: float, step: float) -> tuple[float, Floats]:
    """Give the height at the month's start, and at the end of each of its minutes: a bridge between two anchors."""
    count = _month_minutes(month)
    heights = _anchors(seed, name, step)
    start, stop = heights[month - _FIRST_NUMBER], heights[month - _FIRST_NUMBER + 1]
    scale = np.repeat(_hourly_volatility(seed, FACTOR, month), 60)
    if name != FACTOR:
        scale = scale * np.repeat(_hourly_volatility(seed, name, month), 60)
    walk = np.cumsum(_normals(seed, "shock", name, month, count) * scale * volatility)
    path = start + walk + (stop - start - walk[-1]) * (np.arange(1, count + 1) / count)
    path.flags.writeable = False
    return start, path


@lru_cache(maxsize=24)
def minutes_of(seed: int, symbol: str, month: int) -> Minutes:
    """Give one month of a symbol, outage included."""
    character = character_of(seed, symbol)
    count = _month_minutes(month)
    factor_start, factor = factor_path(seed, month)
    own_start, own = _path(seed, symbol, month, character.volatility, _MONTHLY_OWN)
    level, beta, unit = math.log(character.level), character.beta, 10.0**character.price_decimals

    close = np.maximum(np.rint(np.exp(level + beta * factor + own) * unit), 2.0)
    open_first = max(round(math.exp(level + beta * factor_start + own_start) * unit), 2.0)
    present, no_trade = _interruptions(seed, symbol, month, count)
    close[no_trade] = close[no_trade - 1]
    open_ = np.concatenate([[open_first], close[:-1]])

    clusters = np.repeat(_hourly_volatility(seed, FACTOR, month) * _hourly_volatility(seed, symbol, month), 60)
    spread = math.hypot(beta * FACTOR_VOLATILITY, character.volatility) * clusters * close
    up, down = np.abs(_normals(seed, "wick", symbol, month, 2 * count)).reshape(2, count)
    high = np.maximum(open_, close) + np.floor(0.5 * up * spread)
    low = np.maximum(np.minimum(open_, close) - np.floor(0.5 * down * spread), 1.0)
    high[no_trade] = low[no_trade] = open_[no_trade]

    amounts = _amounts(seed, symbol, month, character, (close - open_) / spread, clusters, low / unit, high / unit)
    for values in amounts.values():
        values[no_trade] = 0
    prices: dict[str, Floats] = {"open": open_ / unit, "high": high / unit, "low": low / unit, "close": close / unit}
    opens = month_range(month_text(month))[0] + MINUTE_US * np.arange(count, dtype=np.int64)
    return Minutes(opens, {**prices, **amounts}, present, no_trade)


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


_MONTHS_BETWEEN_OUTAGES = 6  # an outage leaves a gap in that day's bar, and daily features want weeks without one


def traded_minutes(seed: int, symbol: str, month: int) -> int:
    """Give how many minutes of a month have trades."""
    present, no_trade = _interruptions(seed, symbol, month, _month_minutes(month))
    return int(present.sum()) - len(no_trade)


def _interruptions(
    seed: int, symbol: str, month: int, count: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Give which minutes there are (all but an outage's), and the minutes without a trade, which never touch it."""
    where, length, *minutes = _uniforms(seed, "interruption", symbol, month, 10).tolist()
    first = 60 + int(where * (count - 180))
    after = first + 10 + int(length * 31)
    present = np.ones(count, dtype=np.bool_)
    if month % _MONTHS_BETWEEN_OUTAGES == 0:
        present[first:after] = False
    quiet = {2 + int(each * (count - 4)) for each in minutes}
    return present, np.array(sorted(each for each in quiet if not first - 1 <= each <= after), dtype=np.int64)


def _month_minutes(month: int) -> int:
    start, end = month_range(month_text(month))
    return (end - start) // MINUTE_US
