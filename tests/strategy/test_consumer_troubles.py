"""What one subscription does wrong, or its cursor, or the server, hurts no other, and nothing of it stays behind."""

from __future__ import annotations

import asyncio

import pytest

from mdplatform.errors import PlatformError
from mdplatform.strategy import Frame
from mdplatform.strategy.live import ear
from mdplatform.streaming import cursor

from ..streaming.packets import NOON
from .test_consumer import SMALL, Feed, run, steps, until


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
