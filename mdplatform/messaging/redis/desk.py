"""What the run path sees of the requests over Redis: synchronous, because sensors are."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import redis

from mdplatform.messaging.limits import keeping
from mdplatform.messaging.redis import scripts
from mdplatform.messaging.redis.forms import MICROSECONDS, UNREADABLE, entry, records, text
from mdplatform.messaging.redis.keys import DEAD_KEPT, LINEAGE, PREFIX, WANTED
from mdplatform.messaging.redis.line import PATIENCE, gone, pause, script_command
from mdplatform.messaging.redis.scripts import Script
from mdplatform.messaging.redis.socket import SLOWEST
from mdplatform.messaging.transport import Entry, Record
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, connect

_RELEASED_AT_ONCE = 256


class RedisDesk:
    """A `Desk`; thread-safe; close it when done, or use it in a `with` statement.

    Methods raise `TransportUnavailable` when Redis does not answer within a few seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        seconds = max(SLOWEST, settings.redis_timeout_seconds)
        self._client = connect(settings.model_copy(update={"redis_timeout_seconds": seconds}))

    def wanted(self, after: str, at_most: int) -> list[Entry]:
        """Give what parked requests want from runs, after that place (`0` for the beginning)."""
        return self._entries(WANTED, after, at_most)

    def lineage(self, after: str, at_most: int) -> list[Entry]:
        """Give what workers reported, after that place."""
        return self._entries(LINEAGE, after, at_most)

    def trim(self, *, wanted: str | None = None, lineage: str | None = None) -> None:
        """Drop what lies up to and with these places."""
        if wanted is not None:
            self._run(scripts.TRIM_WANTED, wanted)
        if lineage is not None:
            self._command("XTRIM", LINEAGE, "MINID", _next(lineage))

    def open(self, at_most: int) -> list[Record]:
        """Give open requests, those with the earliest deadlines first."""
        good, bad = records(self._run(scripts.IN_FLIGHT, "0", at_most))
        if bad:
            self._run(scripts.DISCARD, UNREADABLE, DEAD_KEPT, *bad)
        return good

    def stranded(self, idle_seconds: float, at_most: int) -> list[Record]:
        """Give requests that lie in the queues for so long, because no worker takes them."""
        return records(self._run(scripts.STRANDED, round(idle_seconds * 1000), at_most))[0]

    def settle(self, id: str, body: bytes) -> bool:
        """Record and send a final answer. False if there was one already."""
        return bool(self._run(scripts.SETTLE, *keeping(self._settings), secrets.token_hex(8), id, body)[0])

    def release(self, ids: Sequence[str], note: str) -> int:
        """Give parked requests back to the workers; give how many there were.

        What a worker is about to park comes back with the note as soon as it is parked, and counts.
        """
        parts = [ids[start : start + _RELEASED_AT_ONCE] for start in range(0, len(ids), _RELEASED_AT_ONCE)]
        return sum(self._run(scripts.RELEASE_IDS, note, *part) for part in parts)

    def tell(self, id: str, body: bytes) -> bool:
        """Send an update that is not final. False if the request is settled."""
        return bool(self._run(scripts.TELL, id, body, ""))

    def workers(self) -> list[str]:
        """Give the names of the workers that live."""
        now = round(time.time() * MICROSECONDS)
        return [text(name) for name in self._command("ZRANGEBYSCORE", f"{PREFIX}workers", now, "+inf")]

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __enter__(self) -> RedisDesk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entries(self, key: str, after: str, at_most: int) -> list[Entry]:
        found = self._command("XRANGE", key, f"({after or '0'}", "+", "COUNT", at_most)
        return [entry(place, fields) for place, fields in found or () if fields is not None]

    def _run(self, script: Script, *arguments: str | bytes | int | float) -> Any:
        try:
            return self._command(*script_command(script, *arguments))
        except _Unknown:
            return self._command("EVAL", script.text, 1, PREFIX, *arguments)

    def _command(self, *parts: str | bytes | int | float) -> Any:
        end = time.monotonic() + PATIENCE
        failures = 0
        while True:
            try:
                return self._client.execute_command(*parts)  # type: ignore[no-untyped-call]
            except redis.exceptions.NoScriptError:
                raise _Unknown from None
            except REDIS_FAILURES as failure:
                wait = pause(failures)
                failures += 1
                final = isinstance(failure, redis.ResponseError)
                if final or time.monotonic() + wait > end:
                    raise gone(self._settings, failure) from None
                time.sleep(wait)


class _Unknown(Exception):
    """The server does not know the script yet."""


def _next(place: str) -> str:
    """Give the place right after.

    >>> _next("17-3"), _next("17")
    ('17-4', '17-1')
    """
    milliseconds, _, number = place.partition("-")
    return f"{milliseconds}-{int(number or 0) + 1}"
