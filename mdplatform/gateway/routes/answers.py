"""Answers over WebSocket: who may converse, and how a browser shows its key."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from mdplatform.errors import InvalidKey, PlatformError
from mdplatform.gateway.access import KEY_SUBPROTOCOL, Caller, key_in_headers
from mdplatform.gateway.conversation import KEY_ENDED, Conversation, received
from mdplatform.gateway.keys import Scope
from mdplatform.gateway.parts import Parts, parts_of
from mdplatform.gateway.problems import problem, respond
from mdplatform.gateway.reading import parse_object
from mdplatform.gateway.rendering import encode_json

PATH = "/v1/answers"
SUBPROTOCOL = "mdplatform.v1"
FIRST_MESSAGE_SECONDS = 10.0

router = APIRouter()


@router.websocket(PATH)
async def answers(socket: WebSocket) -> None:
    """Converse with a client; see `conversation` for what can be said."""
    parts = parts_of(socket)
    offered = socket.scope.get("subprotocols", [])
    shown = next((each.removeprefix(KEY_SUBPROTOCOL) for each in offered if each.startswith(KEY_SUBPROTOCOL)), None)
    chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
    in_first_message = parts.access.wants_keys and shown is None and _has_no_key(socket)
    with ExitStack() as place:
        try:
            if in_first_message:
                place.enter_context(parts.places.of_stranger())
                caller = None
            else:
                caller = _admitted(socket, parts, shown, place)
        except PlatformError as error:
            await socket.send_denial_response(respond(error))
            return
        await socket.accept(chosen)
        if caller is None:
            caller = await _introduced(socket, parts, place)
        if caller is not None:
            await Conversation(socket, caller, parts).run()


def _has_no_key(socket: WebSocket) -> bool:
    try:
        return key_in_headers(socket) is None
    except InvalidKey:
        return False


def _admitted(socket: WebSocket, parts: Parts, shown: str | None, place: ExitStack) -> Caller:
    """Give who asks, and take its place. Raises `InvalidKey`, `Refusal`."""
    caller = parts.access.caller(socket, shown)
    caller.require(Scope.REQUEST)
    parts.access.spend(caller)
    place.enter_context(parts.places.of_key(caller.name))
    return caller


async def _introduced(socket: WebSocket, parts: Parts, place: ExitStack) -> Caller | None:
    """Take the key from the first message, and say `ready`; close the socket where there is none in time.

    The place of a stranger is changed for one of its key.
    """
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            message = parse_object(await received(socket))
        key = message.get("key")
        if message.get("op") != "auth" or not isinstance(key, str):
            raise InvalidKey("The first message is to show the key", remedy='Such as {"op": "auth", "key": "mdp_…"}')
        admitted = ExitStack()
        caller = _admitted(socket, parts, key, admitted)
    except PlatformError as error:
        await socket.send_text(encode_json({"event": "refused", "problem": problem(error)}).decode())
        await socket.close(KEY_ENDED, "No valid API key")
        return None
    except TimeoutError:
        await socket.close(KEY_ENDED, "No API key came in time")
        return None
    except WebSocketDisconnect:
        return None
    place.close()
    place.enter_context(admitted)
    await socket.send_text(encode_json({"event": "ready"}).decode())
    return caller
