"""Symbols: the venue's own names, in capitals, such as `BTCUSDT`."""

from __future__ import annotations

import re

from mdplatform.errors import InvalidSymbol

_SHAPE = re.compile(r"[A-Z0-9][A-Z0-9_.\-]{0,31}")


def parse_symbol(text: str) -> str:
    """Give `text` as a symbol: trimmed, in capitals, safe as a file name and a key.

    >>> parse_symbol(" btcusdt ")
    'BTCUSDT'
    """
    symbol = str(text).strip().upper()
    if not isinstance(text, str) or not text.isascii() or not _SHAPE.fullmatch(symbol) or ".." in symbol:
        raise InvalidSymbol(
            "Not a symbol", value=text, remedy="Allowed: 1 to 32 of A-Z 0-9 _ - . starting with a letter or digit"
        )
    return symbol
