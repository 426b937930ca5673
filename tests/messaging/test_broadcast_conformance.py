"""What every broadcast keeps: the order of a topic, each post once, cursors, facts with their posts, wishes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mdplatform.errors import InvalidPost
from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.settings import Settings
from tests.messaging.broadcasts import BROADCASTS, Sides

Test = Callable[[Sides], Coroutine[Any, Any, None]]
ODD = ["a b", "BTC/USDT:PERP", "#", "*.*", "{}", "}{", "Zürich €", "0-0", "posts:A", "\r\n$3\r\n", "x" * 200, " ", "\0"]


@pytest.fixture(params=BROADCASTS)
def run(request: pytest.FixtureRequest, settings: Settings) -> Callable[..., None]:
    """Runs a test's coroutine with the sides of each broadcast, within a deadline."""
    if request.param == "rabbitmq":
        settings = request.getfixturevalue("rabbitmq_settings")

    def on(test: Test, **changes: Any) -> None:
        async def whole() -> None:
            async with BROADCASTS[request.param](settings.model_copy(update=changes)) as sides:
                await asyncio.wait_for(test(sides), 30)

        asyncio.run(whole())

    return on


async def heard(listener: Listener, count: int, seconds: float = 10.0) -> list[Post | Missed]:
    """Receive until there are so many."""
    found: list[Post | Missed] = []
    end = time.monotonic() + seconds
    while len(found) < count:
        found += await listener.receive(1)
        assert time.monotonic() < end, f"{len(found)} of {count} came"
    assert len(found) == count
    return found


async def posts(listener: Listener, count: int) -> list[Post]:
    found = [each for each in await heard(listener, count) if isinstance(each, Post)]
    assert len(found) == count
    return found


async def nothing(listener: Listener) -> None:
    assert await listener.receive(0.05) == []


def numbered(topic: str, first: int, last: int) -> list[Post]:
    return [Post(topic, str(number).encode()) for number in range(first, last + 1)]


def told(found: list[Post], topic: str) -> list[int]:
    return [int(each.body) for each in found if each.topic == topic]


def test_posts_are_heard_in_order_and_once_by_every_listener(run):
    async def test(sides: Sides) -> None:
        sender, listeners = sides.broadcaster(), [sides.listener() for _ in range(3)]
        for each in listeners:
            await each.follow(["A", "B"])
        await sender.send([post for number in range(1, 301) for post in (Post("A", b"%d" % number), Post("C", b"no"))])
        await sender.send(numbered("B", 1, 50))
        for each in listeners:
            found = await posts(each, 350)
            assert told(found, "A") == list(range(1, 301))
            assert told(found, "B") == list(range(1, 51))
            assert {topic: each.cursors[topic] for topic in "AB"} == {post.topic: post.place for post in found}
            await nothing(each)

    run(test)


def test_a_listener_hears_from_when_it_follows_and_until_it_leaves(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await sender.send(numbered("A", 1, 3))
        begun = await listener.follow(["A"])
        assert listener.cursors == begun
        await sender.send(numbered("A", 4, 5))
        assert told(await posts(listener, 2), "A") == [4, 5]
        assert await listener.follow(["A"]) == listener.cursors != begun
        await listener.leave(["A", "never"])
        await sender.send(numbered("A", 6, 7))
        await nothing(listener)
        assert listener.cursors == {}
        await listener.follow(["A"], begun)
        assert told(await posts(listener, 4), "A") == [4, 5, 6, 7]

    run(test)


def test_what_comes_meanwhile_wakes_who_waits(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])
        for number in range(1, 6):
            waiting = asyncio.create_task(listener.receive(20))
            await asyncio.sleep(0)
            await sender.send(numbered("A", number, number))
            assert told(await waiting, "A") == [number]

    run(test)


def test_a_topic_that_is_followed_while_a_receive_waits_is_heard_by_it(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])
        await nothing(listener)
        waiting = asyncio.create_task(listener.receive(20))
        await asyncio.sleep(0)
        await listener.follow(["B"])
        await sender.send(numbered("B", 1, 1))
        assert told(await waiting, "B") == [1]

    run(test)


def test_topics_come_and_go_while_posts_are_received_and_nothing_is_lost(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        topics = [f"T{number}" for number in range(20)]
        found: dict[str, list[int]] = {topic: [] for topic in topics}
        last, ended = dict.fromkeys(topics, 0), asyncio.Event()

        async def send() -> None:
            chosen = random.Random(7)
            for _ in range(150):
                some = []
                for topic in chosen.choices(topics, k=10):
                    last[topic] += 1
                    some.append(Post(topic, b"%d" % last[topic]))
                await sender.send(some)
            ended.set()

        async def change() -> None:
            chosen, places = random.Random(8), dict(listener.cursors)
            while not ended.is_set():
                some = chosen.sample(topics, 5)
                places |= {topic: listener.cursors[topic] for topic in some}
                await listener.leave(some)
                await listener.follow(some, places)
                await asyncio.sleep(0)

        async def receive() -> None:
            while not ended.is_set() or any(found[topic][-1:] != [last[topic]] for topic in topics):
                for each in await listener.receive(1):
                    assert isinstance(each, Post)
                    found[each.topic].append(int(each.body))

        await listener.follow(topics)
        await asyncio.wait_for(asyncio.gather(send(), receive(), change()), 25)
        assert found == {topic: list(range(1, last[topic] + 1)) for topic in topics}

    run(test)


def test_a_new_listener_goes_on_from_the_cursors_of_another(run):
    async def test(sides: Sides) -> None:
        sender, first = sides.broadcaster(), sides.listener()
        await first.follow(["A", "B", "C"])
        await sender.send([*numbered("A", 1, 5), *numbered("B", 1, 2)])
        await posts(first, 7)
        cursors = dict(first.cursors)
        await first.close()
        await sender.send([*numbered("A", 6, 9), *numbered("C", 1, 1)])
        for _ in range(2):
            second = sides.listener()
            assert await second.follow(["A", "B", "C"], cursors) == cursors
            await sender.send([])
            found = await posts(second, 5)
            assert (told(found, "A"), told(found, "B"), told(found, "C")) == ([6, 7, 8, 9], [], [1])
            await nothing(second)

    run(test)


def test_all_that_is_kept_is_read_from_the_beginning(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await sender.send([post for topic in "ABC" for post in numbered(topic, 1, 1500)])
        await listener.follow(["A", "B"], {"A": "0-0", "B": "0-0", "C": "0-0"})
        await sender.send(numbered("A", 1501, 1510))
        found = await posts(listener, 3010)
        assert told(found, "A") == list(range(1, 1511))
        assert told(found, "B") == list(range(1, 1501))

    run(test)


def test_what_was_let_go_is_said_once_before_what_follows(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        cursors = await listener.follow(["A", "B"])
        await sender.send(numbered("A", 1, 2))
        await posts(listener, 2)
        cursors |= listener.cursors
        await sender.send([Post("A", b"%d" % number) for number in range(3, 2003)])
        other = sides.listener()
        await other.follow(["A", "B"], cursors)
        await sender.send(numbered("B", 1, 1))
        found: list[Post | Missed] = []
        while not (found and isinstance(found[-1], Post) and len({each.topic for each in found}) == 2):
            found += await other.receive(1)
        gone, *rest = [each for each in found if each.topic == "A"]
        kept = [int(each.body) for each in rest if isinstance(each, Post)]
        assert isinstance(gone, Missed)
        assert 10 <= len(kept) == len(rest) < 500
        assert kept == list(range(2003 - len(kept), 2003))
        assert [each for each in found if each.topic == "B"] == [Post("B", b"1", {}, other.cursors["B"])]
        again = sides.listener()
        await again.follow(["A"], {"A": gone.place})
        assert [int(each.body) for each in await posts(again, len(kept))] == kept

    run(test, live_kept=10)


def test_large_posts_take_the_place_of_many_small_ones(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        for number in range(8):
            await sender.send(
                [Post("A", b"%d" % number + bytes(250_000)) for number in range(4 * number, 4 * number + 4)]
            )
        await listener.follow(["A"], {"A": "0-0"})
        found = [await listener.receive(5)]
        while len(found[-1]):
            found.append(await listener.receive(0.1))
        first, *rest = [each for some in found for each in some]
        assert isinstance(first, Missed)
        assert 10 <= len(rest) < 20
        assert [each.body.rstrip(b"\0") for each in rest] == [b"%d" % number for number in range(32 - len(rest), 32)]

    run(test, live_kept_mb=1)


def test_facts_change_with_their_posts_and_stay_for_those_who_come_late(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        assert await listener.facts(["A"]) == {"A": {}}
        await sender.send([Post("A", b"1", {"cell:5m": b"first", "layout": b"\0\xff"}), Post("B", b"", {"x": b"y"})])
        await sender.send([Post("A", b"2", {"cell:5m": b"second", "gone": b"soon"}), Post("A", b"3", {"gone": b""})])
        expected = {"A": {"cell:5m": b"second", "layout": b"\0\xff"}, "B": {"x": b"y"}, "C": {}}
        assert await listener.facts(["A", "B", "C"]) == expected
        assert await sender.facts(["A", "B", "C"]) == expected
        assert await listener.facts([]) == {}

    run(test)


def test_who_hears_a_post_finds_its_facts_or_later_ones(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])

        async def send() -> None:
            for number in range(1, 101):
                await sender.send([Post("A", b"%d" % number, {"one": b"%d" % number, "two": b"%d" % number})])

        sending = asyncio.create_task(send())
        number = 0
        while number < 100:
            for each in await listener.receive(5):
                assert isinstance(each, Post)
                number = int(each.body)
            facts = (await listener.facts(["A"]))["A"]
            assert facts["one"] == facts["two"]
            assert int(facts["one"]) >= number
        await sending

    run(test)


def test_two_broadcasters_of_a_topic_are_heard_in_one_order(run):
    async def test(sides: Sides) -> None:
        senders, listeners = [sides.broadcaster(), sides.broadcaster()], [sides.listener(), sides.listener()]
        for each in listeners:
            await each.follow(["A"])

        async def send(at: int) -> None:
            for number in range(100):
                await senders[at].send([Post("A", b"%d" % (2 * number + at))])

        await asyncio.gather(send(0), send(1))
        first, second = [[int(each.body) for each in await posts(listener, 200)] for listener in listeners]
        assert first == second
        assert [number for number in first if number % 2] == list(range(1, 200, 2))
        assert sorted(first) == list(range(200))

    run(test)


def test_wishes_live_for_as_long_as_they_are_renewed(run):
    async def test(sides: Sides) -> None:
        sender, one, other = sides.broadcaster(), sides.listener(), sides.listener()
        assert await sender.wishes() == {}
        await one.wish("one", b"first", 20)
        await other.wish("other", b"\0\xff", 0.3)
        await one.wish("one", b"second", 20)
        assert await sides.broadcaster().wishes() == {"one": b"second", "other": b"\0\xff"}
        end = time.monotonic() + 10
        while "other" in await sender.wishes():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        assert await sender.wishes() == {"one": b"second"}
        await one.wish("one", b"", 20)
        await one.wish("never", b"", 20)
        assert await sender.wishes() == {}

    run(test)


def test_empty_and_large_bodies_come_as_they_are(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])
        large = random.Random(7).randbytes(1_000_000)
        bodies = [b"", large, b" ", large[::-1], b"\r\n", b"1-1 x"]
        await sender.send([Post("A", body, {"fact": body or b"-"}) for body in bodies])
        assert [each.body for each in await posts(listener, len(bodies))] == bodies
        assert await listener.facts(["A"]) == {"A": {"fact": b"1-1 x"}}
        again = sides.listener()
        await again.follow(["A"], {"A": "0-0"})
        assert [each.body for each in await posts(again, len(bodies))] == bodies

    run(test)


def test_odd_names_of_topics_are_told_apart(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(ODD)
        await sender.send([Post(topic, topic.encode(), {topic: topic.encode()}) for topic in ODD])
        found = await posts(listener, len(ODD))
        assert sorted(each.topic for each in found) == sorted(ODD)
        assert all(each.body == each.topic.encode() for each in found)
        assert await listener.facts(ODD) == {topic: {topic: topic.encode()} for topic in ODD}
        again = sides.listener()
        await again.follow(ODD, dict.fromkeys(ODD, "0-0"))
        assert sorted(each.topic for each in await posts(again, len(ODD))) == sorted(ODD)

    run(test)


def test_a_thousand_topics_are_followed_at_once(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        topics = [f"SYMBOL{number}" for number in range(1000)]
        await sender.send([Post(topic, b"before", {"a": b"b"}) for topic in topics])
        await listener.follow(topics)
        for number in range(3):
            await sender.send([Post(topic, b"%d" % number) for topic in topics])
        found = await posts(listener, 3000)
        by_topic: dict[str, list[int]] = {}
        for each in found:
            by_topic.setdefault(each.topic, []).append(int(each.body))
        assert by_topic == {topic: [0, 1, 2] for topic in topics}
        assert len(await listener.facts(topics)) == 1000
        await listener.leave(topics[1:])
        await sender.send([Post(topic, b"3") for topic in topics])
        assert told(await posts(listener, 1), topics[0]) == [3]

    run(test)


def test_a_listener_that_does_not_listen_for_a_while_hears_all_the_same(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])
        await nothing(listener)
        body = bytes(1000)
        for number in range(40):
            await sender.send([Post("A", b"%d " % at + body) for at in range(200 * number, 200 * number + 200)])
        found = await posts(listener, 8000)
        assert [int(each.body.split()[0]) for each in found] == list(range(8000))

    run(test)


def test_a_receive_that_is_cancelled_takes_nothing_away(run):
    async def test(sides: Sides) -> None:
        sender, listener = sides.broadcaster(), sides.listener()
        await listener.follow(["A"])
        found: list[int] = []
        for number in range(1, 41):
            receiving = asyncio.create_task(listener.receive(5))
            sending = asyncio.create_task(sender.send(numbered("A", number, number)))
            for _ in range(number % 8):
                await asyncio.sleep(0)
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found += told(await receiving, "A")
            await sending
        while len(found) < 40:
            found += told(await listener.receive(5), "A")
        assert found == list(range(1, 41))

    run(test)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        (lambda side: side.broadcaster().send([Post("A", b"fine"), Post("", b"")]), "name of a topic"),
        (lambda side: side.broadcaster().send([Post("A", b"fine"), Post("x" * 201, b"")]), "name of a topic"),
        (lambda side: side.broadcaster().send([Post("A", b"fine"), Post("\ud800", b"")]), "name of a topic"),
        (lambda side: side.broadcaster().send([Post("A", b"fine"), Post("A", "text")]), "body of A is no bytes"),
        (lambda side: side.broadcaster().send([Post("A", bytes(16_000_001))]), "body of A is too large"),
        (lambda side: side.broadcaster().send([Post("A", b"", {"": b""})]), "name of a fact"),
        (lambda side: side.broadcaster().send([Post("A", b"", {"x": None})]), "fact of A/x is no bytes"),
        (lambda side: side.listener().follow(["A", None]), "name of a topic"),
        (lambda side: side.listener().follow(["A"], {"A": "yesterday"}), "cursor of A cannot be read.*yesterday"),
        (lambda side: side.listener().follow(["A"], {"A": "1-"}), "cursor of A"),
        (lambda side: side.listener().follow(["A"], {"A": "-1-2"}), "cursor of A"),
        (lambda side: side.listener().follow(["A"], {"A": ""}), "cursor of A"),
        (lambda side: side.listener().leave([""]), "name of a topic"),
        (lambda side: side.listener().facts([""]), "name of a topic"),
        (lambda side: side.listener().wish("", b"x", 1), "name of a wish"),
        (lambda side: side.listener().wish("me", "x", 1), "wish of me is no bytes"),
        (lambda side: side.listener().wish("me", b"x", 0), "life of a wish"),
        (lambda side: side.listener().wish("me", b"x", float("nan")), "life of a wish"),
    ],
)
def test_bad_input_is_refused_before_anything_is_done(settings, what, problem):
    async def test() -> None:
        async with BROADCASTS["memory"](settings) as sides:
            listener = sides.listener()
            await listener.follow(["A"])
            with pytest.raises(InvalidPost, match=problem):
                await what(sides)
            assert await listener.receive(0) == []

    asyncio.run(test())
