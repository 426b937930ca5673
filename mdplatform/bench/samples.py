"""Samples: when each request was due, called and answered, how, and what these come to by class.

Latency has two beginnings. `from due` is what a strategy waits for that wanted to ask at that instant: it counts the
time in which the load generator itself was late. `from send` begins when the strategy's call began.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdplatform.bench.plan import Planned
from mdplatform.messaging.priority import DataPriority


@dataclass(slots=True)
class Sample:
    """What came of one request; times are seconds of one monotonic clock, 0 where it did not happen."""

    planned: Planned
    due: float
    called: float = 0.0
    answered: float = 0.0
    answers: int = 0
    """Final answers that its callback got: anything but 1 is an error."""
    status: str = ""
    layer: str = ""
    worker: str = ""
    request_id: str = ""
    problem: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    """How long each stage took at the worker, in milliseconds."""

    @property
    def was_served(self) -> bool:
        """Whether the answer has values."""
        return self.status in ("ok", "partial")


@dataclass
class Samples:
    """The samples of one phase, and what it took."""

    every: list[Sample]
    began: float
    ended: float
    cpu_seconds: float = 0.0
    """Processor time that the load generator itself took."""
    worker_cpu_seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the phase took, the last answer included."""
        return self.ended - self.began

    def of(self, priority: DataPriority) -> list[Sample]:
        """Give the samples of one class."""
        return [each for each in self.every if each.planned.priority is priority]

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            self.every + other.every, min(self.began, other.began), max(self.ended, other.ended),
            self.cpu_seconds + other.cpu_seconds, self.worker_cpu_seconds + other.worker_cpu_seconds,
        )  # fmt: skip


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Give the smallest value that this share of all values stays within; None of nothing.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0], 0.99), percentile([], 0.5)
    (2.0, 2.0, None)
    """
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else None


def by_class(samples: Samples) -> dict[str, dict[str, Any]]:
    """Sum up each class: latencies of what was served, in milliseconds, and counts of all."""
    return {each.value: summary(samples.of(each)) for each in DataPriority}


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Sum up samples of one kind. Latencies are of requests that got values: being turned away at once is no feat."""
    served = [each for each in samples if each.was_served and each.answered]
    from_send = sorted((each.answered - each.called) * 1000 for each in served)
    from_due = sorted((each.answered - each.due) * 1000 for each in served)
    turned_away = sorted((each.answered - each.called) * 1000 for each in samples if each.status == "rejected")
    found: dict[str, Any] = {
        "p50_ms": _round(percentile(from_send, 0.5)),
        "p99_ms": _round(percentile(from_send, 0.99)),
        "p999_ms": _round(percentile(from_send, 0.999)),
        "max_ms": _round(percentile(from_send, 1.0)),
        "p50_from_due_ms": _round(percentile(from_due, 0.5)),
        "p99_from_due_ms": _round(percentile(from_due, 0.99)),
        "max_from_due_ms": _round(percentile(from_due, 1.0)),
        "sent": len(samples),
        "answered": sum(each.answers > 0 for each in samples),
        "lost": sum(each.answers == 0 for each in samples),
        "duplicated": sum(each.answers > 1 for each in samples),
        "statuses": dict(sorted(Counter(each.status for each in samples if each.status).items())),
    }
    if turned_away:
        found["rejected_p99_ms"] = _round(percentile(turned_away, 0.99))
    return found


def layers(samples: Iterable[Sample]) -> dict[str, Any]:
    """Count where values came from, and which share of all came from a cache (near, Redis or the worker's memory)."""
    counts = Counter(each.layer for each in samples if each.layer)
    total = sum(counts.values())
    held = sum(counts[name] for name in ("near", "redis", "memory"))
    return {
        **{name: counts.get(name, 0) for name in ("near", "redis", "memory", "lake", "run")},
        "hit_share": round(held / total, 4) if total else None,
    }


def stages(samples: Iterable[Sample]) -> dict[str, float | None]:
    """Give the median of each stage over the answers that have it, in milliseconds."""
    taken: dict[str, list[float]] = {}
    for each in samples:
        for name, spent in each.stages.items():
            taken.setdefault(name, []).append(spent)
    return {name: _round(percentile(sorted(spent), 0.5)) for name, spent in taken.items()}


def timeline(samples: Sequence[Sample], began: float, bucket_seconds: float) -> list[dict[str, Any]]:
    """Give the p50, p99 and maximum from due of each stretch of time, in milliseconds."""
    stretches: dict[int, list[float]] = {}
    for each in samples:
        if each.was_served and each.answered:
            stretches.setdefault(int((each.due - began) / bucket_seconds), []).append(each.answered - each.due)
    found = []
    for number, taken in sorted(stretches.items()):
        ordered = [each * 1000 for each in sorted(taken)]
        found.append(
            {
                "from_seconds": round(number * bucket_seconds, 3),
                "p50_ms": _round(percentile(ordered, 0.5)),
                "p99_ms": _round(percentile(ordered, 0.99)),
                "max_ms": _round(ordered[-1]),
                "count": len(ordered),
            }
        )
    return found


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
