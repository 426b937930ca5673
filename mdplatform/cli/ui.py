"""`mdplatform ui`: Dagster's webserver and daemon on the platform's home."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from mdplatform.cli.frame import err


def ui(
    host: Annotated[str | None, typer.Option(help="Address to listen on; the UI has no login.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=1, max=65535)] = None,
) -> None:
    """Open Dagster's UI with its daemon (schedules, sensors, backfills); Ctrl-C ends both.

    Example:

        mdplatform ui --port 3001
    """
    from mdplatform.errors import InvalidSetting
    from mdplatform.runs import open_instance
    from mdplatform.settings import Settings

    settings = Settings.load(ui_host=host, ui_port=port)
    open_instance(settings).dispose()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.ui_host, settings.ui_port))
        except OSError as taken:
            raise InvalidSetting(
                f"The UI cannot listen on {settings.ui_host} ({taken.strerror})",
                value=settings.ui_port,
                remedy="Choose another port: mdplatform ui --port …",
            ) from None
    err.print(f"Dagster's UI: http://{settings.ui_host}:{settings.ui_port}   (Ctrl-C ends it)", highlight=False)
    os.environ["PYTHONWARNINGS"] = "ignore:Function `dev_command` is superseded"  # by a command for projects' authors
    dagster = str(Path(sys.executable).with_name("dagster"))
    address = ["--host", settings.ui_host, "--port", str(settings.ui_port)]
    os.execv(dagster, [dagster, "dev", "--module-name", "mdplatform.definitions", "--log-level", "warning", *address])
