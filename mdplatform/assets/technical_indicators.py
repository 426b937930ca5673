"""The asset `technical_indicators`: the standing catalogue over bars, for one month and symbol, in every timeframe.

1. Load the months' bars and the extra rows before them that the slowest feature needs (`features.graph`).
2. Evaluate the catalogue once over the run's consecutive months of a symbol, and cut the result by month.
3. Write what differs from what is there by more than rounding; publish each symbol's newest rows to Redis.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, REDIS_PROBLEM, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, bar_partitions, fingerprint_of
from mdplatform.assets.partitions import MONTH_BY_SYMBOL, Cell, cells, with_history
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.errors import NoData
from mdplatform.features import FeatureSpec, evaluate
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.graph import load_from
from mdplatform.features.guard import REASONS
from mdplatform.features.registry import engine
from mdplatform.lake import Lake
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import consecutive, month_range
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource, RedisResource

Frames = Mapping[Timeframe, pl.DataFrame]

CATALOGUE = standing_catalogue()
_ROUNDING = 1e-9
_DESCRIPTION = f"""
The standing catalogue of technical indicators, by TA-Lib ({engine()}).

Each value comes with `<feature>.status`: `settled`, `unsettled` (history does not reach back far enough for the last
digits), or why it is null. Computed from bars that were closed by then; `available_at` says when it could be known.
"""


def indicator_schema() -> dict[str, pl.DataType]:
    """Give the columns of a partition: times, each output by its canonical text, each feature's status."""
    outputs = [column for feature in CATALOGUE.features for column in feature.columns]
    return {
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "open_time": INSTANT,
        "available_at": INSTANT,
        **dict.fromkeys(outputs, pl.Float64()),
        **{f"{feature}.status": pl.String() for feature in CATALOGUE.features},
    }


@dg.asset(
    partitions_def=MONTH_BY_SYMBOL,
    deps=[dg.AssetDep("bars", partition_mapping=with_history())],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "indicators"},
    code_version=f"1 {engine()}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(indicator_schema())},
    check_specs=[
        dg.AssetCheckSpec(
            "reasons",
            asset="technical_indicators",
            description="No value is NaN or infinite, and each null has a reason; the file is read back.",
        )
    ],
    pool="lake",
)
def technical_indicators(
    context: dg.AssetExecutionContext, lake: LakeResource, redis: RedisResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a symbol at a time."""
    versions: list[str] = []
    for symbol, of_symbol in cells(context.partition_keys).items():
        written = write_indicators(lake.lake, of_symbol)
        versions += [version for version, _ in written.values()]
        published, problem = redis.publish(
            lake.lake, symbol, CATALOGUE.timeframes, CATALOGUE.features, f"run:{context.run.run_id}", context.log
        )
        for cell in of_symbol:
            frames = written[cell][1] if cell in written else {}
            metadata = _metadata(lake.lake, cell, frames) | ({REDIS_PROBLEM: problem} if problem else {})
            context.add_asset_metadata(metadata, partition_key=cell.key)
        context.log.info(f"{symbol}: {len(written)} of {len(of_symbol)} months have bars; in Redis {published}")
    if not versions:
        raise NoData(
            f"No bars in any of the {len(context.partition_keys)} partitions",
            value=context.partition_keys[0],
            remedy="Materialize `bars` first: mdplatform ingest …",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    every = [cell for of_symbol in cells(context.partition_keys).values() for cell in of_symbol]
    yield check_indicators(lake.lake, every)


def check_indicators(lake: Lake, of_run: list[Cell]) -> dg.AssetCheckResult:
    """Read the partitions back; count values that are no number and nulls without a reason."""
    broken: dict[str, int] = {}
    for cell in of_run:
        partition = lake.frames("technical_indicators").partition(f"{cell.symbol}/{cell.month}")
        for name in partition.header.groups if partition else ():
            frame = partition.read(name) if partition else pl.DataFrame()
            count = int(frame.select(pl.sum_horizontal(_is_broken(each).sum() for each in CATALOGUE.features)).item())
            if count:
                broken[cell.key] = broken.get(cell.key, 0) + count
    return dg.AssetCheckResult(
        check_name="reasons",
        passed=not broken,
        metadata={"rows_broken": sum(broken.values()), "partitions_broken": broken},
    )


def _is_broken(feature: FeatureSpec) -> pl.Expr:
    no_number = pl.any_horizontal(pl.col(feature.columns).is_nan() | pl.col(feature.columns).is_infinite())
    is_null = pl.any_horizontal(pl.col(feature.columns).is_null())
    return no_number.fill_null(False) | (is_null & ~pl.col(f"{feature}.status").is_in(REASONS))


def write_indicators(lake: Lake, of_symbol: list[Cell]) -> dict[Cell, tuple[str, Frames]]:
    """Write those months of one symbol that have bars; give each one's data version and frames."""
    written: dict[Cell, tuple[str, Frames]] = {}
    by_month = {cell.month: cell for cell in of_symbol}
    for months in consecutive(by_month):
        run = [by_month[month] for month in months]
        inputs = {cell: inputs_of(lake, f"{cell.symbol}/{cell.month}") for cell in run}  # before they are read
        whole = {timeframe: _evaluate(lake, run, timeframe) for timeframe in CATALOGUE.timeframes}
        for cell in run:
            frames = {timeframe: of_month(frame, cell.month) for timeframe, frame in whole.items()}
            frames = {timeframe: frame for timeframe, frame in frames.items() if len(frame)}
            if frames:
                written[cell] = (_write(lake, cell, frames, inputs[cell]), frames)
    return written


def _evaluate(lake: Lake, months: list[Cell], timeframe: Timeframe) -> pl.DataFrame:
    start, end = month_range(months[0].month)[0], month_range(months[-1].month)[1]
    bars = lake.bars.read(months[0].symbol, timeframe, load_from(CATALOGUE.features, timeframe, start), end)
    if bars.is_empty():
        return pl.DataFrame(schema=indicator_schema())
    values = evaluate(bars, CATALOGUE.features, timeframe=timeframe).frame()
    return (
        values.with_columns(bars["symbol"], pl.lit(timeframe.value).alias("timeframe"), bars["available_at"])
        .select(list(indicator_schema()))
        .filter(pl.col("open_time").dt.epoch("us") >= start)
    )


def inputs_of(lake: Lake, key: str) -> str:
    """Give the fingerprint of the bars that a partition (`BTCUSDT/2025-01`) is computed from."""
    symbol, month = key.split("/")
    start, end = month_range(month)
    return fingerprint_of(
        {
            each: lake.bars.fingerprint(symbol, each, CATALOGUE.load_from(each, start), end)
            for each in CATALOGUE.timeframes
        }
    )


FOLLOWING = Following(inputs_of, lambda lake, key: [lake.bars.folder(key.split("/")[0])], bar_partitions)


def _write(lake: Lake, cell: Cell, frames: Frames, inputs: str) -> str:
    store, key = lake.frames("technical_indicators"), f"{cell.symbol}/{cell.month}"
    there = store.partition(key)
    if there is not None and there.header.groups.keys() == {timeframe.value for timeframe in frames}:
        held = {timeframe: there.read(timeframe) for timeframe in frames}
        if all(same_but_for_rounding(held[timeframe], frame) for timeframe, frame in frames.items()):
            if there.header.notes.get(INPUTS) == inputs:
                return there.header.data_version
            frames = held
    notes = {"symbol": cell.symbol, "month": cell.month, "engine": engine(), INPUTS: inputs}
    return store.write(key, frames, notes).data_version


def same_but_for_rounding(held: pl.DataFrame, frame: pl.DataFrame) -> bool:
    """Tell whether two frames differ by rounding alone: which months a run has in common must not change a version."""
    if held.columns != frame.columns or len(held) != len(frame):
        return False
    numbers = [name for name, kind in frame.schema.items() if kind == pl.Float64]
    others = [name for name in frame.columns if name not in numbers]
    if not held.select(others).equals(frame.select(others)):
        return False
    both = pl.concat([frame.select(numbers), held.select(pl.col(numbers).name.suffix(" held"))], how="horizontal")
    apart = [
        ((pl.col(name) - pl.col(f"{name} held")).abs() > _ROUNDING * _size(name)).any()
        | (pl.col(name).is_null() != pl.col(f"{name} held").is_null()).any()
        for name in numbers
    ]
    return not both.select(pl.any_horizontal(apart)).item()


def _size(name: str) -> pl.Expr:
    """The size of a value by which its rounding is judged: its own, or where it is next to nothing the usual one."""
    return pl.max_horizontal(pl.col(name).abs(), pl.col(name).abs().median())


def of_month(frame: pl.DataFrame, month: str) -> pl.DataFrame:
    """Give the rows that open in a month."""
    start, end = month_range(month)
    opens = pl.col("open_time").dt.epoch("us")
    return frame.filter((opens >= start) & (opens < end))


def _metadata(lake: Lake, cell: Cell, frames: Frames) -> dict[str, dg.MetadataValue | int]:
    if not frames:
        return {
            "dagster/row_count": 0,
            "note": dg.MetadataValue.text("There are no bars of this symbol in this month."),
        }
    statuses: Counter[str] = Counter()
    for frame in frames.values():
        every = pl.concat([frame[f"{feature}.status"].alias("status") for feature in CATALOGUE.features])
        statuses.update(dict(every.value_counts().iter_rows()))
    shown_timeframe = Timeframe.H1 if Timeframe.H1 in frames else next(iter(frames))
    shown = frames[shown_timeframe]
    first, last = shown["open_time"][0], shown["available_at"][-1]
    return {
        "dagster/row_count": sum(len(frame) for frame in frames.values()),
        "rows_by_timeframe": dg.MetadataValue.md(
            counts_table("timeframe", {each: len(frames[each]) for each in frames})
        ),
        "values_by_status": dg.MetadataValue.md(counts_table("status", statuses)),
        "range": dg.MetadataValue.text(f"{first:%Y-%m-%d %H:%M} … {last:%Y-%m-%d %H:%M} UTC"),
        "plot": dg.MetadataValue.md(_picture(lake, cell, shown_timeframe, shown)),
    }


def _picture(lake: Lake, cell: Cell, timeframe: Timeframe, frame: pl.DataFrame) -> str:
    price = lake.bars.read(cell.symbol, timeframe, *month_range(cell.month))["close"]
    drawn = next((feature for feature in CATALOGUE.features if feature.name == "RSI"), CATALOGUE.features[0])
    column = drawn.columns[0]
    title = f"{cell.symbol} {cell.month} {timeframe}"
    return f"{sparkline(title, [('close', price)])}\n\n{sparkline(title, [(column, frame[column])])}"
