"""Looking after open requests, so that each gets its one answer: deadlines, silence, what the server has forgotten.

- A quarter of a second after its deadline a request is settled from here. The server decides whether that came first;
  if it cannot be reached, the answer is given all the same.
- Where nothing was heard for long the server is asked what became of a request. What was answered meanwhile is given,
  what the server has forgotten (it lost its memory) is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from mdplatform.errors import InvalidRequest, TransportUnavailable
from mdplatform.messaging.transport import Asker, Record
from mdplatform.requests import wire
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.strategy import endings
from mdplatform.strategy.pending import Pending

GRACE_SECONDS = 0.25
SETTLE_SECONDS = 1.0
"""How long the server is waited for when a request is settled from here."""
_AT_ONCE = 1_000
_LOOK_SECONDS = 0.5
_LONGEST_LOOK = 30.0

_log = logging.getLogger(__name__)


class Watch:
    """Looks after the requests in `open`; `give` hands out what became of one, `send` sends one again."""

    def __init__(
        self,
        asker: Asker,
        open: Mapping[str, Pending],
        give: Callable[[Pending, AnswerBody | Progress], None],
        send: Callable[[Pending], None],
    ) -> None:
        self._asker = asker
        self._open = open
        self._give = give
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        self._background(self._look())

    def begin(self, pending: Pending) -> None:
        """Look after a request, until `pending.timer` is cancelled."""
        loop = asyncio.get_running_loop()
        left = pending.deadline / 1e6 - time.time() + GRACE_SECONDS
        pending.timer = loop.call_later(max(0.0, left), self._overdue, pending)
        pending.look_again_at = loop.time() + pending.look_after

    async def end(self, pending: Pending, body: AnswerBody) -> bool:
        """Settle a request from here; give whether that came first. Whoever came first, its answer is given.

        Raises `TransportUnavailable`.
        """
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                is_first = await self._asker.settle(pending.id, wire.encode_reply(body))
                record = None if is_first else (await self._asker.look_up([pending.id]))[0]
        except TimeoutError:
            raise TransportUnavailable("The server that carries requests does not answer") from None
        if is_first or record is None:
            self._give(pending, body)
            return is_first
        self._give_recorded(pending, record)
        return False

    async def ask_after(self, ids: Sequence[str]) -> None:
        """Ask what became of requests, and have their replies sent here."""
        try:
            records = await self._asker.adopt(ids)
        except TransportUnavailable as away:
            _log.warning("What became of %d requests is not known: %s", len(ids), away)
            return
        for id, record in zip(ids, records, strict=True):
            pending = self._open.get(id)
            if pending is None:
                continue
            if record is not None:
                self._give_recorded(pending, record)
            elif pending.envelope is not None:
                _log.warning("The server has forgotten request %s; it is sent again", id)
                pending.is_sent = False
                self._send(pending)

    def ask_soon(self, ids: Sequence[str]) -> None:
        """The same, by and by."""
        self._background(self.ask_after(ids))

    async def close(self) -> None:
        """Look no more."""
        tasks = list(self._tasks)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _overdue(self, pending: Pending) -> None:
        self._background(self._expire(pending))

    async def _expire(self, pending: Pending) -> None:
        try:
            await self.end(pending, endings.overdue(pending))
        except TransportUnavailable:
            self._give(pending, endings.overdue(pending, unreachable=True))
        except Exception:  # noqa: BLE001  the request must have its answer; the log has the error
            _log.exception("Request %s could not be settled", pending.id)
            self._give(pending, endings.overdue(pending, unreachable=True))

    def _give_recorded(self, pending: Pending, record: Record) -> None:
        if record.stage != "settled":
            return
        if record.answer is None:
            self._give(pending, endings.lost(pending, "The answer was let go, to bound memory"))
        else:
            self._give(pending, read(pending, record.answer))

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            late = [each for each in self._open.values() if each.is_sent and each.look_again_at <= loop.time()]
            for each in late:
                each.look_after = min(2 * each.look_after, _LONGEST_LOOK)
                each.look_again_at = loop.time() + each.look_after
            try:
                for start in range(0, len(late), _AT_ONCE):
                    await self.ask_after([each.id for each in late[start : start + _AT_ONCE]])
            except Exception:  # noqa: BLE001  nothing ends the loop; the log has it
                _log.exception("What became of %d requests is not known", len(late))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def read(pending: Pending, raw: bytes) -> AnswerBody | Progress:
    """Read a reply; what cannot be read is an answer that says so."""
    try:
        return wire.decode_reply(raw)
    except InvalidRequest as unreadable:
        _log.error("The answer of request %s cannot be read: %s", pending.id, unreadable)
        return endings.lost(pending, "The answer cannot be read")
