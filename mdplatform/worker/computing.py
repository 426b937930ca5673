"""Computing: the answer of one question from the lake (or from what of it is held in memory), in whatever thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mdplatform.errors import NoData
from mdplatform.features import correlation_of
from mdplatform.lake.data import LakeData
from mdplatform.market.quality import Tally
from mdplatform.market.time import from_us
from mdplatform.requests.answer import Part
from mdplatform.serving.codec import Blob
from mdplatform.serving.lookup import Library
from mdplatform.serving.window import feature_history
from mdplatform.worker.parts import SERIES_COLUMNS, matrix_part, rows_part, series_part, tally_of
from mdplatform.worker.questions import AnyQuestion, FeatureQuestion, MatrixQuestion, SeriesQuestion

_SPARE_ROWS = 8
"""Rows before an instant beyond those asked for: the newest ones then may not have closed, or not have been known."""


@dataclass(frozen=True)
class Computed:
    """A part that was computed, the counts that tell its quality, and until when it stays right if nothing changes
    (microseconds, None for ever)."""

    part: Part
    tally: Tally
    until: int | None = None


def compute(library: Library, question: AnyQuestion) -> Computed:
    """Answer a question by itself. Raises a `PlatformError` where there is nothing, or nothing can be made of it."""
    if isinstance(question, FeatureQuestion):
        blob = _rows(library, question)
        part = rows_part(blob, question.target, question.n)
        return Computed(part, tally_of(blob.batch.column("status"), part.rows, _rows_wanted(question)))
    if isinstance(question, MatrixQuestion):
        return _matrix(library, question)
    return _series(library, question)


def _rows(library: Library, question: FeatureQuestion) -> Blob:
    symbol, timeframe, spec = question.symbol, question.target.timeframe, question.target.spec
    known = _instant(question.as_of)
    if question.n is None:
        blob = feature_history(library.lake, symbol, timeframe, spec, question.start, question.end, known)
    else:
        end = time.time_ns() // 1000 if question.as_of is None else question.as_of
        start = timeframe.floor(end) - (question.n + _SPARE_ROWS) * timeframe.microseconds
        blob = feature_history(library.lake, symbol, timeframe, spec, start, end, known)
        if blob is None or blob.rows < question.n:
            blob = feature_history(library.lake, symbol, timeframe, spec, None, end, known)
    if blob is None:
        raise _nothing_there(library, question)
    return blob


def _nothing_there(library: Library, question: FeatureQuestion) -> Exception:
    timeframe = question.target.timeframe
    if timeframe not in library.lake.bars.timeframes(question.symbol):
        return library.nothing(question.symbol, timeframe)
    begin, end = (
        None if each is None else f"{from_us(each):%Y-%m-%d %H:%M}" for each in (question.start, question.end)
    )
    as_of = "" if question.as_of is None else f" as of {from_us(question.as_of):%Y-%m-%d %H:%M}"
    return NoData(
        f"No {timeframe} bars of {question.symbol} in that range",
        value=f"{begin or 'the first'} to {end or 'the last'}{as_of}",
        remedy="Ask for another range, or take in the bars with `mdplatform ingest`",
    )


def _rows_wanted(question: FeatureQuestion) -> int:
    """Give how many rows are asked for, as far as they can be there by now; 0 where no start says it."""
    if question.n is not None:
        return question.n
    if question.start is None:
        return 0
    timeframe = question.target.timeframe
    known = time.time_ns() // 1000 if question.as_of is None else question.as_of
    stop = timeframe.floor(known) if question.end is None else min(timeframe.floor(known), timeframe.ceil(question.end))
    return max(0, stop - timeframe.ceil(question.start)) // timeframe.microseconds


def _matrix(library: Library, question: MatrixQuestion) -> Computed:
    data = LakeData(library.lake, _instant(question.as_of))
    end = question.end if question.end is not None else question.as_of
    found = correlation_of(
        question.symbols, question.window, question.timeframe, _instant(end), data=data, **question.options
    )
    counted = int(found.observations.min(initial=found.rows))
    return Computed(matrix_part(found, question.timeframe.value), Tally(counted, wanted=found.rows))


def _series(library: Library, question: SeriesQuestion) -> Computed:
    now = time.time_ns() // 1000 if question.as_of is None else question.as_of
    vintages = LakeData(library.lake, _instant(question.as_of)).macro(question.series)
    is_known = pl.col("available_at") <= from_us(now)
    later = vintages.filter(~is_known).get_column("available_at").dt.epoch("us").sort()
    known = (
        vintages.filter(is_known)
        .sort("ref_period", "available_at", "vintage")
        .unique("ref_period", keep="last", maintain_order=True)
        .select(SERIES_COLUMNS)
    )
    period = pl.col("ref_period").dt.epoch("us")
    if question.start is not None:
        known = known.filter(period >= question.start)
    if question.end is not None:
        known = known.filter(period < question.end)
    known = known if question.n is None else known.tail(question.n)
    if known.is_empty():
        raise NoData(
            f"Nothing is known of {question.series}",
            value=None if question.n is not None else "in that range",
            remedy=f"Ask for another range, or take it in: mdplatform ingest fred:{question.series}",
        )
    until = int(later[0]) if question.as_of is None and len(later) else None
    tally = Tally(known.height, absent=known.get_column("value").null_count(), wanted=question.n or 0)
    return Computed(series_part(question.series, known), tally, until)


def _instant(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_us(microseconds)
