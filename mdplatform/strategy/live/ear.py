"""The ear of a consumer: one listener for all of its subscriptions.

1. A line is opened: its symbols are followed; what comes is held. It is seeded from the lake and from the facts, so
   that long timeframes and tensors have their past. With a cursor, a listener of its own brings what was sent since
   (`catching_up`). Then what was held goes on.
2. Posts are decoded once and given to the lines of their symbol. Layouts that are not known are looked up first.
3. Posts that were let go before they were heard are filled in from the lake, as far as it has them.
4. What the lines want is wished for, again and again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from mdplatform.errors import TransportUnavailable
from mdplatform.market.timeframe import DAY_US
from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.settings import Settings
from mdplatform.strategy.live.catching_up import MOST_AT_ONCE, catch_up, refill
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.strategy.live.reading import Reading
from mdplatform.strategy.live.subscription import Subscription
from mdplatform.streaming.cells import Packet
from mdplatform.streaming.cursor import Cursor
from mdplatform.streaming.known_sentiment import KnownSentiment
from mdplatform.streaming.shape import Shape
from mdplatform.streaming.wishes import Wish, encode_wishes

CATCHING_UP = "catching up with what was sent since its cursor"
FILLING_IN = "filling in what was missed"
_RECEIVE_SECONDS = 0.5
_TURN_SECONDS = 0.002
_WISH_SECONDS, _WISH_LIFE = 2.0, 10.0
_AWAY_SECONDS = 0.2
_SENTIMENT_SECONDS = 1.0
_SENTIMENT_BACK = 400 * DAY_US

_log = logging.getLogger(__name__)


class Ear:
    """Hears for all lines of a consumer, in one event loop."""

    def __init__(self, settings: Settings, open_listener: Callable[[], Listener], lake: LakeView) -> None:
        self._settings = settings
        self._open_listener = open_listener
        self._lake = lake
        self._listener = open_listener()
        self._name = f"consumer-{secrets.token_hex(6)}"
        self._lines: dict[Shape, Line] = {}
        self._opening: dict[Shape, asyncio.Task[None]] = {}
        self._own: set[Line] = set()
        self._waiting: set[Line] = set()
        self._by_topic: dict[str, list[Line]] = {}
        self._changing = asyncio.Lock()
        self._catching_up = asyncio.Semaphore(MOST_AT_ONCE)
        self._reading = Reading(self._listener)
        self._numbers: dict[str, tuple[str, int]] = {}
        self._sentiment_read = -1
        self._wished = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self.away = ""
        self.heard_at: dict[str, float] = {}
        self._begun = time.monotonic()
        self._is_closed = False
        for work in (self._hear(), self._wish(), self._watch_sentiment()):
            self._background(work)

    # -- lines --------------------------------------------------------------------------------------------------------

    async def join(self, subscription: Subscription) -> Line:
        """Open a line for a subscription, or take the one that there is. Raises `TransportUnavailable`."""
        shape, cursor = subscription.wanted.shape, subscription.wanted.cursor
        if cursor is not None:
            return await self._resume(subscription, cursor)
        while True:
            line = self._lines.get(shape)
            if line is None:
                line = self._lines[shape] = Line(shape, self._reading.layouts)
                self._opening[shape] = asyncio.create_task(self._open(line))
                self._opening[shape].add_done_callback(partial(self._opened, line))
            opening = self._opening.get(shape)
            if opening is None:
                break
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                if not _is_being_cancelled():
                    self._check_open()
                raise
            if self._lines.get(shape) is line:
                break
        line.add(subscription)
        return line

    def leave(self, line: Line, subscription_id: str) -> None:
        """Take a subscription off its line; a line without any is closed."""
        for each in {line, *self._lines.values(), *self._own}:
            each.remove(subscription_id)
        self._sweep()

    def why(self, shape: Shape, line: Line) -> str:
        """Say in words why nothing comes; empty where nothing is wrong."""
        while line.successor is not None:
            line = line.successor
        if self.away:
            return f"The server that carries frames does not answer: {self.away}"
        if line.held_for:
            return f"Waiting: {line.held_for}"
        if line.is_blocked:
            return "Waiting for a subscription of the same shape whose policy is to block"
        now = time.monotonic()
        silence = self._settings.feed_silence_seconds + shape.clock.microseconds / 1e6  # a symbol is told of at closes
        never = [each for each in shape.symbols if each not in self.heard_at]
        if never:
            return f"Nothing was heard of {', '.join(never[:5])} yet: start a feed with `mdplatform feed`"
        silent = [each for each in shape.symbols if now - self.heard_at[each] > silence]
        if silent:
            seconds = max(now - self.heard_at[each] for each in silent)
            return f"Nothing was heard of {', '.join(silent[:5])} for {seconds:.0f} s: is the feed running?"
        return ""

    async def close(self) -> None:
        """Let go of everything."""
        self._is_closed = True
        tasks = [*self._tasks, *self._opening.values()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in (*self._lines.values(), *self._own):
            await line.close()
        try:
            async with asyncio.timeout(1.0):
                await self._listener.wish(self._name, b"", 1.0)
        except (TransportUnavailable, TimeoutError):
            _log.debug("The wishes of %s end by themselves", self._name)
        self._let_go(self._listener)
        await asyncio.gather(*self._closings, return_exceptions=True)

    async def _open(self, line: Line) -> None:
        try:
            places, facts = await self._follow(line)
            newest = max((each.at for each in facts), default=None)
            until = await asyncio.to_thread(self._lake.newest, line.shape) if newest is None else newest
            await self._seed(line, until, facts)
            line.assembler.begin(until, places)
            self._release(line)
        except BaseException:
            await self._drop(line)
            raise

    def _opened(self, line: Line, task: asyncio.Task[None]) -> None:
        """Note that a line is open or cannot be opened, whether or not anybody still waits for it."""
        self._opening.pop(line.shape, None)
        if task.cancelled() or task.exception() is not None:
            self._forget(line)

    def _check_open(self) -> None:
        if self._is_closed:
            raise TransportUnavailable("The consumer was closed", remedy="Make a new one")

    async def _resume(self, subscription: Subscription, cursor: Cursor) -> Line:
        line = Line(subscription.wanted.shape, self._reading.layouts)
        self._own.add(line)
        try:
            places, facts = await self._follow(line)
            await self._seed(line, cursor.time, [each for each in facts if each.at <= cursor.time])
            line.assembler.begin(cursor.time, {each: at for each, at in cursor.places.items() if each in places})
            self._check_open()
        except BaseException:
            self._own.discard(line)
            await self._drop(line)
            raise
        line.add(subscription)
        line.hold(CATCHING_UP)
        self._background(self._catch_up(line, cursor, places))
        return line

    async def _catch_up(self, line: Line, cursor: Cursor, places: dict[str, str]) -> None:
        try:
            async with self._catching_up:
                while line in self._own:
                    listener = self._open_listener()
                    try:
                        await catch_up(line, cursor, places, listener, self._reading.packet, self._refill)
                        break
                    except TransportUnavailable as away:
                        _log.warning("A subscription cannot catch up yet: %s", away)
                        await asyncio.sleep(_AWAY_SECONDS)
                    finally:
                        self._let_go(listener)
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("A subscription cannot catch up; it goes on with what comes now")
        finally:
            if line in self._own:
                self._release(line)
                if line.is_idle:
                    self._merge(line)

    def _let_go(self, listener: Listener) -> None:
        """Close a listener in a task that nothing cancels: one that is half closed keeps the server running."""
        task = asyncio.create_task(listener.close())
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    def _release(self, line: Line) -> None:
        """Let a line go on; if something was missed while it was held, when that is filled in."""
        if self._is_closed or line.is_closed:
            return
        if line.is_refill_wanted:
            self._begin_to_fill_in(line)
            return
        line.release()
        self._waiting.add(line)

    def _begin_to_fill_in(self, line: Line) -> None:
        line.is_refill_wanted = False
        line.hold(FILLING_IN)
        self._background(self._fill_in(line))

    async def _refill(self, line: Line) -> None:
        """Give a line what the lake has of what it missed. Raises `TransportUnavailable`."""
        facts = await self._reading.facts(line.shape.symbols)
        newest = max((each.at for each in facts), default=None)
        try:
            until = await asyncio.to_thread(self._lake.newest, line.shape) if newest is None else newest
            await refill(line, self._lake, until, self._reading.layouts)
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("What was missed cannot be filled in from the lake")

    async def _follow(self, line: Line) -> tuple[dict[str, str], list[Packet]]:
        """Hear the line's symbols; give the places from which on, and the newest cells."""
        async with self._changing:
            followed = self._listener.cursors
            new = [each for each in line.shape.symbols if each not in followed]
            for symbol in line.shape.symbols:
                self._by_topic.setdefault(symbol, []).append(line)
            places = await self._listener.follow(new) if new else {}
            followed = self._listener.cursors
        self._wished.set()
        places = {**{each: followed[each] for each in line.shape.symbols}, **places}
        return places, await self._reading.facts(line.shape.symbols)

    def _sweep(self) -> None:
        """Close the lines that nobody wants any more."""
        for line in (*self._lines.values(), *self._own):
            if not len(line) and line.shape not in self._opening and line.held_for in ("", CATCHING_UP):
                self._forget(line)
                self._background(self._drop(line))

    def _forget(self, line: Line) -> None:
        if self._lines.get(line.shape) is line:
            del self._lines[line.shape]
        self._own.discard(line)
        self._waiting.discard(line)

    async def _drop(self, line: Line) -> None:
        """Close a line, and hear its symbols no more if no other line wants them."""
        self._forget(line)
        await line.close()
        async with self._changing:
            for symbol in line.shape.symbols:
                lines = self._by_topic.get(symbol, [])
                if line in lines:
                    lines.remove(line)
            left = [each for each in line.shape.symbols if each in self._by_topic and not self._by_topic[each]]
            for symbol in left:
                del self._by_topic[symbol]
                self._numbers.pop(symbol, None)
                self.heard_at.pop(symbol, None)
            if left and not self._is_closed:
                try:
                    await self._listener.leave(left)
                except TransportUnavailable as away:
                    _log.warning("%s is followed until the server answers: %s", ", ".join(left), away)
        self._wished.set()

    async def _seed(self, line: Line, until: int | None, facts: Sequence[Packet]) -> None:
        """Let the assembler know the past up to `until`."""
        now = line.held_since
        if until is not None:
            layout, packets = await asyncio.to_thread(self._lake.seed, line.shape, until)
            self._reading.layouts[layout.id] = layout
            line.assembler.sentiment = await asyncio.to_thread(self._sentiment, line.shape)
            for packet in packets:
                line.assembler.take(packet, now)
        for packet in facts:
            line.assembler.take(packet, now)

    # -- hearing ------------------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Receive for ever; whatever goes wrong is told and tried again."""
        while True:
            try:
                heard = await self._listener.receive(self._patience())
                self.away = ""
            except TransportUnavailable as away:
                if not self.away:
                    _log.warning("Nothing can be heard for now: %s", away)
                self.away = str(away)
                await asyncio.sleep(_AWAY_SECONDS)
                heard = []
            try:
                await self._take(heard)
                self._tick()
            except (Exception, asyncio.CancelledError):  # nothing ends the hearing but who cancels it; the log has it
                if _is_being_cancelled():
                    raise
                _log.exception("What was heard cannot be given on; hearing goes on")

    def _patience(self) -> float:
        """Give how long nothing is due (seconds)."""
        now = time.monotonic()
        due = [line.due for line in self._waiting]
        return min([_RECEIVE_SECONDS, *(max(0.0, each - now) for each in due if each is not None)])

    async def _take(self, heard: Iterable[Post | Missed]) -> None:
        turn = time.perf_counter()
        for each in heard:
            lines = self._by_topic.get(each.topic, ())
            if isinstance(each, Missed):
                self._miss(each.topic)
                continue
            self.heard_at[each.topic] = time.monotonic()
            packet = await self._reading.packet(each)
            if packet is not None:
                feed, number = self._numbers.get(each.topic, ("", 0))
                if packet.feed == feed and packet.number > number + 1:
                    self._miss(each.topic)
                self._numbers[each.topic] = packet.feed, packet.number
                for line in tuple(lines):
                    line.hear(packet, each.place)
                    if line.due is not None:
                        self._waiting.add(line)
            if time.perf_counter() - turn > _TURN_SECONDS:
                await asyncio.sleep(0)
                turn = time.perf_counter()

    def _miss(self, topic: str) -> None:
        """Fill in posts that were let go: by the transport before they were heard, or by the feed while it was away."""
        _log.warning("Posts of %s were let go before they were heard", topic)
        for line in self._by_topic.get(topic, ()):
            if line.held_for:
                line.is_refill_wanted = True
            else:
                self._begin_to_fill_in(line)

    async def _fill_in(self, line: Line) -> None:
        try:
            await self._refill(line)
        except Exception:  # noqa: BLE001  frames go on, marked; the log has it
            _log.exception("What was missed cannot be filled in")
        finally:
            self._release(line)

    def _tick(self) -> None:
        now = time.monotonic()
        for line in [*self._waiting, *self._own]:
            line.tick(now)
            if line.assembler.due is None:
                self._waiting.discard(line)
        for line in [each for each in self._own if each.is_idle]:
            self._merge(line)

    def _merge(self, line: Line) -> None:
        """Let a line that has caught up be the line of its shape, or hand its subscriptions to that one."""
        base = self._lines.get(line.shape)
        if base is None:
            self._own.discard(line)
            self._lines[line.shape] = line
        elif base.is_idle and base.assembler.last == line.assembler.last and line.shape not in self._opening:
            base.take_over(line)
            self._own.discard(line)
            self._background(self._drop(line))

    # -- wishes and sentiment -----------------------------------------------------------------------------------------

    async def _wish(self) -> None:
        is_told = False
        while True:
            self._wished.clear()
            self._sweep()
            shapes = dict.fromkeys(each.shape for each in (*self._lines.values(), *self._own))
            wishes = [
                Wish(each.symbols, tuple(one.value for one in each.timeframes), each.features, each.forming)
                for each in shapes
            ]
            try:
                await self._listener.wish(self._name, encode_wishes(wishes), _WISH_LIFE)
                is_told = False
            except TransportUnavailable as away:
                if not is_told:
                    _log.warning("Wishes cannot be told for now: %s", away)
                is_told = True
            try:
                async with asyncio.timeout(_WISH_SECONDS):
                    await self._wished.wait()
            except TimeoutError:
                continue

    async def _watch_sentiment(self) -> None:
        """Read sentiment again whenever some was taken in."""
        while True:
            lines = [each for each in (*self._lines.values(), *self._own) if each.shape.providers]
            changed = self._lake.sentiment_changed
            if lines and changed != self._sentiment_read:
                try:
                    for line in lines:
                        line.assembler.sentiment = await asyncio.to_thread(self._sentiment, line.shape)
                    self._sentiment_read = changed
                except Exception:  # noqa: BLE001  the older one stays; the log has it
                    _log.exception("Sentiment cannot be read")
            await asyncio.sleep(_SENTIMENT_SECONDS)

    def _sentiment(self, shape: Shape) -> KnownSentiment:
        now = time.time_ns() // 1000
        return self._lake.sentiment(shape, now - _SENTIMENT_BACK, now + _SENTIMENT_BACK)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("A task of the consumer failed", exc_info=failure)


def _is_being_cancelled() -> bool:
    """Whether somebody wants the running task to end; a `CancelledError` alone can be anybody's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
