"""The ear of a consumer: one listener for all of its subscriptions.

- `lines`: which shapes there are, and which topics they hear;
- `opening`: how a line is opened, with its past, or from a cursor on;
- `hearing`: what comes goes to the lines of its topic;
- `filling`: what was let go before it was heard is filled in from the lake;
- `wishing` and `sentiment`: what the lines want is wished for, and what the lake learns is read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener
from mdplatform.settings import Settings
from mdplatform.strategy.live.filling import Filling
from mdplatform.strategy.live.hearing import Hearing
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import CATCHING_UP, Line
from mdplatform.strategy.live.lines import Lines
from mdplatform.strategy.live.opening import Opening
from mdplatform.strategy.live.reading import Reading
from mdplatform.strategy.live.sentiment import SentimentOfLines
from mdplatform.strategy.live.subscription import Subscription
from mdplatform.strategy.live.tasks import Tasks, is_being_cancelled
from mdplatform.strategy.live.wishing import Wishing
from mdplatform.streaming.cursor import Cursor
from mdplatform.streaming.shape import Shape


class Ear:
    """Hears for all lines of a consumer, in one event loop."""

    def __init__(self, settings: Settings, open_listener: Callable[[], Listener], lake: LakeView) -> None:
        self._settings = settings
        self._listener = open_listener()
        self.tasks = Tasks()
        self._reading = Reading(self._listener)
        self.lines = Lines(self._listener, self.tasks)
        self._filling = Filling(lake, self._reading, self.lines, self.tasks, settings.seal_seconds)
        self.hearing = Hearing(self._listener, self._reading, self.lines, self._filling.missed)
        self._wishing = Wishing(self._listener, self.lines)
        sentiment = SentimentOfLines(lake, self.lines)
        self._opening = Opening(
            open_listener, lake, self._reading, self.lines, self._filling, sentiment, self.tasks
        )  # fmt: skip
        for work in (self.hearing.run(), self._wishing.run(), sentiment.run()):
            self.tasks.begin(work)

    async def join(self, subscription: Subscription) -> Line:
        """Open a line for a subscription, or take the one that there is. Raises `TransportUnavailable`."""
        shape, cursor = subscription.wanted.shape, subscription.wanted.cursor
        if cursor is not None:
            return await self._resume(subscription, cursor)
        lines = self.lines
        while True:
            line = lines.of_shape.get(shape)
            if line is None:
                line = lines.of_shape[shape] = Line(shape, self._reading.layouts)
                lines.opening[shape] = asyncio.create_task(self._opening.open(line))
                lines.opening[shape].add_done_callback(partial(self._opened, line))
            opening = lines.opening.get(shape)
            if opening is None:
                break
            try:
                await asyncio.shield(opening)
            except asyncio.CancelledError:
                if self.tasks.is_closed and not is_being_cancelled():
                    raise TransportUnavailable("The consumer was closed", remedy="Make a new one") from None
                raise
            if lines.of_shape.get(shape) is line:
                break
        line.add(subscription)
        return line

    def leave(self, line: Line, subscription_id: str) -> None:
        """Take a subscription off its line; a line without any is closed."""
        for each in {line, *self.lines}:
            each.remove(subscription_id)
        self.lines.sweep()

    def why(self, shape: Shape, line: Line) -> str:
        """Say in words why nothing comes, or what will never come; empty where nothing is wrong."""
        line = line.newest
        if self.hearing.away:
            return f"The server that carries frames does not answer: {self.hearing.away}"
        if line.held_for:
            return f"Waiting: {line.held_for}"
        if line.is_blocked:
            return "Waiting for a subscription of the same shape whose policy is to block"
        now, heard_at = time.monotonic(), self.lines.heard_at
        silence = self._settings.feed_silence_seconds + shape.clock.microseconds / 1e6  # a symbol is told of at closes
        never = [each for each in shape.symbols if each not in heard_at]
        if never:
            return f"Nothing was heard of {', '.join(never[:5])} yet: start a feed with `mdplatform feed`"
        silent = [each for each in shape.symbols if now - heard_at[each] > silence]
        if silent:
            seconds = max(now - heard_at[each] for each in silent)
            return f"Nothing was heard of {', '.join(silent[:5])} for {seconds:.0f} s: is the feed running?"
        return line.unfilled

    async def close(self) -> None:
        """Let go of everything."""
        opening = tuple(self.lines.opening.values())
        self.tasks.is_closed = True
        for each in opening:
            each.cancel()
        await self.tasks.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for line in self.lines:
            await line.close()
        await self._wishing.take_back()
        self.tasks.begin(self._listener.close(), to_end=True)
        await self.tasks.end()

    def _opened(self, line: Line, task: asyncio.Task[None]) -> None:
        """Note that a line is open or cannot be opened, whether or not anybody still waits for it."""
        self.lines.opening.pop(line.shape, None)
        if task.cancelled() or task.exception() is not None:
            self.lines.forget(line)

    async def _resume(self, subscription: Subscription, cursor: Cursor) -> Line:
        line = Line(subscription.wanted.shape, self._reading.layouts)
        places = await self._opening.resume(line, cursor)
        line.add(subscription)
        line.hold(CATCHING_UP)
        self.tasks.begin(self._opening.catch_up(line, cursor, places))
        return line
