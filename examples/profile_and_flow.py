"""Volume profile, order flow, footprint and trade-driven bars of trades in memory: no home, no Redis, no Dagster.

    python examples/profile_and_flow.py

The trades are made up here; any table of polars, pandas or Arrow with `time, price, quantity, is_buyer_maker` will do.
"""

# ruff: noqa: T201
from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from mdplatform.features import cusum_events, footprint, order_flow, volume_bars, volume_profile


def made_up_trades(count: int = 20_000) -> pl.DataFrame:
    """Give a day of trades at prices that stray around 50,000, in ticks of 0.5."""
    random = np.random.default_rng(7)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    offsets = np.sort(random.integers(0, 86_400_000_000, count))
    price = 50_000 + np.cumsum(random.choice([-0.5, 0.0, 0.5], count))
    return pl.DataFrame(
        {
            "time": pl.Series([start]).dt.cast_time_unit("us").new_from_index(0, count)
            + pl.Series(offsets, dtype=pl.Duration("us")),
            "price": price,
            "quantity": random.integers(1, 2_000, count) / 1_000,
            "is_buyer_maker": random.random(count) < 0.45,  # true: the taker sold
        }
    )


def main() -> None:
    """Print what the trades say."""
    trades = made_up_trades()

    profile = volume_profile(trades, row_size=5, value_area_pct=0.70, algorithm="two_row")
    print(f"POC {profile.poc}, value area {profile.val} … {profile.vah} of {profile.volume:,.3f}, by {profile.method}")
    print("high-volume nodes", profile.hvn, "low-volume nodes", profile.lvn)
    print(profile.rows.filter(pl.col("price_low") <= profile.poc, pl.col("price_high") > profile.poc))
    assert np.isclose(profile.rows["volume"].sum(), trades["quantity"].sum(), rtol=1e-12)

    flow = order_flow(trades, timeframe="1h")
    print(f"delta {flow.delta:,.3f}, CVD at the end {flow.cvd[-1]:,.3f}, taker ratio {flow.taker_ratio:.3f}")
    print(f"VPIN {flow.vpin:.3f}, Kyle's lambda {flow.kyle_lambda:.4f}, Roll's spread {flow.roll_spread}")
    print("sizes", {share: round(size, 3) for share, size in flow.size_quantiles.items()}, flow.reasons)
    assert flow.frame is not None
    print(flow.frame.select("open_time", "volume", "delta", "cvd", "vpin").tail(3))

    rows = footprint(trades, row_size=5, timeframe="1h", imbalance_ratio=3).rows
    stacked = rows.filter((pl.col("buy_stack") >= 2) | (pl.col("sell_stack") >= 2))
    print(f"{rows.height} rows of the footprint, {stacked.height} of them in stacks of imbalances")

    bars, events = volume_bars(trades, 1_000), cusum_events(trades, threshold=0.0005)
    print(f"{bars.height} bars of 1,000 each, {events.height} CUSUM events of 5 basis points")


if __name__ == "__main__":
    main()
