"""Processes: start the platform's pieces beside this one, wait until they are ready, and leave none behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mdplatform.settings import Settings


@contextmanager
def running(
    settings: Settings, *, workers: int = 1, dagster: bool = False, gateway: bool = False
) -> Iterator[dict[str, int]]:
    """Run workers, and if wanted Dagster's daemon with its code server and the gateway, until the `with` ends.

    Gives the process ids by name (`worker-1`, `dagster`, `gateway`) once all are ready. They end with this process,
    even if it is killed. Raises `PlatformError` with the end of the log of one that does not become ready in time.
    """
    raise NotImplementedError
    yield {}
