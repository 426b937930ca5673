"""OpenAPI: what it shows works on a live gateway, and whatever is sent instead is refused in the one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdplatform.gateway import examples
from mdplatform.requests.request import RequestType
from mdplatform.settings import Settings

from .conftest import Gateway

FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
OPERATIONS = (examples.FEATURE, examples.CATALOG, examples.SYMBOLS, examples.HEALTH)
SHOWN = [path for each in OPERATIONS for path in each["openapi_extra"]["x-examples"]]


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[httpx.Client]:
    """A client of a gateway that wants no keys."""
    running = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False))
    with running.client() as client:
        yield client
    running.stop()


@pytest.fixture(scope="module")
def schema(opened: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = opened.get("/openapi.json").json()
    return found


def test_every_operation_is_told_with_examples_of_what_is_sent_and_answered(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    tags = {each["name"] for each in schema["tags"]}
    for path, operations in schema["paths"].items():
        for method, told in operations.items():
            assert told["summary"], path
            assert len(told["description"]) > 40, path
            assert set(told["tags"]) <= tags
            done = {status: each for status, each in told["responses"].items() if status.startswith("2")}
            assert done, path
            assert all(each["content"]["application/json"]["examples"] for each in done.values())
            if method == "post":
                assert told["requestBody"]["content"]["application/json"]["examples"]
            for parameter in told.get("parameters", ()):
                assert parameter["description"], (path, parameter["name"])
            for status, each in told["responses"].items():
                if status.startswith("4"):
                    assert list(each["content"]) == ["application/problem+json"], (path, status)


@pytest.mark.parametrize("name", examples.REQUESTS)
def test_every_example_of_a_request_is_answered(name: str, opened: httpx.Client) -> None:
    response = opened.post("/v1/requests?wait=30s", json=examples.REQUESTS[name]["value"])
    assert response.status_code == 200, response.text
    told = response.json()
    if name in ("macro", "sentiment"):  # of which the market of the tests has nothing
        assert told["missing"] or told["problem"], told
        return
    assert told["status"] == "ok", told
    assert told["results"]
    opened.delete(f"/v1/requests/{told['request_id']}")


def test_the_example_of_a_batch_is_answered(schema: dict[str, Any], opened: httpx.Client) -> None:
    body = schema["paths"]["/v1/requests:batch"]["post"]["requestBody"]["content"]["application/json"]
    response = opened.post("/v1/requests:batch?wait=30s", json=body["examples"]["two"]["value"])
    assert [each["status"] for each in response.json()["results"]] == ["ok", "ok"]


@pytest.mark.parametrize("path", SHOWN)
def test_every_address_that_is_shown_is_answered(path: str, opened: httpx.Client) -> None:
    assert opened.get(path).status_code == 200


def test_examples_of_answers_have_the_fields_of_answers(opened: httpx.Client) -> None:
    sent = opened.post("/v1/requests", json=examples.REQUESTS["indicators"]["value"])
    assert sent.json().keys() == examples.OPEN.keys()
    answer = opened.get(f"{sent.headers['location']}?wait=30s").json()
    assert answer.keys() == examples.ANSWER.keys()
    assert answer["results"][0].keys() == examples.ANSWER["results"][0].keys()
    assert answer["results"][0]["rows"][0].keys() == examples.ANSWER["results"][0]["rows"][0].keys()
    refused = opened.post(
        "/v1/requests", json={**examples.REQUESTS["indicators"]["value"], "indicators": [{"name": "RSY"}]}
    )
    assert refused.json().keys() - {"column"} == examples.PROBLEM.keys()
    feature = opened.get("/v1/features/BTCUSDT/RSI").json()
    assert feature.keys() == examples.FEATURE_ROWS.keys()
    [shown] = examples.CATALOG["responses"][200]["content"]["application/json"]["examples"]["rsi"]["value"]["features"]
    [told] = opened.get("/v1/catalog?name=RSI").json()["features"]
    assert {name: told[name] for name in shown} == shown


# Junk.

words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["BTCUSDT", "RSI", "15m", "", "../..", "\x00", "null", "RSI(timeperiod=14)", "9**9**9", "é", "-1", "1e9"]
    ),
)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), words)
junk = st.recursive(
    leaves, lambda some: st.lists(some, max_size=4) | st.dictionaries(words, some, max_size=4), max_leaves=8
)
FIELDS = sorted(
    {name for each in examples.REQUESTS.values() for name in each["value"]}
    | {"latest", "as_of", "request_id", "hours", "row_size", "value_area_pct", "min_periods", "shrinkage", "providers"}
)


def check(response: httpx.Response) -> None:
    """It was understood, or refused in the one shape; the gateway did not fail."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        told = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert told["status"] == response.status_code
        assert {"type", "title", "detail"} <= told.keys()


def sent(value: object) -> bytes:
    return json.dumps(value).encode()


@FUZZ
@given(data=st.data())
def test_junk_in_any_field_of_a_request_is_refused_and_never_fails(opened: httpx.Client, data: st.DataObject) -> None:
    body = dict(data.draw(st.sampled_from([each["value"] for each in examples.REQUESTS.values()])))
    for field in data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        body[field] = data.draw(junk)
    if data.draw(st.booleans()):
        body["type"] = data.draw(st.sampled_from(list(RequestType)))
    headers = {"Content-Type": "application/json"}
    response = opened.post("/v1/requests", content=sent(body), headers=headers)
    check(response)
    if response.status_code == 202:
        opened.delete(response.headers["location"])


@FUZZ
@given(body=junk)
def test_junk_as_a_body_is_refused_and_never_fails(opened: httpx.Client, body: object) -> None:
    for path in ("/v1/requests", "/v1/requests:batch"):
        check(opened.post(path, content=sent(body), headers={"Content-Type": "application/json"}))
        check(opened.post(path, content=sent({"requests": body}), headers={"Content-Type": "application/json"}))


@FUZZ
@given(body=st.binary(max_size=60))
def test_bytes_that_are_anything_are_refused_and_never_fail(opened: httpx.Client, body: bytes) -> None:
    check(opened.post("/v1/requests", content=body, headers={"Content-Type": "application/json"}))


@FUZZ
@given(data=st.data())
def test_junk_in_any_part_of_an_address_is_refused_and_never_fails(
    opened: httpx.Client, schema: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(sorted(schema["paths"])))
    method = data.draw(st.sampled_from(sorted(schema["paths"][path])))
    told = schema["paths"][path][method]
    query = {}
    for parameter in told.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(data.draw(words), safe=""))
        elif data.draw(st.booleans()):
            query[parameter["name"]] = data.draw(words)
    query.pop("wait", None)
    check(opened.request(method, path, params=query))


@FUZZ
@given(accept=printable, prefer=printable)
def test_junk_in_headers_is_refused_and_never_fails(opened: httpx.Client, accept: str, prefer: str) -> None:
    headers = {
        "Accept": accept.strip().encode(),
        "Prefer": prefer.encode("ascii", "ignore").strip().replace(b"\0", b""),
    }
    response = opened.get("/v1/features/BTCUSDT/RSI", headers=headers)
    check(response)
