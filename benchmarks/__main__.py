"""`python -m benchmarks [--short] [--only PART…]`: run the benchmarks, print one table, keep the figures as JSON."""

from __future__ import annotations

import argparse
import time
from importlib import import_module

from rich.console import Console

from benchmarks.measure import Comparison
from benchmarks.report import duration, machine, save, show

PARTS = (
    "reading",
    "computing",
    "ingesting",
    "merging",
    "materializing",
    "profiles",
    "joins",
    "correlations",
    "formulas",
    "bench_live_features",
    "live_bars",
    "live_burst",
)


def main() -> None:
    """Run the parts asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The platform beside the bare libraries.")
    parser.add_argument("--short", action="store_true", help="under a minute, with few repetitions")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    given = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    about, found = machine(), list[Comparison]()
    began = time.perf_counter()
    for part in given.only:
        with console.status(f"{part} …"):
            for each in import_module(f"benchmarks.{part}").run(given.short):
                found.append(each)
                console.print(f"{each.part}: {each.what}: {each.ratio:.2f} × bare", style="dim", highlight=False)
    show(found, about, console)
    path = save(found, about, given.short)
    console.print(f"Took {duration(time.perf_counter() - began)}. The figures are in {path}", highlight=False)


if __name__ == "__main__":
    main()
