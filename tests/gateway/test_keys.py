"""Keys: how they are kept, what they open, and that they are told nowhere."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mdplatform.cli import main
from mdplatform.errors import InvalidKey, InvalidSetting
from mdplatform.gateway.app import create_app
from mdplatform.gateway.keys import KeyStore
from mdplatform.gateway.limits import Limits
from mdplatform.settings import Settings

from .conftest import Gateway, in_process
from .market import rsi


@pytest.fixture
def store(settings: Settings) -> KeyStore:
    settings.home.mkdir()
    return KeyStore(settings.home)


def test_a_key_opens_what_it_was_made_for_and_only_its_hash_is_kept(store: KeyStore) -> None:
    key, text = store.create("desk", ["request"], ["momentum_*"], 5)
    assert store.find(text) == key
    assert text.split("_", 2)[2] not in store.path.read_text()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert not key.allows("read")  # type: ignore[arg-type]
    assert key.covers("momentum_1")
    assert not key.covers("Momentum_1")


@pytest.mark.parametrize("shown", ["", "x", "mdp_000000000000_" + "A" * 43, "mdp_\udce9", "Bearer"])
def test_what_is_no_key_is_refused_without_being_repeated(shown: str, store: KeyStore) -> None:
    store.create("desk")
    with pytest.raises(InvalidKey) as refused:
        store.find(shown)
    assert not shown or shown not in str(refused.value)


def test_a_key_with_another_secret_is_refused(store: KeyStore) -> None:
    _, text = store.create("desk")
    changed = text[:-1] + ("A" if text[-1] != "A" else "B")
    with pytest.raises(InvalidKey):
        store.find(changed)


def test_a_revoked_key_ends_at_once_for_whoever_has_read_it(store: KeyStore) -> None:
    reader = KeyStore(store.path.parent)
    key, text = store.create("desk")
    assert reader.find(text).name == "desk"
    store.revoke("desk")
    with pytest.raises(InvalidKey, match="revoked"):
        reader.find(text)
    assert not reader.in_force(key)
    with pytest.raises(InvalidKey, match="No such key"):
        store.revoke("desk")
    assert store.create("desk")[0].id != key.id


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "a/b"}),
        ("name", {"name": "x" * 65}),
        ("scope", {"scopes": ["write"]}),
        ("scope", {"scopes": []}),
        ("strategies", {"strategies": []}),
        ("strategies", {"strategies": ["a b"]}),
        ("per_second", {"per_second": 0}),
        ("per_second", {"per_second": float("nan")}),
        ("per_second", {"per_second": 1e9}),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(field: str, given: dict[str, object], store: KeyStore) -> None:
    with pytest.raises(InvalidKey) as refused:
        store.create(**{"name": "desk", **given})  # type: ignore[arg-type]
    assert refused.value.field == field
    assert store.every() == []


def test_a_name_is_one_key_in_force(store: KeyStore) -> None:
    store.create("desk")
    with pytest.raises(InvalidKey, match="exists"):
        store.create("desk")


def test_a_file_that_others_may_read_is_refused(store: KeyStore) -> None:
    _, text = store.create("desk")
    store.path.chmod(0o644)
    os.utime(store.path)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        KeyStore(store.path.parent).find(text)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"id": 1}]}', '{"keys": 1}', '{"key": []}'])
def test_a_broken_file_opens_to_nobody(content: str, store: KeyStore) -> None:
    _, text = store.create("desk")
    store.path.write_text(content)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        KeyStore(store.path.parent).find(text)


def test_a_key_may_ask_twice_its_rate_at_once_and_then_its_rate() -> None:
    now = [0.0]
    limits = Limits(lambda: now[0])
    assert [limits.take("a", 2) == 0 for _ in range(5)] == [True] * 4 + [False]
    assert limits.take("b", 2) == 0
    assert limits.take("a", 2) == pytest.approx(0.5)
    now[0] = 0.5
    assert [limits.take("a", 2) == 0 for _ in range(2)] == [True, False]


def test_more_at_once_than_the_bucket_holds_is_paid_back_by_waiting() -> None:
    now = [0.0]
    limits = Limits(lambda: now[0])
    assert limits.take("a", 10, 200) == 0
    assert limits.take("a", 10) == pytest.approx(18.1)
    now[0] = -5.0  # a clock that went back gives nothing
    assert limits.take("a", 10) > 18


def test_the_command_line_makes_lists_and_revokes_keys(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mdplatform", "keys", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return shown.out if not ended.value.code else shown.err

    made = json.loads(run("create", "--name", "desk", "--scope", "read", "--strategies", "a_*,b", "--json"))
    assert (made["scopes"], made["strategies"]) == (["read"], ["a_*", "b"])
    assert KeyStore(settings.home).find(made["key"]).name == "desk"
    assert run("create", "--name", "two").strip().startswith("mdp_")
    assert "desk" in run("list")
    assert made["key"].split("_", 2)[2] not in run("list", "--json")
    assert run("revoke", "desk").startswith("revoked desk")
    assert "In force: two" in run("revoke", "desk").replace("\n", " ")
    assert "Allowed: request, read, admin" in run("create", "--name", "x", "--scope", "write")


def test_without_keys_the_gateway_listens_on_loopback_alone(settings: Settings) -> None:
    with pytest.raises(InvalidSetting, match="loopback alone"):
        create_app(Settings.load(gateway_keys=False, gateway_host="0.0.0.0"))


OPERATIONS = [
    ("GET", "/v1/symbols"),
    ("GET", "/v1/catalog"),
    ("GET", "/v1/features/BTCUSDT/RSI"),
    ("GET", "/v1/requests/x"),
    ("DELETE", "/v1/requests/x"),
    ("POST", "/v1/requests"),
    ("POST", "/v1/requests:batch"),
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_operation_is_open_without_a_key(method: str, path: str, gateway: Gateway) -> None:
    wrong = [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}, {"X-API-Key": "mdp_1_2"}]
    with gateway.client() as client:
        for headers in wrong:
            response = client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert response.json()["type"] == "urn:mdplatform:invalid-key"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_each_scope_opens_its_own_operations(method: str, path: str, scoped: dict[str, httpx.Client]) -> None:
    needed = "request" if "/requests" in path else "read"
    for scope, client in scoped.items():
        status = client.request(method, path).status_code
        assert (status == 403) == (scope not in (needed, "admin"))
        assert status != 401


@pytest.fixture(scope="module")
def scoped(gateway: Gateway) -> Iterator[dict[str, httpx.Client]]:
    clients = {each: gateway.client(gateway.key(f"scope-{each}", [each])) for each in ("request", "read", "admin")}
    yield clients
    for client in clients.values():
        client.close()


def test_a_key_sees_only_the_requests_of_its_own_strategies(gateway: Gateway) -> None:
    one, two = (gateway.client(gateway.key(f"own-{each}", strategies=[f"{each}_*"])) for each in ("one", "two"))
    admin = gateway.client(gateway.key("own-admin", ["admin"], ["nothing"]))
    with one, two, admin:
        refused = one.post("/v1/requests", json=rsi("two_1"))
        assert (refused.status_code, refused.json()["field"]) == (403, "strategy_id")
        sent = one.post("/v1/requests?wait=20s", json=rsi("one_1", request_id="of-one"))
        assert sent.status_code == 200
        assert two.get("/v1/requests/of-one").status_code == 404
        assert two.delete("/v1/requests/of-one").status_code == 404
        assert admin.get("/v1/requests/of-one").json() == sent.json()
        taken = two.post("/v1/requests?wait=20s", json=rsi("two_1", request_id="of-one"))
        assert (taken.status_code, taken.json()["type"]) == (409, "urn:mdplatform:request-id-taken")
        [result] = two.post("/v1/requests:batch", json={"requests": [rsi("one_1")]}).json()["results"]
        assert result["problem"]["status"] == 403


def test_a_key_that_asks_too_often_is_told_when_to_come_again(gateway: Gateway) -> None:
    with gateway.client(gateway.key("slow", rate=2)) as client:
        statuses = [client.get("/v1/symbols") for _ in range(6)]
        assert [each.status_code for each in statuses].count(200) in (4, 5)
        assert int(statuses[-1].headers["retry-after"]) >= 1
        assert statuses[-1].json()["type"] == "urn:mdplatform:rate-limit"
    with gateway.client(gateway.key("other", rate=2)) as client:
        assert client.get("/v1/symbols").status_code == 200


def test_a_key_made_or_revoked_counts_from_the_next_call_on(gateway: Gateway) -> None:
    with gateway.client(gateway.key("brief")) as client:
        assert client.get("/v1/symbols").status_code == 200
        gateway.keys.revoke("brief")
        assert client.get("/v1/symbols").status_code == 401


def test_keys_that_cannot_be_used_are_the_servers_failure_which_tells_no_path(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Gateway(Settings.load(home=home, gateway_port=0), in_process)
    kept = running.keys.path
    try:
        key = running.key("unreadable")
        content = kept.read_bytes()
        with running.client(key) as client:
            assert client.get("/v1/symbols").status_code == 200
            for broken in (content, b"{"):
                kept.unlink()
                kept.write_bytes(broken)
                kept.chmod(0o644 if broken == content else 0o600)
                refused = client.get("/v1/symbols")
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert kept.name not in refused.text
            assert str(kept) in caplog.text
            kept.write_bytes(content)
            assert client.get("/v1/symbols").status_code == 200
    finally:
        running.stop()


def test_a_key_also_comes_in_a_header_of_its_own_and_never_in_the_address(gateway: Gateway) -> None:
    text = gateway.key("header")
    with gateway.client() as client:
        assert client.get("/v1/symbols", headers={"X-API-Key": text}).status_code == 200
        assert client.get("/v1/symbols", params={"key": text}).status_code == 401


def test_a_page_of_another_site_may_ask_with_a_key_and_never_where_none_is_wanted(gateway: Gateway, home: Path) -> None:
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with gateway.client() as client:
        assert client.options("/v1/requests", headers=asks).headers["access-control-allow-origin"] == "*"
    opened = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), in_process)
    try:
        with opened.client() as client:
            assert client.get("/v1/symbols").status_code == 200
            assert client.get("/v1/symbols", headers={"Origin": "http://localhost:3000"}).status_code == 200
            assert client.get("/v1/symbols", headers={"Origin": "https://evil.example"}).status_code == 403
            assert client.get("/v1/symbols", headers={"Host": "evil.example"}).status_code == 403
            assert "access-control-allow-origin" not in client.options("/v1/requests", headers=asks).headers
    finally:
        opened.stop()


def test_to_check_a_key_costs_microseconds(store: KeyStore) -> None:
    _, text = store.create("desk")
    store.find(text)
    began = time.perf_counter()
    for _ in range(200):
        store.find(text)
    assert (time.perf_counter() - began) / 200 < 0.002
