"""Revisions of bars: how a delivery joins what is there, and which revision a reader sees.

The key of a bar is its open time (within one symbol and timeframe). A delivered row is *taken* (a new key), *unchanged*
(the newest revision says the same) or a *correction* (it says otherwise, or more: a new revision, which wins). Nothing
is overwritten. A file that repeats a key corrects itself: later rows win, as the exchange's final bar follows its half
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mdplatform.market.bars import BAR_SCHEMA, VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

_SAME = 1e-12  # relative: a few units in the last place, as sums of decimals differ from the published number


@dataclass(frozen=True)
class Merged:
    """All revisions after a merge (`BAR_SCHEMA`, by open time and revision), and how many delivered rows were which.

    `span` is the first and last open time (microseconds) of the rows that were added, None if there are none.
    """

    bars: pl.DataFrame
    taken: int = 0
    unchanged: int = 0
    corrected: int = 0
    span: tuple[int, int] | None = None


def newest(bars: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
    """Keep of each key the newest revision, `bars` as `Merged` has them; with `as_of`, the newest that was known then.

    What was first delivered counts as known when it became available, a correction when it was stored: nobody else can
    say when that was known.
    """
    if as_of is not None:
        stored = (pl.col("revision") == 0) | (pl.col("ingested_at") <= as_of)
        bars = bars.filter((pl.col("available_at") <= as_of) & stored)
    return bars.filter(pl.col("open_time").ne_missing(pl.col("open_time").shift(-1)))


def merge(existing: pl.DataFrame, delivered: pl.DataFrame) -> Merged:
    """Join `delivered` rows, in the order they came, to `existing` ones (all of one symbol and timeframe).

    A null in a delivered row says nothing about that column. A row that contradicts no value of the newest revision and
    has one where that has null adds to it: the new revision has the values of both. A row that contradicts it stands as
    it was delivered, since amounts of two states of a bar do not go together.
    """
    merged = Merged(existing)
    if delivered["open_time"].n_unique() == len(delivered):
        return _merge_distinct(merged, delivered)
    occurrence = delivered.with_columns(pl.int_range(pl.len()).over("open_time").alias("occurrence"))
    for _, rows in sorted(occurrence.partition_by("occurrence", as_dict=True, include_key=False).items()):
        merged = _merge_distinct(merged, rows)
    return merged


def _merge_distinct(before: Merged, rows: pl.DataFrame) -> Merged:
    added = _added(before.bars, rows) if len(before.bars) else rows.with_columns(_FIRST)
    bars, span, taken = before.bars, before.span, 0
    if len(added):
        taken = int((added["revision"] == 0).sum())
        added = added.select(_COLUMNS)
        bars = (pl.concat([bars, added]) if len(bars) else added).sort("open_time", "revision")
        opens = [*added["open_time"].dt.epoch("us").to_list(), *(span or ())]
        span = min(opens), max(opens)
    return Merged(
        bars=bars,
        taken=before.taken + taken,
        unchanged=before.unchanged + len(rows) - len(added),
        corrected=before.corrected + len(added) - taken,
        span=span,
    )


def _added(bars: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Give those of `rows` that are new or say otherwise than the newest revisions in `bars`, with their revisions."""
    current = newest(bars).select("open_time", "revision", *VALUE_COLUMNS)
    judged = rows.drop("revision").join(current, on="open_time", how="left", suffix="_now", maintain_order="left")
    return judged.with_columns(_JUDGED).filter(pl.col("next").is_not_null()).with_columns(_VALUES)


def _contradicts(name: str) -> pl.Expr:
    given, now = pl.col(name), pl.col(f"{name}_now")
    apart = (given - now).abs() > _SAME * pl.max_horizontal(given.abs(), now.abs())
    return apart.fill_null(False)


def _judged() -> list[pl.Expr]:
    is_new = pl.col("revision").is_null()
    contradicts = pl.any_horizontal(_contradicts(name) for name in VALUE_COLUMNS)
    adds = pl.any_horizontal(pl.col(name).is_not_null() & pl.col(f"{name}_now").is_null() for name in VALUE_COLUMNS)
    return [
        contradicts.alias("contradicts"),
        pl.when(is_new).then(0).when(contradicts | adds).then(pl.col("revision") + 1).cast(pl.Int32).alias("next"),
    ]


# made once: on a few rows, making an expression is the work
_COLUMNS = list(BAR_SCHEMA)
_FIRST = pl.lit(0, dtype=pl.Int32).alias("revision")
_JUDGED = _judged()
_VALUES = [
    pl.col("next").alias("revision"),
    *(pl.when("contradicts").then(name).otherwise(pl.coalesce(name, f"{name}_now")) for name in VALUE_COLUMNS),
]


def with_states(bars: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Set `state`: `no_trade` for bars without volume that are flat at the close before them, else `observed`."""
    current = newest(bars)
    following = pl.col("open_time") + pl.duration(microseconds=timeframe.microseconds)
    closes = current.select(following.alias("open_time"), pl.col("close").alias("close_before"))
    flat = (pl.col("high") == pl.col("low")) & (pl.col("open") == pl.col("close_before").fill_null(pl.col("open")))
    idle = (pl.col("volume") == 0) & (pl.col("trade_count").fill_null(0) == 0)
    return (
        bars.join(closes, on="open_time", how="left", maintain_order="left")
        .with_columns(pl.when(idle & flat).then(pl.lit("no_trade")).otherwise(pl.lit("observed")).alias("state"))
        .drop("close_before")
    )
