"""How FRED is reached: with the key, which is shown to nobody else, and at no more than its pace.

The key is added below the client, where requests are sent: no URL that is logged, raised or shown has it. FRED counts
the questions of a key, so that all clients of a process share one pace.
"""

from __future__ import annotations

import threading
import urllib.request
from collections import deque
from collections.abc import Callable

import httpx

from mdplatform.errors import SourceUnavailable


class Signing(httpx.BaseTransport):
    """Adds the key to what is sent, so that the request which the client knows and logs is without it."""

    def __init__(self, key: str, base_url: str) -> None:
        self._key = key
        url = httpx.URL(base_url)
        proxy = None if urllib.request.proxy_bypass(url.host) else urllib.request.getproxies().get(url.scheme)
        self._inner = httpx.HTTPTransport(proxy=proxy)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request with the key."""
        signed = httpx.Request(
            request.method,
            request.url.copy_merge_params({"api_key": self._key}),
            headers=request.headers,
            extensions=request.extensions,
        )
        return self._inner.handle_request(signed)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class Pace:
    """Lets at most so many questions through in any minute; the threads of a process wait for one another."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._asked: deque[float] = deque()
        self._lock = threading.Lock()

    def wait(self, now: Callable[[], float], sleep: Callable[[float], None], ends: float) -> None:
        """Wait for a turn. Raises `SourceUnavailable` if it comes only after the instant `ends`."""
        with self._lock:
            turn = now()
            while self._asked and self._asked[0] <= turn - 60.0:
                self._asked.popleft()
            if len(self._asked) >= self.per_minute:
                turn = self._asked[-self.per_minute] + 60.0
            if turn > ends:
                raise SourceUnavailable(
                    "FRED's limit leaves no turn before the deadline",
                    value=f"{self.per_minute} questions a minute",
                    remedy="Ask for fewer series at once, or raise MDPLATFORM_FRED_DEADLINE_SECONDS",
                )
            self._asked.append(turn)
            delay = turn - now()
        if delay > 0:
            sleep(delay)


_PACES: dict[tuple[str, int], Pace] = {}


def pace_of(base_url: str, per_minute: int) -> Pace:
    """Give the pace of an address, one for the whole process."""
    return _PACES.setdefault((base_url, per_minute), Pace(per_minute))
