"""`mdplatform sql`: questions to the lake, in DuckDB's SQL."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mdplatform.cli.frame import err, out


def sql(
    query: Annotated[str, typer.Argument(help="A query, such as: select * from bars limit 5")],
    rows: Annotated[int, typer.Option(help="Most rows that are shown.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of rows.")] = False,
) -> None:
    """Ask the lake in SQL, which reads and cannot write. Views: bars, bar_revisions, gaps, quarantine, each asset.

    Example:

        mdplatform sql "select symbol, timeframe, count(*) as bars from bars group by all order by all"
    """
    from rich.table import Table

    from mdplatform.lake.sql import ask
    from mdplatform.settings import Settings

    answer = ask(Settings.load().lake_dir, query, most_rows=rows)
    if as_json:
        typer.echo(json.dumps(answer.to_dicts(), default=str))
        return
    table = Table()
    for name, kind in answer.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left")
    for row in answer.iter_rows():
        table.add_row(*("–" if value is None else str(value) for value in row))
    out.print(table)
    if len(answer) == rows:
        err.print(f"The first {rows} rows; --rows shows more.", style="dim")
