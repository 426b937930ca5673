"""`mdplatform worker`: a process that answers strategies' requests."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mdplatform.settings import Settings

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
"""Libraries' own pools of threads only hinder each other on small work; more workers are the way to more cores."""
_SWITCH_SECONDS = 0.0005
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
    unset = [variable for variable in ONE_THREAD if variable not in os.environ]
    if unset:  # they are read when the libraries are imported, which the command line has begun to do
        os.environ.update(dict.fromkeys(unset, "1"))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    from mdplatform.settings import Settings

    _run(Settings.load(), name or f"{os.uname().nodename}-{os.getpid()}", seconds, once, stats)


def _run(settings: Settings, name: str, seconds: float | None, once: bool, stats: bool) -> None:
    import asyncio
    import gc
    import threading

    from mdplatform.worker.events import log_to_stderr
    from mdplatform.worker.serving import serve, warm

    log_to_stderr()
    sys.setswitchinterval(_SWITCH_SECONDS)
    warm()
    gc.collect()
    gc.freeze()  # what was imported is looked through no more

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
