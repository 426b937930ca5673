"""Requests are made of what strategies write, and what is wrong is refused by its field before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidFormula, InvalidRequest, PlatformError, UnknownFeature, UnknownTimeframe
from mdplatform.features import parse_feature, register_composite
from mdplatform.features.composites import _registered
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests import making, wire
from mdplatform.requests.features import texts_of
from mdplatform.requests.ids import new_id
from mdplatform.requests.making import check, make
from mdplatform.requests.request import DataRequest, Refresh, RequestType

RSI = {"name": "RSI", "parameters": {"period": 14}}
BLEND = {
    "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
    "input_indicators": [
        RSI,
        {"name": "MACD", "parameters": {"fast": 13, "slow": 26}},
        {"name": "PRICE_STD", "parameters": {"period": 21}},
    ],
}
GOOD = {
    "TECHNICAL_INDICATORS": {"symbols": ["BTCUSDT"], "indicators": [RSI], "timeframes": ["15m"]},
    "CUSTOM_COMPOSITE": {"symbols": ["BTCUSDT"], "timeframes": ["15m"], **BLEND},
    "VOLUME_PROFILE": {"symbols": ["BTCUSDT"], "timeframes": ["15m"]},
    "SENTIMENT_DATA": {"symbols": ["BTCUSDT"], "timeframes": ["1h"], "providers": "news"},
    "CORRELATION_MATRIX": {"symbols": ["BTCUSDT", "ETHUSDT"], "timeframes": ["1h"]},
    "MACRO_INDICATORS": {"series": ["CPIAUCSL"]},
}


def of(type: str, **fields: object) -> DataRequest:
    return make(type, **{"strategy_id": "momentum", **GOOD[type], **fields})


def refused(type: str = "TECHNICAL_INDICATORS", **fields: object) -> PlatformError:
    with pytest.raises(PlatformError) as error:
        of(type, **fields)
    assert error.value.remedy or error.value.value is not None
    assert error.value.field in str(error.value)
    assert len(str(error.value)) < 700
    return error.value


@pytest.mark.parametrize(
    ("type", "given", "field", "meant"),
    [
        ("TECHNICAL_INDICATORS", {"latest": np.int64(5)}, "latest", 5),
        ("CORRELATION_MATRIX", {"window": np.int64(50)}, "window", 50),
        ("CORRELATION_MATRIX", {"min_periods": np.int32(5)}, "min_periods", 5),
        ("CORRELATION_MATRIX", {"method": "exponential", "half_life": np.float32(5)}, "half_life", 5.0),
        ("CORRELATION_MATRIX", {"latest": np.int64(1)}, "latest", 1),
        ("TECHNICAL_INDICATORS", {"start": date(2024, 3, 1)}, "start", 1_709_251_200_000_000),
        ("TECHNICAL_INDICATORS", {"start": np.datetime64("2024-03-01T00:00")}, "start", 1_709_251_200_000_000),
    ],
)
def test_numbers_and_times_of_other_libraries_are_sent_as_plain_ones(
    type: str, given: dict[str, object], field: str, meant: object
) -> None:
    request = wire.decode_request(wire.encode_request(of(type, **given)))
    assert request.options.get(field, getattr(request, field, None)) == meant
    assert check(request) == request


def test_an_input_that_the_formula_does_not_use_is_refused() -> None:
    unused = refused("CUSTOM_COMPOSITE", formula="RSI", input_indicators=[RSI, {"name": "MACD"}])
    assert (unused.field, unused.value) == ("input_indicators[1]", "MACD")
    assert refused("CUSTOM_COMPOSITE", formula="RSI * 2", input_indicators=[{**RSI, "as": "fast"}]).field
    used = [RSI, {"name": "MACD"}, {"name": "EMA", "parameters": {"period": 5}, "as": "slow"}]
    assert of("CUSTOM_COMPOSITE", formula="rsi + macd_histogram - slow", input_indicators=used).features


_HUGE, _ARRAY, _SIGNAL = 10**5000, np.array([1, 2]), Decimal("sNaN")


@pytest.mark.parametrize(
    ("type", "field", "values"),
    [
        ("CORRELATION_MATRIX", "latest", [True, 1.0, _HUGE, _ARRAY, _SIGNAL, [1]]),
        *(
            ("CORRELATION_MATRIX", each, [_HUGE, _ARRAY, _SIGNAL, {"a": 1}])
            for each in ("of", "method", "sample", "shrinkage", "repair", "window", "min_periods", "half_life")
        ),
        *(
            ("VOLUME_PROFILE", each, [_HUGE, _ARRAY, _SIGNAL])
            for each in ("session_hours", "row_size", "value_area_pct", "algorithm")
        ),
        ("VOLUME_PROFILE", "row_size", [5e-324, 1 / 3]),
        ("TECHNICAL_INDICATORS", "refresh", [_HUGE, _ARRAY, _SIGNAL]),
        ("TECHNICAL_INDICATORS", "latest", [_HUGE, _ARRAY, _SIGNAL]),
        ("TECHNICAL_INDICATORS", "start", [np.datetime64("NaT"), _ARRAY]),
    ],
)
def test_whatever_is_no_value_of_a_field_is_refused_by_its_field(type: str, field: str, values: list[object]) -> None:
    assert {refused(type, **{field: each}).field for each in values} == {field}


@pytest.mark.parametrize("text", ["RSI({})", "close + {}", "RSI(timeperiod={})"])
def test_a_number_of_thousands_of_digits_is_refused(text: str) -> None:
    assert refused(indicators=[text.format("1" * 4900)]).field == "indicators[0]"


def test_what_the_strategy_writes_becomes_canonical() -> None:
    request = of(
        "TECHNICAL_INDICATORS",
        symbols=["btcusdt", "ETHUSDT", "BTCUSDT"],
        indicators=[RSI, "rsi(14)", "MACD.macdhist", "ATR@1h", {"name": "AROON", "timeframe": "4h"}],
        timeframes=("5m", "1h", "5m"),
        priority="high",
    )
    assert request.symbols == ("BTCUSDT", "ETHUSDT")
    assert request.timeframes == ("5m", "1h")
    assert request.features == (
        "RSI(timeperiod=14)",
        "MACD(fastperiod=12,slowperiod=26,signalperiod=9).macdhist",
        "ATR(timeperiod=14)@1h",
        "AROON_AROONDOWN(timeperiod=14)@4h",
        "AROON_AROONUP(timeperiod=14)@4h",
    )
    assert request.priority is DataPriority.HIGH
    assert (request.latest, request.start, request.refresh) == (1, None, Refresh.ONCE)


def test_a_composite_takes_the_parameters_of_its_inputs() -> None:
    assert of("CUSTOM_COMPOSITE").features == (
        "(RSI(timeperiod=14)-50)*0.6+MACD_MACDHIST(fastperiod=13,slowperiod=26,signalperiod=9)"
        "/STDDEV(timeperiod=21,nbdev=1)*0.4",
    )


def test_types_with_arguments_of_their_own_become_features_or_options() -> None:
    assert "session_hours=8" in of("VOLUME_PROFILE", session_hours=8).features[0]
    assert of("VOLUME_PROFILE", hours=48, row_size=5).features[0].startswith("ROLLING_VOLUME_PROFILE(row_size=5,")
    sentiment = of("SENTIMENT_DATA", providers=["news", "fear_greed"], measures=["mean", "score"], hours=12)
    assert [each.partition("(")[0] for each in sentiment.features] == ["SENTIMENT_MEAN", "SENTIMENT"] * 2
    assert "hours=12" in sentiment.features[0]
    assert of("MACRO_INDICATORS", series=["CPIAUCSL", "GDP"]).options == {"series": ["CPIAUCSL", "GDP"]}
    joined = of("MACRO_INDICATORS", symbols="BTCUSDT", timeframes="1d", transforms=["yoy"], mode="first_release")
    assert joined.features == ("MACRO_YOY(series=CPIAUCSL,mode=first_release,missing=keep,max_staleness_days=120)",)
    matrix = of("CORRELATION_MATRIX", window=50, method="exponential", half_life=20, end="2025-02-01")
    assert matrix.options == {"window": 50, "method": "exponential", "half_life": 20}
    assert matrix.end is not None


@pytest.mark.parametrize("type", GOOD)
def test_a_request_survives_the_wire_and_is_found_good_there(type: str) -> None:
    request = of(type, latest=1, request_id="my-own.id:1")
    received = wire.decode_request(wire.encode_request(request))
    assert received == request
    making.check.__globals__["_good"].clear()  # as in another process
    assert check(received) == request
    assert check(received) is received  # remembered now


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("strategy_id", {"strategy_id": ""}),
        ("strategy_id", {"strategy_id": " a"}),
        ("strategy_id", {"strategy_id": "a\nb"}),
        ("strategy_id", {"strategy_id": "a" * 65}),
        ("strategy_id", {"strategy_id": None}),
        ("strategy_name", {"strategy_name": "\ud800"}),
        ("strategy_name", {"strategy_name": "a" * 201}),
        ("symbols", {"symbols": []}),
        ("symbols", {"symbols": None}),
        ("symbols", {"symbols": {"BTCUSDT": 1}}),
        ("symbols", {"symbols": 5}),
        ("symbols", {"symbols": [f"S{each}" for each in range(501)]}),
        ("symbols[1]", {"symbols": ["BTCUSDT", "no symbol"]}),
        ("symbols[0]", {"symbols": [None]}),
        ("symbols[0]", {"symbols": ["A" * 100_000]}),
        ("timeframes", {"timeframes": ()}),
        ("timeframes[0]", {"timeframes": "15M"}),
        ("timeframes[1]", {"timeframes": ["1h", 60]}),
        ("indicators", {"indicators": []}),
        ("indicators", {"indicators": None}),
        ("indicators[0]", {"indicators": [5]}),
        ("indicators[0]", {"indicators": "RSI +"}),
        ("indicators[1]", {"indicators": ["RSI", "RSI(period=0)"]}),
        ("indicators[0].name", {"indicators": [{"name": "RSY"}]}),
        ("indicators[0].timeframe", {"indicators": [{"name": "RSI", "timeframe": "2x"}]}),
        ("indicators[0].symbol", {"indicators": [{"name": "RSI", "symbol": "a b"}]}),
        ("indicators[0].output", {"indicators": [{"name": "MACD", "output": "hist"}]}),
        ("indicators[0].inputs", {"indicators": [{"name": "EMA", "inputs": ["closs"]}]}),
        ("indicators[0].parameters.perod", {"indicators": [{"name": "RSI", "parameters": {"perod": 14}}]}),
        ("indicators[0].parameters.period", {"indicators": [{"name": "RSI", "parameters": {"period": "x"}}]}),
        ("indicators[0].parameters.timeperiod", {"indicators": [{"name": "RSI", "parameters": {"timeperiod": 1e9}}]}),
        ("indicators[0].parameters.series", {"indicators": [{"name": "MACRO"}]}),
        ("indicators", {"indicators": [f"SMA({each})" for each in range(2, 203)]}),
        ("priority", {"priority": "URGENT"}),
        ("priority", {"priority": 1}),
        ("deadline", {"deadline": 0}),
        ("deadline", {"deadline": -1.5}),
        ("deadline", {"deadline": math.nan}),
        ("deadline", {"deadline": 10**400}),
        ("deadline", {"deadline": True}),
        ("deadline", {"deadline": timedelta(days=1, seconds=1)}),
        ("deadline", {"deadline": "soon"}),
        ("deadline", {"deadline": datetime(2020, 1, 1, tzinfo=UTC)}),
        ("latest", {"latest": 0}),
        ("latest", {"latest": 100_001}),
        ("latest", {"latest": "5"}),
        ("latest", {"latest": True}),
        ("latest", {"latest": 5, "start": "2025-01-01"}),
        ("start", {"start": "yesterday"}),
        ("start", {"start": 1735689600}),
        ("start", {"start": "1999-01-01"}),
        ("end", {"end": "2025-01-01"}),
        ("end", {"start": "2025-01-02", "end": "2025-01-01"}),
        ("as_of", {"as_of": datetime(2200, 1, 1, tzinfo=UTC)}),
        ("refresh", {"refresh": "hourly"}),
        ("start", {"refresh": "on_close", "start": "2025-01-01"}),
        ("as_of", {"refresh": "on_close", "as_of": "2025-01-01"}),
        ("request_id", {"request_id": "a{b}"}),
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": 7}),
        ("symbls", {"symbls": ["BTCUSDT"]}),
        ("latest", {"latest": 100_000, "symbols": [f"S{each}" for each in range(51)]}),
        ("start", {"start": "2017-01-01", "timeframes": "1m", "symbols": ["A", "B"]}),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_bad_input_is_refused_with_its_field(field: str, fields: dict[str, object]) -> None:
    assert refused(**fields).field == field


@pytest.mark.parametrize(
    ("type", "field", "fields"),
    [
        ("VOLUME_PROFILE", "session_hours", {"session_hours": 5}),
        ("VOLUME_PROFILE", "value_area_pct", {"value_area_pct": 1.5}),
        ("VOLUME_PROFILE", "algorithm", {"algorithm": "three_row"}),
        ("VOLUME_PROFILE", "hours", {"hours": 8, "session_hours": 8}),
        ("SENTIMENT_DATA", "providers[0]", {"providers": "two words"}),
        ("SENTIMENT_DATA", "providers", {"providers": []}),
        ("SENTIMENT_DATA", "measures[1]", {"measures": ["mean", "median"]}),
        ("SENTIMENT_DATA", "hours", {"hours": 12}),
        ("SENTIMENT_DATA", "hours", {"measures": "mean", "hours": -1}),
        ("SENTIMENT_DATA", "scope", {"scope": "world"}),
        ("MACRO_INDICATORS", "series", {"series": []}),
        ("MACRO_INDICATORS", "series[0]", {"series": ["no series"]}),
        ("MACRO_INDICATORS", "timeframes", {"timeframes": "1d"}),
        ("MACRO_INDICATORS", "mode", {"mode": "latest"}),
        ("MACRO_INDICATORS", "transforms[0]", {"transforms": "log"}),
        ("MACRO_INDICATORS", "periods", {"periods": 3}),
        ("MACRO_INDICATORS", "timeframes", {"symbols": "BTCUSDT"}),
        ("CORRELATION_MATRIX", "symbols", {"symbols": ["BTCUSDT"]}),
        ("CORRELATION_MATRIX", "window", {"window": 1}),
        ("CORRELATION_MATRIX", "of", {"of": "prices"}),
        ("CORRELATION_MATRIX", "method", {"method": "kendall"}),
        ("CORRELATION_MATRIX", "half_life", {"half_life": 10}),
        ("CORRELATION_MATRIX", "half_life", {"method": "exponential"}),
        ("CORRELATION_MATRIX", "sample", {"sample": "all"}),
        ("CORRELATION_MATRIX", "min_periods", {"min_periods": 2.5}),
        ("CORRELATION_MATRIX", "shrinkage", {"method": "spearman", "shrinkage": "ledoit_wolf"}),
        ("CORRELATION_MATRIX", "repair", {"repair": "some"}),
        ("CORRELATION_MATRIX", "latest", {"latest": 2}),
        ("CORRELATION_MATRIX", "start", {"start": "2025-01-01"}),
        ("CUSTOM_COMPOSITE", "formula", {"formula": None}),
        ("CUSTOM_COMPOSITE", "formula", {"formula": "RSI ** RSI.x"}),
        ("CUSTOM_COMPOSITE", "formula", {"formula": "__import__('os')"}),
        ("CUSTOM_COMPOSITE", "input_indicators", {"input_indicators": 5}),
        ("CUSTOM_COMPOSITE", "input_indicators[0].name", {"input_indicators": [{"name": "RSY"}]}),
    ],
)
def test_bad_input_of_each_type_is_refused_with_its_field(type: str, field: str, fields: dict[str, object]) -> None:
    assert refused(type, **fields).field == field


def test_errors_say_what_is_allowed_and_what_is_near() -> None:
    assert isinstance(refused(timeframes="15M"), UnknownTimeframe)
    assert "Allowed: 1m 3m" in str(refused(timeframes="15M"))
    unknown = refused(indicators=[{"name": "RSY"}])
    assert isinstance(unknown, UnknownFeature)
    assert "Nearest known: RSI" in str(unknown)
    assert "Nearest known: symbols" in str(refused(symbls=["BTCUSDT"]))
    formula = refused("CUSTOM_COMPOSITE", formula="RSI + FOO")
    assert isinstance(formula, InvalidFormula)
    assert formula.column == 7
    with pytest.raises(PlatformError, match="TECHNICAL_INDICATORS needs strategy_id, symbols, indicators, timeframes"):
        make("technical_indicators", strategy_id="a")
    with pytest.raises(PlatformError, match=r"type: Unknown type: 'CANDLES'. Known: CORRELATION_MATRIX, "):
        make("CANDLES", strategy_id="a")


def test_the_product_of_a_request_is_bounded() -> None:
    twenty_five = [f"S{each}" for each in range(25)]
    many = [f"SMA({each})" for each in range(2, 202)]
    assert len(of("TECHNICAL_INDICATORS", symbols=twenty_five, indicators=many).features) == 200
    assert "26 × 1 × 200 = 5,200" in str(refused(symbols=[*twenty_five, "S25"], indicators=many))


def test_deadlines_are_told_in_three_ways() -> None:
    now = datetime.now(UTC)
    told = [
        30,
        timedelta(seconds=30),
        now + timedelta(seconds=30),
        (now + timedelta(seconds=30)).isoformat(),
        np.int64(30),
    ]
    for each in told:
        request = of("TECHNICAL_INDICATORS", deadline=each)
        assert request.deadline / 1e6 == pytest.approx(now.timestamp() + 30, abs=5)
    standing = of("TECHNICAL_INDICATORS", refresh="on_close")
    assert (standing.deadline - standing.sent_at) / 1e6 == 86_400


def request_or_error(make_it: Callable[[], DataRequest]) -> DataRequest | PlatformError:
    try:
        return make_it()
    except PlatformError as error:
        return error


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*GOOD["TECHNICAL_INDICATORS"], *making.Common.__annotations__, "strategy_id"})


@hypothesis_settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(FIELDS), value=json_like)
def test_whatever_is_given_in_a_field_is_taken_or_refused_with_that_field(field: str, value: object) -> None:
    found = request_or_error(lambda: of("TECHNICAL_INDICATORS", **{field: value}))
    if isinstance(found, PlatformError):
        assert found.field.startswith(field) or field in ("start", "end", "latest")
        assert len(str(found)) < 700
    else:
        assert check(wire.decode_request(wire.encode_request(found))) == found


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "symbols": st.lists(st.text(max_size=6), max_size=3).map(tuple),
            "timeframes": st.lists(st.sampled_from(["15m", "1h", "x", ""]), max_size=3).map(tuple),
            "features": st.lists(st.sampled_from(["RSI", "RSI(14)", "close/open", "x", ""]), max_size=3).map(tuple),
            "options": st.dictionaries(st.text(max_size=6), json_like, max_size=3),
            "latest": st.none() | st.integers(-5, 200_000),
            "start": st.none() | st.integers(-(10**18), 10**18),
            "end": st.none() | st.integers(-(10**18), 10**18),
            "deadline": st.integers(-(10**18), 10**18),
            "type": st.sampled_from(RequestType),
            "strategy_id": st.text(max_size=70),
            "request_id": st.text(max_size=70),
        },
    )
)
def test_whatever_comes_over_the_wire_is_canonical_or_refused(changes: dict[str, object]) -> None:
    request = msgspec.structs.replace(of("TECHNICAL_INDICATORS"), **changes)
    found = request_or_error(lambda: check(request))
    if isinstance(found, PlatformError):
        assert found.field
    else:
        assert check(found) == found


def test_nesting_without_end_is_no_crash() -> None:
    deep: object = "RSI"
    for _ in range(50_000):
        deep = [deep]
    for field in ("symbols", "indicators", "timeframes", "deadline", "priority"):
        assert refused(**{field: deep}).field.startswith(field)
    raw = wire.encode_request(of("CORRELATION_MATRIX")).replace(b"\xa6window`", b"\xa6window" + b"\x91" * 5_000 + b"`")
    with pytest.raises(InvalidRequest):
        wire.decode_request(raw)


def test_an_endless_list_is_refused() -> None:
    endless = iter(lambda: "BTCUSDT", None)
    assert refused(symbols=endless).field == "symbols"


def test_names_of_composites_are_settled_when_the_request_is_made() -> None:
    try:
        register_composite("DESK_VIEW", "RSI - 50")
        request = of("TECHNICAL_INDICATORS", indicators="DESK_VIEW")
        assert request.features == ("RSI(timeperiod=14)-50",)
        by_hand = msgspec.structs.replace(request, features=("DESK_VIEW",))
        assert check(by_hand).features == request.features
        register_composite("DESK_VIEW", "RSI - 51", version=2)
        assert check(by_hand).features == ("RSI(timeperiod=14)-51",)
    finally:
        for version in (1, 2):
            _registered.pop(("DESK_VIEW", version), None)


@pytest.mark.parametrize(
    "feature",
    ["RSI", "MACD", "MACD.macdsignal", "EMA(high, 20)", "close", "log(close)", "RSI - RSI@4h", "RSI@ETHUSDT@1d",
     "MACRO(series='A.B')", {"name": "MACD", "output": "macdhist", "timeframe": "1h"}, BLEND,
     {"formula": "close / open", "symbol": "ETHUSDT", "timeframe": "4h"}, {"name": "STOCH", "symbol": "ETHUSDT"}],
    ids=str,
)  # fmt: skip
def test_the_text_of_a_feature_is_read_as_the_same_feature(feature: object) -> None:
    texts = texts_of(parse_feature(feature))  # type: ignore[arg-type]
    assert [texts_of(parse_feature(each)) for each in texts] == [(each,) for each in texts]


def test_ids_sort_in_the_order_in_which_they_were_made() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert abs(int(made[0][:12], 16) / 1000 - datetime.now(UTC).timestamp()) < 60


def test_a_deadline_that_has_passed_is_no_mistake_of_a_request_on_the_wire() -> None:
    request = msgspec.structs.replace(of("TECHNICAL_INDICATORS"), deadline=1)
    assert check(request) == request
    with pytest.raises(InvalidRequest, match="deadline"):
        check(msgspec.structs.replace(request, deadline=2**62))


SPEARMAN = "CORRELATION(reference=ETHUSDT, window={}, method=spearman)"
MATRIX = {"symbols": [f"S{number}USDT" for number in range(200)], "timeframes": "1h", "method": "spearman"}


@pytest.mark.parametrize(
    ("type", "asked", "field"),
    [
        ("TECHNICAL_INDICATORS", {"indicators": SPEARMAN.format(20_000), "latest": 50_000}, "features"),
        ("TECHNICAL_INDICATORS", {"indicators": SPEARMAN.format(20_000)}, "features"),
        ("TECHNICAL_INDICATORS", {"indicators": "CCI(20000)", "latest": 50_000}, "features"),
        ("TECHNICAL_INDICATORS", {"indicators": f"{SPEARMAN.format(20_000)} * 2 + close"}, "features"),
        ("TECHNICAL_INDICATORS", {"indicators": "CCI(20000)", "start": "2019-01-01", "end": "2024-01-01"}, "features"),
        ("CORRELATION_MATRIX", {**MATRIX, "window": 20_000}, "window"),
    ],
)
def test_windows_that_would_keep_a_worker_busy_for_minutes_are_refused(type, asked, field):
    given = {"symbols": "BTCUSDT", "timeframes": "15m", **asked}
    with pytest.raises(InvalidRequest, match="Too long a window") as refused:
        make(type, strategy_id="s", **given)
    assert refused.value.field == field
    assert "250,000,000" in refused.value.remedy


@pytest.mark.parametrize(
    "indicators", [SPEARMAN.format(96), SPEARMAN.format(2_000), "CCI(20)", "EMA(20000)", "VHF(500)"]
)
def test_usual_windows_over_many_rows_are_taken(indicators):
    given = {"symbols": "BTCUSDT", "timeframes": "15m", "indicators": indicators, "latest": 50_000}
    asked = make("TECHNICAL_INDICATORS", strategy_id="s", **given)
    assert check(asked) == asked
