"""Sending requests: a few dozen in one round trip, the most urgent first, and again while the server is away.

What is put while a batch is on its way goes with the next one; so an urgent request never waits for long behind others.
An id is admitted once, however often it is sent.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Asker, Envelope, Receipt
from mdplatform.requests import wire
from mdplatform.requests.request import DataRequest, Refresh
from mdplatform.strategy.pending import Pending

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
_SENT_AT_ONCE = 64
_LONGEST_LABEL = 120

_log = logging.getLogger(__name__)


class Sender:
    """Sends what is put into it, the most urgent first; tells of each whether it was admitted, or cannot be sent."""

    def __init__(
        self,
        asker: Asker,
        is_open: Callable[[Pending], bool],
        admitted: Callable[[Sequence[Pending], Sequence[Receipt]], None],
        failed: Callable[[Pending, str], None],
    ) -> None:
        self._asker = asker
        self._is_open = is_open
        self._admitted = admitted
        self._failed = failed
        self._unsent: dict[int, OrderedDict[Pending, None]] = {each.rank: OrderedDict() for each in DataPriority}
        self._task: asyncio.Task[None] | None = None

    def put(self, pending: Pending) -> None:
        """Have a request sent."""
        self._unsent[pending.priority.rank][pending] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def close(self, seconds: float) -> None:
        """Send what is left if that is possible within so long, and end."""
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        pause = SHORTEST_PAUSE
        while batch := self._next():
            try:
                receipts = await self._asker.send([each.envelope for each in batch if each.envelope is not None])
            except TransportUnavailable as away:
                _log.warning("%d requests are not sent yet: %s", len(batch), away)
                self._put_back(batch)
                pause = await rest(pause)
                continue
            except Exception as failure:  # noqa: BLE001  nothing ends the sending; the log has it
                _log.exception("%d requests cannot be sent", len(batch))
                for each in batch:
                    self._failed(each, f"The request could not be sent ({type(failure).__name__})")
                continue
            pause = SHORTEST_PAUSE
            self._admitted(batch, receipts)

    def _next(self) -> list[Pending]:
        """Take out the next ones to send, the most urgent first; what is answered already is left out."""
        batch: list[Pending] = []
        for queue in self._unsent.values():
            while queue and len(batch) < _SENT_AT_ONCE:
                pending, _ = queue.popitem(last=False)
                if self._is_open(pending):
                    batch.append(pending)
        return batch

    def _put_back(self, batch: Sequence[Pending]) -> None:
        for each in reversed(batch):
            queue = self._unsent[each.priority.rank]
            queue[each] = None
            queue.move_to_end(each, last=False)


def envelope(request: DataRequest) -> Envelope:
    """Give the envelope of a request."""
    return Envelope(
        id=request.request_id,
        priority=request.priority,
        deadline=request.deadline,
        sent_at=request.sent_at,
        body=wire.encode_request(request),
        strategy=request.strategy_id,
        label=_label(request),
        standing=request.refresh is Refresh.ON_CLOSE,
        content=wire.content_of(request),
    )


async def rest(pause: float) -> float:
    """Sleep about so long; give how long to sleep the next time."""
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
    return min(2 * pause, LONGEST_PAUSE)


def _label(request: DataRequest) -> str:
    """Say for people what is asked for, as in `BTCUSDT +1 RSI(timeperiod=14) 15m`."""
    asked = request.features or tuple(map(str, request.options.get("series", ()))) or (request.type.value,)
    told = [f"{each[0]}{f' +{len(each) - 1}' if len(each) > 1 else ''}" for each in (request.symbols, asked) if each]
    return " ".join((*told, *request.timeframes[:1]))[:_LONGEST_LABEL]
