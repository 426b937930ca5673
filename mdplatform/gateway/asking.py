"""Asking for clients: from the JSON of a request to its receipt, with whose it is checked on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mdplatform.errors import InvalidRequest, PlatformError, RequestRejected, UnknownRequest
from mdplatform.gateway.access import Caller
from mdplatform.gateway.endings import cancelled
from mdplatform.gateway.parts import Parts
from mdplatform.gateway.problems import Refusal, unknown_field
from mdplatform.gateway.reading import within
from mdplatform.gateway.switchboard import Watcher
from mdplatform.messaging.transport import Receipt, Record
from mdplatform.requests.answer import AnswerBody
from mdplatform.requests.making import make
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wire import decode_reply

MOST_IN_A_BATCH = 200
_TRANSPORT_SECONDS = 10.0
_SMALL_BYTES = 5_000


async def made(given: Mapping[str, Any], parts: Parts, size: int) -> DataRequest | PlatformError:
    """Make a request of what a client wrote; what is large is made outside the event loop."""
    if size <= _SMALL_BYTES:
        return _make(given, parts)
    return await asyncio.to_thread(_make, given, parts)


def _make(given: Mapping[str, Any], parts: Parts) -> DataRequest | PlatformError:
    try:
        if not isinstance(given, Mapping):
            raise InvalidRequest("Not a JSON object", value=type(given).__name__)
        fields = dict(given)
        if "type" not in fields:
            error = InvalidRequest("It is missing", remedy="Such as TECHNICAL_INDICATORS; GET /v1/catalog lists them")
            error.field = "type"
            raise error
        if fields.get("deadline") is None and fields.get("refresh", "once") == "once":
            fields["deadline"] = parts.settings.request_deadline_seconds
        return make(fields.pop("type"), **fields)
    except PlatformError as error:
        return error


def without_twins(every: Sequence[DataRequest | PlatformError]) -> list[DataRequest | PlatformError]:
    """Give an error in the place of each request that has one id with another of the same message."""
    counts = Counter(each.request_id for each in every if isinstance(each, DataRequest))
    return [_twin(each) if isinstance(each, DataRequest) and counts[each.request_id] > 1 else each for each in every]


def _twin(request: DataRequest) -> PlatformError:
    error = InvalidRequest("Two requests have one id", value=request.request_id, remedy="Give each its own, or none")
    error.field = "request_id"
    return error


async def ask(
    requests: Sequence[DataRequest], caller: Caller, parts: Parts, watcher: Watcher | None = None
) -> list[PlatformError | Record | None]:
    """Send requests; give for each None if it is on its way, an error, or the record of one that has been known."""
    switchboard = parts.switchboard
    mine = [each for each in requests if caller.covers(each.strategy_id)]
    receipts = await within(_TRANSPORT_SECONDS, switchboard.send(mine, watcher)) if mine else []
    by_id = {each.request_id: receipt for each, receipt in zip(mine, receipts, strict=True)}
    known = [id for id, receipt in by_id.items() if receipt.known]
    records = dict(zip(known, await switchboard.look_up(known), strict=True)) if known else {}
    followed = [id for id, record in records.items() if record is not None and caller.covers(record.strategy)]
    if followed:
        records.update(zip(followed, await switchboard.join(followed, watcher), strict=True))
    return [_became(each, by_id.get(each.request_id), records, caller) for each in requests]


def _became(
    request: DataRequest, receipt: Receipt | None, records: Mapping[str, Record | None], caller: Caller
) -> PlatformError | Record | None:
    if receipt is None:
        return _refusal_of_strategy(caller, request.strategy_id)
    record = records.get(request.request_id)
    if receipt.known and (record is None or caller.covers(record.strategy)):
        return record
    if receipt.known or receipt.taken:
        return Refusal(
            409, "A request of that id is there already", kind="request-id-taken", field="request_id",
            value=request.request_id, remedy="Choose another id, or let the gateway make one",
        )  # fmt: skip
    if not receipt.admitted:
        error = RequestRejected("Too many requests are open", value=receipt.open, remedy="Try again later")
        error.retry_after_seconds = receipt.retry_after_seconds
        return error
    return None


def _refusal_of_strategy(caller: Caller, strategy: str) -> PlatformError:
    try:
        caller.require_strategy(strategy)
    except Refusal as refusal:
        return refusal
    raise AssertionError(strategy)


async def find(ids: Sequence[str], caller: Caller, parts: Parts, watcher: Watcher | None = None) -> list[Record | None]:
    """Give what is known of the caller's requests, and follow those that are open; None of others'."""
    records = await within(_TRANSPORT_SECONDS, parts.switchboard.look_up(ids))
    own = [id for id, record in zip(ids, records, strict=True) if record is not None and caller.covers(record.strategy)]
    followed = dict(zip(own, await within(_TRANSPORT_SECONDS, parts.switchboard.join(own, watcher)), strict=True))
    return [followed.get(id) for id in ids]


def final_answer(record: Record) -> AnswerBody | None:
    """Give the answer of a settled request, None of an open one. Raises a refusal (410) where it was let go."""
    if record.stage != "settled":
        return None
    if record.answer is None:
        raise Refusal(
            410, "The answer is no longer kept", kind="answer-let-go", field="request_id", value=record.id,
            remedy="Ask again; MDPLATFORM_ANSWERS_KEPT_SECONDS says how long answers are kept",
        )  # fmt: skip
    reply = decode_reply(record.answer)
    assert isinstance(reply, AnswerBody)
    return reply


async def cancel(id: str, caller: Caller, parts: Parts) -> Record:
    """Cancel a request of the caller's and give its record, which now has a final answer. Raises `UnknownRequest`."""
    [record] = await find([id], caller, parts)
    if record is None:
        raise unknown_request(id)
    if record.stage != "settled":
        await within(_TRANSPORT_SECONDS, parts.switchboard.settle(cancelled(record)))
        [record] = await within(_TRANSPORT_SECONDS, parts.switchboard.look_up([id]))
        if record is None:
            raise unknown_request(id)
    return record


def unknown_request(id: str) -> UnknownRequest:
    """Give the error of an id of which nothing is known, or which is another's."""
    error = UnknownRequest("Unknown request", value=id, remedy="It is another's, was never sent, or is long over")
    error.field = "request_id"
    return error


def known_fields(given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse a field of a message that is not one of its own."""
    for name in given:
        if name not in names:
            raise unknown_field(name, names)
