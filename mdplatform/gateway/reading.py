"""Reading what a client sends: its JSON, what form of answer it accepts, and how long it waits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from mdplatform.gateway.problems import Refusal
from mdplatform.gateway.rendering import ARROW, JSON

LONGEST_WAIT_SECONDS = 60.0
BOTH = (JSON, ARROW)
_WAIT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(ms|s)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0}
Given = TypeVar("Given")


async def json_object(request: Request) -> dict[str, Any]:
    """Give the object in a body. Raises a refusal of what is none."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != JSON and not media.endswith("+json"):
        raise Refusal(415, "The body is to be JSON", field="Content-Type", value=media, remedy=f"Send it as {JSON}")
    return parse_object(await request.body())


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Give the object in a text. Raises a refusal of what is none."""
    try:
        given = msgspec.json.decode(raw)
    except RecursionError:
        raise Refusal(422, "The JSON nests too deep", kind="invalid-json") from None
    except (msgspec.MsgspecError, UnicodeError) as broken:
        raise Refusal(400, f"This is no JSON ({broken})", kind="invalid-json") from None
    if not isinstance(given, dict):
        raise Refusal(422, "This is no JSON object", kind="invalid-json", remedy='Such as {"type": …}')
    return given


def accepted(request: Request, offered: Sequence[str] = (JSON,)) -> str:
    """Give the form among those offered that the client likes best. Raises a refusal (406) if it likes none."""
    header = request.headers.get("accept", "*/*")
    liking = [(_liking(each, header), -place, each) for place, each in enumerate(offered)]
    best, _, form = max(liking)
    if best <= 0:
        raise Refusal(
            406, "None of the forms that are accepted can be given", field="Accept", value=header,
            remedy=f"Accept {' or '.join(offered)}",
        )  # fmt: skip
    return form


def wait_seconds(given: str | None, request: Request) -> float:
    """Give how long an answer is waited for: by `wait` (`2s`, `500ms`, `2`), else by the header `Prefer: wait=2`.

    A preference that is no number, or too long, is cut down to what there is; `wait` is refused then.
    """
    if given is None:
        preferred = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", request.headers.get("prefer", ""))
        return min(float(preferred[1]), LONGEST_WAIT_SECONDS) if preferred else 0.0
    match = _WAIT.fullmatch(given.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        remedy = f"Such as 2s or 500ms, at most {LONGEST_WAIT_SECONDS:g}s; ask again to wait longer"
        raise Refusal(422, "Not a time to wait", kind="invalid-wait", field="wait", value=given, remedy=remedy)
    return seconds


async def unless_gone(request: Request, waiting: Coroutine[Any, Any, Given]) -> Given | None:
    """Give what is waited for; None, and no more waiting, when the client goes away."""
    task, gone = asyncio.create_task(waiting), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()


async def within(seconds: float, doing: Coroutine[Any, Any, Given]) -> Given:
    """Give what is done in time. Raises a refusal (503) if it is not."""
    try:
        async with asyncio.timeout(seconds):
            return await doing
    except TimeoutError:
        raise Refusal(
            503, f"It took longer than {seconds:g} s", kind="took-too-long",
            remedy="Ask for less at once, or try again", headers={"Retry-After": "1"},
        ) from None  # fmt: skip


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _liking(media: str, header: str) -> float:
    """Give the quality that an Accept header gives a media type, by its most particular range."""
    kind, _, _ = media.partition("/")
    best = (-1, 0.0)
    for part in header.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        rank = {media: 2, f"{kind}/*": 1, "*/*": 0}.get(name, -1)
        if rank > best[0]:
            best = (rank, _quality(parameters))
    return best[1] if best[0] >= 0 else 0.0


def _quality(parameters: Sequence[str]) -> float:
    for each in parameters:
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
