"""`mdplatform worker`: a process that answers strategies' requests."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.tuning import begin_with_one_thread, settle

if TYPE_CHECKING:
    from mdplatform.settings import Settings

_LAST_SECONDS = 1.0


def worker(
    name: Annotated[str | None, typer.Option(help="Its name in answers and logs; by default host and process.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.", min=0.0)] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left to answer.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print its counters as a line of JSON at the end.")] = False,
) -> None:
    """Answer strategies' requests until Ctrl-C; run as many as there are cores to spare.

    It prints `{"ready": true, …}` once it takes requests, and writes what happens to standard error.

    Examples:

        mdplatform worker

        mdplatform worker --name worker-1 --seconds 60 --stats
    """
    begin_with_one_thread()

    from mdplatform.settings import Settings

    _run(Settings.load(), name or f"{os.uname().nodename}-{os.getpid()}", seconds, once, stats)


def _run(settings: Settings, name: str, seconds: float | None, once: bool, stats: bool) -> None:
    import asyncio
    import threading

    from mdplatform.worker.events import log_to_stderr
    from mdplatform.worker.serving import serve, warm

    log_to_stderr()
    warm()
    settle()

    def ready() -> None:
        typer.echo(json.dumps({"ready": True, "worker": name, "pid": os.getpid()}))
        sys.stdout.flush()

    async def work() -> None:
        told = await serve(settings, name, on_ready=ready, seconds=seconds, once=once)
        if stats:
            typer.echo(json.dumps(told))
            sys.stdout.flush()
        end = threading.Timer(_LAST_SECONDS, os._exit, (0,))  # a computation that nobody waits for holds up no exit
        end.daemon = True
        end.start()

    asyncio.run(work())
