"""The parts of a running gateway, as its routes use them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from mdplatform.gateway.access import Access, Caller
from mdplatform.gateway.keys import Scope
from mdplatform.gateway.places import Places
from mdplatform.gateway.switchboard import Switchboard
from mdplatform.lake import Lake
from mdplatform.serving.async_reader import AsyncReader
from mdplatform.settings import Settings

_HEAVY_AT_ONCE = 4


@dataclass
class Parts:
    """What the routes share. `heavy` bounds how many computations of history run at once.

    `places` counts the open WebSockets.
    """

    settings: Settings
    access: Access
    switchboard: Switchboard
    reader: AsyncReader
    lake: Lake
    heavy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_HEAVY_AT_ONCE))
    places: Places = field(default_factory=Places)


def parts_of(connection: HTTPConnection) -> Parts:
    """Give the parts of the gateway that a request came to."""
    return cast(Parts, connection.app.state.parts)


def allowed(scope: Scope) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    """Give the dependency that tells who asks, if it has the scope and has not asked too often."""

    async def who(request: Request) -> Caller:
        access = parts_of(request).access
        caller = access.caller(request)
        caller.require(scope)
        access.spend(caller)
        return caller

    return who


MayRequest = Depends(allowed(Scope.REQUEST))
MayRead = Depends(allowed(Scope.READ))
