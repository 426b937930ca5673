"""Reading features as people write them."""

import numpy as np
import pytest

from mdplatform.errors import (
    InvalidFeature,
    ParameterOutOfRange,
    PlatformError,
    UnknownFeature,
    UnknownInput,
    UnknownOutput,
    UnknownParameter,
    UnknownTimeframe,
)
from mdplatform.features import FeatureSpec, parse_feature


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("RSI", "RSI(timeperiod=14)"),
        ("RSI(timeperiod=14)", "RSI(timeperiod=14)"),
        (" rsi ( Period = 14 ) ", "RSI(timeperiod=14)"),
        ("RSI(21)", "RSI(timeperiod=21)"),
        ("RSI(14.0)", "RSI(timeperiod=14)"),
        ("RSI.real", "RSI(timeperiod=14)"),
        ("EMA(close, 20)", "EMA(timeperiod=20)"),
        ("EMA(high, 20)", "EMA(high,timeperiod=20)"),
        ("SMA(taker_buy_volume,timeperiod=5)", "SMA(taker_buy_volume,timeperiod=5)"),
        ("MACD(fast=8, slow=21, signal=5)", "MACD(fastperiod=8,slowperiod=21,signalperiod=5)"),
        ("MACD.macdhist", "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"),
        ("MACD_HISTOGRAM", "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist"),
        ("macd_histogram(fast=10)", "MACD(fastperiod=10,slowperiod=26,signalperiod=9).macdhist"),
        ("PRICE_STD(period=20)", "STDDEV(timeperiod=20,nbdev=1)"),
        ("PRICE_STD(close, 20)", "STDDEV(timeperiod=20,nbdev=1)"),
        ("STDDEV(20, nbdev=2.0)", "STDDEV(timeperiod=20,nbdev=2)"),
        ("BBANDS(20,2,2.5)", "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2.5,matype=0)"),
        ("SAR(1e-5, .1)", "SAR(acceleration=1e-05,maximum=0.1)"),
        ("OBV", "OBV(anchor=month)"),
        ("VWAP(anchor=day)", "VWAP(anchor=day)"),
        ("OBV(anchor=WEEK)", "OBV(anchor=week)"),
        ("TRANGE()", "TRANGE"),
        ("CORREL(close, volume, 30)", "CORREL(close,volume,timeperiod=30)"),
        ("CORREL(high, low, 30)", "CORREL(timeperiod=30)"),
        ("ATR(high, low, close, 7)", "ATR(timeperiod=7)"),
        ("OBV(quote_volume)", "OBV(quote_volume,anchor=month)"),
        ("MAVP(close, trade_count)", "MAVP(close,trade_count,minperiod=2,maxperiod=30,matype=0)"),
        ({"name": "RSI"}, "RSI(timeperiod=14)"),
        ({"name": "RSI", "parameters": {"period": 14}}, "RSI(timeperiod=14)"),
        ({"name": "RSI", "parameters": {"period": np.int64(9)}}, "RSI(timeperiod=9)"),
        ({"name": "EMA", "parameters": {"timeperiod": 20}, "inputs": ["high"]}, "EMA(high,timeperiod=20)"),
        ({"name": "EMA", "parameters": {"timeperiod": 20}, "inputs": "high"}, "EMA(high,timeperiod=20)"),
        ({"name": "BBANDS", "output": "upperband"}, "BBANDS(timeperiod=20,nbdevup=2,nbdevdn=2,matype=0).upperband"),
        ({"name": "PRICE_STD", "parameters": {"period": 20}}, "STDDEV(timeperiod=20,nbdev=1)"),
    ],
)
def test_every_way_of_writing_leads_to_the_canonical_text(given: object, canonical: str) -> None:
    spec = parse_feature(given)
    assert str(spec) == canonical
    assert parse_feature(canonical) == spec
    assert parse_feature(spec) == spec


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("RSY", UnknownFeature, "RSI"),
        ("MACD_HISTOGRAMM", UnknownFeature, "MACD_HISTOGRAM"),
        ("RSI(perod=14)", UnknownParameter, "of RSI: 'perod'. Known: period, timeperiod"),
        ("RSI(fast=3)", UnknownParameter, "timeperiod"),
        ("PRICE_STD(nbdev=2)", UnknownParameter, "timeperiod"),
        ("TRANGE(period=3)", UnknownParameter, "TRANGE takes none"),
        ("MACD.histogram", UnknownOutput, "macdhist"),
        ("MACD_HISTOGRAM.macd", UnknownOutput, "macdhist"),
        ("EMA(clos, 20)", UnknownInput, "close"),
        ("EMA(symbol, 20)", UnknownInput, "close"),
        ("RSI(1)", ParameterOutOfRange, "an integer from 2 to 100000"),
        ("RSI(100001)", ParameterOutOfRange, "timeperiod of RSI"),
        ("RSI(-14)", ParameterOutOfRange, "-14"),
        ("RSI(14.5)", ParameterOutOfRange, "14.5"),
        ("RSI(1e999)", ParameterOutOfRange, "inf"),
        ("RSI(period=high)", ParameterOutOfRange, "'high'"),
        ("RSI(period=nan)", ParameterOutOfRange, "nan"),
        ("BBANDS(nbdevup=1e300)", ParameterOutOfRange, "nbdevup"),
        ("BBANDS(matype=11)", ParameterOutOfRange, "0 (SMA), 1 (EMA)"),
        ("BBANDS(matype=0.5)", ParameterOutOfRange, "matype"),
        ("OBV(anchor=hour)", ParameterOutOfRange, "day, week, month, year"),
        ("MAVP(minperiod=20, maxperiod=10)", ParameterOutOfRange, "At most maxperiod"),
        ("RSI(high, low)", InvalidFeature, "takes 1, by default close"),
        ("ATR(close)", InvalidFeature, "always reads high, low, close"),
        ("VPIN(close)", InvalidFeature, "takes no inputs; name parameters, as in MACRO"),
        ("PRICE_STD(high)", InvalidFeature, "reads close"),
        ("RSI(14, 15)", InvalidFeature, "takes 1 parameters, not 2"),
        ("RSI(period=14, timeperiod=14)", InvalidFeature, "twice"),
        ("RSI(period=14, period=14)", InvalidFeature, "twice"),
        ("RSI(14, period=14)", InvalidFeature, "twice"),
        ({"name": "RSI", "parameter": {}}, InvalidFeature, "Allowed keys: name, parameters"),
        ({"parameters": {}}, InvalidFeature, "needs a name"),
        ({"name": "RSI", "parameters": [14]}, InvalidFeature, "mapping"),
        ({"name": "RSI", "inputs": 3}, InvalidFeature, "list of column names"),
        ({"name": "RSI", "output": 3}, InvalidFeature, "texts"),
        ({"name": "RSI", "timeframe": "15M"}, UnknownTimeframe, "15m"),
        (14, InvalidFeature, "RSI(timeperiod=14)"),
        (None, InvalidFeature, "RSI(timeperiod=14)"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(given: object, error: type[PlatformError], says: str) -> None:
    with pytest.raises(error) as caught:
        parse_feature(given)
    assert says in str(caught.value)
    lines = str(caught.value).splitlines()
    assert lines[1:] == ([f"  {given}", "  ^"] if isinstance(given, str) else [])


@pytest.mark.parametrize("value", [True, False, None, "14", float("nan"), float("inf"), -(10**400), 10**400, [14], 14j])
def test_a_value_that_is_no_sensible_number_is_refused(value: object) -> None:
    with pytest.raises(ParameterOutOfRange) as caught:
        parse_feature({"name": "RSI", "parameters": {"period": value}})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "()",
        "RSI(",
        "RSI(14",
        "RSI)14(",
        "RSI(14))",
        "RSI(,)",
        "RSI(14,)",
        "RSI((14))",
        "RSI(period=)",
        "RSI(=14)",
        "RSI(period==14)",
        "RSI(14).",
        "RSI(14).real.real",
        "RSI(14) RSI(15)",
        "RSI(period=14, 15)",
        "14",
        "RSI(2**9)",
        "RSI(__import__('os'))",
        "RSI[14]",
        "RSI(14);",
        "RSI\x00",
        "ＲＳＩ",
        "RSI(١٤)",
        "RSI" * 1000,
        "(" * 100_000,
    ],
)
def test_text_outside_of_the_grammar_is_refused(text: str) -> None:
    with pytest.raises((InvalidFeature, UnknownInput)) as caught:
        parse_feature(text)
    assert len(str(caught.value)) < 300


def test_a_spec_that_was_made_by_hand_is_checked() -> None:
    with pytest.raises(ParameterOutOfRange):
        parse_feature(FeatureSpec("RSI", (("timeperiod", 0),), ("close",)))


def test_equal_numbers_are_one_identity() -> None:
    whole = parse_feature({"name": "BBANDS", "parameters": {"nbdevup": 2, "nbdevdn": 2.0, "timeperiod": 20.0}})
    assert whole == parse_feature("BBANDS")
    assert whole.id == parse_feature("BBANDS").id


def test_timeframe_output_and_inputs_are_part_of_the_identity() -> None:
    specs = [
        parse_feature("BBANDS"),
        parse_feature("BBANDS.upperband"),
        parse_feature("BBANDS(high)"),
        parse_feature("BBANDS").at("15m"),
        parse_feature({"name": "BBANDS", "timeframe": "1h"}),
    ]
    assert len({spec.id for spec in specs}) == len(specs)
    assert all(len(spec.id) == 16 and int(spec.id, 16) >= 0 for spec in specs)


def test_columns_are_named_by_the_canonical_text() -> None:
    assert parse_feature("RSI").columns == ("RSI(timeperiod=14)",)
    name = "MACD(fastperiod=12,slowperiod=26,signalperiod=9)"
    assert parse_feature("MACD").columns == (f"{name}.macd", f"{name}.macdsignal", f"{name}.macdhist")
    assert parse_feature("MACD_HISTOGRAM").columns == (f"{name}.macdhist",)


def test_the_only_output_may_be_named_as_answers_name_it() -> None:
    assert parse_feature("RSI.rsi") == parse_feature("RSI")
