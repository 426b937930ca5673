"""Catching up: all that is kept is given, also where the server is away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Missed, Post
from mdplatform.messaging.memory.broadcast import MemoryBroadcast, MemoryListener
from mdplatform.settings import Settings
from mdplatform.strategy.live import catching_up
from mdplatform.strategy.live.catching_up import catch_up
from mdplatform.streaming.cursor import Cursor

ALL = [b"1", b"2", b"3"]
MORE = [b"%d" % number for number in range(1, 16)]


class Heard:
    """Stands for a line: the bodies that it was given, and how often it was refilled."""

    def __init__(self) -> None:
        self.assembler = self
        self.held_since = 0.0
        self.bodies: list[bytes] = []
        self.refills = 0

    def take(self, post: Post, *_: object) -> None:
        self.bodies.append(post.body)

    async def give_patiently(self, _: object) -> None:
        pass


class Flaky(MemoryListener):
    """Is silent for the first calls of `receive`, as one that connects again; asked for facts it may say that."""

    def __init__(self, broadcast: MemoryBroadcast, silent: int, is_away: bool) -> None:
        super().__init__(broadcast)
        self._silent, self._is_away = silent, is_away

    async def receive(self, wait_seconds: float) -> list[Post | Missed]:
        if self._silent:
            self._silent -= 1
            return []
        return await super().receive(wait_seconds)

    async def facts(self, topics: Any) -> dict[str, dict[str, bytes]]:
        if self._is_away:
            raise TransportUnavailable("Redis does not answer", remedy="Wait")
        return await super().facts(topics)


@pytest.fixture
def catch(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Heard]:
    """Catches up from a cursor on, until a place; gives what was heard. Ten posts are kept."""
    monkeypatch.setattr(catching_up, "_QUIET_SECONDS", 0.01)

    def on(silent: int = 0, is_away: bool = False, cursor: str = "0-0", until: str = "0-3", bodies: Any = ALL) -> Heard:
        heard = Heard()

        async def readable(post: Post) -> Any:
            return post

        async def refill(_: object) -> None:
            heard.refills += 1

        async def whole() -> None:
            broadcast = MemoryBroadcast(settings.model_copy(update={"live_kept": 10}))
            broadcast.add([Post("A", body) for body in bodies])
            listener: Any = Flaky(broadcast, silent, is_away)
            line: Any = heard
            async with asyncio.timeout(5):
                await catch_up(line, Cursor(0, {"A": cursor}), {"A": until}, listener, readable, refill)

        asyncio.run(whole())
        return heard

    return on


def test_what_was_sent_since_the_cursor_is_given(catch):
    assert catch(cursor="0-1").bodies == [b"2", b"3"]


def test_silence_while_the_listener_connects_again_is_no_end(catch):
    assert catch(silent=1).bodies == ALL


def test_silence_of_a_server_that_is_away_is_told(catch):
    with pytest.raises(TransportUnavailable):
        catch(silent=1, is_away=True)


def test_a_server_that_forgot_what_was_to_be_heard_ends_it(catch):
    assert catch(until="0-7").bodies == ALL
    behind = catch(cursor="0-8", until="0-3")
    assert (behind.bodies, behind.refills) == (ALL, 1)


def test_it_ends_behind_the_place_also_where_that_one_was_let_go(catch):
    heard = catch(until="0-3", bodies=MORE, is_away=True)  # were it to go on, it would ask
    assert (heard.bodies, heard.refills) == (MORE[5:], 1)
