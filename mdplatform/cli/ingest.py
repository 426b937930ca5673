"""`mdplatform ingest`: take in files, or what a source has."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mdplatform.cli import arguments
from mdplatform.cli.frame import err, out, progress
from mdplatform.market.symbol import parse_symbol


def ingest(
    targets: Annotated[list[str], typer.Argument(metavar="PATH|SOURCE:NAME…", help="Files, folders, or a source.")],
    taken_as: Annotated[
        str | None, typer.Option("--as", help="What files are: bars (default), trades, recording, sentiment, macro.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol, where a file does not say it.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="The timeframe, such as 15m, likewise.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First month or day: YYYY-MM[-DD].")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last month or day, likewise.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: what a file calls a column, such as price=px; repeatable.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Who scored or published, for sentiment.")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="What scores texts that bring no score: vader (needs mdplatform[vader]).")
    ] = None,
    observed: Annotated[
        str | None,
        typer.Option(help="When a file of latest macro values was what is known: YYYY-MM-DD (its end)."),
    ] = None,
    lag_days: Annotated[
        int | None, typer.Option(min=0, max=3650, help="How long after its date such a value is published, in days.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Take market data into the lake, as Dagster runs; the same data twice changes nothing.

    Reads Binance's public dumps (CSV, zip, with .CHECKSUM beside), REST kline bodies, Parquet, Feather and CSV (of bars
    whole months). A source is binance:, simulated:, or one of other data, such as fred:CPIAUCSL.

    Examples:

        mdplatform ingest BTCUSDT-1m-2025-01.zip

        mdplatform ingest downloads/ --symbol BTCUSDT --timeframe 5m

        mdplatform ingest binance:BTCUSDT --timeframe 1m --from 2025-01

        mdplatform ingest BTCUSDT-aggTrades-2025-01-31.zip --as trades
    """
    from mdplatform.ingest import Wanted
    from mdplatform.ingest import ingest as take_in
    from mdplatform.settings import Settings

    wanted = Wanted(
        symbol=parse_symbol(symbol) if symbol else None,
        timeframe=arguments.timeframe(timeframe),
        first_month=arguments.month(first),
        last_month=arguments.month(last),
        taken_as=taken_as,
        first_day=arguments.day(first),
        last_day=arguments.day(last),
        columns=arguments.columns(column),
        provider=provider,
        observed=arguments.instant(observed),
        lag_days=lag_days,
        scorer=scorer,
    )
    with progress() as bars:
        read = bars.add_task("Reading", total=None)
        merge = bars.add_task("Materializing", total=None, visible=False)

        def on_read(what: str, done: int, total: int) -> None:
            bars.update(read, description=f"Reading {what}", completed=done, total=total)

        def on_run(what: str, done: int, total: int) -> None:
            bars.update(merge, description=f"Materializing {what}", completed=done, total=total, visible=True)

        report = take_in(targets, wanted, Settings.load(), on_read, on_run)
    if as_json:
        content = {**report.__dict__, "quarantined": dict(report.quarantined)}
        typer.echo(json.dumps(content))
        return
    out.print(
        f"[bold]{report.taken:,}[/] rows taken, [bold]{report.unchanged:,}[/] unchanged, "
        f"[bold]{report.corrected:,}[/] corrected, [bold]{report.quarantined.total():,}[/] quarantined "
        f"in {len(report.partitions)} partitions."
    )
    for rule, rows in report.quarantined.most_common():
        out.print(f"  quarantined by {rule}: {rows:,}")
    if report.disagreements:
        err.print(
            f"{report.disagreements:,} bars differ from the sum of shorter ones of the same symbol: "
            "is it another venue's, or a future's?",
            style="yellow",
        )
    for note in report.notes:
        err.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    for path in report.skipped:
        err.print(f"skipped, for it has no rows: {path}", style="yellow", markup=False, soft_wrap=True)
    for name in report.absent:
        err.print(f"not in the archive: {name}", style="yellow", markup=False, soft_wrap=True)
    if report.taken or report.corrected:
        follows = "technical_indicators" if not report.assets else "ASSET…, or `mdplatform ui` to see what follows"
        err.print(f"Next: mdplatform materialize {follows}", style="dim")
