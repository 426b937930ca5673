"""Taking market data in: from files and sources into the inbox, and from there, as Dagster runs, into `bars`.

1. Read each target and stage it. If one is refused, what this call staged is taken back: nothing of it is stored.
2. Register the symbols as partitions and in the universe.
3. Materialize `bars` for the months touched, and add up what the runs report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mdplatform.errors import MislabelledFile, PlatformError, SourceError
from mdplatform.lake import Lake
from mdplatform.lake.inbox import Batch
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import month_of, month_range, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.runs import Progress, Runs
from mdplatform.settings import Settings
from mdplatform.sources.delivery import Delivery
from mdplatform.sources.files import find_files, read_file
from mdplatform.sources.registry import SOURCES, ALIASES, source

Reading = Callable[[str, int, int], None]
"""Called with what is being read, how much is done, and how much there is."""


@dataclass(frozen=True)
class Wanted:
    """What a caller says of the targets: a symbol and timeframe where they don't say it themselves, and months."""

    symbol: str | None = None
    timeframe: Timeframe | None = None
    first_month: str | None = None
    last_month: str | None = None


@dataclass
class Report:
    """What was taken in, in rows of the delivered timeframes; `partitions` are `month|symbol`."""

    taken: int = 0
    unchanged: int = 0
    corrected: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    partitions: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)


def ingest(
    targets: Sequence[str],
    wanted: Wanted,
    settings: Settings,
    reading: Reading = lambda what, done, total: None,
    progress: Progress = lambda what, partitions: None,
) -> Report:
    """Take in `targets`: paths, or `source:SYMBOL` such as `binance:BTCUSDT`. Raises a `PlatformError`, storing nothing."""
    lake, now = Lake(settings.lake_dir), datetime.now(UTC)
    staged: list[tuple[Batch, bool]] = []
    sources_of: dict[str, tuple[str | None, Timeframe]] = {}
    try:
        for delivery, from_source in _deliveries(targets, wanted, settings, now, reading):
            _check_months(delivery, settings, now)
            staged += _stage(lake, delivery, now)
            sources_of[delivery.symbol] = (from_source, delivery.timeframe)
    except BaseException:
        for batch, is_new in staged:
            if is_new:
                lake.inbox.clear(batch)
        raise
    months_of: dict[str, list[str]] = {}
    for batch, _ in staged:
        months_of.setdefault(batch.symbol, []).append(batch.month)
    with Runs(settings) as runs:
        runs.register(sorted(months_of))
        for symbol, (from_source, timeframe) in sources_of.items():
            lake.universe.add(symbol, from_source, timeframe)
        return _report(runs, {symbol: sorted(set(months)) for symbol, months in months_of.items()}, progress)


def _stage(lake: Lake, delivery: Delivery, now: datetime) -> list[tuple[Batch, bool]]:
    batches = lake.inbox.stage(
        delivery.symbol, delivery.timeframe, delivery.source, delivery.content_hash, delivery.rows, now
    )
    return [(batch, batch.staged_at == now) for batch in batches]


def _report(runs: Runs, months_of: dict[str, list[str]], progress: Progress) -> Report:
    report = Report()
    for done in runs.materialize(["bars"], months_of, progress=progress):
        report.taken += done.metadata["taken"]
        report.unchanged += done.metadata["unchanged"]
        report.corrected += done.metadata["corrected"]
        report.quarantined.update(done.metadata["quarantined_by_rule"])
        report.partitions.append(done.partition)
        if done.run_id not in report.run_ids:
            report.run_ids.append(done.run_id)
    return report


def _deliveries(
    targets: Sequence[str], wanted: Wanted, settings: Settings, now: datetime, reading: Reading
) -> Iterator[tuple[Delivery, str | None]]:
    paths = [target for target in targets if not _is_remote(target)]
    files = find_files(paths) if paths else []
    for number, path in enumerate(files):
        reading(path.name, number, len(files))
        for delivery in read_file(path, wanted.symbol, wanted.timeframe, settings.max_file_mb * 1_000_000):
            yield delivery, None
        reading(path.name, number + 1, len(files))
    for target in targets:
        if _is_remote(target):
            yield from _from_source(target, wanted, settings, now, reading)


def _is_remote(target: str) -> bool:
    name, colon, _ = target.partition(":")
    return bool(colon) and name in {*SOURCES, *ALIASES}


def _from_source(
    target: str, wanted: Wanted, settings: Settings, now: datetime, reading: Reading
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
    for delivery in source(known, settings).bars(symbol, timeframe, start, end):
        last = delivery.rows["open_time"].max()
        reading(f"{symbol} {last:%Y-%m}", to_us(last) - start, end - start)  # type: ignore[arg-type]
        yield delivery, known
    reading(symbol, end - start, end - start)


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
