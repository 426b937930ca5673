"""A crowd that asks over the real transport, and workers that can be killed.

The crowd speaks to the transport itself, below what hides a second answer from strategies, so that it sees every reply.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.asker import RedisAsker
from mdplatform.messaging.redis.keys import PREFIX
from mdplatform.messaging.transport import Envelope, Receipt
from mdplatform.processes import running
from mdplatform.requests import making, wire
from mdplatform.requests.answer import AnswerBody, Status
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect

SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT")
FEATURES = ("RSI", "MACD", "ATR", "BBANDS", "EMA(close, 50)", "OBV", "ADX")
FRAMES = ("15m", "1h")
CLASSES = tuple(DataPriority)


def envelope(number: int, id: str | None = None, deadline: float = 30.0) -> Envelope:
    """A request of the crowd: what it asks follows from its number."""
    made = making.make(
        "TECHNICAL_INDICATORS",
        strategy_id=f"crowd_{number}",
        symbols=[SYMBOLS[number % len(SYMBOLS)]],
        indicators=[FEATURES[number % len(FEATURES)]],
        timeframes=[FRAMES[number % 2]],
        priority=CLASSES[number % 4],
        request_id=id or secrets.token_hex(8),
        deadline=deadline,
    )
    return Envelope(
        id=made.request_id,
        priority=made.priority,
        deadline=made.deadline,
        sent_at=time.time_ns() // 1000,
        body=wire.encode_request(made),
        strategy=made.strategy_id,
    )


@dataclass
class Crowd:
    """Asks, and keeps every final reply that comes, by id."""

    asker: RedisAsker
    sent: dict[str, Envelope] = field(default_factory=dict)
    replies: dict[str, list[bytes]] = field(default_factory=dict)

    async def ask(self, envelopes: Sequence[Envelope]) -> list[Receipt]:
        """Send, again where the server was away for too long."""
        receipts = await self.asker.send(envelopes)
        for each, receipt in zip(envelopes, receipts, strict=True):
            if receipt.admitted:
                self.sent[each.id] = each
        return receipts

    async def listen(self) -> None:
        """Keep what comes, until it is cancelled."""
        while True:
            for reply in await self.asker.receive(0.5):
                if reply.final:
                    self.replies.setdefault(reply.id, []).append(reply.body)

    async def all_answered(self, seconds: float) -> None:
        """Wait until everything that was admitted has an answer."""
        end = time.monotonic() + seconds
        while not self.sent.keys() <= self.replies.keys() and time.monotonic() < end:
            await asyncio.sleep(0.02)

    def bodies(self) -> list[AnswerBody]:
        """The answers, each once."""
        found = [wire.decode_reply(each[0]) for each in self.replies.values()]
        return [each for each in found if isinstance(each, AnswerBody)]

    async def check(self, served: bool = True, twice_delivered: bool = False) -> None:
        """Every request has one answer: the one that is recorded, and no other; a reply comes once."""
        missing = [self.sent[id] for id in self.sent.keys() - self.replies.keys()]
        assert not missing, f"{len(missing)} of {len(self.sent)} have no answer, such as {missing[0]}"
        assert self.replies.keys() == self.sent.keys()
        records = await self.asker.look_up(list(self.sent))
        for id, record in zip(self.sent, records, strict=True):
            assert record is not None
            assert record.stage == "settled"
            assert set(self.replies[id]) == {record.answer}
        if not twice_delivered:
            assert not [id for id, each in self.replies.items() if len(each) > 1]
        if served:
            not_ok = [each for each in self.bodies() if each.status is not Status.OK]
            assert not not_ok, f"{len(not_ok)} of {len(self.sent)} are not ok, such as {not_ok[0]}"


@asynccontextmanager
async def crowd_on(settings: Settings) -> AsyncIterator[Crowd]:
    """A crowd that listens inside the `async with`."""
    crowd = Crowd(RedisAsker(settings))
    listening = asyncio.create_task(crowd.listen())
    try:
        yield crowd
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await crowd.asker.close()


class Workers:
    """Workers as processes, which can be killed and replaced."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self.pids = self._started(count)

    def _started(self, count: int) -> list[int]:
        return list(self._stack.enter_context(running(self._settings, workers=count)).values())

    def kill(self, number: int) -> None:
        """Kill the worker of that number at once."""
        os.kill(self.pids[number], signal.SIGKILL)

    def replace(self, number: int) -> None:
        """Start another in its place; returns when it takes requests."""
        self.pids[number] = self._started(1)[0]

    def close(self) -> None:
        """End those that still run."""
        self._stack.close()


def left_in_redis(settings: Settings) -> dict[str, int]:
    """What is left of requests in Redis: the sizes of everything that should be empty when all are answered."""
    with connect(settings) as connection:
        found: dict[str, int] = {}
        for each in DataPriority:
            key = f"{PREFIX}queue:{each.value}"
            found[key] = connection.xlen(key)
            found |= {f"{key} pending": group["pending"] for group in connection.xinfo_groups(key)}
        for name in ("open", "standing"):
            found[name] = connection.zcard(f"{PREFIX}open") if name == "open" else connection.scard(f"{PREFIX}standing")
        found["dead"] = connection.xlen(f"{PREFIX}dead")
        found["parked"] = sum(1 for _ in connection.scan_iter(f"{PREFIX}parked:*"))
    return {name: count for name, count in found.items() if count}
