"""Requests over HTTP: sent, waited for, looked up, cancelled, many at once; and refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from websockets.sync.client import connect

from mdplatform.serving.reader import Reader
from mdplatform.settings import Settings

from .conftest import Gateway, unanswered
from .market import rsi

ARROW = "application/vnd.apache.arrow.stream"
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def silent(home: Path) -> Iterator[Gateway]:
    """A gateway behind which nobody answers."""
    running = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), unanswered)
    yield running
    running.stop()


def test_a_request_is_taken_at_once_and_its_location_gives_the_answer(client: httpx.Client) -> None:
    sent = client.post("/v1/requests", json=rsi())
    assert sent.status_code == 202
    assert (sent.json()["status"], sent.json()["label"]) == ("open", "BTCUSDT RSI(timeperiod=14) 15m")
    assert sent.headers["location"] == f"/v1/requests/{sent.json()['request_id']}"
    answered = client.get(sent.headers["location"], params={"wait": "20s"})
    assert answered.status_code == 200
    assert answered.json()["status"] == "ok"
    assert answered.json()["request_id"] == sent.json()["request_id"]


@pytest.mark.parametrize("how", [{"params": {"wait": "20s"}}, {"headers": {"Prefer": "respond-async, wait=20"}}])
def test_who_waits_gets_the_values_that_a_reader_gives(
    how: dict[str, object], client: httpx.Client, home: Path
) -> None:
    response = client.post("/v1/requests", json=rsi(latest=3, symbols=["ETHUSDT", "BTCUSDT"]), **how)  # type: ignore[arg-type]
    assert response.status_code == 200
    assert response.headers.get("preference-applied") == ("wait=20" if "headers" in how else None)
    with Reader(Settings.load(home=home)) as reader:
        for told in response.json()["results"]:
            assert told["rows"] == reader.latest(told["symbol"], "RSI(14)", "15m", 3).rows


def test_an_answer_comes_as_an_arrow_stream_to_who_accepts_that(client: httpx.Client) -> None:
    response = client.post("/v1/requests?wait=20s", json=rsi(latest=5), headers={"Accept": ARROW})
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    assert table.num_rows == 5
    assert table.column_names[:4] == ["symbol", "timeframe", "feature", "output"]
    told = client.get(f"/v1/requests/{_about(table)['request_id']}").json()
    assert table.column("value").to_pylist() == [row["rsi"] for row in told["results"][0]["rows"]]


def _about(table: pa.Table) -> dict[str, object]:
    return json.loads(table.schema.metadata[b"mdplatform"])


def test_what_has_no_value_is_null_with_its_reason(client: httpx.Client) -> None:
    asked = {"start": "2026-10-01", "end": "2026-10-01T01:00:00Z", "latest": None}
    [told] = client.post("/v1/requests?wait=20s", json=rsi(**asked)).json()["results"]
    assert [row["rsi"] for row in told["rows"]] == [None] * 4
    assert {row["reason"] for row in told["rows"]} == {"insufficient_history"}


def test_a_correlation_is_a_matrix_with_its_symbols(client: httpx.Client) -> None:
    asked = {"type": "CORRELATION_MATRIX", "strategy_id": "p", "symbols": ["BTCUSDT", "ETHUSDT"], "timeframes": ["15m"]}
    [told] = client.post("/v1/requests?wait=20s", json=asked).json()["results"]
    assert told["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert [told["matrix"][0][0], told["matrix"][1][1]] == pytest.approx([1, 1])
    assert told["matrix"][0][1] == told["matrix"][1][0]
    table = pa.ipc.open_stream(
        client.post("/v1/requests?wait=20s", json=asked, headers={"Accept": ARROW}).content
    ).read_all()
    assert table.column("value").to_pylist() == [each for row in told["matrix"] for each in row]
    assert table.column("observations").to_pylist() == [each for row in told["observations"] for each in row]


@pytest.mark.parametrize(
    ("changed", "field", "remedy"),
    [
        ({"type": "TECHNICAL"}, "type", "TECHNICAL_INDICATORS"),
        ({"indicators": [{"name": "RSY"}]}, "indicators[0].name", "RSI"),
        ({"indicators": [{"name": "RSI", "parameters": {"period": 1}}]}, "indicators[0].parameters.period", "2 to"),
        ({"symbols": []}, "symbols", "Name 1 to"),
        ({"symbols": ["BTC/USDT"]}, "symbols[0]", "A-Z"),
        ({"timeframes": ["15min"]}, "timeframes[0]", "15m"),
        ({"priority": "URGENT"}, "priority", "CRITICAL"),
        ({"latest": 0}, "latest", "1 to"),
        ({"deadline": -1}, "deadline", "more than 0"),
        ({"simbols": ["BTCUSDT"]}, "simbols", "symbols"),
        ({"strategy_id": ""}, "strategy_id", "1 to 64"),
        ({"refresh": "daily"}, "refresh", "on_close"),
        ({"request_id": "a b"}, "request_id", "A-Z"),
    ],
)
def test_bad_input_is_refused_with_its_field_and_what_is_allowed(
    changed: dict[str, object], field: str, remedy: str, client: httpx.Client
) -> None:
    response = client.post("/v1/requests", json=rsi(**changed))
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)
    told = response.json()
    assert told["field"] == field
    assert remedy in told["remedy"]
    assert told["type"].startswith("urn:mdplatform:")
    assert told["detail"]


DIGITS = "1" * 4_900


@pytest.mark.parametrize(
    "asked",
    [
        rsi(indicators=[f"RSI({DIGITS})"]),
        rsi(indicators=[{"name": "RSI", "parameters": {"period": DIGITS}}]),
        rsi(type="CUSTOM_COMPOSITE", formula=f"close + {DIGITS}"),
        *(rsi(type="VOLUME_PROFILE", **{name: DIGITS}) for name in ("session_hours", "row_size", "algorithm")),
        *(rsi(type="VOLUME_PROFILE", row_size=size) for size in (5e-324, "sNaN", [1], {"a": 1})),
        *(rsi(type="CORRELATION_MATRIX", latest=latest) for latest in (True, 1.0, [1], "sNaN")),
        *(
            rsi(type="CORRELATION_MATRIX", symbols=["BTCUSDT", "ETHUSDT"], **{name: [1, 2]})
            for name in ("refresh", "of", "method", "sample", "shrinkage", "repair", "window", "min_periods")
        ),
    ],
    ids=lambda asked: "",
)
def test_what_no_number_or_word_can_be_is_never_the_servers_failure(
    asked: dict[str, object], client: httpx.Client, gateway: Gateway
) -> None:
    given = {
        name: value for name, value in asked.items() if asked["type"] == "TECHNICAL_INDICATORS" or name != "indicators"
    }
    refused = client.post("/v1/requests", json=given)
    assert (refused.status_code, refused.headers["content-type"]) == (422, PROBLEM)
    assert refused.json()["field"] not in ("", "indicators")
    headers = {"Authorization": client.headers["authorization"]}
    with connect(gateway.socket_url, additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"op": "request", "request": given}))
        assert json.loads(socket.recv(timeout=10))["problem"] == refused.json()


@pytest.mark.parametrize("missing", ["type", "strategy_id", "symbols", "indicators", "timeframes"])
def test_a_field_that_is_missing_is_named(missing: str, client: httpx.Client) -> None:
    response = client.post("/v1/requests", json={name: value for name, value in rsi().items() if name != missing})
    assert (response.status_code, response.json()["field"]) == (422, missing)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"nope", 400),
        (b'"\xff"', 400),
        (b"[]", 422),
        (b"3", 422),
        (b"[" * 9000 + b"]" * 9000, 422),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, status: int, client: httpx.Client) -> None:
    response = client.post("/v1/requests", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)


def test_a_body_has_to_be_declared_as_json(client: httpx.Client) -> None:
    assert client.post("/v1/requests", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_however_it_comes(declared: bool, client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    content = b" " * 2_000_000 if declared else chunks()
    response = client.post("/v1/requests", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (413, "urn:mdplatform:body-too-large")


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=1", "application/json;q=0"])
def test_a_form_that_cannot_be_given_is_refused_before_anything_is_sent(accept: str, client: httpx.Client) -> None:
    response = client.post("/v1/requests", json=rsi(request_id="never-sent"), headers={"Accept": accept})
    assert response.status_code == 406
    assert ARROW in response.json()["remedy"]
    assert client.get("/v1/requests/never-sent").status_code == 404


def test_the_same_id_is_one_request_however_often_it_is_sent(client: httpx.Client) -> None:
    first = client.post("/v1/requests?wait=20s", json=rsi(request_id="mine-1"))
    again = client.post("/v1/requests?wait=20s", json=rsi(request_id="mine-1"))
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()


@pytest.mark.parametrize("changed", [{"latest": 2}, {"strategy_id": "momentum_2"}, {"symbols": ["ETHUSDT"]}])
def test_an_id_is_of_one_request_alone_before_and_after_its_answer(
    changed: dict[str, object], client: httpx.Client
) -> None:
    id = f"mine-{next(iter(changed))}"
    standing = rsi(request_id=id, refresh="on_close", deadline=60)
    assert client.post("/v1/requests?wait=20s", json=standing).json()["status"] == "ok"
    for _ in range(2):
        other = {**standing, **changed}
        for path, body in (("", other), (":batch", {"requests": [other]})):
            refused = client.post(f"/v1/requests{path}", json=body)
            assert (refused.status_code, refused.json()["type"]) == (409, "urn:mdplatform:request-id-taken")
            assert refused.json()["field"].endswith("request_id")
        assert client.post("/v1/requests", json=standing).status_code in (200, 202)
        assert client.delete(f"/v1/requests/{id}").json()["final"]


def test_many_requests_are_each_accepted_or_refused(client: httpx.Client) -> None:
    wanted = [rsi(), rsi(indicators=["RSY"]), rsi(symbols=["ETHUSDT"]), 7]
    response = client.post("/v1/requests:batch?wait=20s", json={"requests": wanted})
    assert response.status_code == 202
    results = response.json()["results"]
    assert [each["status"] for each in results] == ["ok", "refused", "ok", "refused"]
    assert results[2]["answer"]["results"][0]["symbol"] == "ETHUSDT"
    assert results[1]["problem"]["field"].startswith("requests[1].indicators[0]")
    assert results[3]["problem"]["field"] == "requests[3]"


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": 3}, {"requests": [{}] * 201}, {"request": [{}]}])
def test_a_batch_that_is_none_is_refused(body: object, client: httpx.Client) -> None:
    assert client.post("/v1/requests:batch", json=body).status_code == 422


def test_two_requests_of_a_batch_with_one_id_are_both_refused(client: httpx.Client) -> None:
    response = client.post("/v1/requests:batch", json={"requests": [rsi(request_id="twin"), rsi(request_id="twin")]})
    assert response.status_code == 422
    assert client.get("/v1/requests/twin").status_code == 404


@pytest.mark.parametrize("wait", ["61s", "-1", "soon", "1h", "1e3", "999999"])
def test_a_wait_that_is_none_or_too_long_is_refused(wait: str, client: httpx.Client) -> None:
    response = client.post("/v1/requests", json=rsi(), params={"wait": wait})
    assert (response.status_code, response.json()["field"]) == (422, "wait")


def test_a_cancelled_request_has_one_final_answer_that_says_so(silent: Gateway) -> None:
    with silent.client() as client:
        place = client.post("/v1/requests", json=rsi()).headers["location"]
        looked = client.get(place, params={"wait": "50ms"})
        assert (looked.status_code, looked.json()["stage"]) == (202, "queued")
        assert client.delete(place).json()["problem"]["error"] == "Cancelled"
        assert client.get(place).json() == client.delete(place).json()
        assert client.get(place).json()["status"] == "failed"
        macro = {"type": "MACRO_INDICATORS", "strategy_id": "test", "series": ["CPIAUCSL"]}
        place = client.post("/v1/requests", json=macro).headers["location"]
        assert client.delete(place).json()["type"] == "MACRO_INDICATORS"
        ended = client.post("/v1/requests?wait=10s", json={**macro, "deadline": 0.1}).json()
        assert (ended["type"], ended["problem"]["error"]) == ("MACRO_INDICATORS", "DeadlinePassed")


def test_a_request_that_nobody_answers_is_ended_at_its_deadline(silent: Gateway) -> None:
    with silent.client() as client:
        response = client.post("/v1/requests?wait=10s", json=rsi(deadline=0.1))
        assert response.status_code == 200
        assert response.json()["problem"]["error"] == "DeadlinePassed"


def test_another_request_under_an_id_that_is_known_is_refused(silent: Gateway) -> None:
    with silent.client() as client:
        one = rsi(request_id="mine")
        assert client.post("/v1/requests", json=one).status_code == 202
        assert client.post("/v1/requests", json={**one, "deadline": 20}).status_code == 202
        for other in ({"latest": 7}, {"strategy_id": "another"}, {"timeframes": ["1h"]}):
            refused = client.post("/v1/requests", json={**one, **other})
            assert (refused.status_code, refused.json()["type"]) == (409, "urn:mdplatform:request-id-taken")
            assert (refused.json()["field"], refused.json()["value"]) == ("request_id", "mine")


def test_who_goes_away_ends_the_wait_and_not_the_request(silent: Gateway) -> None:
    with silent.client() as client:
        place = client.post("/v1/requests", json=rsi()).headers["location"]
        line = silent.app.state.parts.switchboard.line(place.rpartition("/")[2])
        with pytest.raises(httpx.ReadTimeout):
            client.get(place, params={"wait": "30s"}, timeout=0.3)
        gone = threading.Event()

        def look() -> None:
            gone.set() if not line.watchers else silent.loop.call_later(0.01, look)

        silent.loop.call_soon_threadsafe(look)
        assert gone.wait(5), "the wait of a client that has gone goes on"
        assert client.get(place).json()["status"] == "open"


def test_over_capacity_a_request_is_turned_away_with_a_time_to_try_again(home: Path) -> None:
    small = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False, request_capacity=2), unanswered)
    try:
        with small.client() as client:
            sent = [client.post("/v1/requests", json=rsi(priority="LOW")) for _ in range(4)]
            assert [each.status_code for each in sent].count(202) == 2
            refused = sent[-1]
            assert (refused.status_code, refused.json()["type"]) == (429, "urn:mdplatform:request-rejected")
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["retry_after_seconds"] > 0
            assert client.post("/v1/requests", json=rsi(priority="CRITICAL")).status_code == 202
    finally:
        small.stop()


def test_nothing_is_known_of_an_id_that_was_never_sent(client: httpx.Client) -> None:
    for response in (client.get("/v1/requests/nothing"), client.delete("/v1/requests/nothing")):
        assert (response.status_code, response.json()["type"]) == (404, "urn:mdplatform:unknown-request")


def test_a_standing_request_gives_its_answers_one_after_the_other(client: httpx.Client) -> None:
    first = client.post("/v1/requests?wait=20s", json=rsi(refresh="on_close", deadline=60)).json()
    assert (first["final"], first["number"] > 0) == (False, True)
    place = f"/v1/requests/{first['request_id']}"
    assert client.get(place, params={"wait": "20s"}).json()["number"] == first["number"]
    assert client.get(place, params={"wait": "100ms", "after": first["number"]}).status_code == 202
    ended = client.delete(place).json()
    assert (ended["final"], ended["status"], ended["results"]) == (True, "ok", [])
