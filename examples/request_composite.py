"""A strategy asks for a formula of its own, and is answered again when new bars come.

    python examples/request_composite.py

1. A month of a simulated market is taken in, and a worker is started beside this process.
2. A formula with a mistake is refused before anything is sent, and the error points at the mistake.
3. The formula is asked for once, with its last values.
4. It is asked for as a standing request; the next month is taken in, and it is answered again.
"""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from mdplatform.errors import PlatformError
from mdplatform.processes import running
from mdplatform.settings import Settings
from mdplatform.strategy import Answer, StrategyDataManager

BLEND = {
    "strategy_id": "advanced_momentum",
    "symbols": ["BTCUSDT"],
    "formula": "(RSI - 50) * 0.6 + (MACD_HISTOGRAM / PRICE_STD) * 0.4",
    "input_indicators": [
        {"name": "RSI", "parameters": {"period": 14}},
        {"name": "MACD", "parameters": {"fast": 12, "slow": 26}},
        {"name": "PRICE_STD", "parameters": {"period": 20}},
    ],
    "timeframes": ["15m", "1h"],
}


def told(answer: Answer) -> str:
    """Tell the newest value of each timeframe, and when it was known."""
    newest = [(each.timeframe, each.values[-1], each.available_at) for each in answer]
    values = ", ".join(f"{timeframe} {value:.3f} known at {known:%Y-%m-%d %H:%M}" for timeframe, value, known in newest)
    return f"{answer.status}: {values}"


async def trade(settings: Settings) -> None:
    """Ask wrongly, once, and standing."""
    async with StrategyDataManager(settings) as strategy_data_manager:
        ask = strategy_data_manager.request_custom_composite_indicator
        try:
            await ask(**{**BLEND, "formula": "RSI / PRICE_STDD"})
        except PlatformError as error:
            print(f"{error}\n")

        answer = await strategy_data_manager.result(await ask(**BLEND, latest=3))
        print(told(answer), f"in {answer.latency_ms:.1f} ms")
        for result in answer:
            print(result.to_pandas()[["formula", "status"]])

        standing_id = await ask(**BLEND, refresh="on_close")
        answers = 0
        async for each in strategy_data_manager.answers(standing_id):
            answers += 1
            print(f"standing, {answers}:", told(each))
            if answers == 1:  # new bars come
                await asyncio.to_thread(take_in, settings, "2025-02")
            else:
                await strategy_data_manager.cancel(standing_id)


def take_in(settings: Settings, month: str) -> None:
    """Take in a month of bars, as `mdplatform ingest` does."""
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.timeframe import Timeframe

    wanted = Wanted(timeframe=Timeframe.M15, first_month=month, last_month=month)
    print(f"{ingest(['simulated:BTCUSDT'], wanted, settings).taken:,} bars of {month} taken\n")


def main() -> None:
    """Run the example with the embedded Valkey, whatever the environment says."""
    with TemporaryDirectory(prefix="mdplatform-") as folder:
        settings = Settings.load(home=Path(folder), redis_url="", transport="redis")
        take_in(settings, "2025-01")
        with running(settings, workers=1):
            asyncio.run(trade(settings))


if __name__ == "__main__":
    main()
