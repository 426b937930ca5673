"""Profiles and delta of a million trades: against DuckDB, polars, and the bare kernel on arrays that are ready."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import duckdb
import numpy as np
import polars as pl

from benchmarks.measure import Comparison, Work, WrongResult, compare, in_turns
from mdplatform.features import VolumeProfile, volume_profile
from mdplatform.features.flow.kernels import sum_sides
from mdplatform.features.flow.rows import FlowRows, sum_rows
from mdplatform.features.profile.value_area import histogram
from mdplatform.features.profile.volume_profile import units_of
from mdplatform.features.trade_arrays import read_trades
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import month_range
from mdplatform.market.timeframe import DAY_US, MINUTE_US

TRADES = 1_000_000
ROW_SIZE = 0.5

_PROFILE = f"""
select floor(price / {ROW_SIZE}) as row, sum(quantity) as volume, sum(quantity) filter (is_buyer_maker) as sold
from trades group by row order by row
"""
_DELTA = f"""
select epoch_us(time) // {MINUTE_US} as minute,
       sum(case when is_buyer_maker then -quantity else quantity end) as delta
from trades group by minute order by minute
"""


def run(short: bool) -> Iterator[Comparison]:
    """Compare a whole day's volume profile, then the delta of its minutes."""
    turns = 5 if short else 40
    trades = _trades()
    arrays = read_trades(trades)
    start = int(arrays.time[0]) // DAY_US * DAY_US
    edges = np.arange(start, start + DAY_US + 1, MINUTE_US)
    counts = np.searchsorted(arrays.time, edges)
    with duckdb.connect(":memory:") as connection:
        connection.register("given", trades.to_arrow())
        connection.execute("set TimeZone = 'UTC'; create table trades as from given")
        low = int(arrays.price.min() / ROW_SIZE)
        rows = int(arrays.price.max() / ROW_SIZE) - low + 1
        scale = units_of(float(arrays.quantity.sum()), float(arrays.quantity.max()))
        sold = ~arrays.is_buy
        ready = (arrays.price, arrays.quantity, sold, ROW_SIZE, low, rows, scale)
        profile = partial(volume_profile, trades, ROW_SIZE)
        _check_profile(profile(), connection)
        others: list[tuple[str, Work]] = [
            ("DuckDB, group by", lambda: connection.sql(_PROFILE).to_arrow_table()),
            ("polars, group_by", lambda: _profile_in_polars(trades)),
            ("the kernel alone, on arrays", lambda: histogram(*ready)),
        ]
        for bare_is, bare in others:
            times = in_turns(turns, profile, bare)
            yield compare(
                "profiles", f"profile of {TRADES:,} trades", bare_is, times, amount=TRADES, amount_unit="trades"
            )

        def delta() -> FlowRows:
            return sum_rows(read_trades(trades), edges)

        _check_delta(delta(), edges, connection)
        others = [
            ("DuckDB, group by", lambda: connection.sql(_DELTA).to_arrow_table()),
            ("polars, group_by", lambda: _delta_in_polars(trades)),
            ("the kernel alone, on arrays", lambda: sum_sides(counts, arrays.price, arrays.quantity, arrays.is_buy)),
        ]
        for bare_is, bare in others:
            times = in_turns(turns, delta, bare)
            what = f"delta by minute of {TRADES:,} trades"
            yield compare("profiles", what, bare_is, times, amount=TRADES, amount_unit="trades")


def _trades() -> pl.DataFrame:
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, DAY_US, TRADES)) + month_range("2025-01")[0]
    quantities = np.round(random.lognormal(-3, 1, TRADES), 5) + 0.00001
    return pl.DataFrame(
        {
            "time": pl.Series(times).cast(INSTANT),
            "price": np.round(60_000 + np.cumsum(random.normal(0, 0.5, TRADES)), 2),
            "quantity": np.round(quantities, 5),
            "is_buyer_maker": random.random(TRADES) < 0.5,
        }
    )


def _profile_in_polars(trades: pl.DataFrame) -> pl.DataFrame:
    quantity = pl.col("quantity")
    return (
        trades.lazy()
        .group_by((pl.col("price") / ROW_SIZE).floor().cast(pl.Int64).alias("row"))
        .agg(quantity.sum().alias("volume"), quantity.filter(pl.col("is_buyer_maker")).sum().alias("sold"))
        .sort("row")
        .collect()
    )


def _delta_in_polars(trades: pl.DataFrame) -> pl.DataFrame:
    signed = pl.when("is_buyer_maker").then(-pl.col("quantity")).otherwise("quantity")
    minute = (pl.col("time").to_physical() // MINUTE_US).alias("minute")
    return trades.lazy().group_by(minute).agg(signed.sum().alias("delta")).sort("minute").collect()


def _check_profile(profile: VolumeProfile, connection: duckdb.DuckDBPyConnection) -> None:
    wanted = pl.DataFrame(connection.sql(_PROFILE).to_arrow_table())
    ours = profile.rows.filter(pl.col("volume") > 0)
    for name, other in (("volume", "volume"), ("taker_sell_volume", "sold")):
        if not np.allclose(ours[name], wanted[other].fill_null(0), rtol=1e-9):
            raise WrongResult(f"the profile's {name} differs from DuckDB's")


def _check_delta(rows: FlowRows, edges: np.ndarray, connection: duckdb.DuckDBPyConnection) -> None:
    wanted = pl.DataFrame(connection.sql(_DELTA).to_arrow_table())
    ours = rows.delta[rows.count > 0]
    minutes = edges[:-1][rows.count > 0] // MINUTE_US
    if minutes.tolist() != wanted["minute"].to_list() or not np.allclose(ours, wanted["delta"], rtol=1e-9, atol=1e-9):
        raise WrongResult("the delta differs from DuckDB's")
