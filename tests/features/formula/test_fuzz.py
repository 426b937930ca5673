"""Texts that mean harm: each is refused with its column, or evaluated, in bounded time and memory; none is executed."""

from __future__ import annotations

import builtins
import random
import string
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidFormula, PlatformError
from mdplatform.features import TableData, parse_feature
from mdplatform.features.formula.program import compiled
from mdplatform.features.formula.tokens import MAXIMUM_LENGTH
from mdplatform.features.parse import parse_formula

BOMBS = [
    "9**9**9",
    "9**9**9*close",
    "((9**9)**9)**9*close",
    "close**9**9**9",
    "9" * 9_999,
    "9" * 9_000 + "**" + "9" * 900,
    "1e308*1e308*close",
    "lag(close, 9**64)",
    "mean(close, 1e18)",
    "max(" + ",".join(["close"] * 1_500) + ")",
    "(" * 5_000,
    "(" * 4_000 + "close" + ")" * 4_000,
    "[" * 5_000,
    "-" * 9_999,
    "not " * 2_000 + "close",
    "close" + "@1h" * 3_000,
    "close" + "**2" * 3_000,
    "close" + "+close" * 1_600,
    "close" + "-close*1.5" * 900,
    "abs(" * 2_000 + "close" + ")" * 2_000,
    "where(" * 1_500,
    "mean(" * 30 + "close" + ",100000)" * 30,
    "rank(" * 9 + "close" + ",100000)" * 9,
    '"' * 9_999,
    "@" * 9_999,
    "close\x00" * 1_000,
    "\n" * 9_999 + "close",
    " " * 10_000_000,
    "x" * 10_000_000,
    "(" * 10_000_000,
    "9**" * 3_333_333,
    "ＲＳＩ" * 3_000_000,
    "close+" * 1_700_000,
    "__import__('os').system('touch /tmp/owned')",
    "eval('1')",
    "exec('1')",
    "compile('1','','eval')",
    "open('/etc/passwd').read()",
    "().__class__.__bases__[0].__subclasses__()",
    "close.__class__.__mro__[1]",
    "close.__init__.__globals__",
    "[x for x in ().__class__.__bases__]",
    "(lambda: close)()",
    "f'{close}'",
    "close if __import__('os') else 0",
    "close or __builtins__",
    "getattr(close, 'real')",
    "globals()['x']",
    "%s" * 100,
    "{0.__class__}",
    "${jndi:ldap://x}",
    "'; drop table bars; --",
    "close; import os",
    "close\\\n+1",
    "cl\u200bose",
    "𝐜𝐥𝐨𝐬𝐞",
    "close\u2212open",
    "close\ud800",
    "\x85close",
]
_WORDS = """
close open volume RSI EMA MACD MACD_HISTOGRAM BBANDS_UPPERBAND EMA_SPREAD VWAP OBV lag mean std rank sum where min max
abs log sqrt exp clip zscore diff sign and or not if for lambda import __class__ eval + - * / ** ( ) ( ) , < <= > >= ==
!= = . [ ] @ @1h @ETHUSDT : ; ' " { } # \\ % & | ^ ~ ! ? 1 2 3.5 0 1e9 1e400 0.1 20 timeperiod= period=
"""
WORDS = _WORDS.split()


def outcome(text: str) -> PlatformError | None:
    """Read a text; give the error, whose column must be there, or None where it is a formula that evaluates."""
    try:
        node, _ = parse_formula(text)
    except InvalidFormula as refused:
        error = refused
    else:
        error = None
    if error is not None:
        assert 1 <= error.column <= max(len(text), 1) + 1
        assert len(str(error)) < 500
        return error
    made = compiled(node.text)
    if made.rows < 1_000:
        values, statuses = made.columns({name: np.linspace(-1, 3, 50) for name in made.inputs})
        assert np.array_equal(np.isnan(values), statuses > 1)
    return None


@pytest.fixture
def nothing_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `eval`, `exec` and `compile` fail the test where one of our modules calls them, and imports of others too."""

    def forbidden(name: str) -> Callable[..., Any]:
        real = getattr(builtins, name)

        def guarded(*given: Any, **named: Any) -> Any:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("mdplatform"):
                raise AssertionError(f"{caller} calls {name}")
            return real(*given, **named)

        return guarded

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, forbidden(name))


@pytest.fixture
def user_text_is_never_code(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep every source text that `eval`, `exec` or `compile` is given by anybody."""
    seen: list[str] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, *given: Any, **named: Any) -> Any:
            seen.append(str(source))
            return real(source, *given, **named)

        return call

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, watched(getattr(builtins, name)))
    return seen


@pytest.mark.usefixtures("nothing_is_executed")
@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_each_bomb_is_refused_or_evaluated_in_bounded_time_and_memory(text: str) -> None:
    outcome("close*2")
    tracemalloc.start()
    began = time.perf_counter()
    try:
        outcome(text)
        taken, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 5
    assert most < 64_000_000


def test_a_text_of_ten_megabytes_is_refused_at_once() -> None:
    for text in ("(" * 10_000_000, "close + " * 1_250_000, "é" * 5_000_000):
        began = time.perf_counter()
        with pytest.raises(InvalidFormula, match="too long"):
            parse_feature(text)
        assert time.perf_counter() - began < 0.05


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda given: given.decode("latin-1"))))
@settings(max_examples=150, deadline=None)
def test_any_text_is_refused_with_a_column_or_evaluated(text: str) -> None:
    outcome(text)


@given(st.lists(st.sampled_from(WORDS), max_size=25), st.sampled_from(["", " "]))
@settings(max_examples=250, deadline=None)
def test_words_of_the_language_in_any_order_are_refused_with_a_column_or_evaluated(
    words: list[str], space: str
) -> None:
    outcome(space.join(words))


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from(["", " "]))
@settings(max_examples=100, deadline=None)
def test_as_a_feature_too_any_text_gives_a_feature_or_one_error_of_the_platform(words: list[str], space: str) -> None:
    text = space.join(words)
    try:
        spec = parse_feature(text)
    except PlatformError:
        return
    assert parse_feature(spec) == spec


def test_mutations_of_good_formulas_do_no_harm() -> None:
    dice = random.Random(7)
    good = (
        "where(zscore(log(close/lag(close,1)),20)>2 and RSI@1h<30, (MACD_HISTOGRAM/PRICE_STD(20))*0.4, -abs(open)**2)"
    )
    assert outcome(good) is None
    read = 0
    for _ in range(400):
        letters = list(good)
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(len(letters))
            letters[place : place + dice.randint(0, 2)] = dice.choices(string.printable + "é−", k=dice.randint(0, 2))
        read += outcome("".join(letters)) is None
    assert 0 < read < 400


def test_the_interpreter_is_given_no_text_of_a_user(user_text_is_never_code: list[str]) -> None:
    marks = ["close*31337.5", "RSI-31337.5", "__import__('os')+31337.5", "eval(31337.5)", "31337.5**9**9"]
    for text in marks:
        outcome(text)
        try:
            parse_feature(text)
            parse_feature({"formula": text, "input_indicators": [{"name": "RSI", "parameters": {"period": 14}}]})
        except PlatformError:
            pass
    assert not [source for source in user_text_is_never_code if "31337" in source]


def test_a_parser_deep_in_the_stack_still_answers() -> None:
    deepest = "abs(" * 31 + "close" + ")" * 31

    def down(levels: int) -> object:
        return down(levels - 1) if levels else outcome(deepest)

    assert down(300) is None
    assert len(deepest) < MAXIMUM_LENGTH
    assert TableData().symbols() == []
