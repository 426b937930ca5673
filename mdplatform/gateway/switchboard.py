"""The switchboard: one asker for all clients. It sends requests, and gives what comes back to whoever watches them.

1. `send` opens a line for each request, then hands them to the transport. Lines are opened first, so that no answer
   overtakes its watcher; one that is not admitted is closed again.
2. One task receives replies and gives each to the watchers of its line. The final answer closes the line. Another one
   looks up now and then what is open, since a reply may have been dropped while nobody could read.
3. `join` opens lines for requests that this process did not send, or not in this life: the transport adopts them, and
   what is known of them already is given back.
4. A line that is open past its request's deadline is settled from here, should no worker be there to do it.

What nobody watches is dropped here; final answers stay in the transport's records, where `look_up` finds them. The
newest numbered answer of a standing request is kept with its line, within bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mdplatform.errors import InvalidRequest, RequestRejected, TransportUnavailable
from mdplatform.gateway.ear import Ear, Heard
from mdplatform.gateway.endings import lost
from mdplatform.messaging.transport import Asker, Receipt, Record, Reply
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.request import DataRequest, Refresh, RequestType
from mdplatform.requests.wire import decode_reply, encode_reply, type_of
from mdplatform.strategy.sending import envelope
from mdplatform.worker import endings

Watcher: TypeAlias = Callable[[Heard], None]

MOST_LINES = 20_000
"""Requests that are followed at once."""
_MOST_KEPT_BYTES = 64_000_000
_RECEIVE_SECONDS = 5.0
_GRACE_SECONDS = 2.0
_PAUSE_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_LOOK_SECONDS = 30.0
_LOOKED_UP_AT_ONCE = 200

_log = logging.getLogger("mdplatform.gateway")


@dataclass(eq=False)
class Line:
    """What is followed of one open request."""

    id: str
    deadline: int
    standing: bool = False
    strategy: str = ""
    type: RequestType = RequestType.TECHNICAL_INDICATORS
    watchers: set[Watcher] = field(default_factory=set)
    newest: AnswerBody | None = None
    progress: Progress | None = None
    timer: asyncio.TimerHandle | None = None


class Switchboard:
    """Sends, follows and settles requests for all clients of one process; for one event loop."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._lines: dict[str, Line] = {}
        self._kept_bytes = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: set[asyncio.Task[None]] = set()
        self._probed: tuple[float, bool] = (-math.inf, True)
        self._ears: set[Ear] = set()
        self._stopping = False

    def start(self) -> None:
        """Begin to listen."""
        self._tasks = [asyncio.create_task(each) for each in (self._receive(), self._look())]

    async def close(self) -> None:
        """Stop listening. Requests stay in flight."""
        self.stop()
        for task in (*self._tasks, *self._settling):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for line in self._lines.values():
            if line.timer is not None:
                line.timer.cancel()
        await self._asker.close()

    @property
    def open(self) -> int:
        """How many requests are followed."""
        return len(self._lines)

    async def send(self, requests: Sequence[DataRequest], watcher: Watcher | None = None) -> list[Receipt]:
        """Hand requests to the transport; a receipt for each. Raises `TransportUnavailable`, `RequestRejected`.

        What the receipt says was known before may be another strategy's: it is not watched; see whose it is and `join`.
        """
        if len(self._lines) + len(requests) > MOST_LINES:
            raise RequestRejected("The gateway follows too many requests", remedy="Try again in some seconds")
        new = {each.request_id: each for each in requests if each.request_id not in self._lines}
        for id, each in new.items():
            line = self._open(id, each.deadline, each.refresh is not Refresh.ONCE, each.strategy_id, watcher)
            line.type = each.type
        try:
            receipts = await self._asker.send([envelope(each) for each in requests])
        except BaseException:
            for id in new:
                self._hang_up(id)
            raise
        for each, receipt in zip(requests, receipts, strict=True):
            if each.request_id in new and (receipt.known or not receipt.admitted):
                self._hang_up(each.request_id)
        return receipts

    async def join(self, ids: Sequence[str], watcher: Watcher | None = None) -> list[Record | None]:
        """Follow requests, whoever sent them; give what is known of each. Raises `TransportUnavailable`.

        A watcher hears of those that are open from before the record is read, so that it misses nothing.
        """
        if watcher is not None:
            for id in ids:
                if id in self._lines:
                    self._lines[id].watchers.add(watcher)
        strange = [id for id in ids if id not in self._lines]
        for id in strange:
            self._open(id, 0, False, "", watcher)
        try:
            known = dict(zip(strange, await self._asker.adopt(strange), strict=True)) if strange else {}
            if ours := [id for id in ids if id not in known]:
                known.update(zip(ours, await self._asker.look_up(ours), strict=True))
        except BaseException:
            for id in strange:
                self._hang_up(id)
            raise
        for id in strange:
            record, line = known[id], self._lines.get(id)
            if line is None:
                continue
            if record is None or record.stage == "settled" or len(self._lines) > MOST_LINES:
                self._hang_up(id)
            else:
                line.deadline, line.strategy, line.standing = record.deadline, record.strategy, record.standing
                line.type = type_of(record.body)
                self._set_timer(line)
        return [known[id] for id in ids]

    def leave(self, ids: Sequence[str], watcher: Watcher) -> None:
        """Let a watcher hear no more of requests."""
        for id in ids:
            if id in self._lines:
                self._lines[id].watchers.discard(watcher)

    async def look_up(self, ids: Sequence[str]) -> list[Record | None]:
        """Give what the transport knows of requests. Raises `TransportUnavailable`."""
        return await self._asker.look_up(ids)

    async def is_well(self) -> bool:
        """Tell whether the transport answers; it is asked once a second at most."""
        at, well = self._probed
        if time.monotonic() - at > _PROBE_SECONDS:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._asker.look_up(["healthz"])
                well = True
            except (TransportUnavailable, TimeoutError):
                well = False
            self._probed = (time.monotonic(), well)
        return well

    def line(self, id: str) -> Line | None:
        """Give the line of an open request that is followed here."""
        return self._lines.get(id)

    async def listen(self, ear: Ear, ids: Sequence[str], seconds: float) -> dict[str, AnswerBody]:
        """Wait until the ear, which watches these requests, has heard an answer to each; give what it has by then.

        It stops waiting for requests that no line is open for, and when the process is about to end.
        """
        for id in ids:
            if (line := self._lines.get(id)) is not None and line.newest is not None:
                ear(line.newest)
        missing = {id for id in ids if id in self._lines} - ear.heard.keys()
        try:
            if missing and seconds > 0 and not self._stopping:
                self._ears.add(ear)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await ear.hear_all(missing)
        finally:
            self._ears.discard(ear)
            self.leave(ids, ear)
        return ear.heard

    def stop(self) -> None:
        """Let whoever waits stop waiting, since the process is about to end."""
        self._stopping = True
        for ear in self._ears:
            ear.stop()

    async def settle(self, body: AnswerBody) -> bool:
        """Give a request its final answer from this side. False if it had one. Raises `TransportUnavailable`."""
        return await self._asker.settle(body.request_id, encode_reply(body))

    def _open(self, id: str, deadline: int, standing: bool, strategy: str, watcher: Watcher | None) -> Line:
        line = self._lines.get(id)
        if line is None:
            line = self._lines[id] = Line(id, deadline, standing, strategy)
            if deadline:
                self._set_timer(line)
        if watcher is not None:
            line.watchers.add(watcher)
        return line

    def _set_timer(self, line: Line) -> None:
        seconds = max(0.0, line.deadline / 1e6 - time.time()) + _GRACE_SECONDS
        line.timer = asyncio.get_running_loop().call_later(seconds, self._overdue, line)

    def _hang_up(self, id: str) -> None:
        line = self._lines.pop(id, None)
        if line is not None:
            if line.timer is not None:
                line.timer.cancel()
            self._kept_bytes -= _size(line.newest)

    def _overdue(self, line: Line) -> None:
        task = asyncio.get_running_loop().create_task(self._end(line))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _end(self, line: Line) -> None:
        try:
            [record] = await self._asker.look_up([line.id])
            if record is None or record.stage == "settled":
                self._hear(_final(line.id, record))
            else:
                await self.settle(endings.expired(record))
        except TransportUnavailable as failure:
            _log.warning("A request past its deadline could not be settled (%s)", failure)
            line.timer = asyncio.get_running_loop().call_later(_GRACE_SECONDS, self._overdue, line)

    async def _receive(self) -> None:
        while True:
            try:
                replies = await self._asker.receive(_RECEIVE_SECONDS)
            except TransportUnavailable as failure:
                _log.warning("%s", failure)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            for reply in replies:
                self._hear(reply)

    async def _look(self) -> None:
        """Ask from time to time what became of open requests, should a reply have been dropped on its way."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            ids = list(self._lines)
            try:
                for first in range(0, len(ids), _LOOKED_UP_AT_ONCE):
                    for record in await self._asker.look_up(ids[first : first + _LOOKED_UP_AT_ONCE]):
                        if record is not None and record.stage == "settled":
                            self._hear(_final(record.id, record))
            except TransportUnavailable as failure:
                _log.warning("What became of %d requests is not known (%s)", len(ids), failure)

    def _hear(self, reply: Reply) -> None:
        line = self._lines.get(reply.id)
        if line is None:
            return
        try:
            heard = (
                decode_reply(reply.body) if reply.body or not reply.final else lost(line.id, line.strategy, line.type)
            )
        except InvalidRequest as broken:
            _log.error("A reply to %s cannot be read (%s)", reply.id, broken)
            if not reply.final:
                return
            heard = lost(line.id, line.strategy, line.type)
        if isinstance(heard, Progress):
            line.progress = heard
        elif not reply.final:
            self._keep(line, heard)
        for watcher in tuple(line.watchers):
            watcher(heard)
        if reply.final:
            self._hang_up(reply.id)

    def _keep(self, line: Line, answer: AnswerBody) -> None:
        size = _size(answer) - _size(line.newest)
        if self._kept_bytes + size <= _MOST_KEPT_BYTES:
            self._kept_bytes += size
            line.newest = answer


def _final(id: str, record: Record | None) -> Reply:
    """Give the final answer of a settled request as a reply, which has no bytes where nothing is kept of it."""
    return Reply(id=id, final=True, body=b"" if record is None else record.answer or b"")


def _size(answer: AnswerBody | None) -> int:
    return 0 if answer is None else sum(len(each.data) for each in answer.parts) + 1000
