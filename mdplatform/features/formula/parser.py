"""Parse a formula into nodes: operator precedence over tokens, read once from left to right.

    expression = part { sign part } | "not" expression | "-" part     signs by how tightly they bind, loosest first:
                                                                      or, and, not, comparisons, + -, * /, unary -, **
    part       = ( number | name | call | "(" expression ")" ) { "@" ( timeframe | symbol ) }
    call       = function "(" expression { "," expression } ")"       a function of the language
               | feature "(" [ item { "," item } ] ")"                one of the registry: columns, numbers, name=value

Nothing but the registry, the named inputs and the registered composites gives a name a meaning (`names.py`). How deep a
text nests is counted, and bounded, before it can matter to the interpreter's stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from mdplatform.errors import InvalidFormula, InvalidSymbol, PlatformError
from mdplatform.features.formula.names import Lookup, Names
from mdplatform.features.formula.nodes import (
    DEEPEST,
    FUNCTIONS,
    HIGHEST_VERSION,
    WINDOWS,
    Node,
    Nodes,
    RefusedError,
)
from mdplatform.features.formula.operations import ADDITION, AND, COMPARISON, MINUS, NOT, OR, PRODUCT
from mdplatform.features.formula.tokens import Token, refusal, shortened, tokens
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import Timeframe

_SIGNS = {
    "or": ("or", OR),
    "and": ("and", AND),
    "<": ("lt", COMPARISON),
    "<=": ("le", COMPARISON),
    ">": ("gt", COMPARISON),
    ">=": ("ge", COMPARISON),
    "==": ("eq", COMPARISON),
    "!=": ("ne", COMPARISON),
    "+": ("add", ADDITION),
    "-": ("sub", ADDITION),
    "*": ("mul", PRODUCT),
    "/": ("div", PRODUCT),
}
_TIMEFRAMES = frozenset(each.value for each in Timeframe)
_DEEPEST = 2 * DEEPEST  # signs before a part count too

Made = TypeVar("Made")


class Parser:
    """One text being read. `nodes` may be shared, so that a formula within a formula shares its parts."""

    def __init__(
        self, text: str, inputs: Mapping[str, FeatureSpec], lookup: Lookup, nodes: Nodes | None = None
    ) -> None:
        self.nodes = nodes if nodes is not None else Nodes()
        self.names = Names(inputs, lookup, self.nodes, self._inline)
        self._text = text
        self._tokens = tokens(text)
        self._place = 0
        self._depth = 0

    def parse(self) -> Node:
        """Give the whole text's node. Raises `InvalidFormula`."""
        node = self._expression(OR)
        if self._next.kind != "end":
            self._refuse(self._next, f"{self._next} does not belong here", "Write a sign between two parts")
        if node.is_number:
            self._refuse(self._tokens[0], "A formula that reads nothing", "Name a column or a feature in it")
        return node

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        token = self._tokens[self._place]
        if token.kind != "end":
            self._place += 1
        return token

    def _is(self, mark: str) -> bool:
        return self._next.kind == "mark" and self._next.text == mark

    def _expect(self, mark: str, opened: Token) -> None:
        if not self._is(mark):
            self._refuse(
                self._next, f"{self._next} where {mark!r} belongs", f"{opened} opens at column {opened.column}"
            )
        self._take()

    def _refuse(self, token: Token, cause: str, remedy: str = "") -> NoReturn:
        raise refusal(self._text, token.column, cause, remedy)

    def _make(self, token: Token, make: Callable[..., Made], *given: object) -> Made:
        """Make a node; what is refused is refused at the token's column."""
        try:
            return make(*given)
        except RefusedError as refused:
            raise refusal(self._text, token.column, refused.cause, refused.remedy) from None
        except InvalidFormula:
            raise
        except PlatformError as error:
            told = error.cause if error.value is None else f"{error.cause}: {shortened(str(error.value))}"
            raise refusal(self._text, token.column, told, error.remedy) from error

    def _enter(self, token: Token) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(token, "It nests too deep", f"At most {_DEEPEST} signs, parentheses and calls in one another")

    def _expression(self, least: int) -> Node:
        """Read as far as signs bind at least so tightly."""
        self._enter(self._next)
        left = self._prefixed(least)
        while True:
            token = self._next
            kind, precedence = _SIGNS.get(token.text.lower(), ("", 0)) if token.kind in ("mark", "name") else ("", 0)
            if not kind or precedence < least:
                break
            self._take()
            left = self._make(token, self.nodes.operation, kind, left, self._expression(precedence + 1))
            if precedence == COMPARISON and _SIGNS.get(self._next.text, ("", 0))[1] == COMPARISON:
                self._refuse(self._next, "Comparisons in a chain", "Write (a < b) and (b < c)")
        self._depth -= 1
        return left

    def _prefixed(self, least: int) -> Node:
        token = self._next
        if token.kind == "name" and token.text.lower() == "not":
            if least > NOT:
                self._refuse(token, "'not' after a sign that binds more tightly", "Write it in parentheses")
            self._take()
            return self._make(token, self.nodes.operation, "not", self._expression(NOT))
        if self._is("-") or self._is("+"):
            self._take()
            self._enter(token)
            operand = self._prefixed(MINUS)
            self._depth -= 1
            return operand if token.text == "+" else self._make(token, self.nodes.operation, "neg", operand)
        return self._power()

    def _power(self) -> Node:
        base = self._part()
        token = self._next
        if not self._is("**"):
            return base
        self._take()
        return self._make(token, self.nodes.power, base, self._expression(MINUS))

    def _part(self) -> Node:
        token = self._take()
        if token.kind == "number":
            node = self._make(token, self.nodes.number, float(token.text))
        elif token.kind == "name" and token.text.lower() not in ("and", "or", "not"):
            node = self._call(token) if self._is("(") else self._named(token)
        elif token.kind == "mark" and token.text == "(":
            node = self._expression(OR)
            self._expect(")", token)
        elif token.kind == "quoted":
            self._refuse(token, "A text is no value", "Texts are values of a feature's parameters only")
        else:
            self._refuse(
                token, f"{token} where a value belongs", "A number, a column, a feature or a call, as EMA(close, 20)"
            )
        return self._placed(node)

    def _placed(self, node: Node) -> Node:
        symbol: str | None = None
        timeframe: Timeframe | None = None
        first = self._next
        while self._next.kind == "place":
            token = self._take()
            is_timeframe = token.text in _TIMEFRAMES
            if (timeframe if is_timeframe else symbol) is not None:
                self._refuse(token, "Two " + ("timeframes" if is_timeframe else "symbols"), "Name one of each at most")
            if is_timeframe:
                timeframe = Timeframe(token.text)
            else:
                symbol = self._symbol(token)
        return node if first is self._next else self._make(first, self.nodes.placed, node, symbol, timeframe)

    def _symbol(self, token: Token) -> str:
        try:
            symbol = parse_symbol(token.text)
        except InvalidSymbol as error:
            self._refuse(token, f"{token} is neither a timeframe nor a symbol", error.remedy)
        if token.text.lower() in _TIMEFRAMES or (len(symbol) < 4 and symbol[:-1].isdigit()):
            self._refuse(token, f"{token} is no timeframe", f"Allowed: {' '.join(Timeframe)}")
        return symbol

    def _named(self, token: Token) -> Node:
        version = None
        if self._is(":"):
            self._take()
            given = self._take()
            if given.kind != "number" or not given.text.isdigit():
                self._refuse(given, f"{given} is no version", "A whole number, as in MY_COMPOSITE:2")
            if len(given.text) > 9 or int(given.text) > HIGHEST_VERSION:
                self._refuse(given, f"{given} is no version", f"A whole number from 1 to {HIGHEST_VERSION:,}")
            version = int(given.text)
        elif token.text in FUNCTIONS:
            self._refuse(
                token, f"{token.text} is a function", f"Call it: {token.text}(…){self.names.in_capitals(token.text)}"
            )
        return self._make(token, self.names.bare, token.text, version)

    def _call(self, token: Token) -> Node:
        opened = self._take()
        if token.text in FUNCTIONS or (token.text.lower() in FUNCTIONS and not self.names.is_feature(token.text)):
            return self._function(token, opened)
        self._make(token, self.names.function_of, token.text)
        columns: list[str] = []
        numbers: list[int | float] = []
        named: dict[str, object] = {}
        while not self._is(")"):
            if columns or numbers or named:
                self._expect(",", opened)
            self._item(token, columns, numbers, named)
        self._take()
        return self._make(token, self.names.call, token.text, columns, numbers, named)

    def _function(self, token: Token, opened: Token) -> Node:
        name = token.text.lower()
        arguments = [self._argument(token)] if not self._is(")") else []
        while self._is(","):
            self._take()
            arguments.append(self._argument(token))
        self._expect(")", opened)
        least, most = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            told = f"{least}" if least == most else f"at least {least}"
            remedy = _USAGE.get(name, f"{name}(x)") + self.names.in_capitals(name)
            self._refuse(token, f"{name} takes {told} arguments, not {len(arguments)}", remedy)
        if name in WINDOWS:
            return self._make(token, self.nodes.window, name, *arguments)
        return self._make(token, self.nodes.operation, name, *arguments)

    def _argument(self, call: Token) -> Node:
        token = self._next
        after = self._tokens[min(self._place + 1, len(self._tokens) - 1)]
        if token.kind == "name" and after.kind == "mark" and after.text == "=":
            name = call.text.lower()
            remedy = f"{_USAGE.get(name, f'{name}(x)')}{self.names.in_capitals(name)}"
            self._refuse(token, f"{name} has no parameters with names", remedy)
        return self._expression(OR)

    def _item(self, call: Token, columns: list[str], numbers: list[int | float], named: dict[str, object]) -> None:
        token = self._take()
        if token.kind == "end":
            self._refuse(token, "the end where ')' belongs", f"{call} opens at column {call.column}")
        after = self._next
        is_end = after.kind == "mark" and after.text in (",", ")")
        if token.kind == "name" and is_end and not numbers and not named:
            columns.append(token.text)
            return
        if token.kind == "name" and self._is("="):
            self._take()
            if token.text.lower() in named:
                self._refuse(token, f"Parameter {token.text} is given twice", "Give it once")
            named[token.text.lower()] = self._value()
            return
        if not named and (token.kind == "number" or token.text in ("-", "+")):
            self._place -= 1
            numbers.append(self._numeral())
            return
        self._refuse(
            token,
            f"{call.text} cannot take this",
            "A feature takes columns of bars, then numbers, then name=value; mean, std and the like take any part",
        )

    def _value(self) -> object:
        token = self._next
        if token.kind == "name":
            return self._take().text
        if token.kind == "quoted":
            return self._take().text[1:-1]
        return self._numeral()

    def _numeral(self) -> int | float:
        negative = False
        if self._is("-") or self._is("+"):
            negative = self._take().text == "-"
        token = self._take()
        if token.kind != "number":
            self._refuse(token, f"{token} where a number belongs")
        number = int(token.text) if token.text.isdigit() and len(token.text) < 16 else float(token.text)
        return -number if negative else number

    def _inline(self, spec: FeatureSpec) -> Node:
        """Give the node of a formula that is used by name; it is canonical, and names nothing but the registry."""
        return Parser(str(spec), {}, no_composites, self.nodes).parse()


def no_composites(name: str, version: int | None) -> None:
    """Know no composites, as in a text that is canonical."""


_USAGE = {
    "where": "where(condition, a, b)",
    "clip": "clip(x, low, high)",
    "min": "min(a, b)",
    "max": "max(a, b)",
    "lag": "lag(x, k), k rows ago",
    "diff": "diff(x, k)",
    **{name: f"{name}(x, n)" for name in ("sum", "mean", "std", "zscore", "rank")},
}
