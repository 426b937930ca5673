"""Computing: `features.evaluate` over 10,000 bars, against the same TA-Lib calls with nothing around them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl

from benchmarks.bare import PERIODS, call_all, check, columns_of
from benchmarks.market import deliveries, longest_stretch, months, symbols
from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.features import evaluate, parse_feature, standing_catalogue
from mdplatform.features.registry import indicator_names
from mdplatform.market.timeframe import Timeframe

ROWS = 10_000


def run(short: bool) -> Iterator[Comparison]:
    """Compare the standing catalogue, then every function of the registry with its default parameters."""
    bars = _bars()
    everything = [parse_feature(name) for name in indicator_names()]
    standing = list(standing_catalogue().features)
    for what, features, turns in (
        (f"standing catalogue ({len(standing)} features)", standing, 20 if short else 200),
        (f"all {len(everything)} functions", everything, 10 if short else 20),
    ):
        evaluation = evaluate(bars, features)
        equal = check(features, bars, Timeframe.M1.microseconds, evaluation.values)
        times = in_turns(
            turns,
            ours=partial(evaluate, bars, features),
            bare=partial(call_all, features, columns_of(bars)),
        )
        yield compare(
            "computing",
            f"{what}, {ROWS:,} bars",
            "talib.X(arrays)",
            times,
            amount=ROWS * len(features),
            amount_unit="values",
            note=f"{equal:,} values equal",
        )


def _bars() -> pl.DataFrame:
    rows = next(deliveries(symbols(1)[0], Timeframe.M1, months(1))).rows
    stretch = longest_stretch(rows, Timeframe.M1).head(ROWS)
    if len(stretch) != ROWS:
        raise WrongResult(f"the simulated market has {len(stretch)} bars in a row only")
    periods = (np.arange(ROWS) % 20 + 5).astype(np.float64)
    return stretch.with_columns(pl.Series(PERIODS, periods))
