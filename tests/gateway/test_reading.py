"""Features, the catalogue and symbols over HTTP, and the page that tells of all of it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pyarrow as pa
import pytest

from mdplatform.features.registry import function_names
from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings

from .market import SYMBOLS

ARROW = "application/vnd.apache.arrow.stream"
_OWN = ("timings_ms", "source", "layer", "made_by")


def feature(client: httpx.Client, text: str, **query: object) -> httpx.Response:
    return client.get(f"/v1/features/BTCUSDT/{quote(text, safe='')}", params=query)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["RSI(timeperiod=14)", "MACD", "close / EMA(close, 50) - 1", "VOLUME_PROFILE(row_size=50)"]
)
def test_the_newest_rows_are_those_of_a_reader(text: str, client: httpx.Client, home: Path) -> None:
    told = feature(client, text, timeframe="1h", last=3).json()
    with Reader(Settings.load(home=home)) as reader:
        expected = json.loads(json.dumps(reader.latest("BTCUSDT", text, "1h", 3).to_dict()))
    assert len(told["rows"]) == 3
    for name in expected.keys() - set(_OWN):
        assert told[name] == expected[name]


def test_a_range_is_given_as_it_was_known_then(client: httpx.Client, home: Path) -> None:
    asked = {"timeframe": "1h", "start": "2026-10-20", "end": "2026-10-20T05:00:00Z"}
    told = feature(client, "RSI", **asked, as_of="2026-11-03").json()
    with Reader(Settings.load(home=home)) as reader:
        expected = reader.between("BTCUSDT", "RSI", asked["timeframe"], asked["start"], asked["end"], "2026-11-03")
    assert told["rows"] == expected.rows
    assert len(told["rows"]) == 5
    assert feature(client, "RSI", **asked, as_of="2026-10-01").status_code == 404


def test_rows_come_as_an_arrow_stream_to_who_accepts_that(client: httpx.Client) -> None:
    response = client.get(
        "/v1/features/BTCUSDT/MACD?last=4", headers={"Accept": f"{ARROW}, application/json;q=0.5", "Prefer": "wait=1"}
    )
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    about = json.loads(table.schema.metadata[b"mdplatform"])
    assert table.num_rows == 4
    assert set(about["outputs"].values()) <= set(table.column_names)
    assert about["symbol"] == "BTCUSDT"


@pytest.mark.parametrize(
    ("text", "query", "status", "field"),
    [
        ("RSY", {}, 422, "feature"),
        ("RSI(period=1)", {}, 422, "feature"),
        ("__import__('os')", {}, 422, "feature"),
        ("RSI", {"timeframe": "15min"}, 422, "timeframe"),
        ("RSI", {"timeframe": "x" * 20}, 422, "timeframe"),
        ("RSI", {"last": "0"}, 422, "last"),
        ("RSI", {"last": "many"}, 422, "last"),
        ("RSI", {"last": "1000000000000"}, 422, "last"),
        ("RSI", {"start": "yesterday"}, 422, "start"),
        ("RSI", {"start": "2026-10-02", "end": "2026-10-01"}, 422, "end"),
        ("RSI", {"end": "2026-10-01"}, 422, "end"),
        ("RSI", {"start": "2026-10-01", "last": 3}, 422, "last"),
        ("RSI", {"as_of": "2026-10-01"}, 422, "as_of"),
        ("RSI", {"start": "2006-01-01", "timeframe": "1m"}, 422, "start"),
        ("RSI", {"lst": "3"}, 422, "lst"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(
    text: str, query: dict[str, object], status: int, field: str, client: httpx.Client
) -> None:
    response = feature(client, text, **query)
    assert (response.status_code, response.json()["field"]) == (status, field)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("symbol", ["DOGEUSDT", "BTCUSDTX"])
def test_a_symbol_of_which_there_is_nothing_is_not_found(symbol: str, client: httpx.Client) -> None:
    response = client.get(f"/v1/features/{symbol}/RSI")
    assert (response.status_code, response.json()["type"]) == (404, "urn:mdplatform:unknown-symbol")


def test_a_symbol_that_is_none_is_refused(client: httpx.Client) -> None:
    response = client.get("/v1/features/..%2F..%2Fetc/RSI")
    assert response.status_code in (404, 422)


def test_the_catalogue_tells_every_function_with_ranges_outputs_and_warm_up(client: httpx.Client) -> None:
    told = client.get("/v1/catalog").json()
    assert sorted(each["name"] for each in told["features"]) == sorted(function_names())
    rsi = next(each for each in told["features"] if each["name"] == "RSI")
    assert (rsi["lookback"], rsi["settle"]) == (14, 373)
    [period] = rsi["parameters"]
    assert (period["default"], period["minimum"], period["alias"]) == (14, 2, "period")
    assert told["types"]["CUSTOM_COMPOSITE"]["required"] == ["strategy_id", "symbols", "formula", "timeframes"]
    assert {"deadline", "priority", "latest"} <= set(told["common_fields"])
    assert told["aliases"]["MACD_HISTOGRAM"].endswith(".macdhist")
    assert [each["target_ms"] for each in told["priorities"]] == [100, 500, 2000, 10000]
    assert {"zscore", "where"} <= {each["name"] for each in told["formula"]["functions"]}


def test_the_catalogue_is_narrowed_by_kind_and_name(client: httpx.Client) -> None:
    assert {each["kind"] for each in client.get("/v1/catalog?kind=macro").json()["features"]} == {"macro"}
    for name in ("rsi", "RSI"):
        assert [each["name"] for each in client.get("/v1/catalog", params={"name": name}).json()["features"]] == ["RSI"]
    assert client.get("/v1/catalog?name=PRICE_STD").json()["features"][0]["name"] == "STDDEV"


@pytest.mark.parametrize(
    ("query", "field", "remedy"),
    [
        ("kind=makro", "kind", "macro"),
        ("name=RSY", "name", "RSI"),
        ("name=RSI&kind=macro", "name", "MACRO"),
        ("x=1", "x", "kind"),
    ],
)
def test_an_unknown_kind_or_name_is_refused_with_the_nearest(
    query: str, field: str, remedy: str, client: httpx.Client
) -> None:
    response = client.get(f"/v1/catalog?{query}")
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert remedy in response.json()["remedy"]


def test_the_symbols_are_listed_with_their_timeframes(client: httpx.Client) -> None:
    listed = client.get("/v1/symbols").json()["symbols"]
    assert [each["symbol"] for each in listed] == sorted(SYMBOLS)
    assert all({"15m", "1h", "1d"} <= set(each["timeframes"]) for each in listed)


def test_an_operation_without_parameters_says_so(client: httpx.Client) -> None:
    refused = client.get("/v1/symbols?x=1")
    assert (refused.status_code, refused.json()["field"]) == (422, "x")
    assert refused.json()["remedy"] == "This operation takes no parameters"


def test_whether_it_is_well_is_told_without_a_key(client: httpx.Client) -> None:
    response = httpx.get(f"{client.base_url}/healthz", trust_env=False)
    assert (response.status_code, response.json()["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v2", 404), ("PUT", "/v1/symbols", 405), ("GET", "/", 404)]
)
def test_an_operation_that_is_none_is_told_as_any_other_problem(
    method: str, path: str, status: int, client: httpx.Client
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_the_page_tells_every_operation_and_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").text
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        assert path.replace("'", "&#x27;") in page
        for operation in operations.values():
            assert operation["summary"] in page
    assert "<script" not in page
    assert "http" not in page.replace("https://", "http://").split("<body")[0].split("</style>")[0]
