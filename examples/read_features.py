"""A strategy reads features, from nothing to the last print, in a home of its own that is gone afterwards.

    python examples/read_features.py

1. A month of a simulated market is taken in and materialized, as `mdplatform ingest` and `mdplatform materialize` do.
2. A strategy reads what it needs: the newest rows, many features in one round trip, a range as it was known.
3. The same with asyncio.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from mdplatform.settings import Settings
from mdplatform.strategy import AsyncFeatureReader, FeatureReader

SYMBOLS = ("BTCUSDT", "ETHUSDT")
MONTH = "2025-01"


def fill(settings: Settings) -> None:
    """Take in a month of each symbol and materialize the standing catalogue."""
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.timeframe import Timeframe
    from mdplatform.runs import Runs

    wanted = Wanted(timeframe=Timeframe.M15, first_month=MONTH, last_month=MONTH)
    report = ingest([f"simulated:{symbol}" for symbol in SYMBOLS], wanted, settings)
    print(f"{report.taken:,} bars taken")
    with Runs(settings) as runs:
        runs.materialize(["technical_indicators"], {symbol: [MONTH] for symbol in SYMBOLS})


def read(settings: Settings) -> None:
    """Read as a strategy does."""
    with FeatureReader(settings) as reader:
        rsi = reader.latest("BTCUSDT", "RSI(timeperiod=14)", timeframe="15m", n=200)
        print(f"RSI {rsi.values[-1]:.2f}, known from {rsi.available_at:%Y-%m-%d %H:%M}, from {rsi.source}")
        print(rsi.to_pandas().tail(3))

        questions = [(symbol, feature, "1h") for symbol in SYMBOLS for feature in ("MACD_HISTOGRAM", "ATR", "KAMA(30)")]
        for answer in reader.latest_many(questions):
            newest = answer.rows[-1]
            print(answer.symbol, answer.feature, f"{answer.values[-1].item():.4f}", answer.source, newest["open_time"])

        days = reader.between("ETHUSDT", "ROC(1)", "1d", start="2025-01-10", end="2025-01-13")
        for row in days.rows:
            print(row["open_time"], row["roc"], row.get("reason", "settled"))


async def read_together(settings: Settings) -> None:
    """Read from many tasks; what they ask in one tick of the loop shares one round trip."""
    async with AsyncFeatureReader(settings) as reader:
        answers = await asyncio.gather(*(reader.latest(symbol, "BBANDS", timeframe="15m") for symbol in SYMBOLS))
    for answer in answers:
        lower, upper = (answer.rows[-1][name] for name in ("lowerband", "upperband"))
        print(f"{answer.symbol} bands {lower:.2f} … {upper:.2f}, read in {answer.elapsed_ms:.2f} ms")


def main() -> None:
    """Run the example with the embedded Valkey, whatever the environment says."""
    with TemporaryDirectory(prefix="mdplatform-") as folder:
        settings = Settings.load(home=Path(folder), redis_url="")
        fill(settings)
        read(settings)
        asyncio.run(read_together(settings))


if __name__ == "__main__":
    main()
