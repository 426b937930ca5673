"""The command line's frame: its name, the options that every command has, and how errors are shown."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mdplatform import __version__
from mdplatform.errors import InvalidSetting, PlatformError
from mdplatform.interrupts import as_usual

_PIPED_WIDTH = 120
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

out = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
"""Where results go."""
err = Console(stderr=True)
"""Where progress and errors go, so that results can be piped."""

app = typer.Typer(
    name="mdplatform",
    help="A Dagster-orchestrated market-data platform for trading strategies.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"mdplatform {__version__}")
        raise typer.Exit


@app.callback()
def common(
    home: Annotated[
        str | None, typer.Option(help="The platform's folder, instead of MDPLATFORM_HOME.", show_default=False)
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Take the options that stand before the command."""
    as_usual()
    if home is not None:
        os.environ["MDPLATFORM_HOME"] = home


def progress() -> Progress:
    """Give progress bars for a command to fill."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def main() -> None:
    """Run the command line; a `PlatformError`, and a disk that is full, is one line on standard error and status 1."""
    try:
        app()
    except PlatformError as error:
        _complain("setting" if isinstance(error, InvalidSetting) else "error", str(error))
    except OSError as refused:
        if refused.errno not in _NO_ROOM:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest goes at the end
        _complain("error", f"Nothing more can be written: {refused.strerror}. Make room, and try again")


def _complain(kind: str, told: str) -> None:
    err.print(f"[bold red]{kind}:[/] ", end="")
    err.print(told, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)
