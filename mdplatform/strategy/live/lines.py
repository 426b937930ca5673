"""The lines of a consumer: which there are, which hear a topic, and when topics are followed and left.

A shape has one line that its subscriptions share. One that goes on from a cursor has a line of its own, until it has
come as far as that of its shape, and is merged with it. Lines of forming bars follow the topics of these too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.broadcast import Listener
from mdplatform.strategy.live.line import CATCHING_UP, Line
from mdplatform.strategy.live.tasks import Tasks
from mdplatform.streaming.cells import forming_topic
from mdplatform.streaming.shape import Shape

_log = logging.getLogger(__name__)


class Lines:
    """`of_shape` are the shared ones, `opening` the tasks that open them, `own` those that catch up.

    `closed` and `forming` are the lines that hear a topic, `heard_at` when each symbol was heard last (monotonic
    seconds). `waiting` are lines with frames that wait for their grace, or for a callback. `changed` is set when there
    are other lines.
    """

    def __init__(self, listener: Listener, tasks: Tasks) -> None:
        self._listener = listener
        self._tasks = tasks
        self.of_shape: dict[Shape, Line] = {}
        self.opening: dict[Shape, asyncio.Task[None]] = {}
        self.own: set[Line] = set()
        self.waiting: set[Line] = set()
        self.closed: dict[str, list[Line]] = {}
        self.forming: dict[str, list[Line]] = {}
        self.heard_at: dict[str, float] = {}
        self.changed = asyncio.Event()
        self._changing = asyncio.Lock()

    def __iter__(self) -> Iterator[Line]:
        return iter((*self.of_shape.values(), *self.own))

    async def follow(self, line: Line) -> dict[str, str]:
        """Hear the line's symbols; give the places from which on. Raises `TransportUnavailable`."""
        symbols = line.shape.symbols
        async with self._changing:
            wanted = list(symbols)
            for symbol in symbols:
                self.closed.setdefault(symbol, []).append(line)
                if line.shape.forming:
                    self.forming.setdefault(forming_topic(symbol), []).append(line)
                    wanted.append(forming_topic(symbol))
            followed = self._listener.cursors
            new = [each for each in wanted if each not in followed]
            places = await self._listener.follow(new) if new else {}
            followed = {**self._listener.cursors, **places}
        self.changed.set()
        return {each: followed[each] for each in symbols}

    async def drop(self, line: Line) -> None:
        """Close a line, and hear its symbols no more if no other line wants them."""
        self.forget(line)
        await line.close()
        async with self._changing:
            left = []
            for symbol in line.shape.symbols:
                if _take_off(self.closed, symbol, line):
                    self.heard_at.pop(symbol, None)
                    left.append(symbol)
                if _take_off(self.forming, forming_topic(symbol), line):
                    left.append(forming_topic(symbol))
            if left and not self._tasks.is_closed:
                try:
                    await self._listener.leave(left)
                except TransportUnavailable as away:
                    _log.warning("%s is followed until the server answers: %s", ", ".join(left), away)
        self.changed.set()

    def forget(self, line: Line) -> None:
        """Give it to nobody any more."""
        if self.of_shape.get(line.shape) is line:
            del self.of_shape[line.shape]
        self.own.discard(line)
        self.waiting.discard(line)

    def sweep(self) -> None:
        """Close the lines that nobody wants any more."""
        for line in self:
            if not len(line) and line.shape not in self.opening and line.held_for in ("", CATCHING_UP):
                self.forget(line)
                self._tasks.begin(self.drop(line))

    def merge(self) -> None:
        """Let lines that have caught up be the line of their shape, or hand their subscriptions to that one."""
        for line in [each for each in self.own if each.is_idle]:
            base = self.of_shape.get(line.shape)
            if base is None:
                self.own.discard(line)
                self.of_shape[line.shape] = line
            elif base.is_idle and base.assembler.last == line.assembler.last and line.shape not in self.opening:
                base.take_over(line)
                self.own.discard(line)
                self._tasks.begin(self.drop(line))


def _take_off(by_topic: dict[str, list[Line]], topic: str, line: Line) -> bool:
    """Take a line off a topic; tell whether none is left that was there."""
    lines = by_topic.get(topic)
    if lines is None:
        return False
    if line in lines:
        lines.remove(line)
    if lines:
        return False
    del by_topic[topic]
    return True
