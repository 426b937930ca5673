"""Tracking: hearing from Redis which keys are written, on one connection with a thread of its own.

1. The connection speaks RESP3 and asks for `CLIENT TRACKING ON BCAST` of all keys that readers keep (`keys.TRACKED`).
   From then on the cache is open. Each message names keys that were written, or none for all of them (`FLUSHALL`).
2. Silence may mean that nothing was written, or that the connection is cut and nobody has noticed. So it is *proven*
   that nothing is missing: messages and answers come in order, hence who has the answer to a `PING` has heard of every
   write from before it was sent. Who gives what the cache holds reads `proven_at` first, and looks at the clock last:
   the proof holds for `BOUND_SECONDS` from that instant, and no longer.
3. Who asks for the proof keeps it new: one that is `FRESH_SECONDS` old has the thread send the next `PING`.
   Where nobody reads, nothing is sent; the first read after that is not proven, and goes to Redis.
4. A connection that breaks, or answers no `PING` within `DEADLINE_SECONDS`, is given up: the cache is closed, which
   forgets all. A new one is made when somebody reads from Redis, `RETRY_SECONDS` later at the earliest. It starts no
   server.

So a value from the near cache is never older than `BOUND_SECONDS`, whatever became of the network, the server or this
process meanwhile; in the usual case it is a tenth of a millisecond.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import redis

from mdplatform.serving.keys import TRACKED
from mdplatform.serving.near_cache import NearCache
from mdplatform.settings import Settings
from mdplatform.valkey.connection import describe, push_connection

BOUND_SECONDS = 0.1
"""How old a proof may be: no value from the near cache is older."""
FRESH_SECONDS = 0.02
"""How old a proof may be before the next one is asked for."""
DEADLINE_SECONDS = 1.0
"""How long the answer to a `PING` is waited for before the connection is given up."""
RETRY_SECONDS = 0.5
_NEVER = float("-inf")
_log = logging.getLogger(__name__)


class Tracking:
    """Keeps a cache told of what is written in Redis. Close it.

    It begins with the first `want`. After a fork the child has neither the thread nor the proof, and begins anew.
    """

    def __init__(self, settings: Settings, cache: NearCache) -> None:
        self._settings = settings
        self._cache = cache
        self._proven_at = _NEVER
        self._is_up = False
        self._is_asked = False
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken, self._wake_up = _pipe()
        self._complained = ""

    @property
    def proven_at(self) -> float:
        """The instant (`time.monotonic`) before which the cache has heard of every write; asks for the next proof."""
        proven_at = self._proven_at
        if time.monotonic() - proven_at > FRESH_SECONDS and self._is_up and not self._is_asked:
            self._is_asked = True
            self._wake()
        return proven_at

    def want(self) -> None:
        """Have a connection made, if there is none; returns at once."""
        if self._is_up or self._wanted.is_set():
            return
        with self._starting:
            if self._closing.is_set():
                return
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mdplatform-tracking", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the connection and the thread."""
        with self._starting:
            self._closing.set()
            self._wanted.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(5.0)
        self._woken.close()
        self._wake_up.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full of what wakes already
            self._wake_up.send(b"\0")

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closing.is_set():
                return
            try:
                self._follow()
            except Exception as failure:  # noqa: BLE001 (whatever it is: it is told, and tried again)
                self._complain(describe(failure, self._settings))
            finally:
                self._proven_at = _NEVER
                self._is_up = self._is_asked = False
                self._cache.close()
            self._closing.wait(RETRY_SECONDS)
            if not self._closing.is_set():
                self._wanted.clear()

    def _follow(self) -> None:
        """Listen until the connection breaks, or all is closed."""
        with _connected(self._settings) as connection:
            asked_at = time.monotonic()
            prefixes = [part for prefix in TRACKED for part in ("PREFIX", prefix)]
            connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
            connection.read_response()
            self._cache.open()
            self._proven_at, self._is_up, self._complained = asked_at, True, ""
            self._listen(connection)

    def _listen(self, connection: Any) -> None:
        pinged_at: float | None = None
        poll = select.poll()
        poll.register(connection._sock, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        socket_place, woken_place = connection._sock.fileno(), self._woken.fileno()
        while not self._closing.is_set():
            is_told = connection.can_read(0)
            if not is_told:
                left = None if pinged_at is None else pinged_at + DEADLINE_SECONDS - time.monotonic()
                ready = {place for place, _ in poll.poll(None if left is None else max(0.0, left) * 1000 + 1)}
                is_told = socket_place in ready
                if woken_place in ready:
                    self._woken.recv(4096)
            if is_told:
                answer = connection.read_response(push_request=True)
                if isinstance(answer, list):
                    self._heard(answer)
                elif pinged_at is not None:
                    self._proven_at, pinged_at, self._is_asked = pinged_at, None, False
            elif pinged_at is not None and time.monotonic() - pinged_at > DEADLINE_SECONDS:
                raise redis.TimeoutError(f"no answer to a PING in {DEADLINE_SECONDS:.0f} s")
            if pinged_at is None and self._is_asked:
                pinged_at = time.monotonic()
                connection.send_command("PING", check_health=False)

    def _heard(self, message: list[Any]) -> None:
        if message and message[0] == b"invalidate":
            keys = message[1]
            # keys of others may be any bytes; those that readers keep are UTF-8
            self._cache.forget(None if keys is None else [each.decode(errors="replace") for each in keys])

    def _complain(self, cause: str) -> None:
        if cause != self._complained:  # once, not at every attempt
            self._complained = cause
            _log.warning("Reads go without a near cache: Redis tells of no changes (%s)", cause)


def _pipe() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    other.setblocking(False)
    return one, other


@contextlib.contextmanager
def _connected(settings: Settings) -> Iterator[Any]:
    connection = push_connection(settings)
    connection._parser.set_invalidation_push_handler(lambda message: message)
    try:
        connection.connect()
        yield connection
    finally:
        connection.disconnect()
