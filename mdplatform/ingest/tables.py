"""Taking tables beside bars in: trades, depth, sentiment, macro.

1. Read each target, file by file; rows that break a rule are set aside. One none of whose rows make sense is refused.
2. Stage what is left. If a target is refused, that is taken back; if none is, write what was set aside.
3. Register symbols and series, materialize the datasets' assets for the partitions touched, and add up what these
   report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from mdplatform.errors import EmptyFile, InvalidTable, MislabelledFile, PlatformError, SourceError
from mdplatform.home import prepare_home
from mdplatform.ingest.report import Report, Wanted
from mdplatform.lake import Lake
from mdplatform.lake.tables import Staged, TableStore
from mdplatform.market.time import from_us, iso, month_range
from mdplatform.runs import Progress, Runs, silent
from mdplatform.runs.inputs import ASSET_OF
from mdplatform.settings import Settings
from mdplatform.sources.files import find_files
from mdplatform.sources.protocol import Downloads
from mdplatform.sources.registry import ALIASES, SOURCES
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, set_aside_rows
from mdplatform.sources.table_registry import READERS, REMOTES, remote

TIME_OUTSIDE = "time_outside"
"""The rule that a row breaks whose time is in the future, or before the platform's first month."""
_AHEAD = timedelta(days=2)  # what is known at the end of a day is filed there before


@dataclass
class _Taken:
    """What a call has staged so far, and what it has to set aside, by dataset."""

    staged: dict[str, list[Staged]] = field(default_factory=dict)
    aside: list[TableDelivery] = field(default_factory=list)
    symbols: set[str] = field(default_factory=set)
    series: set[str] = field(default_factory=set)


def take_tables(
    kind_of: Mapping[str, str],
    wanted: Wanted,
    settings: Settings,
    reading: Progress = silent,
    progress: Progress = silent,
) -> Report:
    """Take in each target as what `kind_of` says of it."""
    prepare_home(settings)
    lake, now, report, taken = Lake(settings.lake_dir), datetime.now(UTC), Report(), _Taken()
    try:
        for delivery in _deliveries(kind_of, wanted, settings, now, reading, report):
            _stage(lake, _checked(delivery, settings, now), now, taken, report)
        for delivery in taken.aside:
            lake.table(delivery.dataset.name).set_aside(delivery.set_aside, delivery.source, now)
    except BaseException:
        for name, staged in taken.staged.items():
            for each in staged:
                lake.table(name).take_back(each)
        raise
    with Runs(settings) as runs:
        runs.register(sorted(taken.symbols), sorted(taken.series))
        for name, staged in sorted(taken.staged.items()):
            _run(runs, ASSET_OF[name], lake, name, staged, report, progress)
    return report


def _run(
    runs: Runs, asset: str, lake: Lake, name: str, staged: list[Staged], report: Report, progress: Progress
) -> None:
    report.unchanged += sum(each.rows for each in staged if not each.waits)
    period, today = lake.table(name).dataset.period, f"{datetime.now(UTC):%Y-%m-%d}"
    waiting = list(dict.fromkeys(each.key for each in staged if each.waits))
    keys = [key for key in waiting if period is None or key.rpartition("/")[2] <= today]
    if ahead := sum(each.rows for each in staged if each.waits and each.key not in keys):
        report.notes.append(f"{ahead:,} rows of {name} wait for a {period} that has not begun")
    if not keys:
        return
    report.assets.append(asset)
    for done in runs.materialize([asset], keys, progress=progress):
        report.taken += done.metadata["taken"]
        report.unchanged += done.metadata["unchanged"]
        report.corrected += done.metadata["corrected"]
        report.partitions.append(f"{asset}:{done.partition}")
        if done.run_id not in report.run_ids:
            report.run_ids.append(done.run_id)


def _stage(lake: Lake, delivery: TableDelivery, now: datetime, taken: _Taken, report: Report) -> None:
    dataset = delivery.dataset
    store, staged = lake.table(dataset.name), taken.staged.setdefault(dataset.name, [])
    rows = _news(store, delivery.rows) if delivery.snapshot else delivery.rows
    report.unchanged += delivery.rows.height - rows.height
    staged += store.deliver(rows, delivery.source, now, delivery.form)
    taken.aside.append(replace(delivery, rows=rows.clear()))
    rules = Counter(delivery.set_aside["rule"].to_list())
    report.quarantined.update(rules)
    report.unchanged += delivery.repeated
    report.notes += [note for note in delivery.notes if note not in report.notes]
    for column, names in (("symbol", taken.symbols), ("series_id", taken.series)):
        if column in dataset.by:
            names.update(delivery.rows[column].unique().to_list())


def _news(store: TableStore, rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out of a snapshot of macro values what the lake says anyway was known at that instant.

    It is no release; and with a vintage's day for its own it would take that one's hour of publication away.
    """
    identity = ["series_id", "ref_period"]
    held = store.read(rows["series_id"].unique().to_list()).select(
        *identity, "vintage", pl.col("value").alias("known"), pl.col("available_at").alias("known_at")
    )
    known = (
        rows.select(*identity, "available_at")
        .join(held, on=identity)
        .filter(pl.col("known_at") <= pl.col("available_at"))
        .sort("vintage")
        .unique(identity, keep="last")
        .select(*identity, "known", pl.lit(True).alias("is_known"))
    )
    told = rows.join(known, on=identity, how="left", maintain_order="left")
    repeats = pl.col("is_known").fill_null(False) & pl.col("value").eq_missing(pl.col("known"))
    return told.filter(~repeats).select(rows.columns)


def _deliveries(
    kind_of: Mapping[str, str], wanted: Wanted, settings: Settings, now: datetime, reading: Progress, report: Report
) -> Iterator[TableDelivery]:
    start, end = wanted.span()
    if start is not None and end is not None and end <= start:
        raise PlatformError(
            "There is no time between --from and --to",
            value=f"{from_us(start):%Y-%m-%d} … {from_us(end - 1):%Y-%m-%d}",
            remedy="--from is not after --to",
        )
    options = TableOptions(
        wanted.symbol,
        wanted.columns,
        wanted.provider,
        start,
        end,
        settings.max_file_bytes,
        wanted.observed,
        wanted.lag_days,
        now,
        wanted.scorer,
    )
    for target, kind in kind_of.items():
        _check_target(target, kind, wanted)
    paths = {target: kind for target, kind in kind_of.items() if not _is_remote(target, kind)}
    files = {path: kind for target, kind in paths.items() for path in find_files([target], READERS[kind].endings)}
    named = {Path(target).absolute() for target in paths}
    for number, (path, kind) in enumerate(files.items()):
        reading(path.name, number, len(files))
        try:
            yield from READERS[kind].read(path, options)
        except EmptyFile:
            if path.absolute() in named:
                raise
            report.skipped.append(str(path))
        reading(path.name, number + 1, len(files))
    for target, kind in kind_of.items():
        if _is_remote(target, kind):
            word, _, name = target.partition(":")
            asked = remote(kind, word, settings)
            if isinstance(asked, Downloads):
                asked.progress = lambda done, total, file: reading(file, done, total or 0)
                asked.on_absent = report.absent.append
            reading(target, 0, 1)
            yield from asked.deliveries(name, start, end)
            reading(target, 1, 1)


def _check_target(target: str, kind: str, wanted: Wanted) -> None:
    word, colon, name = target.partition(":")
    if not colon or Path(target).exists():
        return
    words = {*SOURCES, *ALIASES, *(each for remotes in REMOTES.values() for each in remotes)}
    if word in words and word not in REMOTES.get(kind, {}):
        raise PlatformError(
            f"{word} has no {kind}",
            value=target,
            remedy=f"Sources of {kind}: {', '.join(sorted(REMOTES.get(kind, {}))) or 'none, only files'}",
        )
    if word in words and wanted.symbol is not None and wanted.symbol != name.upper():
        raise MislabelledFile("The target and --symbol differ", value=target, remedy="Leave --symbol out")


def _is_remote(target: str, kind: str) -> bool:
    word, colon, _ = target.partition(":")
    return bool(colon) and word in REMOTES.get(kind, {})


def _checked(delivery: TableDelivery, settings: Settings, now: datetime) -> TableDelivery:
    """Set aside what lies outside the platform's time; refuse a delivery none of whose rows make sense."""
    dataset, rows = delivery.dataset, delivery.rows
    if dataset.period is not None and rows.height:
        ahead = _AHEAD if dataset.time == "available_at" else timedelta()
        first = from_us(month_range(settings.first_month)[0])
        inside = rows.select(pl.col(dataset.time).is_between(first, now + ahead).alias("inside")).to_series()
        if not inside.any():
            times = rows[dataset.time].dt.epoch("us").sort()
            raise SourceError(
                f"{dataset.name} from {iso(from_us(times[0]))} to {iso(from_us(times[-1]))} lie outside what is kept",
                value=delivery.source,
                remedy=f"Allowed: {settings.first_month} (MDPLATFORM_FIRST_MONTH) to now",
            )
        if not inside.all():
            aside = pl.concat([delivery.set_aside, set_aside_rows(rows.filter(~inside), TIME_OUTSIDE)])
            delivery = replace(delivery, rows=rows.filter(inside), set_aside=aside)
    if delivery.rows.is_empty() and delivery.set_aside.height:
        rules = Counter(delivery.set_aside["rule"].to_list())
        raise InvalidTable(
            f"All {delivery.set_aside.height:,} rows of {dataset.name} break a rule",
            value=delivery.source,
            remedy="Are its columns what they are called? Broken: "
            + ", ".join(f"{rule} {count:,}" for rule, count in rules.items()),
        )
    return delivery
