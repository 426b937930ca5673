"""A training set that knows nothing of the future, from nothing to a fitted line, in a home of its own.

    python examples/training_frame.py

1. Two months of a simulated market are taken in, as `mdplatform ingest` does.
2. One frame lays features side by side: of several timeframes, a formula, a volume profile, order flow, a correlation.
   Every cell is made of what was known when its row closed.
3. The detector of look-ahead confirms that, and finds the function that cheats.
4. A line is fitted on the first part of the rows and tried on the rest.
5. The newest row of the frame is what a strategy reads.
"""

# ruff: noqa: T201
from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from mdplatform.features import check_lookahead, frame
from mdplatform.settings import Settings
from mdplatform.strategy import FeatureReader

SYMBOLS = ("BTCUSDT", "ETHUSDT")
FEATURES = [
    "RSI(14)",
    "RSI@4h",
    "ATR(14)@1d",
    "CORRELATION(reference=ADAUSDT, window=96)",
    "TAKER_IMBALANCE(24)",
    {
        "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
        "input_indicators": [
            {"name": "RSI", "parameters": {"period": 14}},
            {"name": "MACD", "parameters": {"fast": 12, "slow": 26, "signal": 9}},
            {"name": "PRICE_STD", "parameters": {"period": 20}},
        ],
    },
    "close / VOLUME_PROFILE_POC(session_hours=8) - 1",
]
START, END = "2025-02-05", "2025-02-25"


def fill(settings: Settings) -> None:
    """Take in two months of each symbol, and of the one that they are correlated with."""
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.timeframe import Timeframe

    wanted = Wanted(timeframe=Timeframe.M15, first_month="2025-01", last_month="2025-02")
    report = ingest([f"simulated:{symbol}" for symbol in (*SYMBOLS, "ADAUSDT")], wanted, settings)
    print(f"{report.taken:,} bars taken")


def training_set() -> pl.DataFrame:
    """Give the features of each hour, and as the target the return of the hour after it."""
    features = frame(SYMBOLS, FEATURES, "1h", START, END, statuses=True, ages=True)
    closes = frame(SYMBOLS, "close", "1h", START, END)
    print(f"{features.height} rows, {len(features.columns)} columns; of one row:")
    row = features.row(100, named=True)
    for name in (name for name, kind in features.schema.items() if kind == pl.Float64):
        age = row[f"{name}.age"]
        print(f"  {name} = {row[name]:.4f}, {row[f'{name}.status']}{f', {age} old' if age is not None else ''}")
    following = pl.col("close").shift(-1).over("symbol")  # the target may look ahead: nothing else does
    target = closes.with_columns((following / pl.col("close") - 1).alias("target"))
    return features.join(target.select("symbol", "open_time", "target"), on=["symbol", "open_time"])


def cheating(bars: pl.DataFrame) -> pl.Series:
    """Give a mean that is centred on its row, and so knows two bars too many."""
    return bars["close"].rolling_mean(5, center=True)


def fit(rows: pl.DataFrame) -> None:
    """Fit a line to the first three quarters of the time, and try it on the rest."""
    columns = [name for name, kind in rows.schema.items() if kind == pl.Float64 and name != "target"]
    known = rows.drop_nulls([*columns, "target"]).sort("open_time")
    split = known["open_time"][3 * known.height // 4]
    inputs = np.column_stack([np.ones(known.height), known.select(columns).to_numpy()])
    target, is_past = known["target"].to_numpy(), (known["open_time"] < split).to_numpy()
    weights = np.linalg.lstsq(inputs[is_past], target[is_past], rcond=None)[0]
    hit = np.mean(np.sign(inputs[~is_past] @ weights) == np.sign(target[~is_past]))
    print(f"fitted on {is_past.sum()} rows, right about the sign of {hit:.0%} of {(~is_past).sum()} later ones")


def main() -> None:
    """Run the example with the embedded Valkey, whatever the environment says."""
    with TemporaryDirectory(prefix="mdplatform-") as folder:
        os.environ["MDPLATFORM_HOME"] = folder  # where `frame` and `check_lookahead` look
        settings = Settings.load(home=Path(folder), redis_url="")
        fill(settings)
        rows = training_set()
        fit(rows)

        honest = check_lookahead(FEATURES, symbol="BTCUSDT", timeframe="1h", rows=200, samples=10)
        print("no look-ahead" if honest.passed else honest.differences)
        print(check_lookahead(cheating, symbol="BTCUSDT", timeframe="1h", rows=200, samples=10).differences[0])

        newest = frame("BTCUSDT", FEATURES, "1h", start="2025-02-28").row(-1)[4:]
        with FeatureReader(settings) as reader:
            answers = reader.latest_many([("BTCUSDT", feature, "1h") for feature in FEATURES])
        read = [answer.values[-1].item() for answer in answers]
        print(f"what a strategy reads is the frame's newest row: {np.allclose(read, newest, rtol=1e-9, atol=0)}")


if __name__ == "__main__":
    main()
