"""The breaker: after a failure, leave Redis alone for a while."""

from __future__ import annotations

import time


class Breaker:
    """Remembers the last failure for `seconds`; safe to use from many threads, because it only sets two attributes."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0
        self._reason = ""

    @property
    def reason(self) -> str | None:
        """Why Redis is left alone at present; None if it may be asked."""
        return self._reason if time.monotonic() < self._until else None

    def failed(self, reason: str) -> None:
        """Leave Redis alone from now on."""
        self._reason = reason
        self._until = time.monotonic() + self._seconds

    def reset(self) -> None:
        """Ask Redis again from now on."""
        self._until = 0.0
