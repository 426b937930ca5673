"""Making requests: what a strategy writes becomes a `DataRequest`, or one error that names the field.

`make` and the function of each type go in these steps; `check`, for what came over the wire, in all but the first:

1. What is special to a type becomes features: a profile's or a sentiment's arguments, a formula with its inputs.
2. Features become canonical texts (`features`), names, numbers and times are read (`fields`).
3. What belongs to the type and the sizes are checked (`checking`): symbols × timeframes × features, and all rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, TypeAlias, Unpack

from mdplatform.errors import PlatformError
from mdplatform.features import FeatureLike
from mdplatform.features.registry import definition
from mdplatform.requests import fields
from mdplatform.requests.checking import MOST_SERIES, Common, assemble, check, refuse_unknown
from mdplatform.requests.features import call, composite, features
from mdplatform.requests.fields import UnknownWord, at, refuse
from mdplatform.requests.request import DataRequest, RequestType

__all__ = [
    "Common",
    "check",
    "correlation_matrix",
    "custom_composite",
    "macro_indicators",
    "make",
    "sentiment_data",
    "technical_indicators",
    "volume_profile",
]

MEASURES = ("score", "age", "count", "decayed", "dispersion", "mean")
TRANSFORMS = ("value", "diff", "pct", "yoy", "zscore")

Names: TypeAlias = str | Iterable[str]
Features: TypeAlias = "FeatureLike | Iterable[FeatureLike]"


def make(type: RequestType | str, **given: Any) -> DataRequest:
    """Make a checked request of that type from what a strategy writes; see the functions of each type.

    Raises a `PlatformError` with its `field` set.
    """
    kind = fields.word(type, RequestType, "type", upper=True)
    arguments = _arguments_of(kind)
    refuse_unknown(given, (*arguments, *Common.__annotations__))
    for name, is_required in arguments.items():
        if is_required and name not in given:
            raise refuse(name, "It is missing", None, f"{kind} needs {', '.join(filter(arguments.get, arguments))}")
    return MAKERS[kind](**given)


def technical_indicators(
    strategy_id: str, symbols: Names, indicators: Features, timeframes: Names, **common: Unpack[Common]
) -> DataRequest:
    """Ask for indicators, or features of any kind, of each symbol in rows of each timeframe.

    Each indicator is a text (`RSI(14)`, `MACD.macdhist`, `ATR@1d`, `close / EMA(close, 50) - 1`) or a mapping
    `{"name": "RSI", "parameters": {"period": 14}}`.
    """
    return assemble(
        RequestType.TECHNICAL_INDICATORS, strategy_id, common,
        symbols=symbols, timeframes=timeframes, features=features(indicators, "indicators"),
    )  # fmt: skip


def custom_composite(
    strategy_id: str,
    symbols: Names,
    formula: str,
    timeframes: Names,
    input_indicators: Sequence[FeatureLike] = (),
    **common: Unpack[Common],
) -> DataRequest:
    """Ask for a formula of indicators and columns of bars, which uses its inputs by name."""
    return assemble(
        RequestType.CUSTOM_COMPOSITE, strategy_id, common,
        symbols=symbols, timeframes=timeframes, features=composite(formula, input_indicators),
    )  # fmt: skip


def volume_profile(
    strategy_id: str,
    symbols: Names,
    timeframes: Names,
    *,
    session_hours: int | None = None,
    hours: int | None = None,
    row_size: float | None = None,
    value_area_pct: float | None = None,
    algorithm: Literal["two_row", "one_row"] | None = None,
    **common: Unpack[Common],
) -> DataRequest:
    """Ask for point of control and value area: of the session of `session_hours` (24) so far, or of the last `hours`.

    `row_size` is in units of the price, by default chosen from the prices; `value_area_pct` is 0.7 by default,
    `algorithm` `two_row`.
    """
    if session_hours is not None and hours is not None:
        raise refuse("hours", "Both session_hours and hours", hours, "Give one of them")
    shape = {"row_size": row_size, "value_area_pct": value_area_pct, "algorithm": algorithm}
    profile = call("VOLUME_PROFILE", session_hours=session_hours, **shape)
    if hours is not None:
        profile = call("ROLLING_VOLUME_PROFILE", hours=hours, **shape)
    with _arguments():
        texts = features(profile, "profile")
    return assemble(
        RequestType.VOLUME_PROFILE, strategy_id, common, symbols=symbols, timeframes=timeframes, features=texts
    )


def sentiment_data(
    strategy_id: str,
    symbols: Names,
    timeframes: Names,
    providers: Names,
    *,
    measures: Names = ("score",),
    hours: float | None = None,
    half_life_hours: float | None = None,
    max_staleness_hours: float | None = None,
    scope: Literal["market", "symbol"] | None = None,
    **common: Unpack[Common],
) -> DataRequest:
    """Ask for measures of sentiment, by what each provider's documents said.

    Measures are `score` (the newest), `mean`, `count` and `dispersion` (over `hours`), `decayed` (by
    `half_life_hours`) and `age`. `scope` tells documents on the market from those on the symbol.
    """
    given = {
        "hours": hours,
        "half_life_hours": half_life_hours,
        "max_staleness_hours": max_staleness_hours,
        "scope": scope,
    }
    functions = [
        "SENTIMENT" if each == "score" else f"SENTIMENT_{each.upper()}"
        for each in _words(measures, "measures", MEASURES)
    ]
    taken = _taken(functions, given)
    texts: list[str] = []
    for index, provider in enumerate(fields.items(providers, MOST_SERIES, "providers")):
        for function in functions:
            with _arguments(provider=f"providers[{index}]"):
                chosen = {name: given[name] for name in taken[function]}
                texts.extend(features(call(function, provider=fields.text(provider), **chosen), "measures"))
    return assemble(
        RequestType.SENTIMENT_DATA, strategy_id, common, symbols=symbols, timeframes=timeframes, features=tuple(texts)
    )


def macro_indicators(
    strategy_id: str,
    series: Names,
    symbols: Names = (),
    timeframes: Names = (),
    *,
    transforms: Names | None = None,
    mode: Literal["as_of", "first_release", "latest"] | None = None,
    periods: int | None = None,
    missing: Literal["keep", "skip"] | None = None,
    max_staleness_days: int | None = None,
    **common: Unpack[Common],
) -> DataRequest:
    """Ask for macro series: joined to the rows of symbols as they were known at each close, or, without symbols, the
    table of what is known of each.

    `transforms` are `value` (the default), `diff`, `pct`, `yoy` and `zscore`.
    """
    given = {"mode": mode, "periods": periods, "missing": missing, "max_staleness_days": max_staleness_days}
    names = fields.items(series, MOST_SERIES, "series")
    words = _words(("value",) if transforms is None else transforms, "transforms", TRANSFORMS)
    functions = ["MACRO" if each == "value" else f"MACRO_{each.upper()}" for each in words]
    taken = _taken(functions, given)
    texts: list[str] = []
    for index, name in enumerate(names):
        for function in functions:
            with _arguments(series=f"series[{index}]"):
                chosen = {each: given[each] for each in taken[function]}
                texts.extend(features(call(function, series=fields.text(name), **chosen), "transforms"))
    if not _is_empty(symbols):
        return assemble(
            RequestType.MACRO_INDICATORS, strategy_id, common, symbols=symbols, timeframes=timeframes,
            features=tuple(texts),
        )  # fmt: skip
    for field, value in (*given.items(), ("transforms", transforms)):
        if value is not None:
            raise refuse(field, "Only for rows of symbols", value, "Name symbols and timeframes, or leave it out")
    if not _is_empty(timeframes):
        raise refuse("timeframes", "Timeframes without symbols", timeframes, "Name symbols as well, or leave it out")
    return assemble(RequestType.MACRO_INDICATORS, strategy_id, common, options={"series": list(dict.fromkeys(names))})


def correlation_matrix(
    strategy_id: str,
    symbols: Names,
    timeframes: Names,
    window: int = 96,
    *,
    of: Literal["returns", "levels"] | None = None,
    method: Literal["pearson", "spearman", "exponential"] | None = None,
    half_life: float | None = None,
    sample: Literal["pairwise", "common"] | None = None,
    min_periods: int | None = None,
    shrinkage: Literal["ledoit_wolf", "constant_correlation"] | None = None,
    repair: Literal["nearest_psd"] | None = None,
    **common: Unpack[Common],
) -> DataRequest:
    """Ask for the correlations of the log returns of symbols over the last `window` bars, a matrix for each timeframe.

    The options are those of `features.correlation_matrix`. `end` gives the window that was the last one then.
    """
    given: dict[str, Any] = {
        "of": of, "method": method, "half_life": half_life, "sample": sample,
        "min_periods": min_periods, "shrinkage": shrinkage, "repair": repair,
    }  # fmt: skip
    options = {"window": window, **{name: value for name, value in given.items() if value is not None}}
    return assemble(
        RequestType.CORRELATION_MATRIX, strategy_id, common, symbols=symbols, timeframes=timeframes, options=options
    )


MAKERS: Mapping[RequestType, Callable[..., DataRequest]] = {
    RequestType.TECHNICAL_INDICATORS: technical_indicators,
    RequestType.VOLUME_PROFILE: volume_profile,
    RequestType.SENTIMENT_DATA: sentiment_data,
    RequestType.CORRELATION_MATRIX: correlation_matrix,
    RequestType.CUSTOM_COMPOSITE: custom_composite,
    RequestType.MACRO_INDICATORS: macro_indicators,
}
"""The function of each type."""


@cache
def _arguments_of(kind: RequestType) -> dict[str, bool]:
    """Give the arguments that are special to a type, and whether each is required."""
    own = inspect.signature(MAKERS[kind]).parameters.values()
    return {each.name: each.default is each.empty for each in own if each.kind is not each.VAR_KEYWORD}


def _words(given: object, field: str, known: Sequence[str]) -> list[str]:
    """Give words of a short list, each once."""
    found: dict[str, None] = {}
    for index, each in enumerate(fields.items(given, 4 * len(known), field)):
        with at(f"{field}[{index}]"):
            told = fields.text(each).lower()
            if told not in known:
                raise UnknownWord(told, known)
            found[told] = None
    return list(found)


def _taken(functions: Sequence[str], given: Mapping[str, object]) -> dict[str, list[str]]:
    """Tell which of the arguments that were given each function takes. Refuse one that none does."""
    takes = {each: [parameter.name for parameter in definition(each).parameters] for each in functions}
    for name, value in given.items():
        if value is not None and not any(name in each for each in takes.values()):
            raise refuse(name, f"None of {', '.join(functions)} takes it", value, "Leave it out")
    return {each: [name for name in names if given.get(name) is not None] for each, names in takes.items()}


def _is_empty(given: object) -> bool:
    """Tell whether nothing was named; what is no list is for others to refuse."""
    return given is None or (isinstance(given, list | tuple | set | frozenset) and not given)


@contextmanager
def _arguments(**places: str) -> Iterator[None]:
    """Tell errors of a feature's parameters as those of the arguments from which they were taken."""
    try:
        yield
    except PlatformError as error:
        _, inside, parameter = error.field.partition(".parameters.")
        if inside:
            error.field = places.get(parameter, parameter)
        raise
