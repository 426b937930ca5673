"""Telling: how results, what is missing and what went wrong are said in an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from mdplatform.errors import PlatformError
from mdplatform.market.quality import assess, bars_behind
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.answer import Missing, Part, PartKind, Problem, Quality
from mdplatform.worker.near import Cut
from mdplatform.worker.parts import RUN
from mdplatform.worker.questions import AnyQuestion
from mdplatform.worker.workshop import Found

HITS = ("near", "redis")
"""The layers in which nothing is computed."""


def finished(question: AnyQuestion, cut: Cut, found: Found, now: int, run_id: str = "") -> Part:
    """Give the part as it is told now: where it came from, how old it is, how good.

    `run_id` is the run that brought what the request had waited for, wherever the part was found then.
    """
    part = cut.part
    changes: dict[str, Any] = {"layer": found.layer, "quality": _quality(question, cut, now)}
    if found.layer in HITS:
        changes["source"] = "cache"
    if part.made_by.startswith(RUN):
        changes["source"], changes["run_id"] = "run", part.made_by.removeprefix(RUN)
    if run_id:
        changes |= {"source": "run", "layer": "run", "run_id": run_id}
    if found.notes:
        changes["notes"] = (*part.notes, *found.notes)
    if part.kind == PartKind.SERIES:
        known = now if question.as_of is None else question.as_of
        changes["about"] = {**part.about, "age_seconds": (known - part.available_at) / 1_000_000}
    return msgspec.structs.replace(part, **changes)


def _quality(question: AnyQuestion, cut: Cut, now: int) -> Quality:
    behind = None
    if question.timeframe_name:
        timeframe = Timeframe(question.timeframe_name)
        known = now if question.as_of is None else question.as_of
        due = known if question.end is None else min(known, question.end)
        behind = bars_behind(cut.part.available_at, timeframe.floor(due), timeframe.microseconds)
    found = assess(cut.tally, behind)
    return Quality(
        completeness=found.completeness, timeliness=found.timeliness, warmth=found.warmth, reasons=found.reasons
    )


def problem_of(error: PlatformError) -> Problem:
    """Say an error in the words of an answer."""
    return Problem(
        error=type(error).__name__,
        cause=error.cause,
        remedy=error.remedy,
        field=error.field,
        value="" if error.value is None else str(error.value),
    )


def missing_of(question: AnyQuestion, error: PlatformError) -> Missing:
    """Say what is not in an answer, and why."""
    cause = error.cause if error.value is None else f"{error.cause}: {error.value}"
    return Missing(
        symbol=question.symbol,
        timeframe=question.timeframe_name,
        feature=question.feature,
        cause=cause,
        remedy=error.remedy,
    )
