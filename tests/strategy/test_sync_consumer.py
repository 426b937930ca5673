"""The consumer that blocks: one thread for all callbacks, clear refusals, and nothing left of it at the end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent import futures

import pytest

from mdplatform.errors import InvalidRequest, PlatformError, TransportUnavailable
from mdplatform.strategy import Frame, SyncMarketDataConsumer, sync_consumer

from ..streaming.packets import NOON
from .test_consumer import SMALL, STEP, SYMBOLS, Feed, steps, until

HISTORY = {**SMALL, "timeframes": ["15m"], "real_time": False}


class Live:
    """A consumer, and a feed that speaks in its loop."""

    def __init__(self, settings) -> None:
        self._feed = Feed(settings)
        self.consumer = SyncMarketDataConsumer(settings, open_listener=self._feed.broadcast.listener)

    def close_bars(self, first: int, last: int) -> None:
        self.consumer._loop.wait(self._feed.close(SYMBOLS, first, last))

    def until(self, condition) -> None:
        self.consumer._loop.wait(until(condition))


@pytest.fixture
def live(settings) -> Iterator[Live]:
    live = Live(settings)
    yield live
    live.consumer.close()
    assert [each.name for each in threading.enumerate() if each.name.startswith("market-data")] == []


def test_callbacks_come_in_one_thread_and_a_slow_one_holds_up_no_feed(live):
    frames: list[Frame] = []
    threads: set[str] = set()
    gate = threading.Event()

    def slow(frame: Frame) -> None:
        threads.add(threading.current_thread().name)
        assert gate.wait(10)
        frames.append(frame)

    def quick(_: Frame) -> None:
        threads.add(threading.current_thread().name)

    slow_id = live.consumer.subscribe_to_market_data(**SMALL, callback=slow, policy="block", queue=50)
    live.consumer.subscribe_to_market_data("other", SYMBOLS, "price", "5m", quick)
    live.close_bars(0, 19)  # the loop is free although a callback waits
    assert {each.waiting for each in live.consumer.status()} >= {19}
    gate.set()
    live.until(lambda: len(frames) == 20)
    assert steps(frames) == list(range(20))
    assert threads == {"market-data-callbacks"}
    assert live.consumer.unsubscribe(slow_id)
    assert not live.consumer.unsubscribe(slow_id)
    live.consumer.finished(slow_id)


def test_frames_are_iterated_and_the_subscription_ends_with_the_loop_over_them(live):
    waiting = threading.Thread(
        target=lambda: (live.until(lambda: live.consumer._consumer._lines), live.close_bars(0, 9))
    )
    waiting.start()
    found = []
    for frame in live.consumer.frames(["BTCUSDT"], ["5m"], ["price"]):
        found.append(frame)
        if len(found) == 3:
            break
    waiting.join()
    del frame
    assert (found[-1].time_us - NOON) % STEP == 0
    live.until(lambda: live.consumer._consumer.status() == [])


def test_a_replay_is_waited_for_and_goes_through_the_same_calls(market, settings):
    market.walk("BTCUSDT", 200)
    frames: list[Frame] = []
    with SyncMarketDataConsumer(settings) as consumer:
        consumer.finished(consumer.subscribe_to_market_data(**HISTORY, callback=frames.append))
        again = list(consumer.frames("BTCUSDT", "15m", "price", False))
    assert len(frames) == 200
    assert [each.cursor for each in again] == [each.cursor for each in frames]


def test_what_waits_for_itself_in_a_callback_is_refused_and_the_rest_works_there(market, settings):
    market.walk("BTCUSDT", 20)
    refused: list[str] = []
    told: list[object] = []
    ids: list[str] = []
    subscribed = threading.Event()

    def callback(_: Frame) -> None:
        subscribed.wait(10)
        for wait in (lambda: consumer.finished(ids[0]), consumer.close, lambda: next(iter(consumer.frames("A", "1h")))):
            with pytest.raises(InvalidRequest, match="cannot wait for its own consumer") as error:
                wait()
            refused.append(str(error.value))
        told.extend([consumer.status()[0].frames, consumer.unsubscribe(ids[0])])

    with SyncMarketDataConsumer(settings) as consumer:
        ids.append(consumer.subscribe_to_market_data(**HISTORY, callback=callback))
        subscribed.set()
        consumer.finished(ids[0])
    assert told == [1, True]
    assert len(refused) == 3


def test_a_callback_that_raises_is_counted_whatever_it_raises(market, settings):
    market.walk("BTCUSDT", 5)
    raised = iter([ValueError("its own"), StopIteration(), SystemExit(3), KeyboardInterrupt(), None])

    def wrong(_: Frame) -> None:
        if (failure := next(raised)) is not None:
            raise failure

    with SyncMarketDataConsumer(settings) as consumer:
        id = consumer.subscribe_to_market_data(**HISTORY, callback=wrong)
        consumer.finished(id)
        [status] = consumer.status()
    assert (status.frames, status.failed) == (5, 4)


def test_bad_input_and_a_consumer_that_is_closed_are_told_at_the_call(settings):
    async def coroutine(_: Frame) -> None: ...

    consumer = SyncMarketDataConsumer(settings)
    for callback in (None, 5, dict, lambda: None, coroutine):
        with pytest.raises(PlatformError) as wrong:
            consumer.subscribe_to_market_data(**SMALL, callback=callback)
        assert wrong.value.field == "callback"
    with pytest.raises(PlatformError) as wrong:
        next(iter(consumer.frames("BTCUSDT", "7m")))
    assert wrong.value.field == "timeframes[0]"
    consumer.close()
    consumer.close()
    for call in (
        lambda: consumer.subscribe_to_market_data(**SMALL, callback=print),
        lambda: next(iter(consumer.frames("BTCUSDT", "5m"))),
        lambda: consumer.unsubscribe("s-1"),
        lambda: consumer.finished("s-1"),
        consumer.status,
        consumer.__enter__,
    ):
        with pytest.raises(TransportUnavailable, match="closed"):
            call()


def test_closing_while_another_thread_waits_ends_its_wait_and_leaves_a_callback_that_hangs(live, monkeypatch, caplog):
    monkeypatch.setattr(sync_consumer, "CALLBACK_SECONDS", 0.05)
    gate, entered = threading.Event(), threading.Event()
    found: list[Frame] = []

    def stuck(_: Frame) -> None:
        entered.set()
        gate.wait(20)

    iterating = threading.Thread(target=lambda: found.extend(live.consumer.frames("BTCUSDT", "5m", "price")))
    iterating.start()
    live.consumer.subscribe_to_market_data(**SMALL, callback=stuck)
    live.until(lambda: len(live.consumer._consumer.status()) == 2 and len(live.consumer._consumer._lines) == 2)
    live.close_bars(0, 0)
    assert entered.wait(10)
    with caplog.at_level(logging.WARNING):
        live.consumer.close()
    iterating.join(10)
    assert not iterating.is_alive()
    assert len(found) <= 1
    assert "still running" in caplog.text
    gate.set()
    live.consumer._callbacks._thread.join(10)


def test_closing_from_several_threads_ends_all_of_it_once_and_raises_nowhere(live):
    live.consumer.subscribe_to_market_data(**SMALL, callback=print)
    ear = live.consumer._consumer._ear
    letting_go, goes_on, closed = threading.Event(), threading.Event(), []
    close = ear._listener.close

    async def slow() -> None:
        letting_go.set()
        await asyncio.to_thread(goes_on.wait, 10)
        await close()
        closed.append(True)

    ear._listener.close = slow
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(live.consumer.close)
        assert letting_go.wait(10)
        second = pool.submit(live.consumer.close)
        futures.wait([first, second], timeout=0.1)
        goes_on.set()
        assert (first.result(10), second.result(10), closed) == (None, None, [True])


def test_frames_that_are_given_up_in_the_thread_of_the_loop_stop_nothing(live):
    threading.Timer(0, lambda: (live.until(lambda: live.consumer._consumer._lines), live.close_bars(0, 3))).start()
    frames = live.consumer.frames(["BTCUSDT"], ["5m"], ["price"])
    assert next(frames).time_us >= NOON
    live.consumer._loop._loop.call_soon_threadsafe(frames.close)  # as where it is collected as garbage
    live.until(lambda: live.consumer._consumer.status() == [])
