"""What the tests of the worker's life share: requests as they are sent, and evaluators that do something beside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Asker, Envelope
from mdplatform.requests import making, wire
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.request import DataRequest
from mdplatform.settings import Settings
from mdplatform.worker.evaluator import Evaluator, Outcome


def rsi_of(symbol: str = "BTCUSDT", period: int = 14, **given: Any) -> DataRequest:
    """A request for an RSI."""
    given = {"strategy_id": "test", "timeframes": ["15m"], **given}
    return making.make("TECHNICAL_INDICATORS", symbols=[symbol], indicators=[f"RSI({period})"], **given)


def envelope_of(request: DataRequest, **changed: Any) -> Envelope:
    """The envelope in which the SDK sends it."""
    told = {
        "id": request.request_id,
        "priority": request.priority,
        "deadline": request.deadline,
        "sent_at": time.time_ns() // 1000,
        "body": wire.encode_request(request),
        "strategy": request.strategy_id,
        "standing": request.refresh == "on_close",
    }
    return Envelope(**{**told, **changed})


def raw_envelope(id: str, body: bytes, priority: DataPriority = DataPriority.NORMAL, seconds: float = 30) -> Envelope:
    """An envelope that somebody wrote by hand."""
    now = time.time_ns() // 1000
    return Envelope(id=id, priority=priority, deadline=now + round(seconds * 1e6), sent_at=now, body=body)


class Inbox:
    """Receives replies, and keeps them by request."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.finals: dict[str, list[AnswerBody]] = {}
        self.numbered: dict[str, list[AnswerBody]] = {}
        self.progress: dict[str, list[Progress]] = {}

    async def send(self, *requests: DataRequest | Envelope) -> None:
        envelopes = [each if isinstance(each, Envelope) else envelope_of(each) for each in requests]
        receipts = await self.asker.send(envelopes)
        assert all(each.admitted for each in receipts), receipts

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Receive until it holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"still waiting: {self.finals}, {self.numbered}, {self.progress}"
            for each in await self.asker.receive(0.05):
                reply = wire.decode_reply(each.body)
                if isinstance(reply, Progress):
                    self.progress.setdefault(each.id, []).append(reply)
                else:
                    assert reply.final == each.final
                    (self.finals if each.final else self.numbered).setdefault(each.id, []).append(reply)

    async def answers(self, *requests: DataRequest | Envelope, seconds: float = 20.0) -> list[AnswerBody]:
        """The final answer of each; there must be one, and one alone."""
        ids = [each.id if isinstance(each, Envelope) else each.request_id for each in requests]
        await self.until(lambda: all(id in self.finals for id in ids), seconds)
        assert all(len(self.finals[id]) == 1 for id in ids), self.finals
        return [self.finals[id][0] for id in ids]

    async def ask(self, *requests: DataRequest | Envelope) -> list[AnswerBody]:
        """Send, and give the final answer of each."""
        await self.send(*requests)
        return await self.answers(*requests)


class Beside(Evaluator):
    """The evaluator, which awaits something of the test's before each request it evaluates."""

    def __init__(self, settings: Settings, before: Callable[[DataRequest], Awaitable[object]]) -> None:
        super().__init__(settings, worker="test")
        self._before = before
        self.began: list[str] = []

    async def evaluate(self, requests: Sequence[DataRequest], *runs: Any) -> list[Outcome]:
        for each in requests:
            self.began.append(each.request_id)
            await self._before(each)
        return await super().evaluate(requests, *runs)


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)
