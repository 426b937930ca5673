"""Broadcasts when something dies: the listening process, Redis, RabbitMQ, a bridge; and when Redis forgets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis

from mdplatform.errors import InvalidSetting, TransportUnavailable
from mdplatform.messaging import listening
from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.messaging.rabbitmq.bridge import Bridge
from mdplatform.messaging.redis import line as redis_line
from mdplatform.messaging.redis.posts import HEADS, PREFIX, posts_key
from mdplatform.messaging.registry import listener
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from tests.messaging.broadcasts import BROADCASTS, Sides
from tests.messaging.test_rabbitmq import Road, at

HOUR = 3_600_000_000
LISTENING = """
    import asyncio, json, sys
    from mdplatform.messaging.broadcast import Post
    from mdplatform.messaging.registry import listener
    from mdplatform.settings import Settings

    async def main():
        hearing = listener(Settings.load(transport="{transport}"))
        await hearing.follow({topics}, json.loads(sys.stdin.readline()))
        print("follows", flush=True)
        while True:
            for each in await hearing.receive(5):
                assert isinstance(each, Post), each
                print(json.dumps([each.topic, int(each.body), each.place]), flush=True)

    asyncio.run(main())
"""


@pytest.fixture
def client(settings: Settings, processes: Any) -> Iterator[redis.Redis]:
    with connect(settings) as client:
        yield client


@pytest.fixture
def run(settings: Settings, client: redis.Redis) -> Callable[..., None]:
    """Runs a test's coroutine with the sides of a broadcast over Redis, within a deadline."""

    def on(test: Callable[[Sides], Coroutine[Any, Any, None]], kind: str = "redis", **changes: Any) -> None:
        async def whole() -> None:
            async with BROADCASTS[kind](settings.model_copy(update=changes)) as sides:
                await asyncio.wait_for(test(sides), 60)

        asyncio.run(whole())

    return on


async def until(listener: Listener, last: bytes, seconds: float = 30.0) -> list[Post | Missed]:
    """Receive until a post with this body has come; Redis may be away meanwhile."""
    found: list[Post | Missed] = []
    end = time.monotonic() + seconds
    while not any(isinstance(each, Post) and each.body == last for each in found):
        assert time.monotonic() < end, f"{last!r} did not come; {len(found)} others did"
        found += await listener.receive(1)
    return found


def bodies(found: list[Post | Missed]) -> list[int]:
    assert all(isinstance(each, Post) for each in found), found
    return [int(each.body) for each in found if isinstance(each, Post)]


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"])
def test_a_listening_process_that_is_killed_is_followed_by_one_that_misses_nothing(transport, request, run, python):
    changes = {}
    if transport == "rabbitmq":
        settings = request.getfixturevalue("rabbitmq_settings")
        changes = {"transport": transport, "rabbitmq_url": settings.rabbitmq_url}
    topics = ["A", "B", "C"]

    async def test(sides: Sides) -> None:
        sender, cursors = sides.broadcaster(), dict.fromkeys(topics, "0-0")
        found: dict[str, list[int]] = {topic: [] for topic in topics}
        sent, ended = 0, asyncio.Event()

        async def send() -> None:
            nonlocal sent
            while not ended.is_set() or sent < 200:
                sent += 1
                await sender.send([Post(topic, b"%d" % sent) for topic in topics])
                await asyncio.sleep(0.01)

        sending = asyncio.create_task(send())
        for life in range(2):
            process = python(LISTENING.format(transport=transport, topics=topics))
            process.stdin.write(json.dumps(cursors) + "\n")
            process.stdin.flush()
            assert await asyncio.to_thread(process.stdout.readline) == "follows\n"
            for _ in range(100):
                topic, number, place = json.loads(await asyncio.to_thread(process.stdout.readline))
                found[topic].append(number)
                cursors[topic] = place
            if life == 1:
                ended.set()
                await sending
            while life == 1 and any(found[topic][-1:] != [sent] for topic in topics):
                topic, number, place = json.loads(await asyncio.to_thread(process.stdout.readline))
                found[topic].append(number)
            process.send_signal(signal.SIGKILL)  # what it had read and not told is read again
            process.communicate()
        assert found == {topic: list(range(1, sent + 1)) for topic in topics}

    run(test, transport, **changes)


def test_nothing_is_lost_or_repeated_when_redis_is_killed(run, processes):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A"])
        ended = asyncio.Event()

        async def send() -> None:
            for number in range(1, 301):
                await sender.send([Post("A", b"%d" % number, {"last": b"%d" % number})])
                if number in (50, 150):
                    os.kill(processes.server(), signal.SIGKILL)
            ended.set()

        sending = asyncio.create_task(send())
        assert bodies(await until(hearing, b"300")) == list(range(1, 301))
        await sending
        assert await hearing.facts(["A"]) == {"A": {"last": b"300"}}

    run(test)


def test_a_connection_that_is_cut_again_and_again_loses_nothing(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A", "B"])

        async def send() -> None:
            for number in range(1, 401):
                await sender.send([Post("AB"[number % 2], b"%d" % number)])
                if number % 40 == 0:
                    await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
                    await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        sending = asyncio.create_task(send())
        found: list[int] = []
        while len(found) < 400:
            found += bodies(await hearing.receive(5))
        await sending
        assert [number for number in found if number % 2] == list(range(1, 401, 2))
        assert [number for number in found if not number % 2] == list(range(2, 401, 2))

    run(test)


@pytest.mark.parametrize("transport", ["redis", "rabbitmq"])
def test_a_topic_that_is_followed_while_the_connection_is_made_is_heard(transport, request, run):
    changes = {}
    if transport == "rabbitmq":
        settings = request.getfixturevalue("rabbitmq_settings")
        changes = {"transport": transport, "rabbitmq_url": settings.rabbitmq_url}

    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["EARLY"])
        pushes = hearing._pushes  # type: ignore[attr-defined]
        connect = pushes.connect

        async def connect_slowly(topics: list[str]) -> None:
            assert topics == ["EARLY"]
            await hearing.follow(["LATE"])
            await connect(topics)

        pushes.connect = connect_slowly
        assert await hearing.receive(0.05) == []
        await sender.send([Post("LATE", b"1"), Post("EARLY", b"2")])
        found = await until(hearing, b"2")
        if len(found) < 2:
            found += await hearing.receive(1)
        assert sorted(bodies(found)) == [1, 2]

    run(test, transport, **changes)


def test_a_redis_that_was_emptied_is_noticed_and_new_posts_are_heard(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        cursors = await hearing.follow(["A", "B"])
        await sender.send([Post("A", b"%d" % number) for number in range(1, 6)])
        await until(hearing, b"5")
        cursors |= hearing.cursors
        client.flushall()
        await sender.send([Post("A", b"6"), Post("A", b"7")])
        gone, *rest = await until(hearing, b"7")
        assert isinstance(gone, Missed)
        assert bodies(rest) == [6, 7]
        await sender.send([Post("A", b"8")])
        assert bodies(await until(hearing, b"8")) == [8]
        other = sides.listener()
        await other.follow(["A", "B"], cursors)
        gone, *rest = await until(other, b"8")
        assert isinstance(gone, Missed)
        assert bodies(rest) == [6, 7, 8]

    run(test)


def test_a_listener_that_comes_back_to_an_empty_redis_is_told_so_at_once(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A"])
        await sender.send([Post("A", b"1")])
        await until(hearing, b"1")
        cursors = dict(hearing.cursors)
        client.flushall()
        other = sides.listener()
        await other.follow(["A"], cursors)
        assert await other.receive(5) == [Missed("A", "0-0")]
        assert await other.receive(0.05) == []
        await sender.send([Post("A", b"2")])
        assert bodies(await until(other, b"2")) == [2]

    run(test)


def test_a_redis_that_came_back_without_its_last_second_is_noticed(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A"])
        await sender.send([Post("A", b"1"), Post("A", b"2")])
        [*_, last] = await until(hearing, b"2")
        kept = client.hget(HEADS, "A"), client.dump(posts_key("A"))
        await sender.send([Post("A", b"3"), Post("A", b"4")])
        await until(hearing, b"4")
        client.hset(HEADS, "A", last.place if kept[0] is None else kept[0])
        client.restore(posts_key("A"), 0, kept[1], replace=True)
        await sender.send([Post("A", b"5"), Post("A", b"6"), Post("A", b"7")])
        found = await until(hearing, b"7")
        assert isinstance(found[0], Missed)
        assert bodies(found[1:]) == [5, 6, 7]

    run(test)


def test_a_clock_that_is_set_back_is_of_no_matter(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A", "B"])
        await sender.send([Post("A", b"1"), Post("B", b"1")])
        assert bodies(await until(hearing, b"1")) == [1, 1]
        micros, _, number = client.hget(HEADS, "A").partition(b"-")
        later = b"%d-%d" % (int(micros) + HOUR, int(number) + 1)  # as if it had been an hour later so far
        client.xadd(posts_key("A"), {"body": b"2"}, id=later)
        client.hset(HEADS, "A", later)
        await sides.broadcaster().send([Post("A", b"3"), Post("B", b"2"), Post("A", b"4")])
        assert sorted(bodies(await until(hearing, b"4"))) == [2, 2, 3, 4]
        client.flushall()  # and forgotten, while the feed begins anew
        await sides.broadcaster().send([Post("A", b"5"), Post("A", b"6")])
        gone, *rest = [each for each in await until(hearing, b"6") if each.topic == "A"]
        assert isinstance(gone, Missed)
        assert bodies(rest) == [5, 6]

    run(test)


def test_a_call_that_comes_through_twice_is_done_once(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await hearing.follow(["A"])
        line, sent = sender._line, []  # type: ignore[attr-defined]
        command = line.command

        async def twice(*parts: Any) -> Any:
            sent.append(parts)
            await command(*parts)
            for earlier in sent:
                await command(*earlier)
            return await command(*parts)

        line.command = twice
        for number in range(1, 6):
            await sender.send([Post("A", b"%d" % number)])
        assert bodies(await until(hearing, b"5")) == [1, 2, 3, 4, 5]
        assert client.xlen(posts_key("A")) == 5

    run(test)


def test_without_redis_calls_say_so_and_go_on_when_it_is_there(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(redis_line, "PATIENCE", 0.2)
    monkeypatch.setattr(listening, "PATIENCE", 0.2)
    away = settings.model_copy(update={"redis_url": f"unix://{tmp_path}/nobody.sock"})

    async def test() -> None:
        async with BROADCASTS["redis"](away) as sides:
            sender, hearing = sides.broadcaster(), sides.listener()
            for call in (
                lambda: sender.send([Post("A", b"1")]),
                sender.wishes,
                lambda: sender.facts(["A"]),
                lambda: hearing.follow(["A"]),
                lambda: hearing.wish("me", b"x", 1),
            ):
                with pytest.raises(TransportUnavailable, match="Redis"):
                    await call()
            assert hearing.cursors == {}
            await hearing.follow(["A"], {"A": "0-0"})
            assert await hearing.receive(0.05) == []
            with pytest.raises(TransportUnavailable, match="Redis"):
                await hearing.receive(10)
            with connect(settings) as client:
                (tmp_path / "nobody.sock").symlink_to(client.connection_pool.connection_kwargs["server"].path)
                await sender.send([Post("A", b"1")])
                assert bodies(await until(hearing, b"1")) == [1]
            await hearing.close()
            with pytest.raises(TransportUnavailable, match="closed"):
                await hearing.receive(0)

    asyncio.run(test())


def test_all_keys_lie_in_one_slot_and_none_expires(run, client):
    async def test(sides: Sides) -> None:
        sender, hearing = sides.broadcaster(), sides.listener()
        await sender.send([Post("}{", b"1", {"a": b"b"}), Post("BTCUSDT", b"1", {"a": b"b"})])
        await hearing.wish("me", b"x", 1)
        keys = client.keys("*")
        assert len(keys) == 8
        assert all(key.startswith(PREFIX.encode()) and client.ttl(key) == -1 for key in keys)

    run(test)


def test_a_line_to_rabbitmq_that_is_cut_loses_nothing(rabbitmq_settings, run):
    async def test(_: Sides) -> None:
        async with Road(rabbitmq_settings) as road, BROADCASTS["rabbitmq"](at(rabbitmq_settings, road.port)) as sides:
            sender, hearing = sides.broadcaster(), sides.listener()
            await hearing.follow(["A"])
            for first in (1, 11, 21):
                road.passable = True
                await sender.send([Post("A", b"%d" % number) for number in range(first, first + 5)])
                assert bodies(await until(hearing, b"%d" % (first + 4))) == list(range(first, first + 5))
                road.cut()
                await sender.send([Post("A", b"%d" % number) for number in range(first + 5, first + 10)])
                road.passable = True
                assert bodies(await until(hearing, b"%d" % (first + 9))) == list(range(first + 5, first + 10))

    run(test)


def test_a_bridge_that_follows_another_carries_what_was_posted_between(rabbitmq_settings, run):
    async def test(sides: Sides) -> None:
        hearing = listener(sides.settings)
        sender = sides.broadcaster()
        try:
            async with Bridge(sides.settings):
                await hearing.follow(["A"])
                await sender.send([Post("A", b"1")])
                assert bodies(await until(hearing, b"1")) == [1]
            await sender.send([Post("A", b"2")])
            assert await hearing.receive(0.05) == []
            async with Bridge(sides.settings), Bridge(sides.settings):
                assert bodies(await until(hearing, b"2")) == [2]
                await sender.send([Post("A", b"3")])
                assert bodies(await until(hearing, b"3")) == [3]
        finally:
            await hearing.close()

    run(test, "redis", transport="rabbitmq", rabbitmq_url=rabbitmq_settings.rabbitmq_url)


def test_without_a_bridge_a_listener_over_rabbitmq_says_so(rabbitmq_settings, monkeypatch):
    from mdplatform.messaging.rabbitmq import shelves as rabbitmq_shelves

    monkeypatch.setattr(rabbitmq_shelves, "PATIENCE", 0.2)

    async def test() -> None:
        hearing = listener(rabbitmq_settings)
        with pytest.raises(TransportUnavailable, match=r"No bridge answered.*mdplatform bridge"):
            await hearing.follow(["A"])
        await hearing.close()

    asyncio.run(test())


def test_a_rabbitmq_url_that_cannot_be_read_is_refused(settings):
    with pytest.raises(InvalidSetting, match="RABBITMQ_URL"):
        listener(
            settings.model_copy(
                update={"transport": "rabbitmq", "rabbitmq_url": Settings(rabbitmq_url="x").rabbitmq_url}
            )
        )
