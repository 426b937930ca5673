"""What a subscription wants: checked before anything is sent, or refused by its field."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from typing import Any, TypeAlias, cast

from mdplatform.features import FeatureLike, standing_catalogue
from mdplatform.market.time import from_us, iso
from mdplatform.messaging.posting import read_place
from mdplatform.requests import fields
from mdplatform.requests.features import features, texts_of
from mdplatform.requests.fields import UnknownWord, at, refuse
from mdplatform.streaming import cursor
from mdplatform.streaming.cursor import Cursor
from mdplatform.streaming.frame import Frame
from mdplatform.streaming.shape import DataType, Shape

MOST_NUMBERS = 1_000_000
"""Numbers of all symbols at one instant times the window."""
MOST_QUEUED = 100_000
LONGEST_WINDOW = 5_000
LONGEST_GRACE_SECONDS = 600.0
MOST_PROVIDERS = 50

Callback: TypeAlias = Callable[[Frame], Awaitable[Any] | Any]
Names: TypeAlias = str | Iterable[str]
Features: TypeAlias = "FeatureLike | Iterable[FeatureLike]"


class Policy(StrEnum):
    """What becomes of frames that wait for a callback, once as many wait as the queue holds.

    - `conflate`: the newest stays, all others are dropped;
    - `drop_oldest`: one is dropped, the oldest;
    - `block`: no more are made for the shape until there is room, for a bounded time.
    """

    CONFLATE = "conflate"
    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"


@dataclass(frozen=True)
class Wanted:
    """A subscription as it was checked; `start` and `end` are microseconds, None where they are left open."""

    strategy_id: str
    shape: Shape
    callback: Callback | None
    real_time: bool
    policy: Policy
    queue: int
    revisions: bool
    cursor: Cursor | None
    start: int | None
    end: int | None
    speed: float | None
    every_provider: bool


def check(
    *,
    strategy_id: object,
    symbols: object,
    data_types: object,
    timeframes: object,
    callback: object,
    real_time: object,
    indicators: object,
    providers: object,
    forming: object,
    revisions: object,
    policy: object,
    queue: object,
    grace: object,
    window: object,
    cursor: object,
    start: object,
    end: object,
    speed: object,
    default_grace: float,
) -> Wanted:
    """Check what a strategy wrote. Raises a `PlatformError` with its `field`."""
    name = fields.name(strategy_id, "strategy_id")
    named = fields.symbols(symbols)
    lengths = fields.timeframes(timeframes)
    types = _data_types(data_types)
    _check_callback(callback)
    live = _flag(real_time, "real_time")
    shape = Shape.of(
        named,
        lengths,
        types,
        _indicators(indicators, types),
        _providers(providers, types),
        fields.count(window, "window", LONGEST_WINDOW),
        default_grace if grace is None else _number(grace, "grace", LONGEST_GRACE_SECONDS),
        _flag(forming, "forming"),
    )
    size = len(shape.symbols) * len(shape.numbers) * shape.window
    if size > MOST_NUMBERS:
        told = f"{len(shape.symbols)} symbols × {len(shape.numbers)} numbers × a window of {shape.window}"
        raise refuse("symbols", "Too large together", told, f"Allowed: {MOST_NUMBERS:,}; subscribe in several parts")
    place = _cursor(cursor)
    begin, stop = fields.instant(start, "start"), fields.instant(end, "end")
    _check_history(live, begin, stop, speed, place, shape.forming)
    return Wanted(
        name,
        shape,
        cast("Callback | None", callback),
        live,
        fields.word(policy, Policy, "policy"),
        fields.count(queue, "queue", MOST_QUEUED),
        _flag(revisions, "revisions"),
        place,
        begin,
        stop,
        None if speed is None else _number(speed, "speed", 1e9, above_zero=True),
        providers is None and DataType.SENTIMENT in types,
    )


def _data_types(given: object) -> tuple[DataType, ...]:
    found: dict[DataType, None] = {}
    for index, each in enumerate(fields.items(given, 4 * len(DataType), "data_types")):
        with at(f"data_types[{index}]"):
            told = fields.text(each).lower()
            if told not in list(DataType):
                raise UnknownWord(told, [each.value for each in DataType])
            found[DataType(told)] = None
    return tuple(found)


def _indicators(given: object, types: tuple[DataType, ...]) -> tuple[str, ...]:
    """Give canonical texts: those that were named, or the standing ones."""
    if DataType.INDICATORS not in types:
        if given is not None:
            raise refuse("indicators", "Indicators without their data type", None, "Add 'indicators' to data_types")
        return ()
    if given is None:
        return tuple(text for spec in standing_catalogue().features for text in texts_of(spec))
    return features(given, "indicators")


def _providers(given: object, types: tuple[DataType, ...]) -> tuple[str, ...]:
    if given is None:
        return ()
    if DataType.SENTIMENT not in types:
        raise refuse("providers", "Providers without their data type", None, "Add 'sentiment' to data_types")
    listed = fields.items(given, MOST_PROVIDERS, "providers")
    return tuple(dict.fromkeys(fields.name(each, f"providers[{index}]") for index, each in enumerate(listed)))


def _check_callback(given: object) -> None:
    if given is None:
        return
    if not callable(given) or inspect.isclass(given):
        raise refuse("callback", "Not a function", given, "Give one that takes a Frame")
    try:
        inspect.signature(given).bind(None)
    except ValueError:
        return  # one that does not tell what it takes
    except TypeError:
        raise refuse("callback", "It does not take one argument", given, "Give one that takes a Frame") from None


def _flag(given: object, field: str) -> bool:
    if not isinstance(given, bool):
        raise refuse(field, "Neither True nor False", "None" if given is None else given, "Give True or False")
    return given


def _number(given: object, field: str, most: float, *, above_zero: bool = False) -> float:
    least = "more than 0" if above_zero else "from 0"
    if isinstance(given, Real) and not isinstance(given, bool):
        found = fields.as_float(given)
        if math.isfinite(found) and 0 <= found <= most and (found or not above_zero):
            return found
    raise refuse(field, "Not such a number", given, f"Allowed: a number {least} to {most:,.0f}")


def _cursor(given: object) -> Cursor | None:
    if given is None:
        return None
    with at("cursor"):
        found = cursor.decode(fields.text(given))
        for symbol, place in found.places.items():
            read_place(place, symbol)
        return found


def _check_history(
    live: bool, start: int | None, end: int | None, speed: object, place: Cursor | None, forming: bool
) -> None:
    if live:
        for field, value in (("start", start), ("end", end), ("speed", speed)):
            if value is not None:
                remedy = "Leave it out, or replay history with real_time=False"
                raise refuse(
                    field, "Only for history", value if field == "speed" else iso(from_us(int(str(value)))), remedy
                )
        return
    if forming:
        raise refuse("forming", "History has no forming bars", forming, "Leave it out, or take real_time=True")
    if start is not None and place is not None:
        raise refuse("start", "Both start and cursor", iso(from_us(start)), "Give one of them")
    if start is not None and end is not None and end <= start:
        raise refuse("end", "It is not after the start", iso(from_us(end)), "Frames have start <= T < end")
