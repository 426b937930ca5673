"""Requests: send one or many, see how far they are, wait for answers, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from mdplatform.errors import InvalidRequest, PlatformError
from mdplatform.gateway import examples
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
from mdplatform.gateway.ear import Ear
from mdplatform.gateway.parts import MayRequest, Parts, parts_of
from mdplatform.gateway.problems import MEDIA_TYPE, problem
from mdplatform.gateway.reading import BOTH, accepted, json_object, unless_gone, wait_seconds
from mdplatform.gateway.rendering import (
    ARROW,
    JSON,
    LARGE_BYTES,
    arrow_of_answer,
    encode_json,
    told_answer,
    told_record,
    weight,
)
from mdplatform.gateway.switchboard import Watcher
from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import AnswerBody
from mdplatform.requests.request import DataRequest
from mdplatform.strategy.sending import envelope

router = APIRouter(prefix="/v1", tags=["Requests"])


class Waiting(BaseModel):
    """What a request's sender may say beside it."""

    model_config = ConfigDict(extra="forbid")
    wait: Annotated[str | None, Query(description="Wait so long for the answer, such as `2s` or `500ms`.")] = None


class Looking(Waiting):
    """How an answer is looked for."""

    after: Annotated[
        int, Query(ge=0, le=2**62, description="Of a standing request: the `number` of the last answer that was seen.")
    ] = 0


Id = Annotated[str, Path(alias="request_id", max_length=64, description="The id that sending it gave.")]


@router.post("/requests", **examples.SEND)
async def send(request: Request, query: Annotated[Waiting, Query()], caller: Caller = MayRequest) -> Response:
    """Send a request. What it asks for is told by `type`; see the examples, and `GET /v1/catalog`.

    It is answered at once with 202 and the request's id. With `Prefer: wait=2` or `?wait=2s` the gateway waits so long
    for the answer and gives it with 200 if it came.
    """
    parts, form, seconds = parts_of(request), accepted(request, BOTH), wait_seconds(query.wait, request)
    given = await json_object(request)
    made_request = await made(given, parts, len(await request.body()))
    if isinstance(made_request, PlatformError):
        raise made_request
    ear = Ear()
    [became] = await ask([made_request], caller, parts, ear if seconds else None)
    if isinstance(became, PlatformError):
        raise became
    headers = {"Location": f"/v1/requests/{made_request.request_id}"}
    if seconds and query.wait is None:
        headers["Preference-Applied"] = f"wait={seconds:g}"
    answer = None if became is None else final_answer(became)
    if answer is None and seconds:
        listening = parts.switchboard.listen(ear, [made_request.request_id], seconds)
        answer = (await unless_gone(request, listening) or {}).get(made_request.request_id)
    if answer is None:
        told = told_record(became) if isinstance(became, Record) else _accepted(made_request)
        return Response(encode_json(told), 202, headers, JSON)
    return await _respond(answer, form, headers)


@router.post("/requests:batch", **examples.BATCH)
async def send_many(request: Request, query: Annotated[Waiting, Query()], caller: Caller = MayRequest) -> Response:
    """Send many requests at once, at most 200. Each is accepted or refused by itself; `results` are in their order.

    With `?wait=2s` each result that has an answer by then has it as `answer`. Where all are refused, that is a problem
    as any other, the first one's, with the `results` beside.
    """
    parts, seconds = parts_of(request), wait_seconds(query.wait, request)
    accepted(request)
    given = await json_object(request)
    known_fields(given, ["requests"])
    wanted = given.get("requests")
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= MOST_IN_A_BATCH:
        error = InvalidRequest(
            "Not a list of requests", remedy=f"1 to {MOST_IN_A_BATCH} of them, each as POST /v1/requests"
        )
        error.field = "requests"
        raise error
    if len(wanted) > 1:
        parts.access.spend(caller, len(wanted) - 1)
    ear = Ear()
    size = len(await request.body())
    results = await asked_together(wanted, caller, parts, size, ear if seconds else None)
    if seconds:
        followed = [each["request_id"] for each in results if each["status"] == "open"]
        heard = await unless_gone(request, parts.switchboard.listen(ear, followed, seconds)) or {}
        for each in results:
            if (answer := heard.get(each.get("request_id", ""))) is not None:
                each.update(status=answer.status.value, answer=told_answer(answer))
    if all("problem" in each for each in results):
        first = results[0]["problem"]
        return Response(encode_json({**first, "results": results}), first["status"], None, MEDIA_TYPE)
    return Response(encode_json({"results": results}), 202, None, JSON)


@router.get("/requests/{request_id}", **examples.LOOK)
async def look(request: Request, id: Id, query: Annotated[Looking, Query()], caller: Caller = MayRequest) -> Response:
    """Look at a request: its final answer with 200, or with 202 how far it is.

    With `?wait=2s` the gateway waits so long for the answer; who goes away ends the wait, not the request. Of a
    standing request each answer has a `number`; `?after=NUMBER` gives the next one.
    """
    parts, form, seconds = parts_of(request), accepted(request, BOTH), wait_seconds(query.wait, request)
    ear = Ear(query.after)
    [record] = await find([id], caller, parts, ear)
    if record is None:
        raise unknown_request(id)
    line = parts.switchboard.line(id)
    answer = final_answer(record)
    if answer is None:
        listening = parts.switchboard.listen(ear, [id], seconds)
        answer = (await unless_gone(request, listening) or {}).get(id)
    if answer is None:
        return Response(encode_json(told_record(record, None if line is None else line.progress)), 202, None, JSON)
    return await _respond(answer, form, {})


@router.delete("/requests/{request_id}", **examples.CANCEL)
async def end(request: Request, id: Id, caller: Caller = MayRequest) -> Response:
    """Cancel a request, and give its final answer: `failed`, cancelled by its sender; or the one that came before."""
    parts, form = parts_of(request), accepted(request, BOTH)
    answer = final_answer(await cancel(id, caller, parts))
    assert answer is not None
    return await _respond(answer, form, {})


async def asked_together(
    wanted: list[Any], caller: Caller, parts: Parts, size: int, watcher: Watcher | None
) -> list[dict[str, Any]]:
    """Make and send requests; give for each its id with the status `open`, or its problem."""
    every = without_twins([await made(each, parts, size) for each in wanted])
    results: list[dict[str, Any]] = []
    sound: list[DataRequest] = []
    for index, each in enumerate(every):
        if isinstance(each, PlatformError):
            results.append(_refused(index, each))
        else:
            sound.append(each)
            results.append(
                {"request_id": each.request_id, "status": "open", "location": f"/v1/requests/{each.request_id}"}
            )
    became = dict(zip((each.request_id for each in sound), await ask(sound, caller, parts, watcher), strict=True))
    for index, result in enumerate(results):
        outcome = became.get(result.get("request_id", ""))
        if isinstance(outcome, PlatformError):
            results[index] = _refused(index, outcome)
        elif outcome is not None and (answer := final_answer(outcome)) is not None:
            result.update(status=answer.status.value, answer=told_answer(answer))
    return results


async def _respond(answer: AnswerBody, form: str, headers: dict[str, str]) -> Response:
    render = arrow_of_answer if form == ARROW else _json_of_answer
    heavy = weight(answer) > LARGE_BYTES
    body = await asyncio.to_thread(render, answer) if heavy else render(answer)
    return Response(body, 200, {**headers, "Vary": "Accept"}, form)


def _json_of_answer(answer: AnswerBody) -> bytes:
    return encode_json(told_answer(answer))


def _accepted(request: DataRequest) -> dict[str, Any]:
    record = Record(
        id=request.request_id,
        priority=request.priority,
        strategy=request.strategy_id,
        label=envelope(request).label,
        stage="queued",
        sent_at=request.sent_at,
        deadline=request.deadline,
    )
    return told_record(record)


def _refused(index: int, error: PlatformError) -> dict[str, Any]:
    told = problem(error)
    told["field"] = f"requests[{index}].{error.field}" if error.field else f"requests[{index}]"
    return {"status": "refused", "problem": told}
