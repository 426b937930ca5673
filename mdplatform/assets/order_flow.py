"""The asset `order_flow`: what takers did in each bar of a day, from its trades, one file a day and symbol.

1. The rows are the bars of the day that had closed when its trades were last taken in.
2. Their values are the features of the kind `flow`, of the trades of the day and the day before (which VPIN's buckets
   and the size of large trades need).
3. What the trades do not cover is null: where there are bars, they have to amount to them (`features.trade_coverage`).
4. A check compares the day's trades with the exchange's own bars, where there are any.
"""

from collections.abc import Iterable, Iterator

import dagster as dg
import numpy as np
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.day_cells import DayCell, Told, check_results, day_cells
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import DAY_BY_SYMBOL, month_of_day, with_day_before
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.errors import NoData
from mdplatform.features import evaluate_on, parse_feature
from mdplatform.features.data import Grid
from mdplatform.features.guard import REASONS, STATUSES
from mdplatform.features.kinds.flow import VERSION
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import day_range, from_us, to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.resources import LakeResource

Frames = dict[Timeframe, pl.DataFrame]

TIMEFRAMES = (Timeframe.M1, Timeframe.M15, Timeframe.H1)
FEATURES = {
    "TRADE_FLOW": ("taker_buy_volume", "taker_sell_volume", "volume", "quote_volume", "trade_count"),
    "DELTA(method=trades)": ("delta",),
    "CVD(method=trades,anchor=day)": ("cvd",),
    "TAKER_RATIO(method=trades)": ("taker_ratio",),
    "TRADE_SIZE_QUANTILE(q=0.5)": ("size_p50",),
    "TRADE_SIZE_QUANTILE(q=0.9)": ("size_p90",),
    "TRADE_SIZE_QUANTILE(q=0.99)": ("size_p99",),
    "LARGE_TRADE_VOLUME(quantile=0.99,days=1)": ("large_buy_volume", "large_sell_volume"),
    "VPIN(buckets=50)": ("vpin",),
}
"""The features, and the columns that hold their outputs. `<first column>.status` says why there is no value."""

_SPECS = {parse_feature(text): columns for text, columns in FEATURES.items()}
SCHEMA = {
    "symbol": pl.String(),
    "timeframe": pl.String(),
    "open_time": INSTANT,
    "close_time": INSTANT,
    "available_at": INSTANT,
    **{column: pl.Float64() for columns in FEATURES.values() for column in columns},
    **{f"{columns[0]}.status": pl.String() for columns in FEATURES.values()},
}
_DESCRIBED = {
    "available_at": "the bar's close: values are made of the trades that were known by then",
    "taker_buy_volume": "amount bought by takers, in the base asset",
    "taker_sell_volume": "amount sold by takers, in the base asset",
    "delta": "taker_buy_volume − taker_sell_volume",
    "cvd": "running delta since 00:00 UTC",
    "taker_ratio": "taker_buy_volume / volume, in [0, 1]",
    "size_p50": "median size of a trade, in the base asset",
    "size_p90": "0.9 quantile of trade sizes",
    "size_p99": "0.99 quantile of trade sizes",
    "large_buy_volume": "bought by takers in trades of at least the 0.99 quantile of the sizes of the day before",
    "large_sell_volume": "sold by takers in such trades",
    "vpin": "volume-synchronised probability of informed trading, in [0, 1]: 50 buckets of a 50th of the day before",
}
_CHECKS = {
    "values": "No value is NaN or infinite, each null has a reason, ratios lie in [0, 1]; the file is read back.",
    "sums": "Volume and taker buys are those of the exchange's bars, where there are any.",
}
_WARNED = ("sums",)
_UNCOVERED = ("gap", "insufficient_history", "not_available_yet")
_SLACK = 1e-9
_DESCRIPTION = f"""
What takers did in each bar of one symbol and day (UTC), in {", ".join(TIMEFRAMES)}: volumes by side, delta, CVD, sizes
of trades, VPIN.

Made of trades that were known at the bar's close; a bar that they do not cover is null, with the reason.

Of a day that is not over there are the bars that had closed when its trades were last taken in.
"""


@dg.asset(
    partitions_def=DAY_BY_SYMBOL,
    deps=[
        dg.AssetDep("trades", partition_mapping=with_day_before()),
        dg.AssetDep("bars", partition_mapping=month_of_day()),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "order-flow"},
    code_version=f"1 {VERSION}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(name, asset="order_flow", description=said, blocking=name not in _WARNED)
        for name, said in _CHECKS.items()
    ],
    pool="lake",
)
def order_flow(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a day at a time."""
    cells = [cell for of_symbol in day_cells(context.partition_keys).values() for cell in of_symbol]
    versions = []
    for cell in cells:
        inputs = inputs_of(lake.lake, cell.stored)  # before they are read
        frames = flow_of(lake.lake, cell)
        if frames:
            notes = {"symbol": cell.symbol, "day": cell.day, INPUTS: inputs}
            versions.append(lake.lake.frames("order_flow").write(cell.stored, frames, notes).data_version)
        else:
            lake.lake.frames("order_flow").path(cell.stored).unlink(missing_ok=True)  # what it held is no longer so
        context.add_asset_metadata(_metadata(cell, frames), partition_key=cell.key)
    if not versions:
        raise NoData(
            f"No trades in any of the {len(cells)} partitions",
            value=context.partition_keys[0],
            remedy="Materialize `trades` first: mdplatform ingest … --as trades",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_flow(lake.lake, cells)


def flow_of(lake: Lake, cell: DayCell) -> Frames:
    """Give the day's rows (`SCHEMA`) in each timeframe of which a bar had closed; none where there are no trades."""
    trades = lake.table("trades").read([cell.stored])
    if trades.is_empty():
        return {}
    start, end = day_range(cell.day)
    known = min(end, to_us(trades["ingested_at"].max()))  # type: ignore[arg-type]
    data = LakeData(lake)
    frames = {}
    for timeframe in TIMEFRAMES:
        opens = np.arange(start, known - timeframe.microseconds + 1, timeframe.microseconds)
        if len(opens):
            frames[timeframe] = _rows(Grid(cell.symbol, timeframe, opens), data)
    return frames


def _rows(grid: Grid, data: LakeData) -> pl.DataFrame:
    answers = evaluate_on(grid, _SPECS, data)
    times = {"open_time": grid.open_time, "close_time": grid.close_time, "available_at": grid.close_time}
    columns = [pl.Series(name, instants).cast(INSTANT) for name, instants in times.items()]
    for spec, names in _SPECS.items():
        values = answers[spec]
        columns += [pl.Series(name, each, nan_to_null=True) for name, each in zip(names, values.outputs, strict=True)]
        columns.append(pl.Series(STATUSES).gather(values.statuses).alias(f"{names[0]}.status"))
    told = pl.DataFrame(columns).with_columns(
        pl.lit(grid.symbol).alias("symbol"), pl.lit(grid.timeframe.value).alias("timeframe")
    )
    return told.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def inputs_of(lake: Lake, key: str) -> str:
    """Give the fingerprint of the trades, and of the bars beside them, that a partition is computed from.

    `key` is as `BTCUSDT/2025-01-31`; empty if there are no trades.
    """
    store = lake.table("trades")
    own = store.partition(key)
    if own is None:
        return ""
    symbol, day = key.split("/")
    start, end = day_range(day)
    before = store.partition(f"{symbol}/{from_us(start - DAY_US):%Y-%m-%d}")
    parts = {"trades": own.header.data_version, "before": before.header.data_version if before else ""}
    for timeframe in Timeframe:
        if timeframe.microseconds <= DAY_US:
            parts[timeframe] = lake.bars.fingerprint(symbol, timeframe, start - DAY_US, end)
    return fingerprint_of({**parts, "engine": VERSION})


FOLLOWING = Following(
    inputs_of,
    lambda lake, key: [lake.bars.folder(key.split("/")[0]), lake.table("trades").path(key).parent],
    lambda lake: lake.table("trades").keys(),
)


def check_flow(lake: Lake, cells: Iterable[DayCell]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check, with the rows that broke it."""
    found: dict[str, dict[str, int]] = {name: {} for name in _CHECKS}
    for cell in cells:
        partition = lake.frames("order_flow").partition(cell.stored)
        if partition is None:
            continue
        broken = sum(int(_broken(partition.read(each)).sum()) for each in partition.header.groups)
        apart = unlike_bars(lake, cell)
        for name, count in (("values", broken), ("sums", apart)):
            if count:
                found[name][cell.key] = count
    yield from check_results(_CHECKS, found, _WARNED)


def _broken(rows: pl.DataFrame) -> pl.Series:
    wrong = [pl.lit(False)]
    for columns in FEATURES.values():
        numbers = pl.col(columns)
        wrong.append(pl.any_horizontal(numbers.is_nan() | numbers.is_infinite()).fill_null(False))
        has_reason = pl.col(f"{columns[0]}.status").is_in(REASONS)
        wrong.append(pl.any_horizontal(numbers.is_null()) != has_reason)
    wrong += [~pl.col(name).is_between(0, 1).fill_null(True) for name in ("taker_ratio", "vpin")]
    return rows.select(pl.any_horizontal(wrong).alias("wrong")).to_series()


def unlike_bars(lake: Lake, cell: DayCell) -> int:
    """Give how many of the exchange's bars, of the shortest timeframe that there is, its trades do not add up to."""
    start, end = day_range(cell.day)
    trades = lake.table("trades").read([cell.stored], start, end)
    for timeframe in lake.bars.timeframes(cell.symbol):
        bars = lake.bars.read(cell.symbol, timeframe, start, end).filter(pl.col("state") != "gap")
        if timeframe.microseconds > DAY_US or bars.is_empty():
            continue
        length = timeframe.microseconds
        at = pl.col("time").dt.epoch("us")
        sums = trades.group_by((at - at % length).cast(INSTANT).alias("open_time")).agg(
            pl.col("quantity").sum().alias("traded"),
            pl.when(~pl.col("is_buyer_maker")).then("quantity").otherwise(0.0).sum().alias("bought"),
        )
        both = bars.join(sums, on="open_time", how="left").with_columns(pl.col("traded", "bought").fill_null(0.0))
        apart = [
            (pl.col(own) - pl.col(theirs)).abs() > _SLACK * pl.col("volume")
            for own, theirs in (("traded", "volume"), ("bought", "taker_buy_volume"))
        ]
        return int(both.select(pl.any_horizontal(apart).fill_null(False).sum()).item())
    return 0


def _metadata(cell: DayCell, frames: Frames) -> Told:
    if not frames:
        return {
            "dagster/row_count": 0,
            "note": dg.MetadataValue.text("There are no trades of this symbol on this day."),
        }
    shown = frames[min(frames, key=lambda each: each.microseconds)]
    title = f"{cell.symbol} {cell.day}"
    uncovered: dict[str, int] = {
        each.value: int(frame["taker_buy_volume.status"].is_in(_UNCOVERED).sum()) for each, frame in frames.items()
    }
    told: Told = {
        "dagster/row_count": sum(frame.height for frame in frames.values()),
        "rows_by_timeframe": dg.MetadataValue.md(
            counts_table("timeframe", {each: frame.height for each, frame in frames.items()})
        ),
        "uncovered_rows": sum(uncovered.values()),
        "uncovered_by_timeframe": dg.MetadataValue.md(counts_table("timeframe", uncovered)),
        "range": dg.MetadataValue.text(
            f"{shown['open_time'][0]:%Y-%m-%d %H:%M} … {shown['close_time'][-1]:%Y-%m-%d %H:%M} UTC"
        ),
        "plot": dg.MetadataValue.md(
            f"{sparkline(f'{title} CVD', [('cvd', shown['cvd'])])}\n\n"
            f"{sparkline(f'{title} VPIN', [('vpin', shown['vpin'])])}"
        ),
    }
    for name in ("volume", "delta", "trade_count"):
        if shown[name].count():
            told[name] = float(shown[name].sum())
    if shown["vpin"].count():
        told["vpin"] = float(shown["vpin"].drop_nulls()[-1])
    return told
