"""How many rows a function needs: `lookback` before its first value, `settle` until history's start is forgotten.

A recursive function with smoothing factor α keeps `(1 − α)^n` of its seed after n rows; it is settled when that is
below ε = 1e-12. Where smoothings feed one another the rows add up. Path-dependent functions have no such rate: theirs
were measured, as told below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, isqrt, log, log1p
from typing import Any, TypeAlias

from mdplatform.features.definition import Definition, ParameterValue
from mdplatform.features.kinds import INDICATORS

Arguments: TypeAlias = Mapping[str, Any]
Formula: TypeAlias = Callable[[Arguments], int]

EPSILON = 1e-12
"""The share of a seed that may be left in a settled value."""


def lookback(definition: Definition, arguments: Mapping[str, ParameterValue]) -> int:
    """Give the number of rows before the first value: row `lookback` (from 0) is the first that has one."""
    if definition.lengths is not None:
        return definition.lengths(arguments)[0]
    if definition.fixed_lookback is not None:
        return definition.fixed_lookback
    if definition.kind != INDICATORS:
        return 0
    return int(_LOOKBACK.get(definition.name, _period_less(1))(arguments))


def settle(definition: Definition, arguments: Mapping[str, ParameterValue]) -> int:
    """Give the number of rows after the first value until values no longer depend on where history began."""
    if definition.lengths is not None:
        return definition.lengths(arguments)[1]
    formula = _SETTLE.get(definition.name)
    return int(formula(arguments)) if formula else 0


def smoothing_rows(alpha: float) -> int:
    """Give the rows after which an exponential smoothing by `alpha` keeps less than ε of its seed.

    >>> smoothing_rows(2 / (20 + 1)), smoothing_rows(1 / 14)
    (277, 373)
    """
    return 0 if alpha >= 1 else ceil(log(EPSILON) / log1p(-alpha))


def ema_rows(period: int) -> int:
    """Give the rows that an exponential moving average (α = 2 / (period + 1)) takes to settle."""
    return smoothing_rows(2 / (period + 1))


def wilder_rows(period: int) -> int:
    """Give the rows that Wilder's smoothing (α = 1 / period) takes to settle."""
    return smoothing_rows(1 / period)


def average_lookback(kind: int, period: int) -> int:
    """Give the lookback of TA-Lib's moving average of that `matype`."""
    if period <= 1 or kind == 10:
        return 0
    return {
        3: 2 * (period - 1),
        4: 3 * (period - 1),
        6: period,
        7: 32,
        8: 6 * (period - 1),
        9: period - 1 + isqrt(period) - 1,
        12: (period - 1) + (period - 1) // 2,
    }.get(kind, period - 1)


def average_settle(kind: int, period: int) -> int:
    """Give the rows that TA-Lib's moving average of that `matype` takes to settle."""
    if period <= 1:
        return 0
    if kind in _CASCADED_EMAS:
        return _CASCADED_EMAS[kind] * ema_rows(period)
    return {6: _KAMA, 7: _mama(0.05), 13: wilder_rows(period)}.get(kind, 0)


_CASCADED_EMAS = {1: 1, 3: 2, 4: 3, 8: 6, 12: 1}
_KAMA = smoothing_rows((2 / 31) ** 2)  # its smoothing factor is never below that of 30 rows, squared

# Path-dependent functions: each was started at 220 places in 11 series of real bars (six symbols at 15m, three at 1h,
# two at 1m; 9,000 to 40,000 rows each), and the last row was noted that differs by more than 1e-9 from a start at the
# series' beginning. What is declared is more than twice the worst that was seen.
#
#   Hilbert family               median 300, worst 411
#   MAMA(0.5, 0.05)              median 222, worst 315; with (0.05, 0.01) 2,024, which is its own smoothing
#   SAR(0.02, 0.2), SAREXT       median 20, worst 135; SAR(0.001, 0.02) 1,636: it goes as 1 / acceleration
#   SUPERTREND(10, 3)            median 146, worst 194; (50, 6) 956: its ATR, then the next change of trend
#
# HT_DCPHASE, HT_SINE and MAMA divide by a component that can be 0 where prices hardly move: there a last bit decides,
# however much history is loaded. At 15m and 1h no row of 900,000 differed beyond 1,000 rows; of the two quiet
# one-minute series 0.6 % of MAMA's rows did, and 0.006 % of HT_SINE's.
_HILBERT = 1000
_SLOWEST_SAR = 100_000


def _mama(slow_limit: float) -> int:
    return _HILBERT + smoothing_rows(slow_limit / 2)  # its second line smooths by half of the first's factor


def _parabolic(*accelerations: float) -> int:
    slowest = min(accelerations)
    return _SLOWEST_SAR if slowest * _SLOWEST_SAR <= 20 else ceil(20 / slowest)


def _period_less(rows: int) -> Formula:
    return lambda given: given["timeperiod"] - rows


def _longest(given: Arguments) -> int:
    return int(max(given["fastperiod"], given["slowperiod"]))


def _averages(given: Arguments, measure: Callable[[int, int], int]) -> int:
    return max(measure(given["matype"], given["fastperiod"]), measure(given["matype"], given["slowperiod"]))


def _macdext(given: Arguments, measure: Callable[[int, int], int]) -> int:
    lines = max(measure(given[f"{each}matype"], given[f"{each}period"]) for each in ("fast", "slow"))
    return lines + measure(given["signalmatype"], given["signalperiod"])


def _smoothed(given: Arguments, measure: Callable[[int, int], int], *lines: str) -> int:
    return sum(measure(given[f"{each}_matype"], given[f"{each}_period"]) for each in lines)


_COUNTING_CHANGES = (
    "AROON", "AROONOSC", "ATR", "BETA", "CMO", "CMOU", "DX", "EFI", "ER", "FOSC", "MFI", "MINUS_DI", "MOM", "NATR",
    "PERCENTRANK", "PLUS_DI", "ROC", "ROCP", "ROCR", "ROCR100", "RSI", "RVOL", "SUPERTREND", "VHF", "VORTEX",
)  # fmt: skip

_LOOKBACK: dict[str, Formula] = {
    **dict.fromkeys(
        _COUNTING_CHANGES,
        _period_less(0),
    ),
    **dict.fromkeys(("APO", "PPO", "PVO"), lambda given: _averages(given, average_lookback)),
    **dict.fromkeys(("MINUS_DM", "PLUS_DM"), lambda given: max(1, given["timeperiod"] - 1)),
    **dict.fromkeys(
        ("KDJ", "STOCH"),
        lambda given: given["fastk_period"] - 1 + _smoothed(given, average_lookback, "slowk", "slowd"),
    ),
    **{
        name: lambda given, kind=kind: average_lookback(kind, given["timeperiod"])  # type: ignore[misc]
        for name, kind in {"DEMA": 3, "TEMA": 4, "KAMA": 6, "T3": 8, "HMA": 9, "ZLEMA": 12}.items()
    },
    "AC": lambda given: _longest(given) + given["signalperiod"] - 2,
    "ADOSC": lambda given: _longest(given) - 1,
    "ADX": lambda given: 2 * given["timeperiod"] - 1,
    "ADXR": lambda given: 3 * given["timeperiod"] - 2,
    "AO": lambda given: _longest(given) - 1,
    "BBANDS": lambda given: max(given["timeperiod"] - 1, average_lookback(given["matype"], given["timeperiod"])),
    "COPPOCK": lambda given: max(given["roc1period"], given["roc2period"]) + given["wmaperiod"] - 1,
    "CVI": lambda given: given["timeperiod"] - 1 + given["rocperiod"],
    "DPO": lambda given: max(given["timeperiod"] - 1, given["timeperiod"] // 2 + 1),
    "FRACTAL": lambda given: given["leftbars"] + given["rightbars"],
    "KC": lambda given: max(given["timeperiod"] - 1, given["atrperiod"]),
    "MA": lambda given: average_lookback(given["matype"], given["timeperiod"]),
    "MACD": lambda given: _longest(given) + given["signalperiod"] - 2,
    "MACDEXT": lambda given: _macdext(given, average_lookback),
    "MACDFIX": lambda given: 26 + given["signalperiod"] - 2,
    "MASSI": lambda given: 2 * (given["fastperiod"] - 1) + given["slowperiod"] - 1,
    "MAVP": lambda given: average_lookback(given["matype"], given["maxperiod"]),
    "RVI": lambda given: given["stddevperiod"] + given["timeperiod"] - 2,
    "SMI": lambda given: given["timeperiod"] + given["fastperiod"] + given["slowperiod"] + given["signalperiod"] - 4,
    "STOCHF": lambda given: given["fastk_period"] - 1 + _smoothed(given, average_lookback, "fastd"),
    "STOCHRSI": lambda given: (
        given["timeperiod"] + given["fastk_period"] - 1 + _smoothed(given, average_lookback, "fastd")
    ),
    "TRIX": lambda given: 3 * (given["timeperiod"] - 1) + 1,
    "TSI": lambda given: given["firstperiod"] + given["secondperiod"] - 1,
    "ULTOSC": lambda given: max(given[f"timeperiod{each}"] for each in (1, 2, 3)),
}
"""The lookback of each function that has another than `timeperiod - 1`."""

_SETTLE: dict[str, Formula] = {
    **dict.fromkeys(("APO", "PPO", "PVO"), lambda given: _averages(given, average_settle)),
    **dict.fromkeys(
        ["ATR", "CMO", "DX", "MINUS_DI", "MINUS_DM", "NATR", "PLUS_DI", "PLUS_DM", "RMA", "RSI", "RVI"],
        lambda given: wilder_rows(given["timeperiod"]),
    ),
    **dict.fromkeys(("ADX", "ADXR"), lambda given: 2 * wilder_rows(given["timeperiod"])),
    **dict.fromkeys(["CVI", "EFI", "EMA", "ERI", "ZLEMA"], lambda given: ema_rows(given["timeperiod"])),
    **dict.fromkeys(("KDJ", "STOCH"), lambda given: _smoothed(given, average_settle, "slowk", "slowd")),
    **dict.fromkeys(
        ("HT_DCPERIOD", "HT_DCPHASE", "HT_PHASOR", "HT_SINE", "HT_TRENDLINE", "HT_TRENDMODE"), lambda _: _HILBERT
    ),
    "ADOSC": lambda given: ema_rows(_longest(given)),
    "BBANDS": lambda given: average_settle(given["matype"], given["timeperiod"]),
    "DEMA": lambda given: 2 * ema_rows(given["timeperiod"]),
    "HA": lambda given: smoothing_rows(1 / 2),
    "KAMA": lambda given: average_settle(6, given["timeperiod"]),
    "KC": lambda given: max(ema_rows(given["timeperiod"]), wilder_rows(given["atrperiod"])),
    "MA": lambda given: average_settle(given["matype"], given["timeperiod"]),
    "MACD": lambda given: ema_rows(_longest(given)) + ema_rows(given["signalperiod"]),
    "MACDEXT": lambda given: _macdext(given, average_settle),
    "MACDFIX": lambda given: smoothing_rows(0.075) + ema_rows(given["signalperiod"]),
    "MAMA": lambda given: _mama(given["slowlimit"]),
    "MASSI": lambda given: 2 * ema_rows(given["fastperiod"]),
    "MAVP": lambda given: average_settle(given["matype"], given["maxperiod"]),
    "SAR": lambda given: _parabolic(given["acceleration"], given["maximum"]),
    "SAREXT": lambda given: _parabolic(*(value for name, value in given.items() if name.startswith("acceleration"))),
    "SUPERTREND": lambda given: wilder_rows(given["timeperiod"]) + ceil(50 * given["multiplier"] ** 2),
    "SMI": lambda given: sum(ema_rows(given[each]) for each in ("fastperiod", "slowperiod", "signalperiod")),
    "STOCHF": lambda given: _smoothed(given, average_settle, "fastd"),
    "STOCHRSI": lambda given: wilder_rows(given["timeperiod"]) + _smoothed(given, average_settle, "fastd"),
    "T3": lambda given: 6 * ema_rows(given["timeperiod"]),
    "TEMA": lambda given: 3 * ema_rows(given["timeperiod"]),
    "TRIX": lambda given: 3 * ema_rows(given["timeperiod"]),
    "TSI": lambda given: ema_rows(given["firstperiod"]) + ema_rows(given["secondperiod"]),
}
"""The settle of each function that has no finite window; one that is not here settles at its first value."""
