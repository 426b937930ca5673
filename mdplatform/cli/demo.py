"""`mdplatform demo`: the platform from end to end, on a simulated market, in one minute."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli.frame import err, out, progress

if TYPE_CHECKING:
    from mdplatform.serving.reader import Reader

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT")
_FEATURES = ("RSI(timeperiod=14)", "MACD", "BBANDS")


def demo(
    months: Annotated[
        int, typer.Option(help="How many months of market data, the running one included.", min=1, max=24)
    ] = 6,
) -> None:
    """Take in a simulated market, materialize it through Dagster, publish it, and read it as a strategy would.

    Example:

        mdplatform demo --months 3
    """
    from mdplatform.assets.common import REDIS_PROBLEM
    from mdplatform.home import prepare_home
    from mdplatform.ingest import Wanted, ingest
    from mdplatform.market.time import month_of, month_range
    from mdplatform.market.timeframe import Timeframe
    from mdplatform.runs import Runs
    from mdplatform.serving.reader import Reader
    from mdplatform.settings import Settings
    from mdplatform.valkey.connection import connect

    settings = Settings.load()
    every = [f"{datetime.now(UTC):%Y-%m}"]
    while len(every) < months:
        every.insert(0, month_of(month_range(every[0])[0] - 1))
    prepare_home(settings)
    with connect(settings), Reader(settings) as reader, progress() as bars:
        taking = bars.add_task("Taking in market data", total=None)
        computing = bars.add_task("Materializing", total=None)

        def on_taking(what: str, done: int, total: int) -> None:
            bars.update(taking, description=f"Taking in {what}", completed=done, total=total)

        def on_computing(what: str, done: int, total: int) -> None:
            bars.update(computing, description=f"Materializing {what}", completed=done, total=total)

        report = ingest(
            [f"simulated:{symbol}" for symbol in _SYMBOLS],
            Wanted(timeframe=Timeframe.M5, first_month=every[0]),
            settings,
            progress=on_taking,
        )
        with Runs(settings) as runs:
            done = runs.materialize(
                ["technical_indicators", "returns_panel"], dict.fromkeys(_SYMBOLS, every), progress=on_computing
            )
        bars.stop()
        out.print(
            f"{report.taken:,} bars taken, {report.unchanged:,} unchanged, {report.corrected:,} corrected "
            f"in {len(report.partitions)} partitions."
        )
        for problem in dict.fromkeys(each.metadata[REDIS_PROBLEM] for each in done if REDIS_PROBLEM in each.metadata):
            err.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
        _show(reader)
    out.print("Dagster's UI on what this made:", style="bold")
    out.print(f"  {_command()} --home {settings.home} ui", soft_wrap=True, highlight=False)


def _show(reader: Reader) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from mdplatform.features.catalogue import standing_catalogue

    table = Table(title="What a strategy reads", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("symbol", no_wrap=True, min_width=7)
    table.add_column("bars", no_wrap=True, min_width=4)
    for name in ("RSI", "MACD hist.", "lower band", "middle", "upper"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("available at, UTC", "from", "read in"):
        table.add_column(name, no_wrap=True)
    timeframes = standing_catalogue().timeframes
    reader.latest(_SYMBOLS[0], _FEATURES[0], timeframes[0])  # connects, so that the first time shown is a read's alone
    for symbol in _SYMBOLS:
        for timeframe in timeframes:
            answers = reader.latest_many([(symbol, feature, timeframe) for feature in _FEATURES])
            rsi, macd, bands = (answer.rows[-1] for answer in answers)
            numbers = [rsi["rsi"], macd["macdhist"], bands["lowerband"], bands["middleband"], bands["upperband"]]
            slowest = max(answers, key=lambda answer: answer.elapsed_ms)
            table.add_row(
                symbol,
                timeframe,
                *(_number(number) for number in numbers),
                f"{answers[0].available_at:%Y-%m-%d %H:%M}",
                f"{slowest.source} ({slowest.layer})",
                f"{slowest.elapsed_ms:.2f} ms",
            )
        table.add_section()
    out.print(table)


def _command() -> str:
    started_as = Path(sys.argv[0]).absolute()
    return str(started_as.relative_to(Path.cwd()) if started_as.is_relative_to(Path.cwd()) else started_as)


def _number(number: float | None) -> str:
    if number is None:
        return "–"
    size = abs(number)
    return f"{number:,.0f}" if size >= 10_000 else f"{number:,.1f}" if size >= 1000 else f"{number:.4g}"
