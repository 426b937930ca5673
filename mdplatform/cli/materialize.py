"""`mdplatform materialize`: run assets over months and symbols."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli import arguments
from mdplatform.cli.frame import err, out, progress

if TYPE_CHECKING:
    from mdplatform.lake import Lake


def materialize(
    assets: Annotated[list[str], typer.Argument(metavar="ASSET…", help="Such as bars, technical_indicators.")],
    symbols: Annotated[
        str | None, typer.Option(help="Such as BTCUSDT,ETHUSDT; all that are known if left out.")
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="First month: YYYY-MM.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last month: YYYY-MM.")] = None,
    fetch: Annotated[bool, typer.Option(help="Ask the symbols' sources for bars first.")] = False,
) -> None:
    """Materialize assets for months and symbols, as Dagster runs.

    Without months, those of which there are bars.

    Example:

        mdplatform materialize technical_indicators --symbols BTCUSDT,ETHUSDT --from 2025-01 --to 2025-06
    """
    from mdplatform.assets.common import REDIS_PROBLEM, SOURCE_PROBLEM
    from mdplatform.errors import NoData, UnknownSymbol
    from mdplatform.lake import Lake
    from mdplatform.runs import Runs
    from mdplatform.settings import Settings

    wanted = arguments.symbols(symbols)
    start, end = arguments.month(first), arguments.month(last)
    settings = Settings.load()
    lake = Lake(settings.lake_dir)
    with Runs(settings) as runs:
        runs.check_assets(assets)
        known = runs.symbols()
        for symbol in wanted or []:
            if symbol not in known:
                raise UnknownSymbol(symbol, known)
        months_of = {symbol: _months(lake, symbol, start, end, fetch) for symbol in wanted or known}
        months_of = {symbol: months for symbol, months in months_of.items() if months}
        if not months_of:
            raise NoData(
                "There are no bars of those symbols and months",
                remedy="Take some in first: mdplatform ingest …, or add --fetch where a symbol has a source",
            )
        with progress() as bars:
            task = bars.add_task("Materializing", total=None)

            def on_run(what: str, finished: int, total: int) -> None:
                bars.update(task, description=f"Materializing {what}", completed=finished, total=total)

            done = runs.materialize(assets, months_of, fetch=fetch, progress=on_run)
    problems = (each.metadata.get(name) for each in done for name in (SOURCE_PROBLEM, REDIS_PROBLEM))
    for problem in dict.fromkeys(problem for problem in problems if problem):
        err.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
    for asset in dict.fromkeys(each.asset for each in done):
        rows = [each.metadata.get("dagster/row_count", 0) for each in done if each.asset == asset]
        out.print(f"[bold]{asset}[/]: {len(rows)} partitions, {sum(rows):,} rows")


def _months(lake: Lake, symbol: str, first: str | None, last: str | None, fetch: bool) -> list[str]:
    there = sorted({*lake.bars.months(symbol), *lake.inbox.months(symbol)})
    if first is None and last is None:
        return there
    start = first or (there[0] if there else last)
    assert start is not None
    asked = arguments.months(start, last or f"{datetime.now(UTC):%Y-%m}")
    return asked if fetch else [month for month in asked if month in there]
