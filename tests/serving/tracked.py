"""What tests of the near cache share: reading as readers do, waiting, and a proxy that swallows bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from mdplatform.serving.near import Near

PATIENCE = 20.0


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.001)


def read(near: Near, client: redis.Redis, key: str) -> tuple[bytes | None, bool]:
    """Give what is under a key, and whether it was near."""
    held = near.get([key])
    if held is not None:
        return held[0], True
    with near.filling([key]) as kept:
        value = kept[key] = client.get(key)  # type: ignore[assignment]
    return value, False  # type: ignore[return-value]


def held(near: Near, client: redis.Redis, key: str) -> bytes | None:
    """Read until it is near, and give what it is."""
    until(lambda: read(near, client, key)[1])
    return read(near, client, key)[0]


class Proxy:
    """Carries bytes between TCP clients and a unix socket. While `swallows`, those of the server to its trackers go
    nowhere, and no connection is cut."""

    def __init__(self, target: str) -> None:
        self.swallows = False
        self._target = target
        self._trackers: set[socket.socket] = set()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut all."""
        for each in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far, None), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, near), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, to: socket.socket | None) -> None:
        with contextlib.suppress(OSError):
            while sent := source.recv(65536):
                if to is None and b"TRACKING" in sent:
                    self._trackers.add(source)
                if not (self.swallows and to in self._trackers):
                    target.sendall(sent)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy(target: Path | str) -> Iterator[Proxy]:
    """Give a proxy to that socket."""
    running = Proxy(str(target))
    try:
        yield running
    finally:
        running.close()
