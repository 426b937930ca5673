"""`mdplatform requests`: what is in flight, how old it is and where, who works, and what could not be read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mdplatform.cli.frame import out

if TYPE_CHECKING:
    import redis
    from rich.console import RenderableType

    from mdplatform.messaging.overview import Overview
    from mdplatform.messaging.transport import Record

_SHOWN = 20
_COUNTERS = ("taken", "answered_ok", "answered_partial", "answered_rejected", "answered_failed", "parked", "reclaimed")
Found = TypeVar("Found")

requests = typer.Typer(help="See what is in flight, how old, and where; `show ID` tells all of one request.")


@requests.callback(invoke_without_command=True)
def show_all(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks, with --watch.", min=0.1)] = 1.0,
    limit: Annotated[int, typer.Option(help="How many requests to list, the oldest first.", min=0)] = _SHOWN,
) -> None:
    """Show the requests in flight, queues, workers and dead letters.

    Examples:

        mdplatform requests --watch

        mdplatform requests show 0198c1d2-…
    """
    if context.invoked_subcommand is not None:
        return
    from mdplatform.messaging.overview import overview

    if not watch:
        found = _ask(overview)
        if as_json:
            typer.echo(json.dumps(_plain(found, limit)))
        else:
            out.print(_pictured(found, limit))
        return
    from rich.live import Live

    with Live(console=out, auto_refresh=False, screen=False) as live:
        try:
            while True:
                found = _ask(overview)
                if as_json:
                    typer.echo(json.dumps(_plain(found, limit)))
                else:
                    live.update(_pictured(found, limit), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            return


@requests.command("show")
def show(
    id: Annotated[str, typer.Argument(help="The id that a request was given when it was sent.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell all that is known of one request: what it asks, where it is, and its answer if it has one.

    Example:

        mdplatform requests show 0198c1d2-…
    """
    from mdplatform.errors import UnknownRequest
    from mdplatform.messaging.overview import look_up

    found = _ask(lambda connection: look_up(connection, id))
    if found is None:
        raise UnknownRequest(
            "Nothing is known of this request",
            value=id,
            remedy="`mdplatform requests` lists those in flight; answers are kept for "
            "MDPLATFORM_ANSWERS_KEPT_SECONDS after the deadline",
        )
    told = _told(*found)
    if as_json:
        typer.echo(json.dumps(told, default=str))
        return
    for name, value in told.items():
        shown = json.dumps(value, default=str, indent=2) if isinstance(value, dict | list) else value
        out.print(f"[bold]{name}[/]: ", end="")
        out.print(str(shown), markup=False, highlight=False, soft_wrap=True)


def _ask(question: Callable[[redis.Redis], Found]) -> Found:
    from mdplatform.settings import Settings
    from mdplatform.valkey.connection import REDIS_FAILURES, connect, unavailable

    settings = Settings.load()
    try:
        with connect(settings) as connection:
            return question(connection)
    except REDIS_FAILURES as failure:
        raise unavailable(settings, failure) from None


def _plain(found: Overview, limit: int) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(found, builtin_types=(bytes,))
    plain["requests"] = [_row(each, found.at) for each in found.requests[:limit]]
    return plain


def _row(record: Record, now: int) -> dict[str, Any]:
    return {
        "id": record.id,
        "priority": record.priority.value,
        "strategy": record.strategy,
        "label": record.label,
        "stage": record.stage,
        "holder": record.holder,
        "attempts": record.attempts,
        "age_seconds": round((now - record.sent_at) / 1e6, 3),
        "deadline_in_seconds": round((record.deadline - now) / 1e6, 3),
        "standing": record.standing,
    }


def _told(record: Record, body: bytes | None) -> dict[str, Any]:
    """Give a record with what its request asks and its answer, as far as they can be read."""
    import msgspec

    from mdplatform.errors import InvalidRequest
    from mdplatform.requests.answer import AnswerBody
    from mdplatform.requests.wire import decode_reply, decode_request

    told = _row(record, time.time_ns() // 1000)
    if body:
        try:
            told["request"] = msgspec.to_builtins(decode_request(body))
        except InvalidRequest as unreadable:
            told["request"] = str(unreadable)
    if record.answer:
        try:
            answer = decode_reply(record.answer)
        except InvalidRequest as unreadable:
            told["answer"] = str(unreadable)
        else:
            told["answer"] = msgspec.to_builtins(answer, builtin_types=(bytes,))
            for part in told["answer"].get("parts", ()) if isinstance(answer, AnswerBody) else ():
                part["data"] = f"{len(part['data']):,} bytes"
    elif record.stage == "settled":
        told["answer"] = "It was answered; the answer was let go to bound memory"
    return told


def _pictured(found: Overview, limit: int) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
        for name in columns:
            made.add_column(name, justify="left" if name in _WORDS else "right", overflow="fold")
        return made

    queues = table(
        f"{found.in_flight:,} in flight, {found.standing:,} of them standing",
        "priority", "queued", "oldest", "taken", "parked",
    )  # fmt: skip
    for name, each in found.classes.items():
        queues.add_row(name, f"{each.queued:,}", _age(each.oldest_seconds), f"{each.taken:,}", f"{each.parked:,}")
    parts: list[RenderableType] = [queues]
    if found.requests and limit:
        title = "The oldest" if found.in_flight > limit else "Requests"
        listed = table(title, "id", "priority", "strategy", "asks", "age", "left", "stage", "where")
        for record in found.requests[:limit]:
            row = _row(record, found.at)
            listed.add_row(
                Text(record.id), record.priority.value, Text(record.strategy), Text(record.label),
                _age(row["age_seconds"]), _age(row["deadline_in_seconds"]), record.stage, Text(record.holder or "–"),
            )  # fmt: skip
        parts.append(listed)
    workers = table(f"{len(found.workers)} workers", "worker", *(name.replace("answered_", "") for name in _COUNTERS))
    for worker in found.workers:
        workers.add_row(Text(worker.name), *(f"{worker.counts.get(name, 0):,}" for name in _COUNTERS))
    parts.append(workers)
    if not found.workers:
        parts.append("No worker lives: start one with `mdplatform worker`")
    if found.dead:
        dead = table(f"{found.dead:,} dead letters", "count", "reason")
        for reason, count in found.dead_reasons.items():
            dead.add_row(f"{count:,}", Text(reason))
        parts.append(dead)
    parts.append(
        f"{found.wanted:,} entries wanted from runs, {found.lineage:,} of lineage, {found.kept:,} answers remembered"
    )
    return Group(*parts)


_WORDS = ("id", "priority", "strategy", "asks", "stage", "where", "worker", "reason")


def _age(seconds: float) -> str:
    """Write a time for people.

    >>> _age(0), _age(0.0421), _age(75.2), _age(-2)
    ('–', '42 ms', '75 s', '-2 s')
    """
    if seconds == 0:
        return "–"
    return f"{seconds * 1000:,.0f} ms" if abs(seconds) < 1 else f"{seconds:,.0f} s"
