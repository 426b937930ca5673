"""What commands take from their user: months, days, symbols and timeframes, checked before any work is done."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

import typer

from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import month_range, months_between
from mdplatform.market.timeframe import Timeframe


def month(text: str | None) -> str | None:
    """Give a month as `YYYY-MM`; a day's date gives its month."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", text):
        raise typer.BadParameter(f"{text!r} is not a month; write YYYY-MM, such as 2025-01")
    return text[:7]


def day(text: str | None) -> str | None:
    """Give a day as `YYYY-MM-DD` where the text is one; None for a month, whose days are all meant."""
    if month(text) is None or text is None or len(text) == 7:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day; write YYYY-MM-DD, such as 2025-01-31") from None


def instant(text: str | None) -> datetime | None:
    """Give an instant from a time, UTC where it names no zone, or from a day, whose end is meant."""
    if text is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; write 2025-01-31 or 2025-01-31T12:30:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def columns(given: list[str] | None) -> dict[str, str]:
    """Give a mapping of our columns to a file's, from texts such as `score=sentiment`."""
    mapped: dict[str, str] = {}
    for text in given or []:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours.strip() or not theirs:
            raise typer.BadParameter(f"{text!r} is not OURS=THEIRS, such as score=sentiment_score")
        if ours.strip() in mapped:
            raise typer.BadParameter(f"--column {ours.strip()}=… is given twice")
        mapped[ours.strip()] = theirs
    return mapped


def names(text: str | None) -> list[str] | None:
    """Give the names of a list such as `CPIAUCSL,UNRATE`."""
    return None if text is None else list(dict.fromkeys(re.findall(r"[^,\s]+", text)))


def months(first: str, last: str) -> list[str]:
    """Give every month from `first` to `last`, both included."""
    if first > last:
        raise typer.BadParameter(f"--from {first} is after --to {last}")
    return months_between(month_range(first)[0], month_range(last)[1])


def symbols(text: str | None) -> list[str] | None:
    """Give the symbols of a list such as `BTCUSDT,ETHUSDT`."""
    if text is None:
        return None
    return list(dict.fromkeys(parse_symbol(each) for each in re.split(r"[,\s]+", text.strip()) if each))


def timeframe(text: str | None) -> Timeframe | None:
    """Give a timeframe."""
    return None if text is None else Timeframe.parse(text)
