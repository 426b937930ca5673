"""Answers over WebSocket: requests and answers, standing ones, coming back, keys of browsers, slow clients."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mdplatform.gateway import places
from mdplatform.gateway.outbox import Letter, Outbox
from mdplatform.gateway.places import MOST_STRANGERS
from mdplatform.requests.answer import AnswerBody, Part, Progress, Status
from mdplatform.settings import Settings

from .conftest import Gateway, unanswered
from .market import rsi, until


class Client:
    """One connection, which speaks JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, op: str, **told: object) -> None:
        self.socket.send(json.dumps({"op": op, **told}))

    def hear(self, event: str | None = None, seconds: float = 20.0) -> dict[str, Any]:
        """The next message, or the next one of that kind."""
        end = time.monotonic() + seconds
        while True:
            told = json.loads(self.socket.recv(timeout=max(0.01, end - time.monotonic())))
            if event is None or told["event"] == event:
                return told


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> str:
    return gateway.key("socket", strategies=["momentum_*"])


def connected(gateway: Gateway, key: str | None, **options: Any) -> ClientConnection:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(gateway.socket_url, additional_headers=headers, proxy=None, **options)


@pytest.fixture
def client(gateway: Gateway, key: str) -> Iterator[Client]:
    with connected(gateway, key) as socket:
        yield Client(socket)


def test_a_request_is_accepted_and_then_answered(client: Client) -> None:
    client.say("request", ref="a", request=rsi(latest=2))
    accepted = client.hear()
    assert (accepted["event"], accepted["ref"]) == ("accepted", "a")
    answer = client.hear("answer")
    assert (answer["request_id"], answer["status"], answer["final"]) == (accepted["request_id"], "ok", True)
    assert len(answer["results"][0]["rows"]) == 2


def test_many_requests_are_each_accepted_or_refused_and_answered(client: Client) -> None:
    client.say("batch", ref=1, requests=[rsi(), rsi(indicators=["RSY"]), rsi("other_1"), rsi()])
    told = [client.hear() for _ in range(4)]
    refused = {each["index"]: each["problem"] for each in told if each["event"] == "refused"}
    assert {index: each["status"] for index, each in refused.items()} == {1: 422, 2: 403}
    accepted = {each["request_id"] for each in told if each["event"] == "accepted"}
    heard = [each for each in told if each["event"] == "answer"]
    while len(heard) < 2:
        heard.append(client.hear("answer"))
    assert {each["request_id"] for each in heard} == accepted


def test_two_requests_of_a_message_with_one_id_are_both_refused(client: Client) -> None:
    twins = [rsi(request_id="ws-twin"), rsi(request_id="ws-twin", latest=2), rsi()]
    client.say("batch", requests=twins)
    told = {each["index"]: each for each in (client.hear() for _ in range(3)) if each["event"] != "answer"}
    assert {index: each["event"] for index, each in told.items()} == {0: "refused", 1: "refused", 2: "accepted"}
    assert told[0]["problem"]["field"] == told[1]["problem"]["field"] == "request_id"
    client.say("resume", request_ids=["ws-twin"])
    assert client.hear("resumed")["unknown"] == ["ws-twin"]


@pytest.mark.parametrize(
    ("repeated", "status"), [({"symbols": []}, 422), ({"strategy_id": "other_1"}, 403), ({"latest": 7}, 409)]
)
def test_a_repeat_that_is_refused_takes_nothing_from_the_open_request(
    repeated: dict[str, object], status: int, client: Client
) -> None:
    id = f"ws-repeat-{next(iter(repeated))}"
    client.say("request", request=rsi(request_id=id, refresh="on_close", deadline=60))
    assert not client.hear("answer")["final"]
    client.say("request", ref="again", request=rsi(**{"request_id": id, "refresh": "on_close", **repeated}))
    refused = client.hear("refused")
    assert (refused["ref"], refused["problem"]["status"]) == ("again", status)
    client.say("cancel", request_id=id)
    last = client.hear("answer")
    assert (last["request_id"], last["final"]) == (id, True)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"op": "request"}, ""),
        ({"op": "request", "request": rsi(symbols=[])}, "symbols"),
        ({"op": "request", "reqest": {}}, "reqest"),
        ({"op": "ask"}, "op"),
        ({"op": 7}, "op"),
        ({}, "op"),
        ({"op": "batch", "requests": {}}, "requests"),
        ({"op": "resume", "request_ids": []}, "request_ids"),
        ({"op": "cancel", "request_id": 7}, "request_id"),
        ({"op": "cancel", "request_id": "nothing"}, "request_id"),
        ([], ""),
    ],
)
def test_a_message_that_is_wrong_is_refused_and_the_conversation_goes_on(
    message: object, field: str, client: Client
) -> None:
    client.socket.send(json.dumps(message))
    refused = client.hear()
    assert (refused["event"], refused["problem"].get("field", "")) == ("refused", field)
    client.say("ping", ref="still")
    assert client.hear()["ref"] == "still"


@pytest.mark.parametrize("junk", ["", "{", b"\xff\x00", '{"op": NaN}', "[" * 5000])
def test_what_is_no_json_is_refused_and_the_conversation_goes_on(junk: str | bytes, client: Client) -> None:
    client.socket.send(junk)
    assert client.hear()["problem"]["type"] == "urn:mdplatform:invalid-json"
    client.say("ping")
    assert client.hear()["event"] == "pong"


def test_a_standing_request_is_answered_until_it_is_cancelled(client: Client) -> None:
    client.say("request", request=rsi(refresh="on_close", deadline=60))
    id = client.hear("accepted")["request_id"]
    first = client.hear("answer")
    assert (first["final"], first["request_id"]) == (False, id)
    client.say("cancel", request_id=id)
    last = client.hear("answer")
    assert (last["final"], last["status"], last["request_id"]) == (True, "ok", id)


def test_who_comes_back_gets_what_was_answered_meanwhile_once(gateway: Gateway, key: str) -> None:
    with gateway.client(key) as http:
        done = http.post("/v1/requests?wait=20s", json=rsi()).json()
    with connected(gateway, key) as socket:
        first = Client(socket)
        first.say("request", request=rsi(refresh="on_close", deadline=60))
        standing = first.hear("accepted")["request_id"]
        number = first.hear("answer")["number"]
    with connected(gateway, key) as socket:
        again = Client(socket)
        again.say("resume", ref="r", request_ids=[done["request_id"], standing, "nothing"])
        resumed = again.hear()
        assert (resumed["event"], resumed["unknown"]) == ("resumed", ["nothing"])
        told = {each["request_id"]: each for each in (again.hear("answer"), again.hear("answer"))}
        assert told[done["request_id"]] == {"event": "answer", **done}
        assert told[standing]["number"] == number
        again.say("cancel", request_id=standing)
        assert again.hear("answer")["final"]
        again.say("ping")
        assert again.hear()["event"] in ("cancelled", "pong")


def test_a_request_that_this_process_did_not_send_is_adopted(gateway: Gateway, key: str) -> None:
    with gateway.client(key) as http:
        sent = http.post("/v1/requests?wait=20s", json=rsi(refresh="on_close", deadline=60)).json()
        switchboard = gateway.app.state.parts.switchboard
        switchboard._lines.pop(sent["request_id"])  # as if another process had sent it
        looked = http.get(f"/v1/requests/{sent['request_id']}").json()
        assert (looked["status"], switchboard.line(sent["request_id"]).standing) == ("open", True)
        assert http.delete(f"/v1/requests/{sent['request_id']}").json()["status"] == "ok"


def test_a_browser_shows_its_key_as_a_subprotocol_which_is_not_repeated(gateway: Gateway, key: str) -> None:
    with connected(gateway, None, subprotocols=["mdplatform.v1", f"mdplatform.key.{key}"]) as socket:
        assert socket.subprotocol == "mdplatform.v1"
        Client(socket).say("ping")
        assert Client(socket).hear()["event"] == "pong"


def test_a_key_may_come_in_the_first_message(gateway: Gateway, key: str) -> None:
    with connected(gateway, None) as socket:
        client = Client(socket)
        client.say("auth", key=key)
        assert client.hear()["event"] == "ready"
        client.say("ping")
        assert client.hear()["event"] == "pong"


@pytest.mark.parametrize(
    "first", [{"op": "ping"}, {"op": "auth", "key": "mdp_x"}, {"op": "auth"}, {"op": "auth", "key": 7}]
)
def test_who_shows_no_key_first_is_shut_out(first: object, gateway: Gateway) -> None:
    with connected(gateway, None) as socket:
        socket.send(json.dumps(first))
        assert Client(socket).hear()["problem"]["status"] == 401
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


def test_only_some_may_be_connected_who_have_not_shown_their_key(gateway: Gateway, key: str) -> None:
    with ExitStack() as strangers:
        for _ in range(MOST_STRANGERS):
            strangers.enter_context(connected(gateway, None))
        with pytest.raises(InvalidStatus) as refused, connected(gateway, None):
            pass
        assert refused.value.response.status_code == 429
        with connected(gateway, key) as socket:
            Client(socket).say("ping")
            assert Client(socket).hear()["event"] == "pong"
    until(lambda: not gateway.app.state.parts.places._strangers)
    with connected(gateway, None) as socket:
        Client(socket).say("auth", key=key)
        assert Client(socket).hear()["event"] == "ready"
        assert not gateway.app.state.parts.places._strangers


def test_a_key_may_have_so_many_connections_however_it_is_shown(gateway: Gateway) -> None:
    shown = gateway.key("socket-many")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as open_ones:
        patch.setattr(places, "MOST_OF_A_KEY", 3)
        for _ in range(3):
            open_ones.enter_context(connected(gateway, shown))
        with pytest.raises(InvalidStatus) as refused, connected(gateway, shown):
            pass
        assert refused.value.response.status_code == 429
        with connected(gateway, None) as socket:
            Client(socket).say("auth", key=shown)
            assert Client(socket).hear()["problem"]["type"] == "urn:mdplatform:too-many-connections"


@pytest.mark.parametrize(("scopes", "status"), [(None, 401), (["read"], 403)])
def test_a_key_that_may_not_ask_is_refused_before_the_connection_is_made(
    scopes: list[str] | None, status: int, gateway: Gateway
) -> None:
    shown = "mdp_wrong" if scopes is None else gateway.key(f"socket-{status}", scopes)
    with pytest.raises(InvalidStatus) as refused, connected(gateway, shown):
        pass
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body or b"")["status"] == status
    assert shown.encode() not in (response.body or b"")


def test_a_key_that_asks_too_often_is_refused_and_stays_connected(gateway: Gateway) -> None:
    with connected(gateway, gateway.key("socket-slow", rate=2)) as socket:
        client = Client(socket)
        for _ in range(6):
            client.say("ping")
        told = [client.hear() for _ in range(6)]
        refused = [each["problem"] for each in told if each["event"] == "refused"]
        assert {each["status"] for each in refused} == {429}
        assert not any("/v1/" in each["remedy"] for each in refused)
        assert [each["event"] for each in told].count("pong") >= 3


def test_a_key_that_is_revoked_ends_what_it_may_say(gateway: Gateway) -> None:
    with connected(gateway, gateway.key("socket-brief")) as socket:
        client = Client(socket)
        client.say("ping")
        assert client.hear()["event"] == "pong"
        gateway.keys.revoke("socket-brief")
        client.say("request", request=rsi())
        assert client.hear()["problem"]["status"] == 401


def test_a_page_of_another_site_does_not_get_in_where_no_keys_are_wanted(home: Path) -> None:
    opened = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), unanswered)
    try:
        with connected(opened, None) as socket:
            Client(socket).say("ping")
            assert Client(socket).hear()["event"] == "pong"
        with pytest.raises(InvalidStatus) as refused, connected(opened, None, origin="https://evil.example"):
            pass
        assert refused.value.response.status_code == 403
    finally:
        opened.stop()


def test_when_the_gateway_ends_waits_and_connections_end_and_requests_do_not(home: Path) -> None:
    ending = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), unanswered)
    with connected(ending, None) as socket:
        client = Client(socket)
        client.say("request", request=rsi())
        client.hear("accepted")
        began = time.monotonic()
        ending.stop()
        assert time.monotonic() - began < 5
        with pytest.raises(ConnectionClosed) as closed:
            client.hear("answer")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (1001, 1012)
    with pytest.raises(httpx.ConnectError):
        ending.client().get("/healthz")


def answer(id: str, *, final: bool = False, number: int = 0, size: int = 0) -> Letter:
    part = Part(source="cache", layer="near", version="", available_at=0, rows=0, data=b" " * size)
    return Letter(AnswerBody(request_id=id, status=Status.OK, final=final, number=number, parts=(part,)))


async def all_of(outbox: Outbox, count: int) -> list[Any]:
    letters = [await outbox.take() for _ in range(count)]
    return [None if each is None else each.what for each in letters]


async def _slow(outbox: Outbox) -> list[Any]:
    return await all_of(outbox, len(outbox._letters))


def test_a_slow_client_loses_progress_first_then_what_is_overtaken_and_never_a_final_answer() -> None:
    import asyncio

    outbox = Outbox(most_messages=4)
    outbox.put(Letter(Progress(request_id="a", stage="taken")))
    for number in range(1, 4):
        outbox.put(answer("a", number=number))
    outbox.put(answer("b", final=True))
    assert outbox.dropped == 1
    outbox.put(answer("a", number=4))
    told = asyncio.run(_slow(outbox))
    assert [(each.request_id, each.number) for each in told] == [("b", 0), ("a", 4)]
    assert not outbox.overflowed


@pytest.mark.parametrize("bounds", [{"most_messages": 3}, {"most_bytes": 4_000}])
def test_what_must_not_be_lost_and_does_not_fit_ends_the_connection(bounds: dict[str, int]) -> None:
    import asyncio

    outbox = Outbox(**bounds)
    for number in range(4):
        outbox.put(answer(f"final-{number}", final=True, size=1_000))
    assert outbox.overflowed
    assert asyncio.run(all_of(outbox, 1)) == [None]


def test_a_client_that_does_not_read_is_let_go_and_comes_back_for_its_answers(home: Path) -> None:
    from mdplatform.gateway import outbox

    running = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False))
    patch = pytest.MonkeyPatch()
    try:
        patch.setattr(outbox.Outbox.__init__, "__defaults__", (20, 10_000_000))
        with connected(running, None, max_queue=1) as socket:
            client = Client(socket)
            ids = [f"slow-{number}" for number in range(60)]
            client.say("batch", requests=[rsi(request_id=id, latest=2_000) for id in ids])
            with running.client() as http:
                until(lambda: http.get(f"/v1/requests/{ids[-1]}").status_code != 404)
                for id in ids:
                    assert http.get(f"/v1/requests/{id}?wait=20s").status_code == 200
            with pytest.raises(ConnectionClosed) as closed:
                client.hear("that never comes")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1013
        patch.undo()
        with connected(running, None) as socket:
            again = Client(socket)
            again.say("resume", request_ids=ids)
            assert again.hear("resumed")["unknown"] == []
            assert {again.hear("answer")["request_id"] for _ in ids} == set(ids)
    finally:
        patch.undo()
        running.stop()
