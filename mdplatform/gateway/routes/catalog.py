"""What can be asked for, of which symbols, and whether the gateway is well."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from mdplatform import __version__
from mdplatform.gateway import examples
from mdplatform.gateway.access import Caller
from mdplatform.gateway.catalog import catalogue
from mdplatform.gateway.parts import MayRead, parts_of
from mdplatform.gateway.reading import accepted, within
from mdplatform.gateway.rendering import JSON, encode_json
from mdplatform.lake import Lake

_LIST_SECONDS = 30.0

router = APIRouter()


class Choice(BaseModel):
    """Which features are told."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str | None, Query(max_length=64, description="Of one kind, such as `indicators` or `macro`.")] = (
        None
    )
    name: Annotated[str | None, Query(max_length=64, description="One function, by its name or an alias.")] = None


class Nothing(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


@router.get("/v1/catalog", tags=["Catalogue"], **examples.CATALOG)
async def catalog(request: Request, query: Annotated[Choice, Query()], caller: Caller = MayRead) -> Response:
    """Tell what can be asked for: types of requests, features with parameters, ranges, outputs and warm-up, formulas.

    `lookback` are the rows before a feature's first value, `settle` the rows from there until it no longer depends on
    where history began, both with the defaults; the platform loads them by itself.
    """
    accepted(request)
    told = await asyncio.to_thread(lambda: encode_json(catalogue(query.kind, query.name)))
    return Response(told, 200, None, JSON)


@router.get("/v1/symbols", tags=["Catalogue"], **examples.SYMBOLS)
async def symbols(request: Request, query: Annotated[Nothing, Query()], caller: Caller = MayRead) -> Response:
    """List the symbols whose bars the platform has, with the timeframes that can be read, and where they come from."""
    accepted(request)
    listed = await within(_LIST_SECONDS, asyncio.to_thread(_symbols, parts_of(request).lake))
    return Response(encode_json(listed), 200, None, JSON)


@router.get("/healthz", tags=["Health"], **examples.HEALTH)
async def health(request: Request) -> Response:
    """Tell whether the gateway is well: 200, or 503 while the transport of requests does not answer. Needs no key."""
    switchboard = parts_of(request).switchboard
    well = await switchboard.is_well()
    told = {"status": "ok" if well else "transport unavailable", "version": __version__, "following": switchboard.open}
    return Response(encode_json(told), 200 if well else 503, None if well else {"Retry-After": "1"}, JSON)


def _symbols(lake: Lake) -> dict[str, object]:
    members = lake.universe.members()
    listed = []
    for symbol in sorted({*lake.bars.symbols(), *members}):
        member = members.get(symbol)
        timeframes = [each.value for each in lake.bars.timeframes(symbol)]
        listed.append({"symbol": symbol, "timeframes": timeframes, "source": None if member is None else member.source})
    return {"symbols": listed}
