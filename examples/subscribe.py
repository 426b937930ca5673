"""A strategy subscribes to frames, live and then from history, in a home of its own that is gone afterwards.

    python examples/subscribe.py

1. January of a simulated market is taken in; beside this process a feed goes on with February, 1,200 times as fast.
2. The strategy's callback gets frames in step: a line for each, with how long it took from the feed to the callback.
3. The last one becomes a tensor for a model.
4. A day of January goes through the same callback.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.strategy import EnhancedMarketDataConsumer, Frame

SYMBOLS = ["BTCUSDT", "ETHUSDT", "ADAUSDT"]
FRAMES = 12


class TransformerStrategy:
    """Keeps the frames, and shows the first ones."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.took: list[float] = []
        self.enough = asyncio.Event()

    async def process_market_data(self, frame: Frame) -> None:
        """Take one frame: the same for a live one and for one of history."""
        if frame.sent_at:
            self.took.append(time.time_ns() / 1e6 - frame.sent_at / 1e3)
        self.frames.append(frame)
        if len(self.frames) == FRAMES:
            self.enough.set()
        if len(self.frames) <= FRAMES:
            btc = frame["BTCUSDT", "5m"]
            rsi = "–" if btc["RSI"] is None else f"{btc['RSI']:.1f}"
            latency = f"{self.took[-1]:.1f} ms" if frame.sent_at else "from history"
            whole = "complete" if frame.is_complete else f"{len(frame.missing)} missing"
            print(f"  {frame.time:%Y-%m-%d %H:%M}  BTCUSDT 5m close {btc.close:,.2f}  RSI {rsi:>5}  {whole}  {latency}")


async def follow(market_data_consumer: EnhancedMarketDataConsumer) -> None:
    """Subscribe, wait for some frames, and make a tensor of the last one."""
    strategy = TransformerStrategy()
    subscription_id = await market_data_consumer.subscribe_to_market_data(
        strategy_id="transformer_strategy",
        symbols=SYMBOLS,
        data_types=["price", "volume", "indicators", "sentiment"],
        timeframes=["5m", "15m", "1h", "4h"],
        callback=strategy.process_market_data,
        real_time=True,
    )
    async with asyncio.timeout(30):
        await strategy.enough.wait()
    await market_data_consumer.unsubscribe(subscription_id)
    tensor = strategy.frames[-1].to_tensor(window=64)
    known = 100 * tensor.mask.mean()
    print(f"\nfrom the feed to the callback: median {median(strategy.took):.1f} ms")
    print(f"tensor {tensor.shape} of {tensor.values.dtype}, {known:.1f} % of it known\n")


async def replay(market_data_consumer: EnhancedMarketDataConsumer) -> None:
    """Let a day of history go through the same callback."""
    strategy = TransformerStrategy()
    began = time.perf_counter()
    subscription_id = await market_data_consumer.subscribe_to_market_data(
        strategy_id="transformer_strategy",
        symbols=SYMBOLS,
        data_types=["price", "volume", "indicators", "sentiment"],
        timeframes=["5m", "15m", "1h", "4h"],
        callback=strategy.process_market_data,
        real_time=False,
        start="2025-01-30",
        end="2025-01-31",
    )
    await market_data_consumer.finished(subscription_id)
    print(f"\n{len(strategy.frames)} frames of history in {time.perf_counter() - began:.1f} s")


async def trade(settings: Settings) -> None:
    """Live first, then history."""
    async with EnhancedMarketDataConsumer(settings) as market_data_consumer:
        await follow(market_data_consumer)
        await replay(market_data_consumer)


def take_in(settings: Settings) -> None:
    """Take in a month of each symbol, as `mdplatform ingest` does."""
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.timeframe import Timeframe

    wanted = Wanted(timeframe=Timeframe.M1, first_month="2025-01", last_month="2025-01")
    report = ingest([f"simulated:{symbol}" for symbol in SYMBOLS], wanted, settings)
    print(f"{report.taken:,} bars taken\n")


def main() -> None:
    """Run the example with the embedded Valkey, whatever the environment says."""
    with TemporaryDirectory(prefix="mdplatform-") as folder:
        settings = Settings.load(home=Path(folder), redis_url="", transport="redis")
        take_in(settings)
        feed = f"simulated {' '.join(SYMBOLS)} --speed 1200 --from 2025-02-01"
        with running(settings, workers=0, feed=feed):
            asyncio.run(trade(settings))


if __name__ == "__main__":
    main()
