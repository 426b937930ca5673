"""`mdplatform feed`: follows a venue, or plays one; makes bars and features of it, for consumers and the lake."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mdplatform.cli import arguments
from mdplatform.cli.frame import err
from mdplatform.errors import InvalidSetting
from mdplatform.interrupts import leaving_at_once
from mdplatform.tuning import begin_with_one_thread, settle

if TYPE_CHECKING:
    from mdplatform.feeds.protocol import Feed
    from mdplatform.settings import Settings
    from mdplatform.streaming.engine import Engine
    from mdplatform.streaming.serving import Following

_HOUR_US = 3_600_000_000
_DAY = len("2026-11-20")
_EARLIEST = datetime(2005, 1, 1, tzinfo=UTC)


def feed(
    source: Annotated[
        str | None,
        typer.Argument(
            help="binance, simulated or recording:PATH; by default MDPLATFORM_FEED_SOURCE.", show_default=False
        ),
    ] = None,
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Symbols; by default those of the universe.", show_default=False)
    ] = None,
    timeframes: Annotated[
        str | None, typer.Option(help="Timeframes that are sent, such as 1m,5m,1h, instead of the standing ones.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="How many times as fast as time a simulated or recorded market goes.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="Where to begin with symbols that the lake does not have, a UTC time.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.", min=0.0)] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print its counters as a line of JSON at the end.")] = False,
) -> None:
    """Follow a market until Ctrl-C: bars, features and frames for consumers, and every bar into the lake.

    It takes up where lake and consumers were left. It prints `{"ready": true, …}` once it follows, and a line every
    few seconds on standard error. One process at a time follows a feed for a home.

    Examples:

        mdplatform feed simulated BTCUSDT ETHUSDT

        mdplatform feed simulated BTCUSDT --speed 60 --from 2026-11-20T00:00

        mdplatform feed binance BTCUSDT --timeframes 1m,5m,1h

        mdplatform feed recording:btcusdt_20240808.gz
    """
    with leaving_at_once():  # until its loop takes signals, also where whoever began this program has it ignore them
        settings, following = _checked(source, symbols, timeframes, speed, first)
        begin_with_one_thread()
        _run(settings, following, seconds, stats)


def _checked(
    source: str | None, symbols: list[str] | None, timeframes: str | None, speed: float | None, first: str | None
) -> tuple[Settings, Following]:
    from mdplatform.market.time import to_us
    from mdplatform.market.timeframe import Timeframe
    from mdplatform.settings import Settings
    from mdplatform.streaming.serving import Following

    settings = Settings.load()
    named = source or settings.feed_source
    if named is None:
        raise InvalidSetting("No feed is named", remedy="mdplatform feed simulated, or set MDPLATFORM_FEED_SOURCE")
    names = arguments.names(timeframes)
    if names == []:
        raise typer.BadParameter("--timeframes names none; write such as 1m,5m,1h, or leave it out")
    chosen = None if names is None else tuple(map(Timeframe.parse, names))
    begin = arguments.instant(f"{first}T00:00" if first is not None and len(first) == _DAY else first)
    if begin is not None and not _EARLIEST <= begin <= datetime.now(UTC):
        raise typer.BadParameter(f"--from {first} is not between {_EARLIEST:%Y-%m-%d} and now")
    if speed is not None and named.partition(":")[0] == "binance":
        raise typer.BadParameter("--speed is for a simulated or recorded market: that of binance goes as it goes")
    return settings, Following(named, tuple(symbols or ()), chosen, speed, None if begin is None else to_us(begin))


def _run(settings: Settings, following: Following, seconds: float | None, stats: bool) -> None:
    import asyncio
    import logging

    from mdplatform.streaming.serving import serve

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    settle()

    def ready(engine: Engine) -> None:
        told = {"ready": True, "feed": following.source, "symbols": list(engine.standing.symbols), "pid": os.getpid()}
        typer.echo(json.dumps(told))
        sys.stdout.flush()
        err.print(
            f"Following {following.source}: {len(engine.standing.symbols)} symbols   (Ctrl-C ends it)",
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    def status(engine: Engine, of: Feed) -> None:
        err.print(_line(engine, of), highlight=False, soft_wrap=True)

    told = asyncio.run(serve(settings, following, on_ready=ready, on_status=status, seconds=seconds))
    if stats:
        typer.echo(json.dumps(told))


def _line(engine: Engine, of: Feed) -> str:
    from mdplatform.market.time import from_us

    newest = f"{from_us(engine.latest):%Y-%m-%d %H:%M}" if engine.latest else "none yet"
    parts = [f"{engine.closed:,} bars", f"newest {newest}"]
    if engine.latest and abs(engine.lag) < _HOUR_US:
        parts.append(f"lag {engine.lag / 1e6:.1f} s")
    parts += [f"{engine.outgoing.sent:,} sent", f"{of.counts.get('reconnects', 0)} reconnects"]
    if engine.outgoing.waiting:
        parts.append(f"{engine.outgoing.waiting:,} wait for Redis")
    if engine.journal.waiting:
        parts.append(f"{engine.journal.waiting:,} wait for the lake")
    return "  ".join(parts)
