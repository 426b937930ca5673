"""Connections: to a server of the user's own by URL, to the embedded one, and what is said of either."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdplatform.errors import InvalidSetting
from mdplatform.serving.reader import Reader
from mdplatform.valkey.connection import ServerStatus, async_connect, connect, shown_url, status
from mdplatform.valkey.embedded import find_binary

PASSWORD = "p%4 s/w@rd:"
QUOTED = "p%254%20s%2Fw%40rd%3A"


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A server with a password, as a user may run it, on TCP and on a unix socket."""
    folder = tmp_path_factory.mktemp("own")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = folder / "own.sock"
    options = f"--bind 127.0.0.1 --port {port} --unixsocket {path} --save '' --dir {folder}".split()
    server = subprocess.Popen([find_binary(), *options, "--requirepass", PASSWORD], stdout=subprocess.PIPE)
    for line in server.stdout:
        if b"Ready to accept connections unix" in line or (b"Ready to accept connections" in line and b"unix" in line):
            break
    yield port, path
    server.terminate()
    server.communicate()


@pytest.fixture(params=["tcp", "unix", "unix, password as a parameter"])
def own(request, own_server, settings):
    port, path = own_server
    url = {
        "tcp": f"redis://:{QUOTED}@127.0.0.1:{port}/0",
        "unix": f"unix://:{QUOTED}@{path}?db=0",
        "unix, password as a parameter": f"unix://{path}?db=0&password={QUOTED}",
    }[request.param]
    return settings.model_copy(update={"redis_url": url})


def test_a_server_of_the_users_own_is_used_and_nothing_else_started(own, processes, market):
    with connect(own) as client:
        client.flushall()
        assert client.set("a", b"1")
        assert status(own).keys == 1
        client.flushall()
    market.walk("BTCUSDT", 60)
    with Reader(own) as reader:
        assert [reader.latest("BTCUSDT", "RSI").source for _ in range(2)] == ["computed", "cache"]
    assert processes.alive() == {}

    async def read():
        client = async_connect(own)
        held = await client.dbsize()
        await client.aclose()
        return held

    assert asyncio.run(read()) == 1


def test_the_address_is_shown_without_the_password(own):
    for shown in (shown_url(own), str(status(own))):
        assert "p%" not in shown
        assert "s/w@rd" not in shown
        assert QUOTED not in shown


def test_a_wrong_password_is_said_and_not_shown(own_server, settings):
    port, _ = own_server
    wrong = settings.model_copy(update={"redis_url": f"redis://:hunter2@127.0.0.1:{port}/0"})
    seen = status(wrong)
    assert not seen.reachable
    assert "WRONGPASS" in seen.problem or "invalid" in seen.problem
    assert "hunter2" not in str(seen)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@host:port/0",
        "redis://:hunter2/x@host:6379",
        "redis://:hunter2@[::1",
        "redis://:hunter2@h/0?db=y",
    ],
)
def test_a_url_that_cannot_be_read_is_one_error_that_does_not_repeat_it(settings, url):
    broken = settings.model_copy(update={"redis_url": url})
    seen = status(broken)
    assert not seen.reachable
    assert "hunter2" not in str(seen)
    with pytest.raises(InvalidSetting, match="MDPLATFORM_REDIS_URL") as refused:
        connect(broken)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_status_does_not_start_the_embedded_server_unless_told(settings, processes):
    before = status(settings)
    assert (before.embedded, before.reachable) == (True, False)
    assert "not running" in before.problem
    assert processes.alive() == {}
    with connect(settings) as client:
        client.set("a", b"1")
        seen = status(settings)
        assert seen == ServerStatus(
            url=shown_url(settings),
            embedded=True,
            reachable=True,
            version=seen.version,
            memory_bytes=seen.memory_bytes,
            memory_limit_bytes=settings.valkey_memory_mb << 20,
            keys=1,
        )
        assert seen.version.startswith(("Valkey ", "Redis "))
    assert status(settings, start=True).reachable
    assert processes.alive() == {}


def test_the_embedded_server_is_for_this_user_alone_and_evicts_only_what_expires(settings, processes):
    with connect(settings) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert Path(client.config_get("unixsocket")["unixsocket"]).stat().st_mode & 0o077 == 0


def test_timeouts_come_from_the_settings(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        seen = status(settings.model_copy(update={"redis_url": url, "redis_timeout_seconds": 0.1}))
    assert "Timeout" in seen.problem
