"""`mdplatform sql`: questions to the lake, in DuckDB's SQL."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mdplatform.cli.frame import err, out

_WIDEST = 10_000


def sql(
    query: Annotated[str, typer.Argument(help="A query, such as: select * from bars limit 5")],
    rows: Annotated[int, typer.Option(help="Most rows that are shown.", min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of rows.")] = False,
) -> None:
    """Ask the lake in SQL, which reads and cannot write. Views: bars, bar_revisions, gaps, quarantine,
    trades, trades_revisions and so on, and one for each asset.

    Example:

        mdplatform sql "select symbol, timeframe, count(*) as bars from bars group by all order by all"
    """
    import polars as pl
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from mdplatform.lake.sql import ask
    from mdplatform.settings import Settings

    answer = ask(Settings.load().lake_dir, query, most_rows=rows)
    if as_json:
        finite = answer.with_columns(pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float()))
        typer.echo(json.dumps(finite.to_dicts(), default=str, allow_nan=False))
        return
    table = Table(expand=False)
    for name, kind in answer.schema.items():
        table.add_column(Text(name), justify="right" if kind.is_numeric() else "left", no_wrap=True)
    for row in answer.iter_rows():
        table.add_row(*(Text("–" if value is None else str(value)) for value in row))
    # as wide as its cells: a terminal folds long lines, which reads better than cells cut to nothing
    wide = Console(width=max(out.width, Measurement.get(out, out.options.update(width=_WIDEST), table).maximum))
    wide.print(table)
    if len(answer) == rows:
        err.print(f"The first {rows} rows; --rows shows more.", style="dim")
