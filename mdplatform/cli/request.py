"""`mdplatform request`: ask as a strategy does, watch the request on its way, and see the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdplatform.cli.frame import err, out

if TYPE_CHECKING:
    from mdplatform.requests.answer import Answer, Progress
    from mdplatform.requests.result import Result
    from mdplatform.settings import Settings
    from mdplatform.strategy import StrategyDataManager

TYPES = {
    "indicators": "TECHNICAL_INDICATORS",
    "formula": "CUSTOM_COMPOSITE",
    "profile": "VOLUME_PROFILE",
    "sentiment": "SENTIMENT_DATA",
    "correlation": "CORRELATION_MATRIX",
    "macro": "MACRO_INDICATORS",
}
EXIT = {"ok": 0, "partial": 3, "rejected": 4, "failed": 5}
"""The exit status of each answer's status; 1 is an error before anything was sent, 130 a Ctrl-C."""
_LISTS = ("measures", "transforms")
_INTERRUPTED = 130
_WORDS = ("open_time", "available_at", "reason", "settled", "ref_period", "symbol")
_QUIET_SECONDS = 2.0
"""After how long without a word it is looked whether any worker lives."""


def request(
    symbols: Annotated[str, typer.Argument(help="Such as BTCUSDT or BTCUSDT,ETHUSDT; - for none (macro).")],
    features: Annotated[
        list[str] | None,
        typer.Argument(help='Such as "RSI(14)" MACD; the formula; providers (sentiment); series (macro).'),
    ] = None,
    kind: Annotated[str, typer.Option("--type", help=f"What is asked for: {', '.join(TYPES)}.")] = "indicators",
    timeframe: Annotated[str, typer.Option(help="Such as 15m or 15m,1h.")] = "15m",
    priority: Annotated[str, typer.Option(help="CRITICAL, HIGH, NORMAL or LOW.")] = "NORMAL",
    latest: Annotated[int | None, typer.Option(help="How many of the newest rows; 1 if no range is given.")] = None,
    start: Annotated[str | None, typer.Option(help="From this time on (ISO 8601, UTC), instead of the newest.")] = None,
    end: Annotated[str | None, typer.Option(help="Until before this time.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds after which it fails.", show_default=False)] = None,
    standing: Annotated[bool, typer.Option("--standing", help="Answer again at each new bar, until Ctrl-C.")] = False,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help='An input of a formula, such as "PRICE_STD(20)"; repeatable.')
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="What else the type takes, such as window=200 or measures=mean,score; repeatable."),
    ] = None,
    strategy: Annotated[str, typer.Option(help="The strategy id under which it is asked.")] = "command_line",
    request_id: Annotated[str | None, typer.Option("--id", help="An id of your own.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each answer.")] = False,
) -> None:
    """Ask for features, a formula, a profile, sentiment, correlations or macro series, through a worker.

    Exit status: 0 for an answer that is ok, 3 partial, 4 rejected, 5 failed, 1 where nothing was sent. Ctrl-C cancels
    the request.

    Examples:

        mdplatform request BTCUSDT "RSI(14)" MACD --timeframe 5m,1h --priority HIGH

        mdplatform request BTCUSDT "(RSI - 50) * 0.6" --type formula --input "RSI(21)"

        mdplatform request BTCUSDT,ETHUSDT --type correlation --timeframe 1h --set window=200

        mdplatform request - CPIAUCSL UNRATE --type macro

        mdplatform request BTCUSDT RSI --standing
    """
    import asyncio

    from mdplatform.settings import Settings

    given = _fields(kind, symbols, features or [], timeframe, inputs or [], options or [])
    common = {
        "strategy_id": strategy,
        "priority": priority,
        "latest": latest,
        "start": start,
        "end": end,
        "deadline": deadline,
        "refresh": "on_close" if standing else "once",
        "request_id": request_id,
    }
    whole = {**given, **{name: value for name, value in common.items() if value is not None}}
    settings = Settings.load()
    try:
        answer = asyncio.run(_ask(settings, TYPES[kind], whole, standing, as_json))
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(EXIT[answer.status.value])


def _fields(
    kind: str, symbols: str, named: Sequence[str], timeframe: str, inputs: Sequence[str], options: Sequence[str]
) -> dict[str, Any]:
    """Give what the type of request takes, by its own words."""
    if kind not in TYPES:
        raise typer.BadParameter(f"{kind!r} is no type of request; there are {', '.join(TYPES)}")
    given: dict[str, Any] = {}
    if symbols != "-":
        given |= {"symbols": _list(symbols), "timeframes": _list(timeframe)}
    if inputs and kind != "formula":
        raise typer.BadParameter("--input belongs to --type formula")
    if kind in ("correlation", "profile") and named:
        raise typer.BadParameter(f"--type {kind} takes no features; give its options by --set, such as --set hours=24")
    if kind == "formula":
        if len(named) != 1:
            raise typer.BadParameter('--type formula takes one formula, such as "(RSI - 50) * 0.6"')
        given |= {"formula": named[0], "input_indicators": list(inputs)}
    elif kind in ("indicators", "sentiment", "macro"):
        given[{"indicators": "indicators", "sentiment": "providers", "macro": "series"}[kind]] = list(named)
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as window=200")
        if name.strip() in given:
            raise typer.BadParameter(f"--set {name.strip()} is given twice, or beside its own argument")
        given[name.strip()] = _list(value) if name.strip() in _LISTS and value[:1] != "[" else _value(value)
    return given


def _list(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _value(text: str) -> Any:
    """Read a number, true, false or a list as JSON does; all else is a text.

    >>> _value("200"), _value("[1, 2]"), _value("spearman")
    (200, [1, 2], 'spearman')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


async def _ask(settings: Settings, kind: str, fields: dict[str, Any], standing: bool, as_json: bool) -> Answer:
    """Send the request, show its way, and print its answers; give the last. A Ctrl-C cancels it."""
    import asyncio

    from mdplatform.strategy import StrategyDataManager

    with err.status("sending …") as status:

        def told(progress: Progress) -> None:
            status.update(_words(progress, settings))

        async with StrategyDataManager(settings, on_progress=told) as manager:
            id = await manager.request(kind, None, **fields)
            status.update("queued …")
            watching = asyncio.create_task(_warn_without_workers(settings))
            try:
                if standing:
                    async for answer in manager.answers(id):
                        _print(answer, as_json)
                answer = await manager.result(id)
            except asyncio.CancelledError:
                err.print(await _cancelled(manager, id), highlight=False)
                raise
            finally:
                watching.cancel()
    if not standing or not answer.is_ok:
        _print(answer, as_json)
    return answer


async def _cancelled(manager: StrategyDataManager, id: str) -> str:
    from mdplatform.errors import PlatformError

    try:
        ended = await manager.cancel(id)
    except PlatformError as failure:
        return f"The request {id} could not be cancelled: {failure}"
    return f"Cancelled {id}" if ended else f"{id} had its answer already: mdplatform requests show {id}"


async def _warn_without_workers(settings: Settings) -> None:
    """Say so if nothing was heard for a while and no worker lives."""
    import asyncio

    from mdplatform.messaging.overview import overview
    from mdplatform.valkey.connection import REDIS_FAILURES, connect

    await asyncio.sleep(_QUIET_SECONDS)

    def count() -> int:
        with connect(settings) as connection:
            return len(overview(connection, 0).workers)

    try:
        workers = await asyncio.to_thread(count)
    except REDIS_FAILURES as failure:
        err.print(f"note: Redis does not answer ({type(failure).__name__})", style="yellow", markup=False)
        return
    if not workers:
        err.print("note: no worker lives; start one with `mdplatform worker`", style="yellow", markup=False)


def _words(progress: Progress, settings: Settings) -> str:
    """Say in words how far a request has come, and where a run can be watched."""
    from rich.markup import escape

    words = escape(progress.text or progress.stage.replace("_", " "))
    if progress.run_id:
        words += f"  http://{settings.ui_host}:{settings.ui_port}/runs/{progress.run_id}"
    return f"{words} …"


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), default=str))
        return
    for result in answer:
        _show(result)
    for each in answer.missing:
        what = " ".join(part for part in (each.symbol, each.timeframe, each.feature) if part)
        err.print(f"missing: {what}: {each.cause}. {each.remedy}", style="yellow", markup=False, soft_wrap=True)
    if answer.problem is not None:
        err.print(f"{answer.status}: {answer.problem}", style="bold red", markup=False, soft_wrap=True)
        if answer.problem.retry_after_seconds:
            err.print(f"try again in {answer.problem.retry_after_seconds:.1f} s", markup=False)
    stages = ", ".join(f"{name} {taken:.2f}" for name, taken in answer.timings_ms.items() if name != "total")
    by = f" by {answer.body.worker}" if answer.body.worker else ""
    out.print(
        f"{answer.request_id}: {answer.status} in {answer.latency_ms:.2f} ms{by}"
        + (f" (ms: {stages})" if stages else ""),
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def _show(result: Result) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = result.to_dict()
    table = Table(title=Text(str(result)), title_justify="left")
    if result.kind == "correlation":
        table.add_column("symbol")
        for name in result.symbols:
            table.add_column(name, justify="right")
        for name, row in zip(result.symbols, shown["matrix"], strict=True):
            table.add_row(name, *(_cell(value) for value in row))
    else:
        names = list(dict.fromkeys(name for row in shown["rows"] for name in row))
        for name in names:
            table.add_column(name, justify="left" if name in _WORDS else "right")
        for row in shown["rows"]:
            table.add_row(*(_cell(row.get(name)) for name in names))
    out.print(table)
    told = f", {result.estimator}" if result.kind == "correlation" else f", by {result.method}" if result.method else ""
    run = f", run {result.run_id}" if result.run_id else ""
    out.print(
        f"from {result.source} ({result.layer}), version {result.version[:12]}{told}{run}", style="dim", markup=False
    )
    for note in result.notes:
        err.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
