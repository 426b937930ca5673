"""A formula's text as tokens, each with its column, and the errors that point at one.

The text's length is looked at first, then that it is ASCII, so that whatever follows is bounded and no character only
looks like another. Each token is found by one regular expression at its place, in time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from mdplatform.errors import InvalidFormula, PlatformError

MAXIMUM_LENGTH = 10_000
LONGEST_NAME = 64
_SHOWN = 72

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|@\s*(?:(?P<place>[A-Za-z0-9_]+)|\"(?P<quoted_place>[^\"\n]*)\")"
    r"|(?P<quoted>\"[^\"\n]*\"|'[^'\n]*')"
    r"|(?P<mark>\*\*|<=|>=|==|!=|[-+*/<>(),=:])"
)
_SPACE = re.compile(r"[ \t\r\n]*")
_REMEDIES = {
    ".": "Pick an output by name, as in MACD_MACDHIST",
    "[": "Earlier rows are lag(x, k)",
    "@": 'A timeframe or a symbol follows it, as in RSI@1h, close@ETHUSDT or close@"BTC-USD"',
    "^": "A power is written x ** 2",
    "&": "Write `and`",
    "|": "Write `or`",
    "!": "Write `not`, or != for unequal",
    "?": "Write where(condition, a, b)",
}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is number, name, place, quoted, mark or end; `text` is as written; `column` counts from 1."""

    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else shortened(self.text)


def tokens(text: str) -> list[Token]:
    """Cut a formula into tokens; the last is of kind `end`. Raises `InvalidFormula`."""
    if not isinstance(text, str):
        raise InvalidFormula("A formula is a text", value=f"  {type(text).__name__}", column=1)
    if len(text) > MAXIMUM_LENGTH:
        cause = f"Formula is too long, with {len(text):,} characters, at column {MAXIMUM_LENGTH + 1}"
        raise InvalidFormula(cause, remedy=f"At most {MAXIMUM_LENGTH:,} characters", column=MAXIMUM_LENGTH + 1)
    if not text.isascii():
        place = next(place for place, character in enumerate(text) if not character.isascii())
        raise refusal(text, place + 1, f"{text[place]!r} is no ASCII character", "Type it anew: it may look like one")
    found: list[Token] = []
    position = _end_of_space(text, 0)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position)
        kind = str(match.lastgroup)
        token = Token("place" if kind == "quoted_place" else kind, match[kind], position + 1)
        position = match.end()
        _check(text, token, text[position : position + 1])
        found.append(token)
        position = _end_of_space(text, position)
    found.append(Token("end", "", len(text.rstrip()) + 1))
    return found


def refusal(text: str, column: int, cause: str, remedy: str = "") -> InvalidFormula:
    """Give the error that points at a column of the text."""
    return InvalidFormula(f"{cause}, at column {column}", value=_pointed(text, column), remedy=remedy, column=column)


def point(error: PlatformError, text: str, column: int) -> None:
    """Let an error point at a column of the text, as those of formulas do."""
    error.column, error.pointed = column, _pointed(text, column)


def shortened(text: str) -> str:
    """Give a text as it is shown in a sentence.

    >>> shortened("close"), len(shortened("x" * 1000))
    ("'close'", 43)
    """
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _pointed(text: str, column: int) -> str:
    first = max(0, column - 1 - _SHOWN // 2)
    part = text[first : first + _SHOWN]
    line = "".join(character if character.isprintable() else " " for character in part)
    before, after = ("…" if first else ""), ("…" if first + _SHOWN < len(text) else "")
    caret = " " * (len(before) + column - 1 - first) + "^"
    return f"  {before}{line}{after}\n  {caret}"


def _end_of_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _unreadable(text: str, position: int) -> InvalidFormula:
    character = text[position]
    if character in "'\"":
        return refusal(text, position + 1, "A quote that is not closed", "A formula has no texts but a parameter's")
    remedy = _REMEDIES.get(character, "`mdplatform formula --help` tells what is")
    return refusal(text, position + 1, f"{character!r} is not part of a formula", remedy)


def _check(text: str, token: Token, following: str) -> None:
    if token.kind == "number":
        if following.isalnum() or (following and following in "_."):
            raise refusal(text, token.column, "Not a number", "Write 2 * x for a product, and one decimal point")
        if not isfinite(float(token.text)):
            raise refusal(text, token.column, "A number that is too large", "At most 1.79e308")
        if float(token.text) == 0 and re.match(r"[0.]*[1-9]", token.text):
            raise refusal(text, token.column, "A number that is too small", "0, or at least 4.95e-324")
    if token.kind == "name" and len(token.text) > LONGEST_NAME:
        raise refusal(text, token.column, "A name that is too long", f"At most {LONGEST_NAME} characters")
