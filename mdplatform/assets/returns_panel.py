"""The asset `returns_panel`: log returns of all symbols for one month, what cross-sections start from."""

from collections.abc import Iterable, Iterator

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import MONTH
from mdplatform.errors import NoData
from mdplatform.lake import Lake
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import from_us, month_range, on_grid
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource

ASSET = "returns_panel"
TIMEFRAMES = (Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1)
SCHEMA = {
    "symbol": pl.String(),
    "timeframe": pl.String(),
    "open_time": INSTANT,
    "available_at": INSTANT,
    "log_return": pl.Float64(),
    "reason": pl.String(),
}
_DESCRIBED = {
    "log_return": "ln(close / the close before); null across a gap",
    "reason": "why the return is null: gap or insufficient_history",
}

_REASONS = ("gap", "insufficient_history")
CHECKS = {
    "reasons": "No return is NaN or infinite, each null has a reason, and what has a reason is null.",
    "grid": "Each row opens on its timeframe's grid, inside its month, once a symbol, and is known at its close at the "
    "earliest.",
}


@dg.asset(
    partitions_def=MONTH,
    deps=[dg.AssetDep("bars", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("month"))],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "cross-section"},
    code_version="1",
    description="Log returns of every symbol of the universe for one month, sorted by symbol and open time.",
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(name, asset=ASSET, description=said, blocking=True) for name, said in CHECKS.items()
    ],
    pool="lake",
)
def returns_panel(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the months of the run."""
    versions = []
    for month in context.partition_keys:
        inputs = inputs_of(lake.lake, month)  # before they are read
        frames = panel(lake.lake, month)
        header = lake.lake.frames(ASSET).write(month, frames, {"month": month, INPUTS: inputs})
        versions.append(header.data_version)
        hourly = frames.get(Timeframe.H1, next(iter(frames.values())))
        context.add_asset_metadata(
            {
                "dagster/row_count": sum(len(frame) for frame in frames.values()),
                "symbols": hourly["symbol"].n_unique(),
                "nulls": sum(frame["log_return"].null_count() for frame in frames.values()),
            },
            partition_key=month,
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_months(lake.lake, context.partition_keys)


def inputs_of(lake: Lake, month: str) -> str:
    """Give the fingerprint of the bars that a month is computed from: its own, and the last ones before."""
    start, end = month_range(month)
    return fingerprint_of(
        {
            f"{symbol} {timeframe}": lake.bars.fingerprint(symbol, timeframe, start - timeframe.microseconds, end)
            for symbol in lake.bars.symbols()
            for timeframe in TIMEFRAMES
        }
    )


FOLLOWING = Following(
    inputs_of,
    lambda lake, _: [lake.bars.folder(symbol) for symbol in lake.bars.symbols()],
    lambda lake: {month for symbol in lake.bars.symbols() for month in lake.bars.months(symbol)},
)


def panel(lake: Lake, month: str) -> dict[Timeframe, pl.DataFrame]:
    """Give the month's returns in each timeframe (`SCHEMA`). Raises `NoData` if no symbol has bars in it."""
    start, end = month_range(month)
    frames = {}
    for timeframe in TIMEFRAMES:
        # one bar more, so that the month's first return has the close before it
        of_symbols = (
            lake.bars.read(each, timeframe, start - timeframe.microseconds, end) for each in lake.bars.symbols()
        )
        parts = [_returns(bars, start) for bars in of_symbols if len(bars)]
        if any(len(part) for part in parts):
            frames[timeframe] = pl.concat(parts)
    if not frames:
        raise NoData(f"No bars of any symbol in {month}", remedy="Materialize `bars` first: mdplatform ingest …")
    return frames


def check_months(lake: Lake, months: Iterable[str]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check, with what broke it where."""
    broken: dict[str, dict[str, int]] = {name: {} for name in CHECKS}
    for month in months:
        partition = lake.frames(ASSET).partition(month)
        for name in partition.header.groups if partition else ():
            rows = partition.read(name) if partition else pl.DataFrame(schema=SCHEMA)
            for check, count in _violations(rows, month, Timeframe.parse(name)).items():
                if count:
                    broken[check][f"{month} {name}"] = count
    for check, found in broken.items():
        yield dg.AssetCheckResult(
            check_name=check,
            passed=not found,
            metadata={"rows_broken": sum(found.values()), "partitions_broken": found},
        )


def _violations(rows: pl.DataFrame, month: str, timeframe: Timeframe) -> dict[str, int]:
    value, reason, opens = pl.col("log_return"), pl.col("reason"), pl.col("open_time")
    start, end = (from_us(instant) for instant in month_range(month))
    broken = {
        "reasons": (~value.is_finite()).fill_null(False)
        | (value.is_null() != reason.is_not_null())
        | ~reason.is_in(_REASONS).fill_null(True),
        "grid": ~on_grid("open_time", timeframe)
        | ~opens.is_between(start, end, closed="left")
        | pl.struct("symbol", "open_time").is_duplicated()
        | (pl.col("available_at") < opens + pl.duration(microseconds=timeframe.microseconds)).fill_null(True),
    }
    return {name: int(rows.select(wrong.fill_null(True).sum()).item()) for name, wrong in broken.items()}


def _returns(bars: pl.DataFrame, start: int) -> pl.DataFrame:
    log_return = (pl.col("close") / pl.col("close").shift()).log()
    reason = (
        pl.when(log_return.is_not_null())
        .then(None)
        .when(pl.int_range(pl.len()) == 0)
        .then(pl.lit("insufficient_history"))
        .otherwise(pl.lit("gap"))
    )
    return (
        bars.with_columns(log_return.alias("log_return"), reason.alias("reason"))
        .filter(pl.col("open_time").dt.epoch("us") >= start)
        .select(list(SCHEMA))
    )
