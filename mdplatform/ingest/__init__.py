"""Taking market data in: from files and sources into the inbox, and from there, as Dagster runs, into the lake."""

from __future__ import annotations

from collections.abc import Sequence

from mdplatform.errors import PlatformError, UnknownName
from mdplatform.ingest.bars import take_bars
from mdplatform.ingest.options import check_options
from mdplatform.ingest.report import Report, Wanted
from mdplatform.ingest.tables import take_tables
from mdplatform.runs import Progress, silent
from mdplatform.settings import Settings
from mdplatform.sources.table_registry import READERS, REMOTES, kind_of_remote

__all__ = ["Report", "Wanted", "ingest", "kinds"]


def kinds() -> list[str]:
    """Give what targets can be taken as."""
    return ["bars", *dict.fromkeys((*READERS, *REMOTES))]


def ingest(
    targets: Sequence[str],
    wanted: Wanted,
    settings: Settings,
    reading: Progress = silent,
    progress: Progress = silent,
) -> Report:
    """Take in `targets`: paths, or `source:NAME` such as `binance:BTCUSDT` or `fred:CPIAUCSL`.

    Raises a `PlatformError` where one is refused; then nothing is stored.
    """
    if wanted.taken_as is not None and wanted.taken_as not in kinds():
        raise UnknownKind(wanted.taken_as, kinds())
    kind_of = {target: wanted.taken_as or kind_of_remote(target) or "bars" for target in targets}
    check_options(kind_of, wanted)
    of_bars = [target for target, kind in kind_of.items() if kind == "bars"]
    of_tables = {target: kind for target, kind in kind_of.items() if kind != "bars"}
    if of_bars and of_tables:
        raise PlatformError(
            f"Bars and {next(iter(of_tables.values()))} cannot be taken in at once",
            value=of_bars[0],
            remedy="Take them in one after the other, or say with --as what the files are",
        )
    if of_tables:
        return take_tables(of_tables, wanted, settings, reading, progress)
    return take_bars(targets, wanted, settings, reading, progress)


class UnknownKind(UnknownName):
    """Something that targets cannot be taken as."""

    kind = "kind of data"
