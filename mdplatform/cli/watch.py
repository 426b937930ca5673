"""`mdplatform watch`: the newest frames, as a table that is kept up to date, or a line for each cell."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdplatform.cli import arguments
from mdplatform.cli.frame import err, out

if TYPE_CHECKING:
    from rich.table import Table

    from mdplatform.settings import Settings
    from mdplatform.strategy import EnhancedMarketDataConsumer, Frame, FrameCell

_QUIET_SECONDS = 3.0
_STYLES = {"fresh": "green", "stale": "yellow", "missing": "red"}


def watch(
    symbols: Annotated[list[str], typer.Argument(help="Such as BTCUSDT.")],
    timeframes: Annotated[str, typer.Option(help="With commas between.")] = "5m,1h",
    indicators: Annotated[str, typer.Option(help="With semicolons between, such as 'RSI;EMA(20)'.")] = "RSI;ATR",
    forming: Annotated[bool, typer.Option("--forming", help="Show bars that are still forming as well.")] = False,
    frames: Annotated[int | None, typer.Option(help="End after so many frames.", min=1, show_default=False)] = None,
) -> None:
    """Show frames as a feed brings them, until Ctrl-C: a table in a terminal, else a line for each cell.

    Examples:

        mdplatform watch BTCUSDT --timeframes 5m,1h

        mdplatform watch BTCUSDT ETHUSDT --indicators "RSI;EMA(20)" --frames 3
    """
    from mdplatform.settings import Settings

    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.ERROR)
    asked = [each.strip() for each in indicators.split(";") if each.strip()]
    given: dict[str, Any] = {
        "symbols": symbols, "timeframes": arguments.names(timeframes), "forming": forming, "window": 1,
        "data_types": ["price", "volume", *(["indicators"] if asked else [])], "indicators": asked or None,
        "strategy_id": "watch", "revisions": True,
    }  # fmt: skip
    try:
        asyncio.run(_watch(Settings.load(), given, frames))
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _watch(settings: Settings, given: dict[str, Any], most: int | None) -> None:
    from rich.live import Live

    from mdplatform.strategy import EnhancedMarketDataConsumer

    async with EnhancedMarketDataConsumer(settings) as consumer:
        telling = asyncio.create_task(_tell_why(consumer))
        try:
            async with aclosing(consumer.frames(**given)) as frames:
                if not out.is_terminal:
                    await _each(frames, most, _print)
                    return
                with Live(console=out, auto_refresh=False) as live:
                    await _each(frames, most, lambda frame: live.update(_table(frame), refresh=True))
        finally:
            telling.cancel()


async def _each(frames: AsyncGenerator[Frame, None], most: int | None, show: Callable[[Frame], None]) -> None:
    count = 0
    async for frame in frames:
        show(frame)
        count += 1
        if count == most:
            return


async def _tell_why(consumer: EnhancedMarketDataConsumer) -> None:
    """Say why nothing comes, once for each reason."""
    told = ""
    while True:
        await asyncio.sleep(_QUIET_SECONDS)
        for status in consumer.status():
            if status.note and status.note != told:
                err.print(f"note: {status.note}", style="yellow", markup=False, soft_wrap=True)
            told = status.note


def _print(frame: Frame) -> None:
    """Print a line for each cell: T, place, status, prices, indicators."""
    for cell in frame:
        numbers = "  ".join(f"{name} {_number(value)}" for name, value in cell.features.items())
        corrected = f"  revision {frame.revision}" if frame.revision else ""
        typer.echo(
            f"{frame.time:%Y-%m-%dT%H:%M:%SZ}  {cell.symbol}  {cell.timeframe}  {cell.status}  "
            f"close {_number(cell.close)}  volume {_number(cell.volume)}  {numbers}{corrected}"
        )
    sys.stdout.flush()


def _table(frame: Frame, width: int | None = None) -> Table:
    """Give the widest of three tables that fits: with all prices, with the close alone, with short names."""
    from rich.measure import Measurement

    width = out.width if width is None else width
    prices = ("open", "high", "low", "close", "volume")
    columns = frame.shape.columns
    short = [name.replace("timeperiod=", "") for name in columns]
    for table in (_made(frame, prices, columns), _made(frame, ("close",), columns)):
        if Measurement.get(out, out.options.update(max_width=1_000), table).maximum <= width:
            return table
    return _made(frame, ("close",), short, is_narrow=True)


def _made(frame: Frame, prices: Sequence[str], names: Sequence[str], is_narrow: bool = False) -> Table:
    from rich.table import Table
    from rich.text import Text

    forming = "" if frame.is_closed else ", forming"
    table = Table(title=f"{frame.time:%Y-%m-%d %H:%M:%S} UTC{forming}", title_justify="left")
    for name in ("symbol", "", "status") if is_narrow else ("symbol", "timeframe", "status", "closed"):
        table.add_column(name, no_wrap=True)
    for name in (*prices, *names):
        table.add_column(name, justify="right", no_wrap=not is_narrow)
    for cell in frame:
        values = (*(getattr(cell, name) for name in prices), *cell.features.values())
        status = Text(cell.status.value, style=_STYLES[cell.status.value])
        closed = () if is_narrow else (_closed(cell),)
        table.add_row(cell.symbol, cell.timeframe.value, status, *closed, *map(_number, values))
    return table


def _closed(cell: FrameCell) -> str:
    return "–" if cell.close_time is None else f"{cell.close_time:%m-%d %H:%M}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.6g}"
