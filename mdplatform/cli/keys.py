"""`mdplatform keys`: the API keys of the gateway."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdplatform.cli.frame import err, out

if TYPE_CHECKING:
    from mdplatform.gateway.keys import Key

keys = typer.Typer(help="Make, list and revoke the API keys of the gateway.", no_args_is_help=True)


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is; to revoke it by.")],
    scope: Annotated[
        str, typer.Option(help="What it may do: request, read, admin; with commas between.")
    ] = "request,read",
    strategies: Annotated[
        str, typer.Option(help='Patterns of strategy ids whose requests it may send and see, such as "momentum_*".')
    ] = "*",
    per_second: Annotated[float, typer.Option(help="How often it may ask, a second; twice as many at once.")] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a key. It is shown this once: only a hash of it is kept.

    Example:

        mdplatform keys create --name desk-1 --scope request,read --strategies "momentum_*" --per-second 50
    """
    key, text = _store().create(name, _words(scope), _words(strategies), per_second)
    if as_json:
        typer.echo(json.dumps({"key": text, **_told(key)}))
        return
    err.print("Keep it: it is not shown again.", style="yellow")
    typer.echo(text)


@keys.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the keys, revoked ones too; never what they read."""
    from rich.table import Table

    told = [_told(each) for each in _store().every()]
    if as_json:
        typer.echo(json.dumps(told))
        return
    table = Table("name", "id", "scopes", "strategies", "per second", "made", "revoked")
    for each in told:
        table.add_row(
            each["name"],
            each["id"],
            ", ".join(each["scopes"]),
            ", ".join(each["strategies"]),
            f"{each['per_second']:g}",
            each["created_at"][:16],
            (each["revoked_at"] or "–")[:16],
        )
    out.print(table)


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="The key's name or id.")]) -> None:
    """End a key; a running gateway refuses it from its next call on.

    Example:

        mdplatform keys revoke desk-1
    """
    key = _store().revoke(name)
    typer.echo(f"revoked {key.name} ({key.id})")


def _store() -> Any:
    from mdplatform.gateway.keys import KeyStore
    from mdplatform.settings import Settings

    settings = Settings.load()
    settings.home.mkdir(parents=True, exist_ok=True)
    return KeyStore(settings.home)


def _words(text: str) -> list[str]:
    return [each for each in re.split(r"[,\s]+", text) if each]


def _told(key: Key) -> dict[str, Any]:
    from mdplatform.market.time import from_us, iso

    return {
        "id": key.id,
        "name": key.name,
        "scopes": [each.value for each in key.scopes],
        "strategies": list(key.strategies),
        "per_second": key.per_second,
        "created_at": iso(from_us(key.created_at)),
        "revoked_at": iso(from_us(key.revoked_at)) if key.revoked_at else None,
    }
