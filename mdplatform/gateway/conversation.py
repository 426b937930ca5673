"""A conversation over one WebSocket: the client sends requests and resumes others, and gets answers as they come.

The client says one of `OPERATIONS` in each message, a JSON object with `op`; its `ref`, if any, comes back with what is
said to it. The gateway says one of `EVENTS` in each of its own:

- `{"op": "request", "request": {…}}` is answered by `accepted` with the `request_id`, or `refused` with the `problem`;
- `{"op": "batch", "requests": […]}` by one `accepted` or `refused` for each, with its `index`;
- `{"op": "resume", "request_ids": […]}` by `resumed`, with those that are `unknown`; what was answered meanwhile comes
  again;
- `{"op": "cancel", "request_id": "…"}` by `cancelled`; the final answer comes as an `answer`, as any other;
- `{"op": "ping"}` by `pong`.

`answer` carries an answer (`final` tells whether it is the last), `progress` how far a request has come, `heartbeat`
comes when nothing else does. An answer never comes before the `accepted` of its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from mdplatform.errors import InvalidRequest, PlatformError
from mdplatform.gateway.access import Caller
from mdplatform.gateway.asking import (
    MOST_IN_A_BATCH,
    ask,
    cancel,
    final_answer,
    find,
    known_fields,
    made,
    unknown_request,
    without_twins,
)
from mdplatform.gateway.ear import Heard
from mdplatform.gateway.outbox import Letter, Outbox
from mdplatform.gateway.parts import Parts
from mdplatform.gateway.problems import Refusal, problem, unforeseen, unknown_field
from mdplatform.gateway.reading import parse_object
from mdplatform.gateway.rendering import LARGE_BYTES, encode_json, told_answer, told_progress
from mdplatform.market.time import iso
from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.request import DataRequest

OPERATIONS = {
    "request": ("op", "ref", "request"),
    "batch": ("op", "ref", "requests"),
    "resume": ("op", "ref", "request_ids"),
    "cancel": ("op", "ref", "request_id"),
    "ping": ("op", "ref"),
}
"""What a client can say, with the fields of each message."""
EVENTS = ("accepted", "refused", "resumed", "cancelled", "pong", "answer", "progress", "heartbeat")
HEARTBEAT_SECONDS = 15.0
TOO_SLOW, KEY_ENDED = 1013, 4401
_AT_ONCE = 32
_log = logging.getLogger("mdplatform.gateway")
_MOST_FOLLOWED = 10_000


class Conversation:
    """One connection's life; `run` ends when the client goes, is too slow, or its key ends."""

    def __init__(self, socket: WebSocket, caller: Caller, parts: Parts) -> None:
        self._socket = socket
        self._caller = caller
        self._parts = parts
        self._outbox = Outbox()
        self._followed: set[str] = set()
        self._in_hand: Counter[str] = Counter()  # by how many messages that are being handled
        self._early: dict[str, list[Heard]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._handling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Converse until the end."""
        tasks = [asyncio.create_task(each) for each in (self._read(), self._write(), self._beat())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        except (WebSocketDisconnect, RuntimeError):
            pass  # the client has gone, maybe between two messages to it
        finally:
            for task in (*tasks, *self._handling):
                task.cancel()
            await asyncio.gather(*tasks, *self._handling, return_exceptions=True)
            self._parts.switchboard.leave([*self._followed, *self._in_hand], self._hear)

    async def _read(self) -> None:
        while True:
            text = await received(self._socket)
            await self._room.acquire()
            task = asyncio.create_task(self._handle(text))
            self._handling.add(task)
            task.add_done_callback(self._handled)

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        self._room.release()
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("A message could not be handled", exc_info=failure)
            self._say("refused", None, problem=problem(unforeseen()))

    async def _write(self) -> None:
        while (letter := await self._outbox.take()) is not None:
            what = letter.what
            if letter.size > LARGE_BYTES:
                text = await asyncio.to_thread(_text, what)
            else:
                text = _text(what)
            await self._socket.send_text(text)
        await self._socket.close(TOO_SLOW, "Answers came faster than they were read: come back, and resume by ids")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            with contextlib.suppress(Refusal):  # while it cannot be told, nothing is taken from the client either
                if not self._parts.access.still(self._caller):
                    await self._socket.close(KEY_ENDED, "The API key is no longer in force")
                    return
            self._say("heartbeat", None, at=iso(datetime.now(UTC)))

    async def _handle(self, text: str | bytes) -> None:
        ref: object = None
        try:
            message = parse_object(text)
            ref = message.get("ref")
            operation = message.get("op")
            if not isinstance(operation, str) or operation not in OPERATIONS:
                error = unknown_field(str(operation), OPERATIONS)
                error.field, error.cause, error.value = "op", "Unknown operation", operation
                raise error
            known_fields(message, OPERATIONS[operation])
            if not self._parts.access.still(self._caller):
                self._parts.access.caller(self._socket)
            await getattr(self, f"_{operation}")(message, ref, len(text))
        except PlatformError as error:
            self._say("refused", ref, problem=problem(error))

    async def _ping(self, message: Mapping[str, Any], ref: object, size: int) -> None:
        self._parts.access.spend(self._caller)
        self._say("pong", ref)

    async def _request(self, message: Mapping[str, Any], ref: object, size: int) -> None:
        await self._ask([message.get("request")], ref, size, [None])

    async def _batch(self, message: Mapping[str, Any], ref: object, size: int) -> None:
        wanted = _listed(message, "requests", MOST_IN_A_BATCH)
        await self._ask(wanted, ref, size, range(len(wanted)))

    async def _ask(self, wanted: list[Any], ref: object, size: int, places: Any) -> None:
        self._parts.access.spend(self._caller, len(wanted))
        self._make_room(len(wanted))
        every = without_twins([await made(each, self._parts, size) for each in wanted])
        sound = {each.request_id: each for each in every if isinstance(each, DataRequest)}
        self._take_in_hand(sound)
        try:
            asked = await ask(list(sound.values()), self._caller, self._parts, self._hear)
            became = dict(zip(sound, asked, strict=True))
            for each, index in zip(every, places, strict=True):
                place = {} if index is None else {"index": index}
                outcome = each if isinstance(each, PlatformError) else became[each.request_id]
                if isinstance(outcome, PlatformError):
                    self._say("refused", ref, problem=problem(outcome), **place)
                    continue
                assert isinstance(each, DataRequest)
                self._followed.add(each.request_id)
                self._say("accepted", ref, request_id=each.request_id, **place)
                self._release(each.request_id)
                if outcome is not None:
                    self._tell_kept(outcome, ref)
        finally:
            self._put_down(sound)

    async def _resume(self, message: Mapping[str, Any], ref: object, size: int) -> None:
        ids = list(dict.fromkeys(str(each) for each in _listed(message, "request_ids", _MOST_FOLLOWED)))
        self._parts.access.spend(self._caller)
        self._make_room(len(ids))
        self._take_in_hand(ids)
        try:
            records = await find(ids, self._caller, self._parts, self._hear)
            known = [record for record in records if record is not None]
            self._followed.update(each.id for each in known)
            found = [each.id for each in known]
            self._say("resumed", ref, request_ids=found, unknown=sorted({*ids}.difference(found)))
            for record in known:
                line = self._parts.switchboard.line(record.id)
                if line is not None and line.newest is not None:
                    self._hear(line.newest)
                self._release(record.id)
                self._tell_kept(record, ref)
        finally:
            self._put_down(ids)

    async def _cancel(self, message: Mapping[str, Any], ref: object, size: int) -> None:
        self._parts.access.spend(self._caller)
        id = message.get("request_id")
        if not isinstance(id, str):
            raise unknown_request(str(id))
        record = await cancel(id, self._caller, self._parts)
        self._say("cancelled", ref, request_id=record.id)

    def _hear(self, reply: Heard) -> None:
        """Take a reply from the switchboard."""
        if reply.request_id in self._early:
            self._early[reply.request_id].append(reply)
        elif isinstance(reply, AnswerBody) and reply.final:
            self._tell_final(reply.request_id, reply)
        elif reply.request_id in self._followed:
            self._outbox.put(Letter(reply))

    def _take_in_hand(self, ids: Iterable[str]) -> None:
        """Hold back what is said of requests until the client has been told what became of its message on them."""
        for id in ids:
            self._in_hand[id] += 1
            self._early.setdefault(id, [])

    def _put_down(self, ids: Iterable[str]) -> None:
        """End the work on a message, and follow no more what neither it nor an earlier one had accepted."""
        for id in ids:
            self._in_hand[id] -= 1
            if self._in_hand[id]:
                continue
            del self._in_hand[id]
            if id not in self._followed:
                self._parts.switchboard.leave([id], self._hear)
            self._release(id)

    def _release(self, id: str) -> None:
        for reply in self._early.pop(id, ()):
            self._hear(reply)

    def _tell_kept(self, record: Record, ref: object) -> None:
        """Tell the final answer that a record has, if any."""
        try:
            self._tell_final(record.id, final_answer(record))
        except PlatformError as error:
            self._followed.discard(record.id)
            self._say("refused", ref, request_id=record.id, problem=problem(error))

    def _tell_final(self, id: str, answer: AnswerBody | None) -> None:
        if answer is not None and id in self._followed:
            self._followed.discard(id)
            self._outbox.put(Letter(answer))

    def _make_room(self, count: int) -> None:
        if len(self._followed) + len(self._in_hand) + count > _MOST_FOLLOWED:
            remedy = f"At most {_MOST_FOLLOWED:,} open requests a connection: wait for answers, or open another"
            raise InvalidRequest("This connection follows too many requests", value=len(self._followed), remedy=remedy)

    def _say(self, event: str, ref: object, **told: Any) -> None:
        said = {"event": event} if ref is None else {"event": event, "ref": ref}
        self._outbox.put(Letter({**said, **told}))


async def received(socket: WebSocket) -> str | bytes:
    """Give the next message. Raises `WebSocketDisconnect`."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    text = message.get("text")
    return message.get("bytes") or b"" if text is None else str(text)


def _text(what: dict[str, Any] | AnswerBody | Progress) -> str:
    if isinstance(what, AnswerBody):
        what = {"event": "answer", **told_answer(what)}
    elif isinstance(what, Progress):
        what = {"event": "progress", **told_progress(what)}
    return encode_json(what).decode()


def _listed(message: Mapping[str, Any], name: str, most: int) -> list[Any]:
    given = message.get(name)
    if not isinstance(given, list) or not 1 <= len(given) <= most:
        error = InvalidRequest("Not such a list", remedy=f"1 to {most:,} of them")
        error.field = name
        raise error
    return given
