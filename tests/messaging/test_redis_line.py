"""A line: each caller gets the answer to its own command, whatever becomes of others, the server and the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.redis import socket as redis_socket
from mdplatform.messaging.redis.line import BlockingLine, Line
from mdplatform.messaging.redis.scripts.script import Script, script
from mdplatform.settings import Settings

pytestmark = pytest.mark.usefixtures("processes")
TOLD = script("return {KEYS[1], ARGV[1]}")


def on_a_line(settings: Settings, test: Callable[[Line], Awaitable[None]]) -> None:
    async def whole() -> None:
        line = Line(settings)
        try:
            async with asyncio.timeout(20):
                await test(line)
        finally:
            await line.close()

    asyncio.run(whole())


def test_callers_get_their_own_answers_where_others_are_cancelled(settings: Settings) -> None:
    async def test(line: Line) -> None:
        for turn in range(5):  # the first turn connects
            asked = [asyncio.create_task(line.command("ECHO", f"{turn}-{each}")) for each in range(700)]
            await asyncio.sleep(0)
            for each in asked[turn::3]:
                each.cancel()
            told = await asyncio.gather(*asked, return_exceptions=True)
            for number, each in enumerate(told):
                assert isinstance(each, asyncio.CancelledError) or each == f"{turn}-{number}".encode()
            assert sum(isinstance(each, bytes) for each in told) >= 460

    on_a_line(settings, test)


def test_what_got_no_answer_in_time_comes_through_in_order(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_socket, "SLOWEST", 0.1)
    settings = settings.model_copy(update={"redis_timeout_seconds": 0.1})

    async def test(line: Line) -> None:
        await line.command("CLIENT", "PAUSE", 300, "WRITE")
        asked = [asyncio.create_task(line.command("SET", "key", each)) for each in range(10)]
        await asyncio.gather(*asked)
        assert await line.command("GET", "key") == b"9"

    on_a_line(settings, test)


def test_a_script_that_the_server_forgot_is_run(settings: Settings) -> None:
    async def test(line: Line) -> None:
        for _ in range(2):
            assert [told[1] for told in await asyncio.gather(*(line.run(TOLD, each) for each in "abc"))] == [
                b"a", b"b", b"c",
            ]  # fmt: skip
            await line.command("SCRIPT", "FLUSH")

    on_a_line(settings, test)


def test_a_command_that_is_refused_says_so_to_its_caller_alone(settings: Settings) -> None:
    async def test(line: Line) -> None:
        broken = Script("return redis.call('NO')", "0" * 40)
        refused, echoed = await asyncio.gather(line.run(broken), line.command("ECHO", "x"), return_exceptions=True)
        assert isinstance(refused, TransportUnavailable)
        assert echoed == b"x"

    on_a_line(settings, test)


def test_closing_sends_what_waits_and_refuses_what_comes_later(settings: Settings) -> None:
    async def test(line: Line) -> None:
        asked = [asyncio.create_task(line.command("INCR", "count")) for _ in range(20)]
        await asyncio.sleep(0)
        await line.close()
        assert [await each for each in asked] == list(range(1, 21))
        with pytest.raises(TransportUnavailable, match="closed"):
            await line.command("PING")

    on_a_line(settings, test)


def test_a_reader_that_was_cancelled_does_not_get_the_answer_to_what_it_asked_before(settings: Settings) -> None:
    async def test(line: Line) -> None:
        reader = BlockingLine(settings)
        try:
            await reader.read(0, ("PING",))
            reading = asyncio.create_task(reader.read(5, ("BLPOP", "list", 5)))
            while b"blocked_clients:1" not in await line.command("INFO", "clients"):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await line.command("RPUSH", "list", "late")
            assert await reader.read(0, ("ECHO", "mine")) == [b"mine"]
        finally:
            await reader.close()

    on_a_line(settings, test)
