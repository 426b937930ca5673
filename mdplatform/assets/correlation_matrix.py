"""The asset `correlation_matrix`: how the log returns of all symbols correlate, as of the end of each day of a month.

1. Take the month's returns and those of the month before from `returns_panel`, in each of its timeframes. The window is
   four whole weeks, so it never reaches back further.
2. Give the matrix as of each day's end, pair by pair; of a universe of more than 64 symbols the last one's alone.
3. Read the partition back: bounds, symmetry, and whether the newest matrices are positive semi-definite.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import numpy as np
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import MONTH
from mdplatform.assets.plots import counts_table, heat_map
from mdplatform.assets.returns_panel import TIMEFRAMES
from mdplatform.errors import NoData
from mdplatform.features import Correlations, Panel, clusters
from mdplatform.features.correlation import ENGINE
from mdplatform.features.correlation.nearest_psd import slack, smallest_eigenvalue
from mdplatform.features.correlation.panels import on_times, panel_of
from mdplatform.features.correlation.rolling import matrices
from mdplatform.lake import Lake
from mdplatform.lake.partition import content_hash
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import month_of, month_range
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.resources import LakeResource

ASSET = "correlation_matrix"
WINDOW = timedelta(days=28)
MOST_SYMBOLS_BY_DAY = 64
SCHEMA = {
    "symbol_a": pl.String(),
    "symbol_b": pl.String(),
    "timeframe": pl.String(),
    "open_time": INSTANT,
    "available_at": INSTANT,
    "correlation": pl.Float64(),
    "observations": pl.Int64(),
    "reason": pl.String(),
    "estimator": pl.String(),
}
_DESCRIBED = {
    "symbol_a": "comes before symbol_b in the alphabet; each pair is there once",
    "open_time": "of the last bar of the window, which closes at the end of a day",
    "correlation": "of log returns over the four weeks that end then, over the rows that both have",
    "observations": "how many rows both have",
    "reason": "why it is null: insufficient_history (fewer than half of the window's rows) or degenerate",
}
CHECKS = {
    "bounds": "Every correlation lies in [−1, 1], and is null where there is a reason and nowhere else.",
    "symmetric": "Each pair of symbols is there once for each time, in alphabetical order.",
    "psd": "The newest matrix of each timeframe is positive semi-definite, which pairwise samples need not be.",
}
_WARNED = ("psd",)
_RETURNS = {"symbol": pl.String(), "timeframe": pl.String(), "open_time": INSTANT, "log_return": pl.Float64()}
_DESCRIPTION = f"""
Pearson's correlation of the log returns of every pair of symbols over four weeks, pairwise-complete ({ENGINE}).

Gaps are left out and never filled. `available_at` is when the window's last bar closed.
"""

Frames = dict[Timeframe, pl.DataFrame]


@dg.asset(
    partitions_def=MONTH,
    deps=[
        dg.AssetDep(
            "returns_panel",
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-1, allow_nonexistent_upstream_partitions=True
            ),
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "numpy"},
    owners=OWNERS,
    tags={"domain": "cross-section"},
    code_version=f"1 {ENGINE}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(name, asset=ASSET, description=said, blocking=name not in _WARNED)
        for name, said in CHECKS.items()
    ],
    pool="lake",
)
def correlation_matrix(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the months of the run."""
    versions = []
    for month in context.partition_keys:
        inputs = inputs_of(lake.lake, month)  # before they are read
        frames, newest = matrices_of(lake.lake, month)
        header = lake.lake.frames(ASSET).write(month, frames, _notes(month, newest) | {INPUTS: inputs})
        versions.append(header.data_version)
        context.add_asset_metadata(_metadata(frames, newest), partition_key=month)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_months(lake.lake, context.partition_keys)


def inputs_of(lake: Lake, month: str) -> str:
    """Give the fingerprint of the returns that a month is computed from."""
    found = {timeframe: _needed(lake, month, timeframe) for timeframe in TIMEFRAMES}
    return fingerprint_of({each.value: content_hash({each.value: rows}) for each, rows in found.items() if len(rows)})


FOLLOWING = Following(
    inputs_of,
    lambda lake, key: [lake.frames("returns_panel").path(key).parent],
    lambda lake: lake.frames("returns_panel").all_keys(),
)


def matrices_of(lake: Lake, month: str) -> tuple[Frames, dict[Timeframe, Correlations]]:
    """Give the month's rows (`SCHEMA`) and newest matrix in each timeframe. Raises `NoData` if it has no returns."""
    frames: Frames = {}
    newest: dict[Timeframe, Correlations] = {}
    for timeframe in TIMEFRAMES:
        found = returns_of(lake, month, timeframe)
        if found is None:
            continue
        panel, ends = found
        rows = WINDOW // timedelta(microseconds=timeframe.microseconds)
        wanted = ends if len(panel.symbols) <= MOST_SYMBOLS_BY_DAY else ends[-1:]
        parts = []
        for answer in matrices(panel, rows, wanted, min_periods=rows // 2):
            assert answer.open_time is not None
            closed = answer.open_time + timedelta(microseconds=timeframe.microseconds)
            newest[timeframe] = replace(answer, timeframe=timeframe.value, available_at=closed)
            parts.append(_rows(newest[timeframe]))
        frames[timeframe] = pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)
    if not frames:
        raise NoData(f"No returns of any symbol in {month}", remedy="Materialize `returns_panel` first")
    return frames, newest


def returns_of(lake: Lake, month: str, timeframe: Timeframe) -> tuple[Panel, list[int]] | None:
    """Give the returns of the symbols of a month from a window before it on, and the rows that end a day of it."""
    start, end = month_range(month)
    rows = _needed(lake, month, timeframe)
    if rows.is_empty():
        return None
    step = timeframe.microseconds
    last = int(rows["open_time"].dt.epoch("us").max())  # type: ignore[arg-type]
    opens = np.arange(timeframe.ceil(_first(month)), last + step, step)
    panel = on_times(panel_of(rows), opens)
    closes = opens + step
    return panel, np.flatnonzero((closes % DAY_US == 0) & (closes > start) & (closes <= end)).tolist()


def check_months(lake: Lake, months: Iterable[str]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check, with what broke it where."""
    broken: dict[str, dict[str, int]] = {name: {} for name in CHECKS}
    for month in months:
        partition = lake.frames(ASSET).partition(month)
        for name in partition.header.groups if partition else ():
            rows = partition.read(name) if partition else pl.DataFrame(schema=SCHEMA)
            for check, count in _violations(rows).items():
                if count:
                    broken[check][f"{month} {name}"] = count
    for check, found in broken.items():
        yield dg.AssetCheckResult(
            check_name=check,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN if check in _WARNED else dg.AssetCheckSeverity.ERROR,
            metadata={"rows_broken": sum(found.values()), "partitions_broken": found},
        )


def _first(month: str) -> int:
    """Give the first instant of the window that ends with the month's first day."""
    return month_range(month)[0] + DAY_US - WINDOW // timedelta(microseconds=1)


def _needed(lake: Lake, month: str, timeframe: Timeframe) -> pl.DataFrame:
    """Give the returns of the month's symbols, in it and in the windows that reach back from it; maybe none."""
    of_month = _stored(lake, month, timeframe)
    before = _stored(lake, month_of(month_range(month)[0] - 1), timeframe).filter(
        pl.col("symbol").is_in(of_month["symbol"].unique().to_list())
        & (pl.col("open_time").dt.epoch("us") >= _first(month))
    )
    return pl.concat([before, of_month])


def _stored(lake: Lake, month: str, timeframe: Timeframe) -> pl.DataFrame:
    partition = lake.frames("returns_panel").partition(month)
    if partition is None or timeframe.value not in partition.header.groups:
        return pl.DataFrame(schema=_RETURNS)
    return partition.read(timeframe, list(_RETURNS))


def _rows(answer: Correlations) -> pl.DataFrame:
    return (
        answer.pairs()
        .with_columns(
            pl.lit(answer.timeframe).alias("timeframe"),
            pl.lit(answer.open_time, INSTANT).alias("open_time"),
            pl.lit(answer.available_at, INSTANT).alias("available_at"),
            pl.lit(answer.estimator).alias("estimator"),
        )
        .select(list(SCHEMA))
    )


def _violations(rows: pl.DataFrame) -> dict[str, int]:
    correlation, reason = pl.col("correlation"), pl.col("reason")
    outside = (correlation.is_nan() | (correlation.abs() > 1)).fill_null(False)
    twice = pl.struct("open_time", "symbol_a", "symbol_b").is_duplicated()
    newest = rows.filter(pl.col("open_time") == pl.col("open_time").max())
    return {
        "bounds": int(rows.select((outside | (correlation.is_null() != reason.is_not_null())).sum()).item()),
        "symmetric": int(rows.select((twice | (pl.col("symbol_a") >= pl.col("symbol_b"))).sum()).item()),
        "psd": int(not _is_psd(newest)),
    }


def _is_psd(newest: pl.DataFrame) -> bool:
    """Tell it of the symbols that have a pair; what has null pairs among them cannot be told, and passes."""
    known = newest.drop_nulls("correlation")
    names = pl.concat([known["symbol_a"], known["symbol_b"]]).unique().sort().to_list()
    matrix = np.full((len(names), len(names)), np.nan)
    place = {name: at for at, name in enumerate(names)}
    left, right = ([place[each] for each in known[side]] for side in ("symbol_a", "symbol_b"))
    matrix[left, right] = matrix[right, left] = known["correlation"].to_numpy()
    np.fill_diagonal(matrix, 1.0)
    return not len(names) or bool(np.isnan(matrix).any()) or smallest_eigenvalue(matrix) >= -slack(len(names))


def _notes(month: str, newest: dict[Timeframe, Correlations]) -> dict[str, object]:
    return {
        "month": month,
        "engine": ENGINE,
        "is_psd": {each.value: answer.is_psd for each, answer in newest.items()},
        "min_eigenvalue": {each.value: answer.min_eigenvalue for each, answer in newest.items()},
    }


def _metadata(frames: Frames, newest: dict[Timeframe, Correlations]) -> dict[str, dg.MetadataValue | int]:
    told: dict[str, dg.MetadataValue | int] = {
        "dagster/row_count": sum(map(len, frames.values())),
        "nulls": sum(frame["correlation"].null_count() for frame in frames.values()),
        "rows_by_timeframe": dg.MetadataValue.md(
            counts_table("timeframe", {each.value: len(frame) for each, frame in frames.items()})
        ),
    }
    shown = newest.get(Timeframe.H1, next(iter(newest.values()), None))
    if shown is None:
        return told | {"note": dg.MetadataValue.text("No day of this month has ended yet.")}
    whole = shown.whole()
    order = clusters(whole).order
    title = f"{shown.timeframe} returns, four weeks to {shown.available_at:%Y-%m-%d %H:%M} UTC"
    return told | {
        "symbols": len(shown.symbols),
        "is_psd": dg.MetadataValue.text(str(shown.is_psd)),
        "clusters_order": dg.MetadataValue.text(" ".join(order)),
        "plot": dg.MetadataValue.md(heat_map(title, order, whole.of(order).matrix)),
    }
