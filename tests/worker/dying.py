"""Workers that kill themselves at a named instant of their first request, or stop; run as processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.transport import Delivery
from mdplatform.settings import Settings
from mdplatform.worker.evaluator import Evaluator
from mdplatform.worker.handler import StrategyDataRequestHandler

INSTANTS = ("after take", "after compute", "after publish", "before reply", "after reply")


def die() -> None:
    """End at once, as by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingAnswerer(RedisAnswerer):
    """Dies after it took something, before it settles or after it settled."""

    instant = ""

    async def take(self, shares, wait_seconds):
        taken = await super().take(shares, wait_seconds)
        if self.instant == "after take" and any(isinstance(each, Delivery) for each in taken):
            die()
        return taken

    async def settle_many(self, answers):
        if self.instant == "before reply":
            die()
        settled = await super().settle_many(answers)
        if self.instant == "after reply":
            die()
        return settled


class DyingEvaluator(Evaluator):
    """Dies before it publishes what it computed, or after that, or at a request for an RSI of that period."""

    instant = ""
    deadly_period: int | None = None

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, worker="dying")
        shelf = self._finder._shelf
        publish = shelf.publish

        async def publish_and_die(*given):
            if self.instant == "after compute":
                die()
            failed = await publish(*given)
            if self.instant == "after publish":
                die()
            return failed

        shelf.publish = publish_and_die

    async def evaluate(self, requests, *runs):
        if any(f"RSI(timeperiod={self.deadly_period})" in each.features for each in requests):
            die()
        return await super().evaluate(requests, *runs)


def work(instant: str = "", deadly_period: int | None = None) -> None:
    """Work until that instant."""

    async def run() -> None:
        settings = Settings.load()
        answerer, evaluator = DyingAnswerer(settings), DyingEvaluator(settings)
        answerer.instant = evaluator.instant = instant
        evaluator.deadly_period = deadly_period
        await StrategyDataRequestHandler(settings, answerer, evaluator, worker="dying").run()

    asyncio.run(run())


def stand_still(mark: str) -> None:
    """Work, and stop by `SIGSTOP` before the first answer is settled; then note how many answers came too late."""

    told = Path(mark)

    class StillAnswerer(RedisAnswerer):
        async def settle_many(self, answers):
            if told.exists():
                return await super().settle_many(answers)
            os.kill(os.getpid(), signal.SIGSTOP)
            settled = await super().settle_many(answers)
            told.with_suffix(".part").write_text(str(settled.count(False)))
            told.with_suffix(".part").rename(told)
            return settled

    async def run() -> None:
        settings = Settings.load()
        answerer = StillAnswerer(settings)
        await StrategyDataRequestHandler(settings, answerer, Evaluator(settings, worker="still"), worker="still").run()

    asyncio.run(run())
