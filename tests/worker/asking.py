"""What the tests of the evaluator share: requests, and what is in a part."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Any

import polars as pl
import pyarrow as pa

from mdplatform.features import parse_feature
from mdplatform.requests.answer import Part
from mdplatform.requests.request import DataRequest, RequestType
from mdplatform.worker.evaluator import Evaluator, Outcome

_numbers = itertools.count()
RSI = "RSI(timeperiod=14)"


def request(
    symbols: Iterable[str] = ("BTCUSDT",),
    features: Iterable[Any] = (RSI,),
    timeframes: Iterable[str] = ("15m",),
    type: RequestType = RequestType.TECHNICAL_INDICATORS,
    **more: Any,
) -> DataRequest:
    """A request as `making` would give it."""
    number = next(_numbers)
    if "start" in more or "end" in more:
        more.setdefault("latest", None)
    return DataRequest(
        request_id=f"request-{number}",
        strategy_id=f"strategy-{number}",
        type=type,
        symbols=tuple(symbols),
        timeframes=tuple(timeframes),
        features=tuple(f"{spec}{spec.place}" for spec in map(parse_feature, features)),
        deadline=time.time_ns() // 1000 + 60_000_000,
        **more,
    )


async def ask(evaluator: Evaluator, *args: Any, runs_over: bool = False, **more: Any) -> Outcome:
    """The outcome of one request."""
    asked = request(*args, **more)
    return (await evaluator.evaluate([asked], [asked.request_id] if runs_over else []))[0]


def rows(part: Part) -> pl.DataFrame:
    """The rows of a part."""
    return pl.DataFrame(pl.from_arrow(pa.ipc.open_stream(part.data).read_all()))
