"""`mdplatform read`: the newest values of a feature, as a strategy reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli.frame import err, out

if TYPE_CHECKING:
    from mdplatform.serving.result import FeatureResult

_WORDS = ("open_time", "available_at", "reason")


def read(
    symbol: Annotated[str, typer.Argument(help="Such as BTCUSDT.")],
    feature: Annotated[str, typer.Argument(help='Such as "RSI(timeperiod=14)", of any kind, or a formula.')],
    timeframe: Annotated[str, typer.Option(help="Such as 15m.")] = "15m",
    last: Annotated[int, typer.Option(help="How many of the newest rows.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read the newest values of a feature: from Redis if they are fresh there, else computed from the lake.

    Examples:

        mdplatform read BTCUSDT "RSI(timeperiod=14)" --timeframe 1h --last 3

        mdplatform read BTCUSDT MACD --json

        mdplatform read BTCUSDT "VOLUME_PROFILE(row_size=50)" --timeframe 1h

        mdplatform read BTCUSDT "EMA(close, 20) / EMA(close, 50) - 1"
    """
    from mdplatform.serving.reader import Reader
    from mdplatform.settings import Settings

    with Reader(Settings.load()) as reader:
        result = reader.latest(symbol, feature, timeframe, last)
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    _show(result)
    for note in result.notes:
        err.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


def _show(result: FeatureResult) -> None:
    from rich.table import Table

    shown = result.to_dict()
    table = Table(title=f"{shown['symbol']} {shown['timeframe']} {shown['feature']}", title_justify="left")
    names = list(dict.fromkeys(name for row in shown["rows"] for name in row))
    for name in names:
        table.add_column(name, justify="left" if name in _WORDS else "right")
    for row in shown["rows"]:
        table.add_row(*(_cell(row.get(name)) for name in names))
    out.print(table)
    method = f", by {result.method}" if result.method else ""
    out.print(
        f"from {result.source} ({result.layer}) in {result.elapsed_ms:.2f} ms, version {result.version[:12]}{method}",
        style="dim",
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
