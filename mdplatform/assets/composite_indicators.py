"""The asset `composite_indicators`: registered composites for one month and symbol, in the catalogue's timeframes.

1. The composites are the standing ones and those that the home keeps, each in its newest version.
2. Evaluate them once over the run's consecutive months of a symbol; each feature within loads its own history.
3. Write what differs from what is there by more than rounding; publish each symbol's newest rows to Redis.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from logging import Logger
from pathlib import Path

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, REDIS_PROBLEM, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, bar_partitions, fingerprint_of
from mdplatform.assets.partitions import MONTH_BY_SYMBOL, Cell, cells, days_of_month, with_history
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.assets.technical_indicators import CATALOGUE, of_month, same_but_for_rounding
from mdplatform.errors import NoData
from mdplatform.features.composites import Composite, newest, standing_composites
from mdplatform.features.data import grid_of
from mdplatform.features.graph import load_from
from mdplatform.features.guard import REASONS, STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.kinds.composite import ENGINE
from mdplatform.features.panel import evaluate_on, reads
from mdplatform.features.registry import engine
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import consecutive, from_us, month_range
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.resources import LakeResource, RedisResource

Frames = Mapping[Timeframe, pl.DataFrame]

_WORDS = pl.Series(STATUSES)
_DESCRIPTION = """
Registered composites: formulas over columns and features, by name and version (`mdplatform formula list`).

Each value comes with `<composite>.status`: `settled`, `unsettled`, or why it is null. Every cell is made of what was
known at its row's close; `available_at` says when it could be known. A composite that needs bars of a symbol which the
lake does not hold is left out, and named in the metadata.

The rows are those of the bars. Trades, sentiment and macro series matter only to formulas that read them, and need not
be there.
"""


def composite_schema(composites: Sequence[Composite]) -> dict[str, pl.DataType]:
    """Give the columns of a partition: times, each composite by its name, and its status."""
    return {
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "open_time": INSTANT,
        "available_at": INSTANT,
        **{each.name: pl.Float64() for each in composites},
        **{f"{each.name}.status": pl.String() for each in composites},
    }


@dg.asset(
    partitions_def=MONTH_BY_SYMBOL,
    deps=[
        dg.AssetDep("bars", partition_mapping=with_history()),
        dg.AssetDep("trades", partition_mapping=days_of_month()),
        dg.AssetDep("sentiment", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("month")),
        dg.AssetDep("macro_series", partition_mapping=dg.AllPartitionMapping()),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "indicators"},
    code_version=f"1 {ENGINE} {engine()} {' '.join(each.spec.id for each in standing_composites())}",
    description=_DESCRIPTION,
    metadata={
        "dagster/column_schema": column_schema(
            composite_schema(standing_composites()), {each.name: each.title for each in standing_composites()}
        )
    },
    check_specs=[
        dg.AssetCheckSpec(
            "reasons",
            asset="composite_indicators",
            description="No value is NaN or infinite, and each null has a reason; the file is read back.",
        )
    ],
    pool="lake",
)
def composite_indicators(
    context: dg.AssetExecutionContext, lake: LakeResource, redis: RedisResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    versions: list[str] = []
    by_symbol = cells(context.partition_keys)
    for symbol, of_symbol in by_symbol.items():
        composites = composites_of(lake.lake, symbol, context.log)
        written = write_composites(lake.lake, of_symbol, composites)
        versions += [version for version, _ in written.values()]
        specs = list(dict.fromkeys(each.spec for each in composites))
        published, problem = redis.publish(
            lake.lake, symbol, CATALOGUE.timeframes, specs, f"run:{context.run.run_id}", context.log
        )
        for cell in of_symbol:
            frames = written[cell][1] if cell in written else {}
            metadata = _metadata(lake.lake, cell, frames, composites) | ({REDIS_PROBLEM: problem} if problem else {})
            context.add_asset_metadata(metadata, partition_key=cell.key)
        context.log.info(f"{symbol}: {len(written)} of {len(of_symbol)} months have bars; in Redis {published}")
    if not versions:
        raise NoData(
            f"No bars in any of the {len(context.partition_keys)} partitions",
            value=context.partition_keys[0],
            remedy="Materialize `bars` first: mdplatform ingest …",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield check_composites(lake.lake, [cell for of_symbol in by_symbol.values() for cell in of_symbol])


def composites_of(lake: Lake, symbol: str, log: Logger | None = None) -> list[Composite]:
    """Give the newest version of each composite that can be computed for a symbol; `log` is told of the others."""
    held = set(lake.bars.symbols())
    found = []
    for each in newest([*standing_composites(), *lake.composites.all()]):
        missing = {need.key for need in _needs(each, symbol) if need.dataset == "bars"} - held
        if not missing:
            found.append(each)
        elif log is not None:
            log.warning(f"{each} is left out for {symbol}: there are no bars of {', '.join(sorted(missing))}")
    return found


def write_composites(
    lake: Lake, of_symbol: list[Cell], composites: Sequence[Composite]
) -> dict[Cell, tuple[str, Frames]]:
    """Write those months of one symbol that have bars; give each one's data version and frames."""
    written: dict[Cell, tuple[str, Frames]] = {}
    by_month = {cell.month: cell for cell in of_symbol}
    for months in consecutive(by_month):
        run = [by_month[month] for month in months]
        inputs = {cell: inputs_of(lake, f"{cell.symbol}/{cell.month}") for cell in run}  # before they are read
        whole = {timeframe: _evaluate(lake, run, timeframe, composites) for timeframe in CATALOGUE.timeframes}
        for cell in run:
            frames = {timeframe: of_month(frame, cell.month) for timeframe, frame in whole.items()}
            frames = {timeframe: frame for timeframe, frame in frames.items() if len(frame)}
            if frames:
                written[cell] = (_write(lake, cell, frames, composites, inputs[cell]), frames)
    return written


def check_composites(lake: Lake, of_run: list[Cell]) -> dg.AssetCheckResult:
    """Read the partitions back; count values that are no number and nulls without a reason."""
    broken: dict[str, int] = {}
    for cell in of_run:
        partition = lake.frames("composite_indicators").partition(f"{cell.symbol}/{cell.month}")
        for name in partition.header.groups if partition else ():
            frame = partition.read(name) if partition else pl.DataFrame()
            statuses = [column for column in frame.columns if column.endswith(".status")]
            count = sum(_broken(frame[each.removesuffix(".status")], frame[each]) for each in statuses)
            if count:
                broken[cell.key] = broken.get(cell.key, 0) + count
    return dg.AssetCheckResult(
        check_name="reasons",
        passed=not broken,
        metadata={"rows_broken": sum(broken.values()), "partitions_broken": broken},
    )


_REACH = 8 * DAY_US
"""How far before the rows that a formula loads its features may look that are not of rows: a week's profile, a day."""


def inputs_of(lake: Lake, key: str) -> str:
    """Give the fingerprint of the composites and of all that a partition (`BTCUSDT/2025-01`) is computed from."""
    symbol, month = key.split("/")
    start, end = month_range(month)
    composites = composites_of(lake, symbol)
    parts: dict[str, str] = {}
    for timeframe in CATALOGUE.timeframes:
        first = load_from([each.spec for each in composites], timeframe, start)
        for need in sorted({need for each in composites for need in _needs(each, symbol)}):
            parts[f"{timeframe} {need.dataset} {need.key}"] = _version(lake, need, timeframe, first, end)
    if any(parts.values()):
        parts["composites"] = " ".join(f"{each} {each.spec.id}" for each in composites)
    return fingerprint_of(parts)


def _folders(lake: Lake, key: str) -> list[Path]:
    """Give the folders in which a partition's inputs lie; the lake's own holds the list of composites."""
    symbol = key.split("/")[0]
    needs = {need for each in composites_of(lake, symbol) for need in _needs(each, symbol)}
    tables = [
        lake.table(need.dataset).path(f"{need.key}/x" if need.dataset in ("trades", "depth") else "x").parent
        for need in needs
        if need.dataset != "bars"
    ]
    return [lake.folder, *(lake.bars.folder(need.key) for need in needs if need.dataset == "bars"), *tables]


FOLLOWING = Following(inputs_of, _folders, bar_partitions)


def _needs(composite: Composite, symbol: str) -> frozenset[Need]:
    return reads([composite.spec], symbol, CATALOGUE.timeframes[0]) | {Need("bars", symbol)}


def _version(lake: Lake, need: Need, timeframe: Timeframe, start: int, end: int) -> str:
    """Give what changes when the rows of an input do that values of `[start, end)` can depend on.

    Of macro and sentiment that is all that was available by the end; of others, what lies up to `_REACH` before.
    """
    if need.dataset == "bars":
        return lake.bars.fingerprint(need.key, timeframe, start - _REACH, end)
    store = lake.table(need.dataset)
    keys = [need.key]
    if need.dataset in ("trades", "depth"):
        first = start - _REACH
        keys = [f"{need.key}/{from_us(day):%Y-%m-%d}" for day in range(first - first % DAY_US, end, DAY_US)]
    elif need.dataset == "sentiment":
        keys = store.keys()
    return " ".join(filter(None, (store.fingerprint(key, end) for key in keys)))


def _evaluate(lake: Lake, months: list[Cell], timeframe: Timeframe, composites: Sequence[Composite]) -> pl.DataFrame:
    start, end = month_range(months[0].month)[0], month_range(months[-1].month)[1]
    bars = lake.bars.read(months[0].symbol, timeframe, start, end)
    if bars.is_empty():
        return pl.DataFrame(schema=composite_schema(composites))
    answers = evaluate_on(grid_of(bars), [each.spec for each in composites], LakeData(lake))
    values = {each.name: answers[each.spec] for each in composites}
    return bars.select("symbol", "timeframe", "open_time", "available_at").with_columns(
        *(pl.Series(name, each.outputs[0], nan_to_null=True) for name, each in values.items()),
        *(_WORDS.gather(each.statuses).alias(f"{name}.status") for name, each in values.items()),
    )


def _write(lake: Lake, cell: Cell, frames: Frames, composites: Sequence[Composite], inputs: str) -> str:
    store, key = lake.frames("composite_indicators"), f"{cell.symbol}/{cell.month}"
    there = store.partition(key)
    if there is not None and there.header.groups.keys() == {timeframe.value for timeframe in frames}:
        held = {timeframe: there.read(timeframe) for timeframe in frames}
        if all(same_but_for_rounding(held[timeframe], frame) for timeframe, frame in frames.items()):
            if there.header.notes.get(INPUTS) == inputs:
                return there.header.data_version
            frames = held
    told = {each.name: f"{each} {each.resolved}" for each in composites}
    notes = {"symbol": cell.symbol, "month": cell.month, "engine": ENGINE, "composites": told, INPUTS: inputs}
    return store.write(key, frames, notes).data_version


def _broken(values: pl.Series, statuses: pl.Series) -> int:
    no_number = values.is_not_null() & ~values.is_finite().fill_null(False)
    return int((no_number | (values.is_null() != statuses.is_in(REASONS))).sum())


def _metadata(
    lake: Lake, cell: Cell, frames: Frames, composites: Sequence[Composite]
) -> dict[str, dg.MetadataValue | dg.TableSchema | int]:
    if not frames:
        note = dg.MetadataValue.text("There are no bars of this symbol in this month.")
        return {"dagster/row_count": 0, "note": note}
    statuses: Counter[str] = Counter()
    for frame in frames.values():
        for each in composites:
            statuses.update(dict(frame[f"{each.name}.status"].alias("status").value_counts().iter_rows()))
    shown_timeframe = Timeframe.H1 if Timeframe.H1 in frames else next(iter(frames))
    shown = frames[shown_timeframe]
    first, last = shown["open_time"][0], shown["available_at"][-1]
    price = lake.bars.read(cell.symbol, shown_timeframe, *month_range(cell.month))["close"]
    title = f"{cell.symbol} {cell.month} {shown_timeframe}"
    pictures = [sparkline(title, [("close", price)])]
    pictures += [sparkline(title, [(each.name, shown[each.name])]) for each in composites[:6]]
    told = "".join(f"- `{each}` = `{' '.join(each.formula.split())}` {each.title}\n" for each in composites)
    rows = counts_table("timeframe", {each: len(frames[each]) for each in frames})
    return {
        "dagster/row_count": sum(len(frame) for frame in frames.values()),
        "dagster/column_schema": column_schema(
            composite_schema(composites), {each.name: each.title or each.resolved for each in composites}
        ),
        "composites": dg.MetadataValue.md(told),
        "rows_by_timeframe": dg.MetadataValue.md(rows),
        "values_by_status": dg.MetadataValue.md(counts_table("status", statuses)),
        "range": dg.MetadataValue.text(f"{first:%Y-%m-%d %H:%M} … {last:%Y-%m-%d %H:%M} UTC"),
        "plot": dg.MetadataValue.md("\n\n".join(pictures)),
    }
