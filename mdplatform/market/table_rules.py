"""Rules that every row of a table beside bars must keep, and the sifting of a delivery by them.

A row that breaks a rule is set aside with the rule's name; the rest goes on. Rules are tried in their order, and the
first one broken names the row. A row that comes twice in one delivery counts once; one that comes again with other
values breaks `comes_twice`, and the first one stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from mdplatform.market.dataset import Dataset

EARLIEST, LATEST = datetime(2005, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Rows of other times make no sense."""
ARCHIVED_FROM = datetime(1776, 7, 4, tzinfo=UTC)
"""Macro releases are archived from long before 2005, and what was not revised since is known from then on."""

COMES_TWICE = "comes_twice"
TABLE_RULES = {
    "time_missing": "the row has no time, or none that can be read",
    "time_absurd": "a time before 2005 (of macro releases 1776), or in or after 2100",
    "available_early": "it is said to have been known before it happened",
    "key_missing": "the row lacks a part of what identifies it, such as an id or a symbol",
    "price_missing": "the price is null or no number",
    "price_not_positive": "the price is zero, negative or infinite",
    "quantity_invalid": "the quantity is null, negative or infinite",
    "score_invalid": "the score is infinite, or outside −1 to 1",
    "confidence_invalid": "the confidence is outside 0 to 1",
    "value_invalid": "the value is infinite or no number",
    COMES_TWICE: "the same row came before in this delivery, with other values",
}
"""Each rule's name, and what breaks it; a rule on a column holds for the datasets that have it."""

_MAY_BE_NULL = {"previous_update_id"}


@dataclass(frozen=True)
class Sifted:
    """The rows that keep all rules, in their order; the numbers and rules of those that do not; exact repetitions."""

    kept: pl.DataFrame
    broken: pl.DataFrame
    repeated: int


def sift_table(dataset: Dataset, rows: pl.DataFrame) -> Sifted:
    """Part `rows` (`dataset.delivered`); `broken` has `number` (the place in `rows`, from 0), `rule`. NaN is null."""
    floats = [name for name, kind in rows.schema.items() if kind == pl.Float64]
    rows = rows.with_columns(pl.col(floats).fill_nan(None)) if floats else rows
    broken = {name: test.fill_null(False) for name, test in _broken(dataset).items()}
    if rows.select(pl.any_horizontal(broken.values()).any()).item():
        rule = pl.coalesce(pl.when(test).then(pl.lit(name)) for name, test in broken.items())
        judged = rows.with_columns(rule.alias("rule")).with_row_index("number")
    else:
        judged = rows.with_columns(pl.lit(None, dtype=pl.String).alias("rule")).with_row_index("number")
    identity = (*dataset.by, *dataset.unique)
    kept = judged.filter(pl.col("rule").is_null())
    aside, repeated = judged.filter(pl.col("rule").is_not_null()), 0
    if _repeats(kept, identity):
        own = [name for name in dataset.columns if name not in identity]
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).first().over(identity)) for name in own)
        first = pl.struct(identity).is_first_distinct()
        told = kept.with_columns(first.alias("__first"), same.alias("__same"))
        kept = kept.filter(told["__first"])
        repeated = told.filter(~pl.col("__first") & pl.col("__same")).height
        again = told.filter(~pl.col("__first") & ~pl.col("__same")).with_columns(pl.lit(COMES_TWICE).alias("rule"))
        aside = pl.concat([aside, again.select(aside.columns)]).sort("number")
    return Sifted(kept.drop("number", "rule"), aside.select("number", "rule"), repeated)


def _repeats(rows: pl.DataFrame, identity: tuple[str, ...]) -> bool:
    """Tell whether an identity comes more than once; where the last part ascends, one glance tells."""
    last = rows[identity[-1]]
    if len(identity) == 2 and rows[identity[0]].n_unique() == 1 and last.dtype.is_integer():
        ascends = (last.diff() > 0).all()
        if ascends:
            return False
    return bool(rows.select(pl.struct(identity).n_unique()).item() < rows.height)


def _broken(dataset: Dataset) -> dict[str, pl.Expr]:
    named = set(dataset.columns)
    earliest = EARLIEST if dataset.period is not None else ARCHIVED_FROM
    times = list(dict.fromkeys((dataset.time, "available_at")))
    key = [name for name in (*dataset.by, *dataset.unique) if name not in _MAY_BE_NULL and name != dataset.time]
    every_time = [name for name, kind in dataset.delivered.items() if isinstance(kind, pl.Datetime)]
    tests = {
        "time_missing": pl.any_horizontal(pl.col(name).is_null() for name in times),
        "time_absurd": pl.any_horizontal(
            (pl.col(name) < earliest) | (pl.col(name) >= LATEST)
            for name in every_time
            if name not in ("ref_period", "vintage")  # observations reach back for centuries
        ),
        "key_missing": pl.any_horizontal(pl.col(name).is_null() for name in key if name != "price"),
    }
    if dataset.time != "available_at":
        tests["available_early"] = pl.col("available_at") < pl.col(dataset.time)
    if "price" in named:
        tests["price_missing"] = pl.col("price").is_null()
        tests["price_not_positive"] = (pl.col("price") <= 0) | pl.col("price").is_infinite()
    if "quantity" in named:
        quantity = pl.col("quantity")
        tests["quantity_invalid"] = quantity.is_null() | (quantity < 0) | quantity.is_infinite()
    if "score" in named:
        tests["score_invalid"] = (pl.col("score").abs() > 1) | pl.col("score").is_infinite()
    if "confidence" in named:
        tests["confidence_invalid"] = ~pl.col("confidence").is_between(0, 1)
    if "value" in named:
        tests["value_invalid"] = pl.col("value").is_infinite()
    return tests
