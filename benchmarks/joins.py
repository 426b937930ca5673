"""Joining as of an instant: 1 M rows with 100 k releases, against polars and pandas, and sentiment's windows on top."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.features.asof import as_of
from mdplatform.features.sentiment import Documents, Windows
from mdplatform.market.timeframe import DAY_US, MINUTE_US

LEFT, RIGHT = 1_000_000, 100_000


def run(short: bool) -> Iterator[Comparison]:
    """Compare the join with each library, then a day's mean of documents with polars' join and rolling mean."""
    at, available_at, values = _inputs()
    left = pl.DataFrame({"at": at})
    right = pl.DataFrame({"at": available_at, "value": values}).set_sorted("at")
    left = left.set_sorted("at")
    left_pandas, right_pandas = left.to_pandas(), right.to_pandas()
    turns = 10 if short else 50
    libraries = (
        ("polars join_asof", lambda: left.join_asof(right, on="at", check_sortedness=False)["value"].to_numpy()),
        ("pandas merge_asof", lambda: pd.merge_asof(left_pandas, right_pandas, on="at")["value"].to_numpy()),
    )
    ours = partial(_joined, at, available_at, values)
    for name, bare in libraries:
        if not np.array_equal(ours(), bare(), equal_nan=True):
            raise WrongResult(f"{name} finds other values")
        yield compare(
            "joins",
            f"as-of join, {LEFT:,} × {RIGHT:,}",
            name,
            in_turns(turns, ours=ours, bare=bare),
            amount=LEFT,
            amount_unit="rows",
        )
    yield from _windows(turns, at, available_at, values)


def _windows(
    turns: int, at: NDArray[np.int64], available_at: NDArray[np.int64], values: NDArray[np.float64]
) -> Iterator[Comparison]:
    documents = Documents(available_at, values)
    grid = at[:: LEFT // 20_000]
    times = pl.DataFrame({"at": available_at, "value": values}).with_columns(pl.col("at").cast(pl.Datetime("us")))
    rows = pl.DataFrame({"at": grid}).with_columns(pl.col("at").cast(pl.Datetime("us"))).set_sorted("at")

    def bare() -> NDArray[np.float64]:
        rolled = times.with_columns(pl.col("value").rolling_mean_by("at", "1d").alias("mean"))
        return rows.join_asof(rolled.set_sorted("at"), on="at", check_sortedness=False)["mean"].to_numpy()

    yield compare(
        "joins",
        f"mean of a day's documents, {len(grid):,} rows × {RIGHT:,}",
        "polars rolling_mean_by, join_asof (running sums)",
        in_turns(turns, ours=lambda: Windows.of(documents, grid, DAY_US).mean(), bare=bare),
        amount=len(grid),
        amount_unit="rows",
    )


def _joined(at: NDArray[np.int64], available_at: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return as_of(available_at, at).take(values)


def _inputs() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Give minutes, instants at which documents became available (some equal), and their scores."""
    generator = np.random.default_rng(7)
    at = np.arange(LEFT) * MINUTE_US
    available_at = np.sort(generator.integers(0, LEFT, RIGHT) * MINUTE_US)
    return at, available_at, generator.uniform(-1, 1, RIGHT)
