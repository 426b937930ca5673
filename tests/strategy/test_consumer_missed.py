"""What was missed is filled in, what is caught up with waits for callbacks, and of forming bars nothing is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from mdplatform.messaging.broadcast import Post
from mdplatform.strategy import Frame
from mdplatform.strategy.live import filling, lake_view, line
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.streaming import cursor
from mdplatform.streaming.cells import Layout, Packet, encode, forming_topic
from mdplatform.streaming.shape import Shape

from ..streaming.packets import LAYOUT, MINUTE, NOON, cell, packet
from .test_consumer import SMALL, STEP, Feed, run, steps, until


class Stored(LakeView):
    """A lake whose bars of BTCUSDT are those of `steps`."""

    steps: tuple[int, ...] = ()
    is_there = True

    def heads(self, _: Shape) -> dict[str, int]:
        return {"BTCUSDT": NOON + max(self.steps) * STEP} if self.steps else {}

    def past(self, _: Shape) -> Stored:  # type: ignore[override]
        return self

    def seed(self, _: Shape, __: int) -> tuple[Layout, list[Packet]]:
        return LAYOUT, []

    layout = LAYOUT

    def packets(self, start: int, end: int) -> Iterator[list[Packet]]:
        told = [packet("BTCUSDT", NOON + step * STEP, ("5m",), 100.0 + step) for step in self.steps]
        yield [each for each in told if start <= each.at <= end]


def numbered(step: int, number: int) -> Packet:
    return msgspec.structs.replace(packet("BTCUSDT", NOON + step * STEP, ("5m",)), feed="f", number=number)


class Gate:
    """A callback that waits until it is let through."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.open = asyncio.Event()

    async def __call__(self, frame: Frame) -> None:
        self.frames.append(frame)
        await self.open.wait()


def test_what_came_while_a_subscription_caught_up_waits_for_its_callback_and_only_then_the_policy_counts(settings):
    async def work() -> None:
        feed, slow = Feed(settings), Gate()
        await feed.close(["BTCUSDT"], 0, 9)
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON, {"BTCUSDT": "0-1"})
            await consumer.subscribe_to_market_data(**SMALL, callback=slow, queue=2, cursor=place)
            await until(lambda: consumer.status()[0].waiting == 2)
            assert "catching up" in consumer.status()[0].note
            await feed.close(["BTCUSDT"], 10, 29)
            await until(lambda: len(consumer._lines[consumer.status()[0].subscription_id]._held) == 20)
            slow.open.set()
            await until(lambda: len(slow.frames) == 29)
            assert steps(slow.frames) == list(range(1, 30))
            await until(lambda: consumer.status()[0].note == "")
            assert consumer.status()[0].dropped == 0
            slow.open.clear()
            await feed.close(["BTCUSDT"], 30, 39)
            await until(lambda: consumer.status()[0].dropped == 8)

    run(work())


def test_a_callback_is_waited_for_no_longer_once_too_much_is_held_for_it(settings, monkeypatch):
    monkeypatch.setattr(line, "MOST_HELD", 5)

    async def work() -> None:
        feed, stuck = Feed(settings), Gate()
        await feed.close(["BTCUSDT"], 0, 5)
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON, {"BTCUSDT": "0-1"})
            await consumer.subscribe_to_market_data(**SMALL, callback=stuck, queue=2, cursor=place)
            await until(lambda: consumer.status()[0].waiting == 2)
            await feed.close(["BTCUSDT"], 6, 15)
            await until(lambda: consumer.status()[0].dropped and not consumer.status()[0].note)
            stuck.open.set()
            await until(lambda: steps(stuck.frames)[-1] == 15)
            assert steps(stuck.frames) == sorted(set(steps(stuck.frames)))

    run(work())


def test_packets_stay_in_order_when_a_subscription_that_blocks_is_waited_for_no_longer(settings, monkeypatch):
    monkeypatch.setattr(line, "MOST_HELD", 2)

    async def work() -> None:
        feed, stuck = Feed(settings), Gate()
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=stuck, queue=2, policy="block")
            await feed.close(["BTCUSDT"], 0, 6)
            await until(lambda: consumer.status()[0].dropped == 4 or stuck.frames[1:])
            stuck.open.set()
            await until(lambda: steps(stuck.frames) == [0, 5, 6])
            assert [each.is_complete for each in stuck.frames] == [True, True, True]

    run(work())


def test_a_subscription_that_blocks_loses_nothing_where_it_has_no_room_when_it_has_caught_up(settings):
    async def work() -> None:
        feed, stuck = Feed(settings), Gate()
        await feed.close(["BTCUSDT"], 0, 3)
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON, {"BTCUSDT": "0-1"})
            await consumer.subscribe_to_market_data(**SMALL, callback=stuck, queue=2, policy="block", cursor=place)
            await until(lambda: consumer.status()[0].waiting == 2 and "catching up" not in consumer.status()[0].note)
            await feed.close(["BTCUSDT"], 4, 6)
            stuck.open.set()
            await until(lambda: stuck.frames and steps(stuck.frames)[-1] == 6)
            assert steps(stuck.frames) == [1, 2, 3, 4, 5, 6]

    run(work())


@pytest.mark.parametrize("is_found", [True, False])
def test_what_is_not_in_the_lake_yet_is_looked_for_again_and_said_where_it_is_never_found(
    settings, monkeypatch, is_found
):
    monkeypatch.setattr(lake_view, "LakeView", Stored)
    monkeypatch.setattr(Stored, "steps", ())
    monkeypatch.setattr(filling, "TRIES", 1000 if is_found else 1)
    quick = settings.model_copy(update={"seal_seconds": 0.1})

    async def work() -> None:
        feed, frames = Feed(quick), []
        async with feed.consumer(quick) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=frames.append, revisions=True)
            await feed.say(numbered(0, 1), numbered(4, 5), numbered(5, 6))
            await until(lambda: len(frames) == 6)
            assert [each.is_complete for each in frames] == [True, False, False, False, True, True]
            if is_found:
                assert "not in the lake yet" in consumer.status()[0].note
                monkeypatch.setattr(Stored, "steps", tuple(range(6)))
                await until(lambda: len(frames) == 12)
                corrected = [(step, each.revision) for step, each in zip(steps(frames), frames, strict=True)][6:]
                assert corrected == [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (3, 3)]
                assert frames[6].is_complete
                assert frames[-1].is_complete
                await until(lambda: consumer.status()[0].note == "")
            else:
                await until(lambda: "Not all that was missed" in consumer.status()[0].note)

    run(work())


def test_forming_bars_are_heard_under_their_own_topic_by_those_who_want_them(settings):
    async def work() -> None:
        feed, closed, both = Feed(settings), [], []
        out = feed.broadcast.broadcaster()

        async def form(step: int, seconds: int) -> None:
            at = NOON + (step - 1) * STEP + seconds * MINUTE // 60
            bar = cell("5m", NOON + step * STEP, 50.0 + seconds, is_closed=False, available_at=at)
            await out.send([Post(forming_topic("BTCUSDT"), encode(Packet("BTCUSDT", at, (bar,), number=seconds)))])

        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=closed.append)
            await consumer.subscribe_to_market_data(**SMALL, callback=both.append, forming=True)
            await feed.close(["BTCUSDT"], 0, 0)
            await until(lambda: len(both) == 1)
            await form(1, 1)
            await form(1, 7)  # the numbers between were missed, and nobody minds
            await until(lambda: len(both) == 3)
            await feed.close(["BTCUSDT"], 1, 1)
            await until(lambda: len(both) == 4)
            assert [each.is_closed for each in both] == [True, False, False, True]
            assert [each["BTCUSDT", "5m"].close for each in both] == [100.0, 51.0, 57.0, 101.0]
            assert steps(closed) == [0, 1]
            assert decoded(both[-1]) == decoded(closed[-1])
            for told in consumer.status():
                await consumer.unsubscribe(told.subscription_id)
            ear = consumer._ear
            assert ear is not None
            await until(lambda: not ear._listener.cursors)

    def decoded(frame: Frame) -> cursor.Cursor:
        return cursor.decode(frame.cursor)

    run(work())
