"""`mdplatform bench`: what the platform does under load, measured on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mdplatform.cli.frame import err, out

bench = typer.Typer(no_args_is_help=True, help="Measure the platform under load, on this machine.")
_SHOWN = ("p50_ms", "p99_ms", "p999_ms", "max_ms", "p99_from_due_ms", "sent", "answered", "lost", "duplicated")


@bench.command("requests")
def requests(
    strategies: Annotated[int, typer.Option(help="How many strategies ask.", min=1, max=100_000)] = 1000,
    seconds: Annotated[float, typer.Option(help="How long steady load (or a flood) lasts.", min=0.1)] = 10.0,
    symbols: Annotated[int, typer.Option(help="Symbols of the simulated market.", min=1, max=100)] = 50,
    workers: Annotated[int, typer.Option(help="Workers to start; 0 for those that run already.", min=0, max=64)] = 2,
    rate: Annotated[float, typer.Option(help="Steady load, in requests a second.", min=0.1)] = 400.0,
    flood: Annotated[str | None, typer.Option(help="`low`: a flood of LOW requests beside steady load.")] = None,
    flood_rate: Annotated[float, typer.Option(help="The flood, in requests a second.", min=1)] = 1500.0,
    equal: Annotated[bool, typer.Option("--equal", help="All strategies ask the same instead.")] = False,
    home: Annotated[
        Path | None, typer.Option(help="Measure on this home and its symbols instead of a temporary one.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw latencies into this file (.png, .svg, .pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Have strategies ask for features, and say how fast each class is answered, and that each is answered once.

    It runs by itself: on a temporary home with a simulated market, its own Redis and workers. First every strategy asks
    once at the same instant, then requests come at a steady rate, whether answers come or not; latency is measured from
    the call of `request_…` to the callback, and from the instant at which the request was due. The exit status is 1 if
    a request was lost or answered twice.

    Examples:

        mdplatform bench requests --strategies 1000 --seconds 10 --json

        mdplatform bench requests --flood low --seconds 600 --plot flood.png

        mdplatform bench requests --equal
    """
    from mdplatform.bench.requests import Options, measure
    from mdplatform.errors import InvalidSetting
    from mdplatform.settings import Settings

    if flood not in (None, "low"):
        raise InvalidSetting("Unknown flood", value=flood, remedy="Known: low")
    if flood is not None and equal:
        raise InvalidSetting("--flood and --equal are two measurements", remedy="Give one of them")
    options = Options(
        strategies=strategies,
        seconds=seconds,
        symbols=symbols,
        workers=workers,
        rate=rate,
        flood_rate=flood_rate if flood else 0.0,
        equal=equal,
        plot=plot,
    )
    with err.status("") as status:
        report = measure(
            options, None if home is None else Settings.load(home=home), lambda text: status.update(f"{text} …")
        )
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report)
    if report["totals"]["lost"] or report["totals"]["duplicated"]:
        err.print("Not every request had exactly one answer", style="bold red")
        raise typer.Exit(1)


@bench.command("fanout")
def fanout(
    rate: Annotated[float, typer.Option(help="Messages in, a second.", min=1)] = 10_000.0,
    subscriptions: Annotated[int, typer.Option(help="Subscriptions in all.", min=1, max=1_000_000)] = 1000,
    processes: Annotated[int, typer.Option(help="Processes of consumers.", min=1, max=64)] = 1,
    seconds: Annotated[float, typer.Option(help="How long.", min=0.1)] = 10.0,
    symbols: Annotated[int, typer.Option(help="Symbols of the simulated market.", min=1, max=100)] = 50,
    shapes: Annotated[int, typer.Option(help="Groups of symbols that are subscribed to.", min=1)] = 10,
    per_bar: Annotated[int, typer.Option(help="Messages a symbol and minute, of which one closes a bar.", min=1)] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw latencies into this file (.png, .svg, .pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send messages through bars, features and frames to callbacks, and say how late these are, and that none is lost.

    It runs by itself: on a temporary home, with its own Redis, a feed process at an accelerated time of the venue, and
    processes of consumers, each subscription with four timeframes and twenty features. Latency is measured from the
    instant at which the message was due that completed the frame, to the callback; beside it stands bare Redis pub/sub.
    The exit status is 1 if a frame was lost or came twice.

    Examples:

        mdplatform bench fanout --rate 10000 --subscriptions 1000 --seconds 10 --json

        mdplatform bench fanout --processes 10
    """
    from mdplatform.bench.fanout import Options, measure

    options = Options(rate, subscriptions, processes, seconds, symbols, shapes, per_bar, plot)
    with err.status("") as status:
        report = measure(options, lambda text: status.update(f"{text} …"))
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show_fanout(report)
    if report["lost"] or report["duplicated"]:
        err.print("Not every subscription had each frame exactly once", style="bold red")
        raise typer.Exit(1)


def _show_fanout(report: dict[str, Any]) -> None:
    bare, times = report["bare"], report["times_bare"]
    for line in (
        f"{report['messages']:,} messages in, {report['messages_a_second']:,} a second; {report['packets']:,} packets",
        f"{report['delivered']:,} of {report['sent']:,} frames delivered, {report['deliveries_a_second']:,} a second; "
        f"{report['lost']:,} lost, {report['duplicated']:,} twice, {report['incomplete']:,} incomplete",
        f"from message to callback: p50 {report['p50_ms']:.2f} ms, p99 {report['p99_ms']:.2f} ms",
        f"bare Redis pub/sub to as many processes: p50 {bare['p50_ms']:.2f} ms, p99 {bare['p99_ms']:.2f} ms; "
        f"so {times['p50']} and {times['p99']} × bare",
        f"feed {report['feed_cpu_share']:.0%} of a core, consumers {report['consumers_cpu_share']:.0%}",
    ):
        out.print(line, highlight=False)


def _show(report: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    about = report["about"]
    for name in ("burst", "steady", "equal", "flood"):
        if name not in report:
            continue
        phase = report[name]
        table = Table(title=_title(name, about), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
        table.add_column("priority")
        for column in (*_SHOWN, "statuses"):
            table.add_column(column, justify="left" if column == "statuses" else "right")
        for priority, found in phase["priorities"].items():
            if found["sent"]:
                statuses = ", ".join(f"{count:,} {status}" for status, count in found["statuses"].items())
                table.add_row(priority, *(_cell(found[column]) for column in _SHOWN), statuses)
        out.print(table)
        where = ", ".join(
            f"{name} {count:,}" for name, count in phase["layers"].items() if name != "hit_share" and count
        )
        share = phase["layers"]["hit_share"]
        out.print(f"{phase['answered_a_second']:,.0f} answers a second; values from: {where or '–'}", highlight=False)
        if share is not None:
            out.print(f"{share:.1%} of them from a cache (near, Redis, memory)", highlight=False)
        if "computations" in phase:
            out.print(f"{phase['computations']:,} computations for {about['strategies']:,} requests", highlight=False)
        out.print(
            f"load generator {phase['generator_cpu_share']:.0%} of a core, late by "
            f"{phase['generator_late_p99_ms']:.1f} ms (p99); workers {phase['workers_cpu_share']:.0%} of a core",
            highlight=False,
            style="dim",
        )
        for problem in phase["problems"]:
            err.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
    alone, bare = report["alone"], report["baseline"]
    out.print(
        f"One request after the other: p50 {_cell(alone['p50_ms'])} ms, p99 {_cell(alone['p99_ms'])} ms; a bare "
        f"message of Redis streams and its echo: {bare['p50_ms']:.2f} and {bare['p99_ms']:.2f} ms, "
        f"so {alone['times_bare']} × bare",
        highlight=False,
    )


def _title(name: str, about: dict[str, Any]) -> str:
    load = f"{about['rate']:,.0f} requests a second for {about['seconds']:,.0f} s"
    return {
        "burst": f"{about['strategies']:,} strategies at once",
        "steady": load,
        "equal": f"{about['strategies']:,} equal requests at once",
        "flood": f"{load}, beside {about['flood_rate']:,.0f} LOW ones a second",
    }[name]


def _cell(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
