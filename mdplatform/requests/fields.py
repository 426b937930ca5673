"""The fields of a request, one function for each: what was written becomes what is meant, or an error with its place.

Each raises a `PlatformError` whose `field` says which field, and for lists which place in it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from numbers import Integral, Real
from typing import TypeVar

import numpy as np

from mdplatform.errors import InvalidRequest, PlatformError, UnknownName
from mdplatform.features.panel import as_instant
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import from_us, iso, to_us
from mdplatform.market.timeframe import DAY_US, Timeframe

MOST_SYMBOLS = 500
MOST_TIMEFRAMES = len(Timeframe)
MOST_FEATURES = 200
MOST_PARTS = 5_000
MOST_LATEST = 100_000
MOST_ROWS = 5_000_000
"""Rows of all parts together."""
LONGEST_DEADLINE_SECONDS = 86_400.0
LONGEST_ID = 64
LONGEST_NAME = 200

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,64}")
_EARLIEST, _LATEST = to_us(as_instant("2005-01-01")), to_us(as_instant("2100-01-01"))
Word = TypeVar("Word", bound=StrEnum)


class UnknownWord(UnknownName):
    """A word that is not one of a field's."""

    kind = "word"


@contextmanager
def at(field: str) -> Iterator[None]:
    """Put the place into whatever error is raised inside, and keep the value that it shows short."""
    try:
        yield
    except PlatformError as error:
        joint = "" if not error.field or error.field.startswith("[") else "."
        error.field = f"{field}{joint}{error.field}"
        error.value = shown(error.value)
        raise


def shown(value: object) -> object:
    """Give a value as an error shows it: numbers and short texts themselves, what may be large or deep by its type."""
    if isinstance(value, str):
        return f"{value[:60]}…" if len(value) > 80 and "\n" not in value else value
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, Real | datetime | timedelta):
        return value
    if isinstance(value, list | tuple) and len(value) <= 4 and all(isinstance(each, str | Real) for each in value):
        return ", ".join(str(shown(each)) for each in value)
    return f"a {type(value).__name__}"


def refuse(field: str, cause: str, value: object, remedy: str) -> InvalidRequest:
    """Give the error of a field."""
    error = InvalidRequest(cause, value=shown(value), remedy=remedy)
    error.field = field
    return error


def items(given: object, most: int, field: str) -> list[object]:
    """Give what a list holds, a text being a list of one; not empty, and at most so many."""
    if isinstance(given, str):
        return [given]
    if given is None or isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise refuse(field, "Not a list", "None" if given is None else given, "Give a list, such as ['BTCUSDT']")
    found = list(islice(given, most + 1))
    if not found:
        raise refuse(field, "Nothing in it", None, f"Name 1 to {most}")
    if len(found) > most:
        raise refuse(field, f"More than {most}", None, f"Allowed: 1 to {most}; ask in several requests")
    return found


def symbols(given: object, field: str = "symbols") -> tuple[str, ...]:
    """Give symbols in capitals, each once, in their order."""
    found: dict[str, None] = {}
    for index, each in enumerate(items(given, MOST_SYMBOLS, field)):
        found[symbol(each, f"{field}[{index}]")] = None
    return tuple(found)


def symbol(given: object, field: str) -> str:
    """Give one symbol."""
    try:
        return _symbol(text(given))
    except PlatformError:
        with at(field):
            raise


@lru_cache(maxsize=8192)
def _symbol(given: str) -> str:
    return parse_symbol(given)


def timeframes(given: object) -> tuple[str, ...]:
    """Give timeframes, each once, in their order."""
    found: dict[str, None] = {}
    for index, each in enumerate(items(given, 4 * MOST_TIMEFRAMES, "timeframes")):
        try:
            found[Timeframe.parse(text(each)).value] = None
        except PlatformError:
            with at(f"timeframes[{index}]"):
                raise
    return tuple(found)


def text(given: object) -> str:
    """Give a text, or raise that it is none."""
    if not isinstance(given, str):
        raise InvalidRequest("Not a text", value="None" if given is None else shown(given))
    return str(given)


def name(given: object, field: str, longest: int = LONGEST_ID, least: int = 1) -> str:
    """Give an id or a name: so many printable characters, none of them blank at its ends."""
    if isinstance(given, str) and least <= len(given) <= longest and given.isprintable() and given == given.strip():
        return str(given)
    remedy = f"Allowed: {least} to {longest} printable characters, without blanks around them"
    raise refuse(field, "Not a name", "None" if given is None else given, remedy)


def request_id(given: object) -> str:
    """Give the id of a request, as the caller chose it."""
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return str(given)
    remedy = "Allowed: 1 to 64 of A-Z a-z 0-9 _ . : -"
    raise refuse("request_id", "Not a request id", "None" if given is None else given, remedy)


def word(given: object, kind: type[Word], field: str, *, upper: bool = False) -> Word:
    """Give the member of an enumeration that has that name, in any case."""
    if isinstance(given, kind):
        return given
    with at(field):
        told = text(given)
        try:
            return kind(told.upper() if upper else told.lower())
        except ValueError:
            error = UnknownWord(told, [each.value for each in kind])
            error.cause = f"Unknown {field}"
            raise error from None


def count(given: object, field: str, most: int, least: int = 1) -> int:
    """Give a whole number within bounds."""
    if isinstance(given, bool) or not isinstance(given, Integral) or not least <= int(given) <= most:
        value = "None" if given is None else given
        raise refuse(field, "Not such a number", value, f"Allowed: an integer from {least:,} to {most:,}")
    return int(given)


def option(given: object, field: str) -> str | int | float | bool | None:
    """Give one option as a plain value, whichever library's number it is."""
    if given is None or isinstance(given, str | bool):
        return given
    if isinstance(given, Integral):
        return int(given)
    if isinstance(given, Real):
        return as_float(given)
    raise refuse(field, "Neither number nor text", given, "Give one value")


def instant(given: object, field: str) -> int | None:
    """Give a time in microseconds, None for None. A day is its beginning; without a zone it is UTC."""
    if given is None:
        return None
    with at(field):
        if isinstance(given, np.datetime64) and not np.isnat(given):
            given = str(given.astype("datetime64[us]"))
        elif isinstance(given, date) and not isinstance(given, datetime):
            given = given.isoformat()
        if not isinstance(given, str | datetime):
            remedy = "Write it as 2024-03-01 or 2024-03-01T12:30:00Z, or give a datetime"
            raise InvalidRequest("Not a time", value=shown(given), remedy=remedy)
        found = to_us(as_instant(given))
    return in_years(found, field)


def in_years(given: int | None, field: str) -> int | None:
    """Refuse microseconds that are no time of market data."""
    if given is not None and not _EARLIEST <= given < _LATEST:
        raise refuse(field, "No time of market data", given, "Allowed: from 2005 to 2099")
    return given


def as_float(given: Real) -> float:
    """Give a number as a float, infinity for one that no float can hold."""
    try:
        return float(given)
    except OverflowError:
        return math.inf


def now_us() -> int:
    """Give the time of this machine in microseconds."""
    return time.time_ns() // 1_000


def deadline(given: object, now: int) -> int:
    """Give the instant until which an answer is wanted, of seconds from now, a duration, or a time."""
    longest = LONGEST_DEADLINE_SECONDS
    remedy = f"Allowed: more than 0 and at most {longest:,.0f} seconds from now, or a time within them"
    if isinstance(given, str | datetime):
        with at("deadline"):
            seconds = (to_us(as_instant(given)) - now) / 1e6
    elif isinstance(given, timedelta):
        seconds = given.total_seconds()
    elif isinstance(given, Real) and not isinstance(given, bool):
        seconds = as_float(given)
    else:
        raise refuse("deadline", "Not a deadline", "None" if given is None else given, remedy)
    if not math.isfinite(seconds) or not 0 < seconds <= longest:
        raise refuse("deadline", "Too late or too soon", given, remedy)
    return now + max(1, round(seconds * 1e6))


def rows(latest: int | None, start: int | None, end: int | None, timeframe: str, now: int) -> int:
    """Give how many rows of a timeframe are wanted at most."""
    if start is None:
        return latest or 1
    stop = now if end is None else end
    return max(1, -(-(stop - start) // Timeframe(timeframe).microseconds))


def check_range(latest: int | None, start: int | None, end: int | None) -> None:
    """Refuse a range that makes no sense."""
    if start is None and latest is None:
        raise refuse("latest", "Neither latest nor a range", "None", f"Give latest (1 to {MOST_LATEST:,}), or start")
    if start is None and end is not None:
        raise refuse("end", "An end without a start", iso(from_us(end)), "Give start as well, or latest alone")
    if start is not None and latest is not None:
        raise refuse("latest", "Both latest and a range", latest, "Give one of them")
    if start is not None and end is not None and end <= start:
        told = f"{iso(from_us(start))} to {iso(from_us(end))}"
        raise refuse("end", "A range that ends before it begins", told, "Rows have start <= open_time < end")
    if latest is not None:
        count(latest, "latest", MOST_LATEST)


def check_deadline(given: int, now: int) -> None:
    """Refuse a deadline that is too far away, but for a minute by which clocks differ."""
    if not 0 < given <= now + DAY_US + 60_000_000:
        raise refuse("deadline", "Too far away", given, "Microseconds since the epoch, at most a day from now")
