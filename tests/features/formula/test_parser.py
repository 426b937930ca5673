"""Reading formulas: what names mean, the canonical form, and what is refused, with its place."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings

from mdplatform.errors import InvalidFeature, InvalidFormula, PlatformError, UnknownFeature
from mdplatform.features import parse_feature, registry
from mdplatform.features.composites import register_composite
from mdplatform.features.formula.names import is_reserved, output_of
from mdplatform.features.formula.nodes import FUNCTIONS
from mdplatform.features.parse import parse_formula
from mdplatform.features.spec import FORMULA

from . import oracle

USERS = "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4"
INPUTS = [
    {"name": "RSI", "parameters": {"period": 14}},
    {"name": "MACD", "parameters": {"fast": 12, "slow": 26}},
    {"name": "PRICE_STD", "parameters": {"period": 20}},
]


def canonical(text: str, inputs: object = ()) -> str:
    return parse_formula(text, inputs)[0].text  # type: ignore[arg-type]


def refused(text: object, inputs: object = ()) -> InvalidFormula:
    with pytest.raises(InvalidFormula) as caught:
        parse_formula(text, inputs)  # type: ignore[arg-type]
    return caught.value


def test_the_users_formula_takes_the_parameters_of_its_inputs() -> None:
    spec = parse_feature({"formula": USERS, "input_indicators": INPUTS})
    assert str(spec) == (
        "(RSI(timeperiod=14)-50)*0.6+MACD_MACDHIST(fastperiod=12,slowperiod=26,signalperiod=9)"
        "/STDDEV(timeperiod=20,nbdev=1)*0.4"
    )
    assert spec.name == FORMULA
    assert parse_feature(str(spec)) == spec
    assert parse_feature(spec) == spec
    assert (spec.lookback, spec.settle) == (33, 484)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("EMA(close, 20) / EMA(close, 50) - 1", "EMA(timeperiod=20)/EMA(timeperiod=50)-1"),
        ("rsi@1h - RSI( 14 )", "RSI(timeperiod=14)@1h-RSI(timeperiod=14)"),
        ("Close@ethusdt / CLOSE", "close@ETHUSDT/close"),
        ("close@ETHUSDT@1h+close@1h@ETHUSDT", "close@ETHUSDT@1h+close@ETHUSDT@1h"),
        ('close@"BTC-USD"*2', 'close@"BTC-USD"*2'),
        ("close@BTC_USD*2", "close@BTC_USD*2"),
        ("mean(close, 5)@4h", "mean(close,5)@4h"),
        ("(close - open)@1d", "(close-open)@1d"),
        ("(close@ETHUSDT - close)@1d*2", "(close@ETHUSDT-close)@1d*2"),
        ("BBANDS_UPPERBAND(close, 20)-close", "BBANDS_UPPERBAND(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0)-close"),
        ("MACD_MACDSIGNAL*1", "MACD_MACDSIGNAL(fastperiod=12,slowperiod=26,signalperiod=9)*1"),
        ("macd_histogram(fast=8)*1", "MACD_MACDHIST(fastperiod=8,slowperiod=26,signalperiod=9)*1"),
        ("EMA(high, timeperiod=5)*1", "EMA(high,timeperiod=5)*1"),
        ("TRANGE/close", "TRANGE()/close"),
        ("OBV(anchor=week)*1", "OBV(anchor=week)*1"),
        ("MACRO(series=CPIAUCSL)*1", None),
        ("open + close", "close+open"),
        ("close + open", "close+open"),
        ("close > open", "open<close"),
        ("close >= open", "open<=close"),
        ("2 * close", "close*2"),
        ("close * (open + 2 * 3)", "close*(open+6)"),
        ("-close ** 2", "-close**2"),
        ("(-close) ** 2", "(-close)**2"),
        ("- -close", "close"),
        ("+close", "close"),
        ("-2 * close", "close*-2"),
        ("close - -2", "close--2"),
        ("2 ** -1 * close", "close*0.5"),
        ("close ** 2 ** 3", "close**8"),
        ("(close ** 2) ** 3", "(close**2)**3"),
        ("close - (open - low)", "close-(open-low)"),
        ("close - open - low", "close-open-low"),
        ("close / (open / low)", "close/(open/low)"),
        ("close / open * low", "close/open*low"),
        ("close + open + low + volume", "close+open+low+volume"),
        ("volume + (low + (open + close))", "close+open+low+volume"),
        ("max(3, close, max(open, 1))", "max(close,open,3)"),
        ("min(close, close)", "close"),
        ("not close > 3 and open < 2 or low == 1", "not 3<close and open<2 or low==1"),
        ("not (close > 3 and open < 2)", "not (3<close and open<2)"),
        ("mean(close, 1)", "close"),
        ("1e-7*close", "close*1e-07"),
        ("1e300*close", "close*1e+300"),
        ("close * 2.50", "close*2.5"),
        (".5*close", "close*0.5"),
        ("ABS(close)*1", "abs(close)*1"),
        ("MAX(close, 30) - max(close, 30)", "MAX(timeperiod=30)-max(close,30)"),
        ("\n close\n  + 1\t", "close+1"),
        ("EMA_SPREAD * 2", "(EMA(timeperiod=20)/EMA(timeperiod=50)-1)*2"),
        ("ema_spread:1 * 2", "(EMA(timeperiod=20)/EMA(timeperiod=50)-1)*2"),
        ("VOLUME_SURPRISE@1h - 1", "zscore(volume,50)@1h-1"),
    ],
)
def test_each_text_has_one_canonical_form_that_reads_back(text: str, meaning: str | None) -> None:
    made = canonical(text)
    assert meaning is None or made == meaning
    assert canonical(made) == made
    spec = parse_feature({"formula": text})
    assert parse_feature(f"{spec}{spec.place}") == spec
    assert parse_feature(spec) == spec
    assert parse_feature({"formula": f"{spec}{spec.place}"}) == spec


@given(oracle.exact_trees())
@settings(max_examples=100, deadline=None)
def test_any_formula_reads_back_from_its_canonical_form_and_white_space_is_nothing(tree: oracle.Tree) -> None:
    try:
        made = canonical(oracle.written(tree))
    except InvalidFormula:
        assume(False)
    assert canonical(made) == made
    assert canonical(oracle.written(tree, "\n \t")) == made
    spec = parse_feature({"formula": made})
    assert parse_feature(str(spec)) == spec


@given(oracle.exact_trees())
@settings(max_examples=60, deadline=None)
def test_the_order_of_what_commutes_makes_no_other_formula(tree: oracle.Tree) -> None:
    def turned(each: oracle.Tree) -> oracle.Tree:
        kind, *parts = each
        parts = [turned(part) if isinstance(part, tuple) else part for part in parts]
        mirrored = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(kind, kind)
        turns = mirrored != kind or kind in ("add", "mul", "eq", "ne", "and", "or", "min", "max")
        return (mirrored, *(reversed(parts) if turns else parts))

    try:
        made = canonical(oracle.written(tree))
    except InvalidFormula:
        assume(False)
    assert canonical(oracle.written(turned(tree))) == made


def test_precedence_is_that_of_arithmetic() -> None:
    for text in (
        "1+2*3",
        "2*3**2",
        "-2**2",
        "2**3**0.5",
        "8/4/2",
        "7-3-2",
        "2**-1",
        "-3*-2",
        "1-(2-3)*4",
        "5-2*3**2/9",
    ):
        made = canonical(f"close+({text})")
        value = eval(text)  # the tests' own text
        assert made == canonical(f"close+({value!r})"), text


@pytest.mark.parametrize(
    "text",
    ["RSI", "rsi(14)", "MACD", "MACD.macdhist", "ema(high,20)", "SQRT(close)", "MAX(close,30)", "Sum(close, 3)", "EXP"],
)
def test_a_text_of_one_feature_stays_that_feature(text: str) -> None:
    assert parse_feature(text).definition.kind == "indicators"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_formulas_means_the_same_alone_and_within_a_formula(name: str) -> None:
    arguments = {"where": "close,open,low", "clip": "close,1,2"}.get(name, "close,30")
    arguments = "close" if FUNCTIONS[name] == (1, 1) else arguments
    for written in (name, name.upper(), name.title()):
        text = f"{written}({arguments})"
        alone = parse_feature(text)
        assert alone == parse_feature({"formula": text}) == parse_feature(f"({text})"), text
        assert parse_feature(f"{text} + 0 * low") == parse_feature(f"({alone}) + 0 * low")
        is_talib = written != name and name.upper() in registry.function_names()
        assert (alone.name == FORMULA) is not is_talib, text
        assert parse_feature(str(alone)) == alone
        assert parse_feature(f"{text}@4h") == alone.at("4h")


@pytest.mark.parametrize("text", ["max(close, 5)", "MAX(close, 5)", "sum(volume,3)", "LOG(close)", "sqrt(close)"])
def test_brackets_change_nothing(text: str) -> None:
    assert parse_feature(f"({text})") == parse_feature(text)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("max", 1, "in capitals, MAX is TA-Lib's"),
        ("sum(close)", 1, "SUM is TA-Lib's"),
        ("sum(period=3)", 5, "no parameters with names"),
        ("LOG", 1, "Unknown name"),
        ("max(close, 5).max", 14, "'.' is not part"),
    ],
)
def test_what_is_no_call_of_a_function_is_refused_alone_as_in_a_formula(text: str, column: int, says: str) -> None:
    for told in (text, {"formula": text}):
        with pytest.raises(InvalidFormula) as caught:
            parse_feature(told)
        assert says in str(caught.value)
        assert caught.value.column == column


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("foo", 1),
        ("  foo(14)", 3),
        ("True", 1),
        ("EMA(foo, 20)", 1),
        ("RSI(14, 15)", 1),
        ("EMA(close, 0)", 1),
        ("MACD.signal", 1),
        ("RSI(perod=3)", 1),
        ("RSI(14,)", 8),
        ("RSI(period=3,period=4)", 1),
    ],
)
def test_whatever_is_wrong_in_a_features_text_is_pointed_at(text: str, column: int) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_feature(text)
    assert caught.value.column == column
    line, caret = str(caught.value).splitlines()[-2:]
    assert line == f"  {text}"
    assert caret == " " * (column + 1) + "^"
    assert f"at column {column}" in str(caught.value).splitlines()[0]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.column, type(again)) == (str(caught.value), column, type(caught.value))


@pytest.mark.parametrize(
    "read",
    [parse_feature, lambda deep: parse_formula("x*2", [deep]), lambda deep: register_composite("DEEP", "x*2", [deep])],
)
def test_features_in_one_another_are_refused_beyond_a_depth(read: Callable[[Any], object]) -> None:
    deep: dict[str, object] = {"formula": "close*2"}
    for _ in range(1_500):
        deep = {"formula": "x*2", "input_indicators": [{**deep, "as": "x"}]}
    with pytest.raises(InvalidFeature, match="nest too deep") as caught:
        read(deep)
    assert len(str(caught.value)) < 300


def test_a_formula_of_one_feature_is_that_feature() -> None:
    assert parse_feature({"formula": "RSI"}) == parse_feature("RSI")
    assert parse_feature({"formula": "MACD_HISTOGRAM"}) == parse_feature("MACD.macdhist")
    assert parse_feature("(RSI@1h)") == parse_feature({"name": "RSI", "timeframe": "1h"})
    assert parse_feature("BBANDS_UPPERBAND(close,20)") == parse_feature("BBANDS(20).upperband")
    assert parse_feature({"name": "BBANDS_UPPERBAND", "parameters": {"period": 9}}) == parse_feature(
        "BBANDS(9).upperband"
    )


def test_every_output_of_every_function_has_a_name_of_its_own() -> None:
    for name in registry.function_names():
        one = registry.definition(name)
        for output in one.outputs if len(one.outputs) > 1 else ():
            assert output_of(f"{name}_{output.upper()}") == (name, output)
            assert f"{name}_{output.upper()}" not in registry.function_names()


def test_columns_and_composites_can_be_named_like_features() -> None:
    assert str(parse_feature("close")) == "close"
    assert parse_feature({"name": "close", "symbol": "ethusdt"}) == parse_feature("close@ETHUSDT")
    assert parse_feature({"name": "ema_spread"}) == parse_feature("EMA_SPREAD:1") == parse_feature("EMA_SPREAD")
    assert parse_feature({"name": FORMULA, "parameters": {"text": "close-open"}}) == parse_feature("close - open")


def test_named_inputs_go_before_everything_else() -> None:
    inputs = [
        {"name": "EMA", "parameters": {"period": 3}, "as": "close"},
        {"name": "MACD", "parameters": {"fast": 5}, "as": "m"},
        {"name": "RSI", "timeframe": "1h"},
        {"formula": "high - low", "as": "range"},
        {"formula": "high / low", "as": "elsewhere", "symbol": "ETHUSDT"},
        "PRICE_STD(period=7)",
    ]
    assert canonical("CLOSE*1", inputs) == "EMA(timeperiod=3)*1"
    assert canonical("m_macd*1", inputs) == "MACD_MACD(fastperiod=5,slowperiod=26,signalperiod=9)*1"
    assert canonical("MACD_HISTOGRAM*1", inputs) == "MACD_MACDHIST(fastperiod=5,slowperiod=26,signalperiod=9)*1"
    assert canonical("MACD_MACDSIGNAL*1", inputs) == "MACD_MACDSIGNAL(fastperiod=5,slowperiod=26,signalperiod=9)*1"
    assert canonical("rsi*1", inputs) == "RSI(timeperiod=14)@1h*1"
    assert canonical("RSI(7)*1", inputs) == "RSI(timeperiod=7)*1"
    assert canonical("range/2", inputs) == "(high-low)/2"
    assert canonical("elsewhere/2", inputs) == "(high/low)@ETHUSDT/2"
    assert canonical("price_std", inputs) == "STDDEV(timeperiod=7,nbdev=1)"


def test_two_inputs_of_one_function_are_told_apart_by_their_names() -> None:
    inputs = [{"name": "MACD", "parameters": {"fast": fast}, "as": name} for fast, name in ((3, "quick"), (9, "calm"))]
    assert canonical("QUICK_MACDHIST - CALM_MACDHIST", inputs).count("MACD_MACDHIST") == 2
    error = refused("MACD_HISTOGRAM", inputs)
    assert "QUICK or CALM" in str(error)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([{"name": "RSI"}, {"name": "rsi", "parameters": {"period": 3}}], "one name"),
        ([{"formula": "close"}], "needs a name"),
        ([{"name": "RSI", "as": "max"}], "name of a function"),
        ([{"name": "RSI", "as": "a b"}], "needs a name"),
        ([{"name": "RSI", "as": 3}], "needs a name"),
        ([{"name": "RSY"}], "Unknown feature"),
        ([3], "needs a name"),
        ("RSI", "not a list"),
        ({"name": "RSI"}, "not a list"),
    ],
)
def test_bad_inputs_are_refused(inputs: object, says: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_feature({"formula": "close*2", "input_indicators": inputs})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [{"formulas": "close"}, {"formula": 3}, {"formula": "close", "name": "X"}, {"formula": "close", "parameters": {}}],
)
def test_other_keys_are_refused(key: dict[str, object]) -> None:
    with pytest.raises(InvalidFeature, match=r"key|needs"):
        parse_feature(key)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "the end where a value belongs"),
        ("   ", 1, "the end"),
        ("()", 2, "')' where a value belongs"),
        ("close +", 8, "the end where a value belongs"),
        ("(close", 7, "opens at column 1"),
        ("close)", 6, "does not belong here"),
        ("close open", 7, "does not belong here"),
        ("close +* open", 8, "'*' where a value belongs"),
        ("RSI - RSY", 7, "Nearest known: RSI"),
        ("clos * 2", 1, "Nearest known: close"),
        ("foo(close)", 1, "Unknown name 'foo'"),
        ("__import__('os')", 1, "Unknown name '__import__'"),
        ("__import__('os').system('ls')", 17, "'.' is not part"),
        ("eval(close)", 1, "Unknown name 'eval'"),
        ("close.real", 6, "'.' is not part of a formula"),
        ("close.__class__", 6, "'.' is not part"),
        ("MACD.macdhist + 1", 5, "MACD_MACDHIST"),
        ("close[0]", 6, "lag(x, k)"),
        ("close[-1]", 6, "'[' is not part"),
        ("'text'", 1, "A text is no value"),
        ('close + "text"', 9, "A text is no value"),
        ("close + 'text", 9, "A quote that is not closed"),
        ("RSI('14')*2", 5, "cannot take this"),
        ("close; open", 6, "';' is not part"),
        ("close = 3", 7, "'=' does not belong here"),
        ("lambda x: x", 1, "Unknown name 'lambda'"),
        ("close if open else low", 7, "does not belong here"),
        ("close for close in close", 7, "does not belong here"),
        ("{close}", 1, "'{' is not part"),
        ("close # low", 7, "'#' is not part"),
        ("close \\ low", 7, "is not part"),
        ("close & low", 7, "Write `and`"),
        ("close ^ 2", 7, "x ** 2"),
        ("!close", 1, "Write `not`"),
        ("close ? 1", 7, "where(condition"),
        ("close\x00", 6, "is not part"),
        ("ｃlose", 1, "no ASCII"),
        ("close − 1", 7, "no ASCII"),
        ("сlose*2", 1, "no ASCII"),
        ("close\u00a0+ 1", 6, "no ASCII"),
        ("close * ١", 9, "no ASCII"),
        ("9**9**9", 2, "exponent that is too large"),
        ("close**65", 6, "exponent that is too large"),
        ("close**-65", 6, "exponent that is too large"),
        ("close**open", 6, "exponent that is no number"),
        ("2**close", 2, "exponent that is no number"),
        ("9e99**9*close", 5, "no finite value"),
        ("1e999*close", 1, "too large"),
        ("9" * 400 + "*close", 1, "too large"),
        ("1/0*close", 2, "no finite value"),
        ("close+log(0)", 7, "no finite value"),
        ("sqrt(-1)*close", 1, "no finite value"),
        ("3", 1, "reads nothing"),
        ("1+2*3", 1, "reads nothing"),
        ("2close", 1, "2 * x"),
        ("1.2.3*close", 1, "Not a number"),
        ("0x10*close", 1, "Not a number"),
        ("1_000*close", 1, "Not a number"),
        ("1j*close", 1, "Not a number"),
        ("lag(close, -1)", 1, "shift into the future"),
        ("diff(close, -3)", 1, "shift into the future"),
        ("lag(close, 0)", 1, "out of range"),
        ("lag(close, 1.5)", 1, "no whole number"),
        ("lag(close, open)", 1, "no whole number"),
        ("lag(close)", 1, "takes 2 arguments, not 1"),
        ("lag(close, 100001)", 1, "out of range"),
        ("std(close, 1)", 1, "out of range"),
        ("mean(close, 1e300)", 1, "out of range"),
        ("mean(3, 5) + close", 1, "mean of a number"),
        ("lag(" * 11 + "close" + ",100000)" * 11, 1, "reach too far back"),
        (
            "close+" + "+".join(f"mean(low, {100_000 - each})" for each in range(99)),
            None,
            "inputs and windows that reach",
        ),
        (
            "close + lag(low, 100000) + " + "+".join(f"std(high,{each})" for each in range(2, 90)),
            None,
            "At most 16,000,000",
        ),
        ("where(close, 1)", 1, "takes 3 arguments, not 2"),
        ("max(close)", 1, "at least 2 arguments"),
        ("abs()", 1, "takes 1 arguments, not 0"),
        ("clip(close, 3, 1)", 1, "lower bound is above"),
        ("mean", 1, "mean is a function"),
        ("close(3)", 1, "takes no arguments"),
        ("EMA_SPREAD(3)", 1, "takes no arguments"),
        ("EMA_SPREAD:7", 1, "Nobody registered"),
        ("EMA_SPREAD:x", 12, "no version"),
        ("EMA_SPREAD:999999999999", 12, "from 1 to 1,000,000"),
        ("EMA_SPREAD:1000001 * 2", 12, "from 1 to 1,000,000"),
        ("EMA_SPREAD:" + "9" * 300, 12, "from 1 to 1,000,000"),
        ("1e-400*close", 1, "too small"),
        ("close + 0.00" + "0" * 400 + "1", 9, "too small"),
        ("RSI:1*2", 1, "Nobody registered"),
        ("MACD * 2", 1, "MACD_MACD, MACD_MACDSIGNAL, MACD_MACDHIST"),
        ("MACD(8) * 2", 1, "has 3 outputs"),
        ("RSI(perod=3)*2", 1, "Unknown parameter of RSI: 'perod'"),
        ("RSI(1)*2", 1, "an integer from 2 to 100000"),
        ("RSI(14, 15)*2", 1, "takes 1 parameters"),
        ("RSI(period=3, period=4)*2", 15, "given twice"),
        ("EMA(close - open, 20)*2", 5, "cannot take this"),
        ("EMA(RSI(3), 20)*2", 5, "cannot take this"),
        ("EMA(close@1h, 20)*2", 5, "cannot take this"),
        ("EMA(clos, 20)*2", 1, "Unknown input column"),
        ("Max(close, open)*2", 1, "small letters"),
        ("max(timeperiod=5)*2", 5, "no parameters with names"),
        ("close@", 6, "timeframe or a symbol"),
        ("close@1h@4h", 9, "Two timeframes"),
        ("close@ETHUSDT@BTCUSDT", 14, "Two symbols"),
        ("(close@1h)@4h", 11, "already"),
        ("RSI@15M", 4, "no timeframe"),
        ("RSI@1H", 4, "no timeframe"),
        ("RSI@7m", 4, "no timeframe"),
        ('close@"BTC/USD"', 6, "neither a timeframe nor a symbol"),
        ("close < open < low", 14, "Comparisons in a chain"),
        ("close + not open", 9, "'not' after a sign"),
        ("(" * 90 + "close" + ")" * 90, 65, "too deep"),
        ("abs(" * 40 + "close" + ")" * 40, 29, "nests more than 32 deep"),
        ("-" * 5000 + "close", 64, "too deep"),
        ("not " * 100 + "close", 257, "too deep"),
        ("a" * 100, 1, "name that is too long"),
        ("+".join(f"low*{each}" for each in range(1, 1100)), None, "more than 1,000 parts"),
        ("+".join(["RSI*volume"] * 900), None, "more than 10,000 characters"),
        ("x" * 10_001, 10_001, "too long"),
        ("x" * 10_000_000, 10_001, "too long"),
        (b"close", 1, "is a text"),
        (None, 1, "is a text"),
    ],
)
def test_what_is_no_formula_is_refused_at_its_column(text: object, column: int | None, says: str) -> None:
    error = refused(text)
    assert says in str(error)
    assert column is None or error.column == column
    assert isinstance(text, bytes | type(None)) or f"at column {error.column:,}".replace(",", "") in error.cause
    assert len(str(error)) < 400
    shown = str(error).splitlines()
    if isinstance(error.value, str) and "\n" in error.value:
        line, caret = shown[-2:]
        place = caret.index("^")
        pointed = line[place] if place < len(line) else ""
        given_text = str(text)
        assert pointed.strip() == given_text[error.column - 1 : error.column].strip().replace("\x00", "")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.column) == (str(error), error.column)


def test_a_word_that_nobody_knows_is_an_unknown_feature_by_itself() -> None:
    with pytest.raises(UnknownFeature, match="RSI"):
        parse_feature("RSY")
    with pytest.raises(UnknownFeature, match="EMA_SPREAD"):
        parse_feature("EMA_SPREED")
    with pytest.raises(UnknownFeature, match="RSI"):
        parse_feature("RSY(14)")


def test_a_placed_formula_is_named_apart_from_one_of_its_own_place() -> None:
    placed, own = parse_feature("(close-close@ETHUSDT)@1h"), parse_feature("close-close@ETHUSDT@1h")
    assert f"{placed}{placed.place}" != f"{own}{own.place}"
    assert placed.id != own.id
    assert placed.at(None) == parse_feature("close-close@ETHUSDT")


def test_identity_follows_the_formula_its_inputs_and_its_place() -> None:
    texts = [
        "RSI*2",
        "RSI(13)*2",
        "RSI*3",
        "RSI@1h*2",
        "RSI@ETHUSDT*2",
        "RSI(timeperiod=14)+RSI",
        "close*2",
        "(RSI*2)@1h",
    ]
    assert len({parse_feature(text).id for text in texts}) == len(texts)
    assert parse_feature("2 * rsi").id == parse_feature("RSI(14)*2.0").id


def test_every_function_and_column_is_a_reserved_name() -> None:
    for name in (*FUNCTIONS, "RSI", "close", "MACD_HISTOGRAM", "MACD_MACD", "AND", "Not", "periods", FORMULA):
        assert is_reserved(name), name
    assert not is_reserved("MY_OWN")
