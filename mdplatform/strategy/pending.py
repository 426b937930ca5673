"""What a manager holds of a request that has no final answer yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.answer import Answer
from mdplatform.requests.request import RequestType

if TYPE_CHECKING:
    from mdplatform.messaging.transport import Envelope
    from mdplatform.requests.answer import Progress
    from mdplatform.requests.request import DataRequest

Callback: TypeAlias = Callable[[Answer], Awaitable[Any] | Any]
"""Takes an answer; may be a coroutine function."""
MOST_WAITING = 1_000
"""Answers of a standing request that wait for its callback or its reader; the oldest go first."""
_RECENT = 16


@dataclass(frozen=True)
class OpenRequest:
    """A request without a final answer: `is_sent` says whether the server has it; `answers` came so far."""

    request_id: str
    strategy_id: str
    type: RequestType | None
    priority: DataPriority
    deadline: datetime
    is_standing: bool
    is_sent: bool
    answers: int
    progress: Progress | None = None


@dataclass(eq=False)
class Pending:
    """A request of this manager, or one that it adopted: then `request` is None, and `type` what the server knows."""

    id: str
    strategy_id: str
    priority: DataPriority
    deadline: int
    began: float
    is_standing: bool = False
    type: RequestType | None = None
    request: DataRequest | None = None
    envelope: Envelope | None = None
    callback: Callback | None = None
    is_sent: bool = False
    number: int = -1
    answers: int = 0
    progress: Progress | None = None
    timer: asyncio.TimerHandle | None = None
    look_again_at: float = 0.0
    look_after: float = 2.0
    waiters: list[asyncio.Future[Answer]] = field(default_factory=list)
    readers: list[asyncio.Queue[Answer | None]] = field(default_factory=list)
    recent: deque[Answer] = field(default_factory=lambda: deque(maxlen=_RECENT))
    to_call: deque[Answer] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    is_calling: bool = False

    @property
    def content(self) -> bytes:
        """A digest of what is asked; empty if that is not known."""
        return b"" if self.envelope is None else self.envelope.content

    @property
    def shown(self) -> OpenRequest:
        """What is told of it."""
        return OpenRequest(
            request_id=self.id,
            strategy_id=self.strategy_id,
            type=self.type if self.request is None else self.request.type,
            priority=self.priority,
            deadline=datetime.fromtimestamp(self.deadline / 1e6, UTC),
            is_standing=self.is_standing,
            is_sent=self.is_sent,
            answers=self.answers,
            progress=self.progress,
        )
