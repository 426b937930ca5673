"""`mdplatform materialize`: run assets over months or days, symbols and series."""

from __future__ import annotations

from typing import Annotated

import typer

from mdplatform.cli import arguments
from mdplatform.cli.frame import err, out, progress


def materialize(
    assets: Annotated[list[str], typer.Argument(metavar="ASSET…", help="Such as bars, technical_indicators.")],
    symbols: Annotated[
        str | None, typer.Option(help="Such as BTCUSDT,ETHUSDT; all that are known if left out.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="Macro series such as CPIAUCSL,UNRATE, likewise.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First month or day: YYYY-MM[-DD].")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last month or day, likewise.")] = None,
    fetch: Annotated[bool, typer.Option(help="Ask the symbols' sources for bars first.")] = False,
) -> None:
    """Materialize assets for months or days, symbols and series, as Dagster runs.

    What is left out means all of which there is something to materialize from. A run that fails does not keep the
    others from being made; the command fails at the end.

    Examples:

        mdplatform materialize technical_indicators --symbols BTCUSDT,ETHUSDT --from 2025-01 --to 2025-06

        mdplatform materialize trades --from 2025-01-30 --to 2025-01-31
    """
    from mdplatform.assets.common import REDIS_PROBLEM, SOURCE_PROBLEM
    from mdplatform.errors import NoData, UnknownSeries, UnknownSymbol
    from mdplatform.lake import Lake
    from mdplatform.runs import Runs
    from mdplatform.runs.inputs import Asked, keys_for_each
    from mdplatform.settings import Settings

    asked = Asked(
        symbols=arguments.symbols(symbols),
        series=arguments.names(series),
        first=arguments.day(first) or arguments.month(first),
        last=arguments.day(last) or arguments.month(last),
        fetch=fetch,
    )
    if asked.first and asked.last and asked.first[: len(asked.last)] > asked.last[: len(asked.first)]:
        raise typer.BadParameter(f"--from {first} is after --to {last}")
    settings = Settings.load()
    lake = Lake(settings.lake_dir)
    with Runs(settings) as runs:
        names = runs.check_assets(assets)
        for symbol in asked.symbols or []:
            if symbol not in runs.symbols():
                raise UnknownSymbol(symbol, runs.symbols())
        for each in asked.series or []:
            known = {*runs.series(), *lake.table("macro").keys(), *lake.table("macro").waiting()}
            if each not in known:
                raise UnknownSeries(each, known)
        keys_of = keys_for_each(runs, lake, names, asked)
        if not any(keys_of.values()):
            raise NoData(
                f"There is nothing to materialize {', '.join(names)} from",
                remedy="Take some in first: mdplatform ingest …, or add --fetch where a symbol has a source",
            )
        for name in (name for name, keys in keys_of.items() if not keys):
            err.print(f"note: there is nothing to materialize {name} from", style="yellow", markup=False)
        for name, keys in keys_of.items():
            having = {key.partition("/")[0] for key in keys if "/" in key}
            if having and (lacking := sorted(set(asked.symbols or runs.symbols()) - having)):
                shown = ", ".join(lacking[:8]) + (f" and {len(lacking) - 8} more" if len(lacking) > 8 else "")
                err.print(f"note: {name} has no inputs of {shown}", style="yellow", markup=False, soft_wrap=True)
        with progress() as bars:
            task = bars.add_task("Materializing", total=None)

            def on_run(what: str, finished: int, total: int) -> None:
                bars.update(task, description=f"Materializing {what}", completed=finished, total=total)

            done = runs.materialize_each(keys_of, fetch=fetch, progress=on_run)
    problems = (each.metadata.get(name) for each in done for name in (SOURCE_PROBLEM, REDIS_PROBLEM))
    for problem in dict.fromkeys(problem for problem in problems if problem):
        err.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
    for asset in dict.fromkeys(each.asset for each in done):
        rows = [each.metadata.get("dagster/row_count", 0) for each in done if each.asset == asset]
        out.print(f"[bold]{asset}[/]: {len(rows)} partitions, {sum(rows):,} rows")
