"""What commands take from their user: months, symbols and timeframes, checked before any work is done."""

from __future__ import annotations

import re

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
