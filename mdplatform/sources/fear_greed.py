"""The Crypto Fear & Greed Index of alternative.me: its API, saved bodies of it, and tables of it.

The index runs from 0 (extreme fear) to 100 (extreme greed): the score is `(value − 50) / 50`, and the label is kept as
it was delivered, for sources disagree on the bands' limits. The API stamps a day's value 00:00 UTC and publishes it
then (`time_until_update` counts down to the next midnight), so a value with a time is available at that instant; one
with a date alone, in tables, when its day ends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl

from mdplatform.errors import OversizedFile, SourceUnavailable, UnknownColumns, UnknownFormat
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.settings import Settings
from mdplatform.sources.cells import instants, numbers, texts
from mdplatform.sources.columns import fold
from mdplatform.sources.download import retry_after, why
from mdplatform.sources.sentiment_rows import (
    NO_SCORE,
    available_at,
    delivered,
    provider_of,
    within_options,
)
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, set_aside_rows

PROVIDER = "fear_greed"
MODEL = "alternative.me"
_MOST_BYTES = 32_000_000
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_COLUMNS = {"value": ("value",), "label": ("valueclassification", "label"), "time": ("timestamp", "date", "time")}


def is_body(content: Mapping[str, Any]) -> bool:
    """Tell whether decoded JSON is a body of the index: the API's, or one with `points`."""
    return _points(content) is not None


def is_table(names: list[str]) -> bool:
    """Tell whether a table with these columns is of the index: it has the API's `value` and `value_classification`."""
    return {"value", "valueclassification"} <= {fold(name) for name in names}


def from_body(content: Mapping[str, Any], source: str, options: TableOptions) -> TableDelivery:
    """Give the values of a body, in whatever order it has them. Raises `UnknownFormat`."""
    points = _points(content)
    if points is None or not all(isinstance(point, Mapping) for point in points):
        raise UnknownFormat(f"{source} is no body of the Fear & Greed Index", value=str(content)[:120])
    names = list(dict.fromkeys(name for point in points for name in point))
    cells = {name: [None if point.get(name) is None else str(point[name]) for point in points] for name in names}
    return from_table(pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String())), source, options)


def from_table(frame: pl.DataFrame, source: str, options: TableOptions) -> TableDelivery:
    """Give the values of a table with the API's columns. Raises `UnknownColumns`."""
    found = _find(frame, source)
    value, label, at = (found.get(name) for name in ("value", "label", "time"))
    if value is None or at is None:
        raise UnknownColumns(f"{source} is no table of the Fear & Greed Index", value=", ".join(frame.columns)[:200])
    published = instants(frame[at], Path(source))
    rows = pl.DataFrame(
        {
            "doc_id": published.dt.strftime("%Y-%m-%d"),
            "score": score_of(numbers(frame[value])),
            "label": texts(frame[label]) if label else pl.Series([None] * len(frame), dtype=pl.String),
            "published_at": published,
            "seen_at": pl.Series([None] * len(frame), dtype=published.dtype),
            "date_only": _has_no_time(frame[at]),
        }
    ).with_columns(pl.lit(MODEL).alias("model"), pl.lit(options.symbol or "").alias("symbols"))
    rows = rows.with_columns(available_at("published_at", "seen_at", "date_only").alias("available_at"))
    missing = rows["score"].is_null() | rows["score"].is_nan()
    wanted = rows.select((within_options(rows, options) & ~missing).alias("wanted"))["wanted"]
    return TableDelivery.of(
        SENTIMENT,
        source,
        delivered(rows.filter(wanted), provider_of(options, PROVIDER, source)),
        raw=frame.filter(wanted),
        set_aside=set_aside_rows(frame.filter(missing), NO_SCORE),
    )


def score_of(values: pl.Series) -> pl.Series:
    """Give `(value − 50) / 50`: −1 for extreme fear, 1 for extreme greed.

    >>> score_of(pl.Series([0.0, 15.0, 50.0, 100.0])).to_list()
    [-1.0, -0.7, 0.0, 1.0]
    """
    # numpy divides; polars multiplies by 0.02, which gives −0.7000000000000001
    return pl.Series("score", (values.cast(pl.Float64).to_numpy() - 50.0) / 50.0)


def _find(frame: pl.DataFrame, source: str) -> dict[str, str]:
    by_folded = {fold(name): name for name in reversed(frame.columns)}
    found = {}
    for ours, theirs in _COLUMNS.items():
        there = [by_folded[each] for each in theirs if each in by_folded]
        if there:
            found[ours] = there[0]
    return found


def _points(content: Mapping[str, Any]) -> list[Any] | None:
    for field, needed in (("data", "value_classification"), ("points", "value")):
        points = content.get(field)
        if isinstance(points, list) and points and isinstance(points[0], Mapping) and needed in points[0]:
            return points
    return None


def _has_no_time(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column.str.contains(r"^\s*\d{4}-\d\d-\d\d\s*$").fill_null(False)
    return pl.Series([column.dtype == pl.Date], dtype=pl.Boolean).new_from_index(0, len(column))


class FearGreed:
    """The API under `base_url`; an answer is waited for `timeout_seconds`, all attempts for `deadline_seconds`.

    `retries` is a count of further attempts; they come later and later, with jitter, or when the server says.
    """

    name = PROVIDER

    def __init__(
        self,
        base_url: str,
        *,
        retries: int = 5,
        timeout_seconds: float = 30.0,
        deadline_seconds: float = 180.0,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = f"{base_url.rstrip('/')}/fng/"
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self.deadline_seconds = deadline_seconds
        self._sleep = sleep
        self._now = now

    @classmethod
    def from_settings(cls, settings: Settings) -> FearGreed:
        """Make the client that the settings describe."""
        return cls(settings.fear_greed_url)

    def deliveries(self, name: str, start: int | None, end: int | None) -> Iterator[TableDelivery]:
        """Give the index as far back as the API has it, cut to `[start, end)` (µs) by when it was available.

        There is one index: `name` is empty. Raises `SourceUnavailable` and `UnknownFormat`.
        """
        if name:
            raise SourceUnavailable(
                "There is one Fear & Greed Index", value=name, remedy="Write the target `fear_greed:`"
            )
        body = self._fetch()
        try:
            content = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as broken:
            raise UnknownFormat(f"{self.url} did not answer with JSON", value=str(broken)[:120]) from None
        if not isinstance(content, dict) or not is_body(content):
            raise UnknownFormat(f"{self.url} answered with no index", value=str(content)[:120])
        yield from_body(content, f"{self.name}:", TableOptions(start=start, end=end))

    def _fetch(self) -> bytes:
        ends = self._now() + self.deadline_seconds
        with httpx.Client(timeout=self.timeout_seconds, follow_redirects=True) as client:
            for attempt in range(self.retries + 1):
                delay: float | None = None
                try:
                    with client.stream("GET", self.url, params={"limit": "0"}) as answer:
                        status = answer.status_code
                        if status == 200:
                            return self._body(answer, ends)
                        if status != 429 and status < 500:
                            raise SourceUnavailable(f"{answer.request.url} is refused", value=f"HTTP {status}")
                        problem, delay = f"HTTP {status}", retry_after(answer.headers.get("Retry-After"))
                except (httpx.UnsupportedProtocol, httpx.InvalidURL) as failed:
                    raise SourceUnavailable(
                        f"{self.url} is no address of an API", value=str(failed), remedy="See MDPLATFORM_FEAR_GREED_URL"
                    ) from None
                except httpx.HTTPError as failed:
                    problem = why(failed)
                if delay is None:
                    delay = min(_FIRST_DELAY * 2.0**attempt, _LONGEST_DELAY) * random.uniform(0.5, 1.0)
                if attempt == self.retries or self._now() + delay > ends:
                    raise SourceUnavailable(
                        f"{self.url} does not answer after {attempt + 1} attempts",
                        value=problem,
                        remedy="Try again later, or see MDPLATFORM_FEAR_GREED_URL",
                    )
                self._sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _body(self, answer: httpx.Response, ends: float) -> bytes:
        parts, size = [], 0
        for part in answer.iter_bytes():
            size += len(part)
            if size > _MOST_BYTES:
                raise OversizedFile(
                    f"{self.url} answers with more than an index", value=f"more than {_MOST_BYTES} bytes"
                )
            if self._now() > ends:
                raise SourceUnavailable(f"{self.url} did not finish in time", value=f"{self.deadline_seconds} seconds")
            parts.append(part)
        return b"".join(parts)
