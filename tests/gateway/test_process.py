"""The gateway as a process of its own, with Valkey and a worker that are real: start, load, loss, end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from mdplatform.errors import InvalidSetting
from mdplatform.gateway.keys import KeyStore
from mdplatform.gateway.server import listen
from mdplatform.processes import platform_program, run_programs
from mdplatform.settings import Settings
from mdplatform.valkey.embedded import find_binary

from .market import rsi, until


class Process:
    """`mdplatform gateway`, and what it told when it was ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.told = json.loads(process.stdout.readline() or "{}")
        self.url = str(self.told.get("url"))

    def end(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; give the exit status and what it wrote besides."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out + err


def start(home: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mdplatform", "--home", str(home), "gateway", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


@contextmanager
def gateway_process(home: Path, **environment: str) -> Iterator[Process]:
    process = start(home, "--port", "0", **environment)
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def worker(home: Path) -> Iterator[None]:
    """A worker on the home."""
    program = platform_program(Settings.load(home=home), "worker-1", "worker", "--name", "worker-1")
    with run_programs([program], home / "logs"):
        yield


def client_of(gateway: Process, key: str) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, headers={"X-API-Key": key}, trust_env=False, timeout=30)


@pytest.mark.usefixtures("worker")
def test_it_answers_through_a_worker_a_thousand_at_once_too_and_ends_without_losing_any(home: Path) -> None:
    key = KeyStore(home).create("process", per_second=10_000)[1]
    secret = key.split("_", 2)[2]
    with gateway_process(home, MDPLATFORM_REQUEST_CAPACITY="2000") as gateway:
        assert (gateway.told["ready"], gateway.told["keys"]) == (True, True)
        assert gateway.told["pid"] == gateway.process.pid
        with client_of(gateway, key) as client:
            answer = client.post("/v1/requests?wait=20s", json=rsi(request_id="of-a-process")).json()
            assert (answer["status"], answer["worker"]) == ("ok", "worker-1")
            standing = client.post("/v1/requests?wait=20s", json=rsi(refresh="on_close", deadline=60)).json()
            assert standing["number"] > 0
            told = asyncio.run(a_thousand(gateway.url, key))
            assert Counter(each["status"] for each in told) == {"ok": 1_000}
            assert len({each["request_id"] for each in told}) == 1_000
            assert {each["strategy_id"] for each in told} == {f"momentum_{number}" for number in range(1_000)}
            assert client.get("/healthz").json()["following"] == 1  # the standing one
            for headers in ({"X-API-Key": key + "x"}, {"Authorization": f"Bearer {key}x"}):
                refused = client.post("/v1/requests", json={}, headers=headers)
                assert (refused.status_code, secret in refused.text) == (401, False)
            assert client.get("/v1/symbols", params={"key": key}).status_code == 422
            with (
                pytest.raises(InvalidStatus),
                connect(
                    f"ws{gateway.url[4:]}/v1/answers?key={key}",
                    proxy=None,
                    subprotocols=[Subprotocol(f"mdplatform.key.{key}x")],
                ),
            ):
                pass
        assert gateway.end() == (0, "")  # nor did it write a key, or anything, to its log
    with gateway_process(home) as again, client_of(again, key) as client:
        assert client.get("/v1/requests/of-a-process").json() == answer
        looked = client.get(f"/v1/requests/{standing['request_id']}")
        assert (looked.status_code, looked.json()["stage"]) == (202, "parked")
        assert client.delete(f"/v1/requests/{standing['request_id']}").json()["status"] == "ok"


async def a_thousand(url: str, key: str) -> list[dict[str, Any]]:
    """Send a thousand requests at once, each on a connection of its own; give the answers."""
    port = int(url.rpartition(":")[2])
    return await asyncio.gather(*(one_of_many(port, key, number) for number in range(1_000)))


async def one_of_many(port: int, key: str, number: int) -> dict[str, Any]:
    priority = ("CRITICAL", "HIGH", "NORMAL", "LOW")[number % 4]
    asked = rsi(f"momentum_{number}", indicators=[f"RSI({10 + number % 7})"], priority=priority, deadline=60)
    body = json.dumps(asked).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/requests?wait=30s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"X-API-Key: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
    )
    head, _, told = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 "), head
    answer: dict[str, Any] = json.loads(told)
    return answer


def test_a_port_that_is_taken_is_one_clear_error(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(home, "--port", str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert re.search(
        r"setting: The gateway cannot listen on 127\.0\.0\.1 \(Address already in use\): \d+\. Choose", err
    )
    assert "Traceback" not in err


def test_an_address_that_is_none_of_this_machines_is_one_clear_error(settings: Settings) -> None:
    with pytest.raises(InvalidSetting, match=r"cannot listen on 203\.0\.113\.9"):
        listen(Settings.load(gateway_host="203.0.113.9", gateway_port=0))


def test_while_the_transport_is_away_it_says_so_and_it_comes_back(home: Path, tmp_path: Path) -> None:
    with (
        own_redis(tmp_path) as server,
        gateway_process(home, MDPLATFORM_GATEWAY_KEYS="false", MDPLATFORM_REDIS_URL=server.url) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client,
    ):
        assert client.post("/v1/requests", json=rsi()).status_code == 202
        server.stop()
        refused = client.post("/v1/requests", json=rsi())
        assert client.get("/healthz").status_code == 503
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert refused.headers["retry-after"]
        assert client.get("/v1/features/BTCUSDT/RSI").status_code == 200  # from the lake
        server.start()
        until(lambda: client.get("/healthz").status_code == 200)
        assert client.post("/v1/requests", json=rsi()).status_code == 202
        assert gateway.end()[0] == 0


class Server:
    """A Valkey of the test's own, which it may stop and start."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--port", str(self.port), "--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        self._process = subprocess.Popen([str(find_binary()), *words], stdout=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def own_redis(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
