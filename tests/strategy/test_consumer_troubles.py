"""What one subscription does wrong, or its cursor, or the server, hurts no other, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mdplatform.errors import PlatformError
from mdplatform.strategy import Frame
from mdplatform.strategy.live import ear, line
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.subscription import Subscription
from mdplatform.strategy.live.wanted import check
from mdplatform.streaming import cursor
from mdplatform.streaming.shape import Shape

from ..streaming.packets import LAYOUT, NOON, packet
from .test_consumer import SMALL, STEP, SYMBOLS, Feed, run, steps, until


def subscription(callback: Callable[[Frame], Any], symbols: list[str]) -> Subscription:
    given = dict.fromkeys(("indicators", "providers", "grace", "cursor", "start", "end", "speed"))
    flags = {"real_time": True, "forming": False, "revisions": False, "policy": "conflate", "queue": 64, "window": 1}
    return Subscription(
        "s", check(**SMALL | given | flags | {"symbols": symbols, "callback": callback}, default_grace=2)
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

    monkeypatch.setattr(ear, "catch_up", fails)

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
            held.hear(packet(symbol, NOON + step * STEP, ("5m",)), "")
            now += 1.0
    now += 1.0
    held.hear(packet(SYMBOLS[0], NOON + 4 * STEP, ("5m",)), "")
    now = 100.0
    held.release()
    assert steps(frames) == [0, 1, 2, 3]
    assert all(each.is_complete for each in frames)
    held.tick(now)
    assert steps(frames) == [0, 1, 2, 3, 4]  # nothing came of the other one for all that time
    assert not frames[-1].is_complete
