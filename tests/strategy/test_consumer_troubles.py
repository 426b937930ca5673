"""What one subscription does wrong, or its cursor, or the server, hurts no other, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mdplatform.errors import PlatformError, TransportUnavailable
from mdplatform.messaging.memory.broadcast import MemoryBroadcast, MemoryListener
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame
from mdplatform.strategy import consumer as module
from mdplatform.strategy.live import filling, line, opening, wishing
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.subscription import Subscription
from mdplatform.strategy.live.wanted import Wanted, check
from mdplatform.streaming import cursor
from mdplatform.streaming.shape import Shape

from ..streaming.packets import LAYOUT, NOON, packet
from .test_consumer import SMALL, STEP, SYMBOLS, Feed, run, steps, until


def subscription(callback: Callable[[Frame], Any] | None, symbols: list[str], **more: object) -> Subscription:
    given = dict.fromkeys(("indicators", "providers", "grace", "cursor", "start", "end", "speed"))
    flags = {"real_time": True, "forming": False, "revisions": False, "policy": "conflate", "queue": 64, "window": 1}
    return Subscription(
        "s", check(**SMALL | given | flags | more | {"symbols": symbols, "callback": callback}, default_grace=2)
    )


def test_a_function_that_raises_a_cancellation_ends_nothing(settings):
    async def work() -> None:
        feed, others = Feed(settings), []

        def wrong(_: Frame) -> None:
            raise asyncio.CancelledError

        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=wrong)
            await consumer.subscribe_to_market_data(**{**SMALL, "symbols": ["ETHUSDT"]}, callback=others.append)
            await feed.close(["BTCUSDT"], 0, 1)
            await feed.close(["ETHUSDT"], 0, 1)
            await until(lambda: len(others) == 2)
            await until(lambda: consumer.status()[0].failed == 2)

    run(work())


def test_a_cursor_with_a_place_that_is_none_is_refused_at_the_call(settings):
    async def work() -> None:
        async with Feed(settings).consumer(settings) as consumer:
            wrong = cursor.encode(NOON, {"BTCUSDT": "x"})
            with pytest.raises(PlatformError) as refused:
                await consumer.subscribe_to_market_data(**SMALL, callback=print, cursor=wrong)
            assert refused.value.field == "cursor"
            assert consumer.status() == []

    run(work())


def test_frames_go_on_when_catching_up_fails(settings, monkeypatch, caplog):
    async def fails(*_: object) -> None:
        raise ValueError("of whatever kind")

    monkeypatch.setattr(opening, "catch_up", fails)

    async def work() -> None:
        feed, frames = Feed(settings), []
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON, {"BTCUSDT": "0-0"})
            await consumer.subscribe_to_market_data(**SMALL, callback=frames.append, cursor=place)
            await feed.close(["BTCUSDT"], 1, 3)
            await until(lambda: len(frames) == 3)
            assert steps(frames) == [1, 2, 3]
            assert consumer.status()[0].note == ""

    run(work())
    assert "cannot catch up" in caplog.text


def test_grace_runs_by_when_packets_were_heard_not_by_when_a_line_that_was_held_takes_them(monkeypatch):
    now = 0.0
    monkeypatch.setattr(line, "time", SimpleNamespace(monotonic=lambda: now))
    frames: list[Frame] = []
    held = Line(Shape.of(SYMBOLS[:2], ["5m"], grace=2.0), {LAYOUT.id: LAYOUT})
    held.add(subscription(frames.append, SYMBOLS[:2]))
    for step in range(4):
        now = 10.0 * step
        for symbol in SYMBOLS[:2]:
            held.hear(packet(symbol, NOON + step * STEP, ("5m",)), "", now)
            now += 1.0
    now += 1.0
    held.hear(packet(SYMBOLS[0], NOON + 4 * STEP, ("5m",)), "", now)
    now = 100.0
    held.release()
    assert steps(frames) == [0, 1, 2, 3]
    assert all(each.is_complete for each in frames)
    held.tick(now)
    assert steps(frames) == [0, 1, 2, 3, 4]  # nothing came of the other one for all that time
    assert not frames[-1].is_complete


def test_who_was_waited_for_in_vain_does_not_hold_back_the_line_that_takes_over(monkeypatch):
    monkeypatch.setattr(line, "BLOCK_SECONDS", 0.01)

    async def work() -> None:
        shape = Shape.of(SYMBOLS[:1], ["5m"], grace=2.0)
        behind, ahead = Line(shape, {LAYOUT.id: LAYOUT}), Line(shape, {LAYOUT.id: LAYOUT})
        stuck = subscription(None, SYMBOLS[:1], policy="block", queue=1)
        behind.add(stuck)
        behind.hold("catching up")
        for step in range(3):
            await behind.give_patiently(behind.assembler.take(packet(SYMBOLS[0], NOON + step * STEP, ("5m",)), 0.0))
        assert stuck.is_blocking
        ahead.take_over(behind)
        ahead.release()
        assert not ahead.is_blocked
        await behind.close()
        await ahead.close()

    run(work())


def test_a_subscribe_that_is_cancelled_while_its_line_is_opened_leaves_nothing(settings, monkeypatch):
    monkeypatch.setattr(wishing, "_WISH_SECONDS", 0.01)

    async def work() -> None:
        seeding, go_on = asyncio.Event(), asyncio.Event()

        async def seed(*_: object) -> None:
            seeding.set()
            await go_on.wait()

        monkeypatch.setattr(opening.Opening, "_seed", seed)
        async with Feed(settings).consumer(settings) as consumer:
            subscribing = asyncio.create_task(consumer.subscribe_to_market_data(**SMALL, callback=print))
            await seeding.wait()
            subscribing.cancel()
            await asyncio.wait([subscribing])
            go_on.set()
            hearing = consumer._ear
            assert subscribing.cancelled()
            assert hearing is not None
            lines = hearing.lines
            await until(lambda: not (lines.opening or lines.of_shape or lines.closed), 2)

    run(work())


def test_a_consumer_that_is_closed_while_one_subscribes_stays_closed(settings, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def looked_up(checked: Wanted, _: object) -> Wanted:
        begun.set()
        go_on.wait(10)
        return checked

    monkeypatch.setattr(module, "_with_providers", looked_up)

    async def work() -> None:
        consumer = Feed(settings).consumer(settings)
        asked = {**SMALL, "data_types": ["sentiment"]}
        subscribing = asyncio.create_task(consumer.subscribe_to_market_data(**asked, callback=print))
        await asyncio.to_thread(begun.wait, 10)
        await consumer.close()
        go_on.set()
        with pytest.raises(TransportUnavailable, match="closed"):
            await subscribing
        assert consumer._ear is None
        assert consumer.status() == []

    run(work())


@pytest.mark.parametrize("place", [None, cursor.encode(NOON, {"BTCUSDT": "0-0"})])
def test_a_consumer_that_is_closed_while_a_line_is_opened_says_so(settings, monkeypatch, place):
    async def work() -> None:
        consumer, seeding, go_on = Feed(settings).consumer(settings), asyncio.Event(), asyncio.Event()

        async def seed(*_: object) -> None:
            seeding.set()
            await go_on.wait()

        monkeypatch.setattr(opening.Opening, "_seed", seed)
        subscribing = asyncio.create_task(consumer.subscribe_to_market_data(**SMALL, callback=print, cursor=place))
        await seeding.wait()
        hearing = consumer._ear
        assert hearing is not None
        await consumer.close()
        go_on.set()
        with pytest.raises(TransportUnavailable, match="closed"):
            await subscribing
        assert not hearing.tasks.running
        assert consumer.status() == []

    run(work())


def test_two_that_subscribe_to_a_symbol_while_the_server_is_away_are_told_the_same(settings):
    class Away(MemoryListener):
        async def follow(self, *_: object) -> dict[str, str]:
            await asyncio.sleep(0)
            raise TransportUnavailable("away")

    async def work() -> None:
        broadcast = MemoryBroadcast(settings)
        async with EnhancedMarketDataConsumer(settings, open_listener=lambda: Away(broadcast)) as consumer:
            told = await asyncio.gather(
                *(
                    consumer.subscribe_to_market_data(**{**SMALL, "data_types": [each]}, callback=print)
                    for each in ("price", "volume")
                ),
                return_exceptions=True,
            )
            assert [type(each) for each in told] == [TransportUnavailable] * 2
            assert consumer.status() == []

    run(work())


def test_a_subscription_that_has_caught_up_and_shares_a_line_is_not_said_to_wait(settings):
    async def work() -> None:
        feed, frames, again = Feed(settings), [], []
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=frames.append)
            await feed.close(["BTCUSDT"], 0, 3)
            await until(lambda: len(frames) == 4)
            await consumer.subscribe_to_market_data(**SMALL, callback=again.append, cursor=frames[0].cursor)
            await feed.close(["BTCUSDT"], 4, 6)
            await until(lambda: len(again) == 6)
            await until(lambda: consumer._ear is not None and not consumer._ear.lines.own)
            assert [each.note for each in consumer.status()] == ["", ""]

    run(work())


def test_grace_stands_still_while_a_subscription_catches_up(settings):
    async def work() -> None:
        feed, frames = Feed(settings), []
        for symbol in SYMBOLS:  # all of one before anything of the next
            await feed.close([symbol], 0, 99)
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON, dict.fromkeys(SYMBOLS, "0-1"))
            await consumer.subscribe_to_market_data(
                **SMALL | {"symbols": SYMBOLS}, callback=frames.append, cursor=place, grace=1e-5
            )
            await until(lambda: len(frames) == 99)
            assert steps(frames) == list(range(1, 100))
            assert all(each.is_complete for each in frames)

    run(work())


def test_a_cursor_without_places_is_caught_up_with_from_all_that_is_kept(settings):
    async def work() -> None:
        feed, frames, again = Feed(settings), [], []
        await feed.close(SYMBOLS, 0, 9)
        async with feed.consumer(settings) as consumer:
            place = cursor.encode(NOON + 2 * STEP, {"BTCUSDT": "0-3"})
            asked = {**SMALL, "symbols": SYMBOLS}
            await consumer.subscribe_to_market_data(**asked, callback=frames.append, cursor=place)
            await until(lambda: len(frames) == 7)
            await consumer.subscribe_to_market_data(**asked, callback=again.append, cursor=frames[2].cursor)
            await feed.close(SYMBOLS, 10, 10)
            await until(lambda: len(frames) == 8 and len(again) == 5)
            assert steps(frames) == list(range(3, 11))
            assert steps(again) == list(range(6, 11))
            assert all(each.is_complete for each in frames + again)

    run(work())


@pytest.mark.parametrize("most_held", [2, 100])
def test_what_is_missed_while_a_line_is_held_is_filled_in_before_it_goes_on(settings, monkeypatch, most_held):
    monkeypatch.setattr(line, "MOST_HELD", most_held)

    async def work() -> None:
        feed, frames, refills, go_on = Feed(settings), [], [], asyncio.Event()

        async def refill(*_: object) -> None:
            refills.append(steps(frames))
            await go_on.wait()

        monkeypatch.setattr(filling, "refill", refill)
        async with feed.consumer(settings) as consumer:
            await consumer.subscribe_to_market_data(**SMALL, callback=frames.append)
            hearing = consumer._ear
            assert hearing is not None
            await feed.close(["BTCUSDT"], 0, 0)
            await until(lambda: frames)
            hearing.hearing.miss("BTCUSDT")
            await feed.close(["BTCUSDT"], 1, 5)
            held = consumer._lines[consumer.status()[0].subscription_id]
            await until(lambda: len(held._held) + held.lost == 5 and refills)
            if most_held == 100:
                hearing.hearing.miss("BTCUSDT")
            go_on.set()
            await until(lambda: len(frames) == 6)
            assert refills == [[0], [0]]
            assert [(each.lost, each.note) for each in consumer.status()] == [(max(0, 5 - most_held), "")]

    run(work())
