"""Features: the newest values, or those of a range as they were known at an instant, as strategies read them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from mdplatform.features import parse_feature
from mdplatform.gateway import examples
from mdplatform.gateway.access import Caller
from mdplatform.gateway.parts import MayRead, Parts, parts_of
from mdplatform.gateway.reading import BOTH, accepted, within
from mdplatform.gateway.rendering import ARROW, arrow_of_result, encode_json
from mdplatform.market.time import from_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests import fields
from mdplatform.requests.fields import at, refuse
from mdplatform.serving.lookup import DEFAULT_TIMEFRAME
from mdplatform.serving.result import FeatureResult

MOST_ROWS = 100_000
_READ_SECONDS = 30.0
_MANY_ROWS = 1_000

router = APIRouter(prefix="/v1", tags=["Features"])


class Rows(BaseModel):
    """Which rows of a feature."""

    model_config = ConfigDict(extra="forbid")
    timeframe: Annotated[str, Query(max_length=8, description="Of the rows, such as `15m`.")] = DEFAULT_TIMEFRAME
    last: Annotated[int | None, Query(ge=1, le=MOST_ROWS, description="How many of the newest rows; 1 by default.")] = (
        None
    )
    start: Annotated[
        str | None, Query(max_length=40, description="Rows from this open time on, such as `2025-01-31T12:00:00Z`.")
    ] = None
    end: Annotated[
        str | None, Query(max_length=40, description="Rows before this open time; the newest by default.")
    ] = None
    as_of: Annotated[str | None, Query(max_length=40, description="As they were known at this time.")] = None


@router.get("/features/{symbol}/{feature:path}", **examples.FEATURE)
async def feature(
    request: Request,
    symbol: Annotated[str, Path(max_length=64, description="Such as `BTCUSDT`.")],
    feature: Annotated[
        str,
        Path(max_length=10_000, description="Such as `RSI(timeperiod=14)`, of any kind, or a formula; URL-encoded."),
    ],
    query: Annotated[Rows, Query()],
    caller: Caller = MayRead,
) -> Response:
    """Read a feature: its newest rows (`last`), or those with `start <= open_time < end`, as known at `as_of`.

    The newest come from Redis where they are fresh there; all else is computed from the lake. Values are what any
    strategy reads. A row without a value has the `reason`.
    """
    form, parts = accepted(request, BOTH), parts_of(request)
    result = await within(_READ_SECONDS, _read(symbol, feature, query, parts))
    heavy = len(result) > _MANY_ROWS
    body = await asyncio.to_thread(_render, result, form) if heavy else _render(result, form)
    return Response(body, 200, {"Vary": "Accept"}, form)


async def _read(symbol: str, feature: str, query: Rows, parts: Parts) -> FeatureResult:
    name, timeframe = fields.symbol(symbol, "symbol"), query.timeframe
    with at("timeframe"):
        Timeframe.parse(timeframe)
    with at("feature"):
        spec = parse_feature(feature)
    start, end, as_of = (fields.instant(getattr(query, each), each) for each in ("start", "end", "as_of"))
    if start is None:
        for name_of, given in (("end", query.end), ("as_of", query.as_of)):
            if given is not None:
                raise refuse(name_of, "It needs a range", given, "Give start as well")
        return await parts.reader.latest(name, spec, timeframe, query.last or 1)
    if query.last is not None:
        raise refuse("last", "Both last and a range", query.last, "Give one of them")
    fields.check_range(None, start, end)
    if (rows := fields.rows(None, start, end, timeframe, fields.now_us())) > MOST_ROWS:
        raise refuse("start", "Too long a range", f"{rows:,} rows", f"At most {MOST_ROWS:,} rows at once")
    times = (None if each is None else from_us(each) for each in (start, end, as_of))
    async with parts.heavy:
        return await parts.reader.between(name, spec, timeframe, *times)


def _render(result: FeatureResult, form: str) -> bytes:
    return arrow_of_result(result) if form == ARROW else encode_json(result.to_dict())
