"""Read the text of one feature, such as `RSI(timeperiod=14)` or `MACD(fast=8).macdhist`.

The grammar, read by hand and never evaluated:

    feature  = name [ "(" [ item { "," item } ] ")" ] [ "." output ]
    item     = input column | number | parameter "=" ( number | word | text in quotes )

Inputs come first, then numbers in the registry's order of parameters, then named parameters.
"""

from __future__ import annotations

import re
from typing import Any

from mdplatform.errors import InvalidFeature
from mdplatform.features.build import build
from mdplatform.features.spec import FeatureSpec

EXAMPLE = "Write it as in `RSI(timeperiod=14)`, `EMA(high, 20)` or `MACD(fast=12, slow=26, signal=9).macdhist`"
_VALUES = (["number"], ["word"], ["quoted"])
_LONGEST_INTEGER = 400
"""Characters; no double is larger, and Python reads no integer of more than a few thousand."""
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<mark>[(),=.])"
    r"|\"(?P<quoted>[^\"]*)\"|'(?P<quoted_so>[^']*)')"
)


def read_feature_text(text: str) -> FeatureSpec | None:
    """Give the spec of a feature's text, None where it is not of that form. Raises what `build` raises."""
    tokens = _feature_tokens(text)
    name = tokens.pop(0) if tokens else ("", "")
    if name[0] != "word":
        return None
    inputs: list[str] = []
    numbers: list[int | float] = []
    named: dict[str, Any] = {}
    if tokens and tokens[0] == ("mark", "("):
        close = tokens.index(("mark", ")")) if ("mark", ")") in tokens else -1
        if close < 0:
            return None
        items = _items(tokens[1:close])
        if items is None:
            return None
        for item in items:
            kinds = [kind for kind, _ in item]
            if kinds == ["word"] and not numbers and not named:
                inputs.append(item[0][1])
            elif kinds == ["number"] and not named:
                numbers.append(_number(item[0][1]))
            elif kinds[:2] == ["word", "mark"] and kinds[2:] in _VALUES and item[1][1] == "=":
                if item[0][1].lower() in named:
                    raise InvalidFeature(f"Parameter {item[0][1]} is given twice", value=text, remedy="Give it once")
                named[item[0][1].lower()] = _number(item[2][1]) if item[2][0] == "number" else item[2][1]
            else:
                return None
        tokens = tokens[close + 1 :]
    output = None
    if len(tokens) == 2 and tokens[0] == ("mark", ".") and tokens[1][0] == "word":
        output = tokens[1][1]
    elif tokens:
        return None
    return build(name[1], tuple(numbers), named, tuple(inputs), output)


def _feature_tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None or not text.isascii():
            return []
        kind = str(found.lastgroup)
        tokens.append((kind.removesuffix("_so"), found[kind]))
        position = found.end()
    return tokens


def _items(tokens: list[tuple[str, str]]) -> list[list[tuple[str, str]]] | None:
    if not tokens:
        return []
    items: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token == ("mark", ","):
            items.append([])
        else:
            items[-1].append(token)
    return items if all(items) else None


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() and len(text) <= _LONGEST_INTEGER else float(text)
