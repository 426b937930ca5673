"""The plots of measurements: latency by percentile and over time, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mdplatform.bench.latencies import Counts, together
from mdplatform.bench.memory import Memory
from mdplatform.bench.samples import Samples, percentile, timeline
from mdplatform.errors import InvalidSetting
from mdplatform.messaging.priority import DataPriority

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {
    DataPriority.CRITICAL: "#c1121f",
    DataPriority.HIGH: "#e09f3e",
    DataPriority.NORMAL: "#335c67",
    DataPriority.LOW: "#8d99ae",
}
_SHARES = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999]
_KINDS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Refuse a plot that could not be drawn, before anything is measured. Raises `InvalidSetting`."""
    if path.suffix.lower() not in _KINDS:
        raise InvalidSetting("A plot is one of these files: " + ", ".join(_KINDS), value=str(path))
    if not path.parent.is_dir():
        raise InvalidSetting("The plot's folder is not there", value=str(path.parent), remedy="Make it first")
    try:
        import matplotlib as _  # noqa: F401
    except ImportError:
        raise InvalidSetting(
            "Plots are drawn by matplotlib, which is not installed", remedy="Run `pip install 'mdplatform[bench]'`"
        ) from None


def draw(path: Path, phases: Mapping[str, Samples], title: str) -> None:
    """Draw a row for each phase: percentiles on the left, the course over time on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2 * len(phases)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(phases), 2, squeeze=False)
    for row, (name, samples) in enumerate(phases.items()):
        _percentiles(grid[row][0], samples, name)
        _course(grid[row][1], samples, name)
    figure.savefig(path, dpi=120)


def draw_course(path: Path, course: Sequence[Counts], stretch_seconds: float, memory: Memory, title: str) -> None:
    """Draw latency by percentile, and over time (a point a stretch), and below it the memory of each process."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(title)
    (left, right), (below, beside) = figure.subplots(2, 2)
    every = together(course)
    shares = [share for share in _SHARES if share == 0 or every.total * (1 - share) >= 0.5]
    left.plot([1 / (1 - share) for share in shares], [every.percentile_ms(share) for share in shares], marker=".")
    _scales(left, "by percentile")
    at = [number * stretch_seconds for number, each in enumerate(course) if each.bins]
    for share, style in ((0.5, "-"), (0.99, "--")):
        values = [each.percentile_ms(share) for each in course if each.bins]
        right.plot(at, values, style, label=f"p{share * 100:.0f}")
    right.set(yscale="log", xlabel="seconds", ylabel="latency from due, ms", title="over time")
    for axes, title_of, names in (
        (below, "memory of feed and Redis", [each for each in memory.resident if not each.startswith("ears")]),
        (beside, "memory of consumers", [each for each in memory.resident if each.startswith("ears")]),
    ):
        for name in names:
            axes.plot(memory.seconds, memory.resident[name], label=name)
        axes.set(xlabel="seconds", ylabel="resident, MB", title=title_of, ylim=(0, None))
    for axes in (left, right):  # a log scale over less than a decade has hardly a tick
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    for axes in (right, below, beside):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def _scales(axes: Axes, title: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel="percentile", ylabel="latency from due, ms", title=title)
    axes.set_xticks([1 / (1 - share) for share in (0, 0.5, 0.9, 0.99, 0.999)], ["0", "50", "90", "99", "99.9"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _percentiles(axes: Axes, samples: Samples, name: str) -> None:
    for priority in DataPriority:
        taken = sorted((each.answered - each.due) * 1000 for each in samples.of(priority) if each.was_served)
        shares = [share for share in _SHARES if share == 0 or len(taken) * (1 - share) >= 0.5]
        if taken:
            places = [1 / (1 - share) for share in shares]
            values = [percentile(taken, share) or taken[0] for share in shares]
            axes.plot(places, values, color=_COLORS[priority], label=priority.value, marker=".")
            axes.axhline(priority.target_seconds * 1000, color=_COLORS[priority], linestyle=":", linewidth=0.8)
    _scales(axes, name)
    axes.legend(title="dotted: target")


def _course(axes: Axes, samples: Samples, name: str) -> None:
    bucket = max(0.005, (samples.ended - samples.began) / 60)
    for priority in DataPriority:
        found = timeline(samples.of(priority), samples.began, bucket)
        if found:
            at = [each["from_seconds"] for each in found]
            axes.plot(at, [each["p50_ms"] for each in found], color=_COLORS[priority], label=f"{priority.value} p50")
            worst = [each["p99_ms"] for each in found]
            axes.plot(at, worst, color=_COLORS[priority], linestyle="--", linewidth=0.8, label=f"{priority.value} p99")
    axes.set(yscale="log", xlabel="due at, s", ylabel="latency from due, ms", title=f"{name}, over time")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", ncols=2)
