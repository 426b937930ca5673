"""A strategy asks for indicators and is called back, in a home of its own that is gone afterwards.

    python examples/request_indicators.py

1. A month of a simulated market is taken in, and a worker is started beside this process.
2. The strategy asks for two indicators of two symbols in two timeframes; its callback prints what comes.
3. The same is asked a hundred times in each class of priority, all at once, and the latencies are told.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.strategy import Answer, DataPriority, StrategyDataManager

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
INDICATORS = [
    {"name": "RSI", "parameters": {"period": 14}},
    {"name": "MACD", "parameters": {"fast": 12, "slow": 26, "signal": 9}},
]
TIMES = 100


class MomentumStrategy:
    """Asks, and prints what it is answered."""

    def __init__(self, strategy_data_manager: StrategyDataManager) -> None:
        self.strategy_data_manager = strategy_data_manager

    async def ask(self) -> str:
        """Ask for the newest values; the id comes back at once, the answer to the callback."""
        return await self.strategy_data_manager.request_technical_indicators(
            strategy_id="momentum_strategy_001",
            strategy_name="Advanced Momentum Strategy",
            symbols=SYMBOLS,
            indicators=INDICATORS,
            timeframes=["5m", "1h"],
            priority=DataPriority.HIGH,
            callback=self.handle_indicator_data,
        )

    async def handle_indicator_data(self, answer: Answer) -> None:
        """Print a line for each result: its newest values, and where they came from."""
        print(f"{answer.status} in {answer.latency_ms:.1f} ms, {len(answer)} results")
        for result in answer:
            values = "  ".join(f"{name} {result.rows[-1][name]:.2f}" for name in result.outputs)
            known = f"known at {result.available_at:%Y-%m-%d %H:%M}"
            print(f"  {result.symbol} {result.timeframe:>3}  {values}  {result.status[-1]}, {result.layer}, {known}")


async def ask_much(strategy_data_manager: StrategyDataManager) -> None:
    """Ask a hundred times in each class at once, and tell how long the answers took."""
    fields = {"strategy_id": "crowd", "symbols": SYMBOLS, "indicators": INDICATORS, "timeframes": "5m"}
    request_ids = await strategy_data_manager.request_many(
        {"type": "TECHNICAL_INDICATORS", **fields, "priority": priority}
        for _ in range(TIMES)
        for priority in DataPriority
    )
    answers = await asyncio.gather(*(strategy_data_manager.result(each) for each in request_ids))
    print(f"\n{len(answers)} requests at once, {sum(each.is_ok for each in answers)} of them ok")
    for rank, priority in enumerate(DataPriority):
        took = [each.latency_ms for each in answers[rank :: len(DataPriority)]]
        print(f"  {priority:8}  median {median(took):6.1f} ms  p99 {quantiles(took, n=100)[-1]:6.1f} ms")


async def trade(settings: Settings) -> None:
    """Ask once and wait, then ask much."""
    async with StrategyDataManager(settings) as strategy_data_manager:
        strategy = MomentumStrategy(strategy_data_manager)
        request_id = await strategy.ask()
        answer = await strategy_data_manager.result(request_id)  # for who would rather wait; the callback comes as well
        print(answer.to_pandas()["RSI(timeperiod=14)"].round(2))
        await ask_much(strategy_data_manager)


def take_in(settings: Settings) -> None:
    """Take in a month of each symbol, as `mdplatform ingest` does."""
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.timeframe import Timeframe

    wanted = Wanted(timeframe=Timeframe.M5, first_month="2025-01", last_month="2025-01")
    report = ingest([f"simulated:{symbol}" for symbol in SYMBOLS], wanted, settings)
    print(f"{report.taken:,} bars taken\n")


def main() -> None:
    """Run the example with the embedded Valkey, whatever the environment says."""
    with TemporaryDirectory(prefix="mdplatform-") as folder:
        settings = Settings.load(home=Path(folder), redis_url="", transport="redis")
        take_in(settings)
        with running(settings, workers=1):
            asyncio.run(trade(settings))


if __name__ == "__main__":
    main()
