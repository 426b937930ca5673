"""Rules that every row of bars must keep, and the sifting of a delivery by them.

A row that breaks a rule is set aside with the rule's name; the rest goes on. Rules are tried in the order of `RULES`,
and the first one broken names the row.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache

import polars as pl

from mdplatform.market.bars import AMOUNT_COLUMNS, PRICE_COLUMNS
from mdplatform.market.time import on_grid
from mdplatform.market.timeframe import Timeframe

_ROUNDING = 1e-9

RULES = {
    "time_missing": "the row has no open time",
    "off_grid": "the open time is not a multiple of the timeframe",
    "early_close": "the stated close time is not open time + timeframe (an outage cut the bar)",
    "not_closed": "the bar was still forming when it was taken in",
    "price_missing": "open, high, low or close is null",
    "price_not_positive": "open, high, low or close is zero, negative or infinite",
    "high_low": "high is below, or low is above, one of the other prices",
    "amount_invalid": "a volume or count is negative or infinite",
    "taker_exceeds_volume": "takers bought more than was traded",
}
"""Each rule's name, and what breaks it."""


def sift(rows: pl.DataFrame, timeframe: Timeframe, known_at: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part `rows` (columns of `RAW_SCHEMA`) into those that keep all rules and those that break one.

    `known_at` is when the rows were taken in: a bar that closes later was still forming. Gives `(kept, broken)`, both
    in the order of `rows`; `broken` has one more column, `rule`. NaN counts as null.
    """
    close_time = pl.col("open_time") + pl.duration(microseconds=timeframe.microseconds)
    still_forming = _named("not_closed", close_time > pl.lit(known_at))
    rules = [still_forming if name == "not_closed" else broken for name, broken in _broken(timeframe).items()]
    judged = rows.with_columns(_WITHOUT_NAN).with_columns(pl.coalesce(rules).alias("rule"))
    return judged.filter(_IS_WHOLE).drop("rule"), judged.filter(~_IS_WHOLE)


_WITHOUT_NAN = pl.col(pl.Float64).fill_nan(None)
_IS_WHOLE = pl.col("rule").is_null()


def _named(rule: str, broken: pl.Expr) -> pl.Expr:
    return pl.when(broken.fill_null(False)).then(pl.lit(rule))


@cache
def _broken(timeframe: Timeframe) -> dict[str, pl.Expr]:
    """Give each rule's name where it is broken; made once, for on few rows that is the work."""
    close_time = pl.col("open_time") + pl.duration(microseconds=timeframe.microseconds)
    others = pl.max_horizontal("open", "low", "close"), pl.min_horizontal("open", "high", "close")
    slack = 1 + _ROUNDING
    broken = {
        "time_missing": pl.col("open_time").is_null(),
        "off_grid": ~on_grid("open_time", timeframe),
        "early_close": pl.col("close_time") != close_time,
        "not_closed": pl.lit(False),
        "price_missing": pl.any_horizontal(pl.col(PRICE_COLUMNS).is_null()),
        "price_not_positive": pl.any_horizontal((pl.col(PRICE_COLUMNS) <= 0) | pl.col(PRICE_COLUMNS).is_infinite()),
        "high_low": (pl.col("high") < others[0]) | (pl.col("low") > others[1]),
        "amount_invalid": pl.any_horizontal(
            (pl.col(name) < 0) | pl.col(name).cast(pl.Float64).is_infinite() for name in AMOUNT_COLUMNS
        ),
        "taker_exceeds_volume": (pl.col("taker_buy_volume") > pl.col("volume") * slack)
        | (pl.col("taker_buy_quote_volume") > pl.col("quote_volume") * slack),
    }
    return {rule: _named(rule, where) for rule, where in broken.items()}
