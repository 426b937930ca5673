"""Taking bars in: from files and sources into the inbox, and from there, as Dagster runs, into `bars`.

1. Read each target and stage it. If one is refused, what this call staged is taken back: nothing of it is stored.
2. Register the symbols as partitions and in the universe.
3. Materialize `bars` for the months touched, and add up what the runs report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mdplatform.errors import EmptyFile, MislabelledFile, PlatformError, SourceError, UnknownColumns
from mdplatform.home import prepare_home
from mdplatform.ingest.report import Report, Wanted
from mdplatform.lake import Lake
from mdplatform.lake.inbox import Batch
from mdplatform.market.rules import sift
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import month_of, month_range, months_between, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Materialized, Progress, Runs, silent
from mdplatform.settings import Settings
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.files import by_month, find_files, read_file
from mdplatform.sources.protocol import Downloads
from mdplatform.sources.registry import ALIASES, SOURCES, source

_FEW_ROWS = 10
_TRUE_OF_BARS = {"not_closed", "early_close"}  # rules that a bar breaks for what befell it, not for its columns


def take_bars(
    targets: Sequence[str],
    wanted: Wanted,
    settings: Settings,
    reading: Progress = silent,
    progress: Progress = silent,
) -> Report:
    """Take in bars from `targets`: paths, or `source:SYMBOL`."""
    prepare_home(settings)
    lake, now, report = Lake(settings.lake_dir), datetime.now(UTC), Report()
    staged: list[Batch] = []
    sources_of: dict[str, tuple[str | None, Timeframe]] = {}
    try:
        for delivery, from_source in _deliveries(targets, wanted, settings, now, reading, report):
            _check_months(delivery, settings, now)
            _check_rows(delivery, now)
            staged += lake.inbox.stage(
                delivery.symbol, delivery.timeframe, delivery.source, delivery.content_hash, delivery.rows, now
            )
            sources_of[delivery.symbol] = (from_source, delivery.timeframe)
    except BaseException:
        for batch in staged:
            lake.inbox.clear(batch)
        raise
    with Runs(settings) as runs:
        runs.register(sorted(sources_of))
        for symbol, (from_source, timeframe) in sources_of.items():
            lake.universe.add(symbol, from_source, timeframe)
        _add_runs(report, runs.materialize(["bars"], _months_to_run(lake, staged, report), progress=progress))
    return report


def _months_to_run(lake: Lake, staged: list[Batch], report: Report) -> dict[str, list[str]]:
    """Give the months to materialize by symbol; what was merged before needs no run."""
    months_of: dict[str, set[str]] = {}
    for batch in staged:
        if lake.bars.has_merged(batch):
            report.unchanged += len(batch.rows)
            lake.inbox.clear_merged(batch)
        else:
            months_of.setdefault(batch.symbol, set()).add(batch.month)
    return {symbol: sorted(months) for symbol, months in sorted(months_of.items())}


def _add_runs(report: Report, runs: list[Materialized]) -> None:
    for done in runs:
        report.taken += done.metadata["taken"]
        report.unchanged += done.metadata["unchanged"]
        report.corrected += done.metadata["corrected"]
        report.quarantined.update(done.metadata["quarantined_by_rule"])
        report.disagreements += done.metadata["disagreements"]
        report.partitions.append(f"bars:{done.partition}")
        if done.run_id not in report.run_ids:
            report.run_ids.append(done.run_id)


def _deliveries(
    targets: Sequence[str], wanted: Wanted, settings: Settings, now: datetime, reading: Progress, report: Report
) -> Iterator[tuple[Delivery, str | None]]:
    paths = [target for target in targets if not _is_remote(target)]
    named = {Path(path).absolute() for path in paths}
    files = find_files(paths) if paths else []
    for number, path in enumerate(files):
        reading(path.name, number, len(files))
        try:
            for delivery in read_file(path, wanted.symbol, wanted.timeframe, settings.max_file_bytes):
                yield from _within(delivery, wanted)
        except EmptyFile:
            if path.absolute() in named:
                raise
            report.skipped.append(str(path))
        reading(path.name, number + 1, len(files))
    for target in targets:
        if _is_remote(target):
            yield from _from_source(target, wanted, settings, now, reading, report)


def _within(delivery: Delivery, wanted: Wanted) -> Iterator[tuple[Delivery, None]]:
    """Leave out what opens outside the months that are wanted."""
    if wanted.first_month is None and wanted.last_month is None:
        yield delivery, None
        return
    start = month_range(wanted.first_month)[0] if wanted.first_month else 0
    end = month_range(wanted.last_month)[1] if wanted.last_month else to_us(datetime.max.replace(tzinfo=UTC))
    yield from ((part, None) for part in by_month(delivery, start, end))


def _is_remote(target: str) -> bool:
    name, colon, _ = target.partition(":")
    return bool(colon) and name in {*SOURCES, *ALIASES}


def _from_source(
    target: str, wanted: Wanted, settings: Settings, now: datetime, reading: Progress, report: Report
) -> Iterator[tuple[Delivery, str]]:
    name, _, given = target.partition(":")
    symbol, timeframe = parse_symbol(given), wanted.timeframe or Timeframe.M1
    if wanted.symbol is not None and wanted.symbol != symbol:
        raise MislabelledFile("The target and --symbol differ", value=target, remedy="Leave --symbol out")
    if wanted.first_month is None:
        raise PlatformError("A source needs the first month", value=target, remedy="Add --from YYYY-MM")
    start = month_range(wanted.first_month)[0]
    end = month_range(wanted.last_month)[1] if wanted.last_month else to_us(now)
    end = min(end, to_us(now))
    if end <= start:
        raise PlatformError(
            "There is no time between --from and --to",
            value=f"{wanted.first_month} … {wanted.last_month or 'now'}",
            remedy="--from is not after --to, and not in the future",
        )
    known = ALIASES.get(name, name)
    asked = source(known, settings)
    if isinstance(asked, Downloads):
        asked.progress = lambda done, total, file: reading(file, done, total or 0)
        asked.on_absent = report.absent.append
    months = months_between(start, end)
    for delivery in asked.bars(symbol, timeframe, start, end):
        last = delivery.rows["open_time"].max()
        assert isinstance(last, datetime)
        reading(f"{symbol} {last:%Y-%m}", months.index(f"{last:%Y-%m}") + 1, len(months))
        yield delivery, known


def _check_rows(delivery: Delivery, now: datetime) -> None:
    """Refuse a delivery none of whose rows could be a bar: its columns are not what they are called."""
    kept, broken = sift(delivery.rows, delivery.timeframe, now)
    rules = Counter(broken["rule"].to_list())
    if len(kept) or len(broken) < _FEW_ROWS or rules.keys() & _TRUE_OF_BARS:
        return
    raise UnknownColumns(
        f"All {len(broken):,} rows of {delivery.symbol} {delivery.timeframe} break a rule",
        value=delivery.source,
        remedy=f"Are its columns those of bars? Broken: {', '.join(f'{rule} {n:,}' for rule, n in rules.items())}",
    )


def _check_months(delivery: Delivery, settings: Settings, now: datetime) -> None:
    opens = delivery.rows["open_time"].drop_nulls()
    if opens.is_empty():
        return
    first, last = (month_of(int(each)) for each in (opens.dt.epoch("us").min(), opens.dt.epoch("us").max()))  # type: ignore[arg-type]
    if first < settings.first_month or last > f"{now:%Y-%m}":
        raise SourceError(
            f"Bars of {delivery.symbol} from {first} to {last} lie outside the platform's months",
            value=delivery.source,
            remedy=f"Allowed: {settings.first_month} (MDPLATFORM_FIRST_MONTH) to the running month",
        )
