"""The asset `volume_profile`: what was traded at which price in each session of a day, one file a day and symbol.

A session of 24 hours is the UTC day; there are shorter ones too, each in a group of its own (`24h`, `8h`). From trades
where they cover the session, else from the smallest bars, as the feature `VOLUME_PROFILE` chooses.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.day_cells import DayCell, Told, day_cells
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import DAY_BY_SYMBOL, month_of_day
from mdplatform.assets.plots import histogram
from mdplatform.errors import NoData
from mdplatform.features.profile.session import SessionProfile, session_profile
from mdplatform.features.profile.volume_profile import VERSION, VolumeProfile
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.lake.partition import write_partition
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import day_range, from_us, month_range, to_us
from mdplatform.market.timeframe import DAY_US, Timeframe
from mdplatform.resources import LakeResource

SESSION_HOURS = (24, 8)
SCHEMA = {
    "symbol": pl.String(),
    "session": pl.String(),
    "session_start": INSTANT,
    "session_through": INSTANT,
    "price_low": pl.Float64(),
    "price_high": pl.Float64(),
    "volume": pl.Float64(),
    "taker_buy_volume": pl.Float64(),
    "taker_sell_volume": pl.Float64(),
    "is_poc": pl.Boolean(),
    "in_value_area": pl.Boolean(),
    "is_hvn": pl.Boolean(),
    "is_lvn": pl.Boolean(),
    "poc": pl.Float64(),
    "vah": pl.Float64(),
    "val": pl.Float64(),
    "value_area_pct": pl.Float64(),
    "row_size": pl.Float64(),
    "algorithm": pl.String(),
    "method": pl.String(),
    "available_at": INSTANT,
}
_DESCRIBED = {
    "session": "the session's length, 24h or 8h",
    "session_start": "when the session began",
    "session_through": "until when the profile goes: the session's end, or the last hour that is known without a gap",
    "price_low": "lower edge of the price row, inclusive",
    "price_high": "upper edge of the price row, exclusive",
    "volume": "amount traded in the row, in the base asset",
    "taker_buy_volume": "amount bought by takers; null where the sides are not told",
    "taker_sell_volume": "amount sold by takers; null where the sides are not told",
    "is_poc": "the session's point of control, the row with the most volume",
    "in_value_area": "the row is part of the value area",
    "is_hvn": "a row of high volume: the smoothed profile has a peak there",
    "is_lvn": "a row of low volume: the smoothed profile has a trough there",
    "poc": "the session's point of control: the middle of its row",
    "vah": "the session's value area high: the upper edge of its highest row",
    "val": "the session's value area low: the lower edge of its lowest row",
    "value_area_pct": "share of the volume that the value area holds at least",
    "row_size": "height of a row, in the quote asset",
    "algorithm": "how the value area grows: two_row or one_row",
    "method": "what the profile is made of: trades, or bars:<timeframe>, each spread evenly from low to high",
    "available_at": "the first instant at which a strategy could have known it",
}
_CHECKS = {
    "total": "The rows of each session add up to the volume of its source, and takers' sides to the volume.",
    "area": "Each session has one point of control, the row with the most volume, inside its value area; rows ascend.",
}
_SLACK = 1e-9
_DESCRIPTION = """
Volume by price row for each session of one symbol and day (UTC): the whole day and its thirds.

Point of control, value area (70 %, two rows at a time) and nodes are marked. Made of trades where their volume is that
of the bars, else of the smallest bars; `method` says which. The row size is the largest step of 1, 2 or 5 × 10ᵏ that is
not above a thousandth of the session's first price.
"""


@dg.asset(
    partitions_def=DAY_BY_SYMBOL,
    deps=[
        dg.AssetDep("trades", partition_mapping=dg.IdentityPartitionMapping()),
        dg.AssetDep("bars", partition_mapping=month_of_day()),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "profile"},
    code_version=f"1 profile {VERSION}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(name, asset="volume_profile", description=said, blocking=True)
        for name, said in _CHECKS.items()
    ],
    pool="lake",
)
def volume_profile(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the partitions of the run, a day at a time."""
    cells = [cell for of_symbol in day_cells(context.partition_keys).values() for cell in of_symbol]
    versions = []
    for cell in cells:
        inputs = inputs_of(lake.lake, cell.stored)  # before they are read
        sessions = sessions_of(lake.lake, cell, to_us(datetime.now(UTC)))
        version = write_profiles(lake.lake, cell, sessions, inputs)
        versions += [version] if version else []
        context.add_asset_metadata(_metadata(cell, sessions), partition_key=cell.key)
    if not versions:
        raise NoData(
            f"No session has trades or bars in any of the {len(cells)} partitions",
            value=context.partition_keys[0],
            remedy="Materialize `trades` or `bars` first: mdplatform ingest …",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_profiles(lake.lake, cells)


def sessions_of(lake: Lake, cell: DayCell, now: int) -> dict[int, list[SessionProfile]]:
    """Give the sessions of a day by their hours, as they are known at `now` (microseconds)."""
    data = LakeData(lake)
    start, end = day_range(cell.day)
    return {
        hours: [
            session_profile(data, cell.symbol, at, hours, now)
            for at in range(start, end, hours * Timeframe.H1.microseconds)
        ]
        for hours in SESSION_HOURS
    }


def write_profiles(lake: Lake, cell: DayCell, sessions: dict[int, list[SessionProfile]], inputs: str) -> str:
    """Write the sessions that have a profile; give the file's data version, empty where none has one."""
    path = lake.frames("volume_profile").path(cell.stored)
    groups = {
        f"{hours}h": pl.concat(
            [pl.DataFrame(schema=SCHEMA), *(_table(cell, hours, each, each.profile) for each in found if each.profile)]
        )
        for hours, found in sessions.items()
    }
    if all(frame.is_empty() for frame in groups.values()):
        path.unlink(missing_ok=True)  # what it held is no longer so
        return ""
    notes = {"symbol": cell.symbol, "day": cell.day, INPUTS: inputs}
    return write_partition(path, groups, notes, "session_start").data_version


def _table(cell: DayCell, hours: int, session: SessionProfile, profile: VolumeProfile) -> pl.DataFrame:
    """Give the histogram of one session (`SCHEMA`)."""
    middle = (pl.col("price_low") + pl.col("price_high")) / 2
    half = profile.row_size / 4

    def is_near(prices: Iterable[float]) -> pl.Expr:
        return pl.any_horizontal(pl.lit(False), *((middle - price).abs() < half for price in prices))

    return profile.rows.with_columns(
        pl.lit(cell.symbol).alias("symbol"),
        pl.lit(f"{hours}h").alias("session"),
        pl.lit(from_us(session.start)).alias("session_start"),
        pl.lit(from_us(session.through)).alias("session_through"),
        is_near([profile.poc]).alias("is_poc"),
        ((middle > profile.val) & (middle < profile.vah)).alias("in_value_area"),
        is_near(profile.hvn).alias("is_hvn"),
        is_near(profile.lvn).alias("is_lvn"),
        *(
            pl.lit(getattr(profile, name)).alias(name)
            for name in ("poc", "vah", "val", "value_area_pct", "row_size", "algorithm", "method")
        ),
        pl.lit(from_us(session.through)).alias("available_at"),
    ).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def inputs_of(lake: Lake, key: str) -> str:
    """Give the fingerprint of the trades and bars that a partition (`BTCUSDT/2025-01-31`) is computed from."""
    symbol, day = key.split("/")
    trades = lake.table("trades").partition(key)
    parts = {"trades": trades.header.data_version if trades else ""}
    for timeframe in Timeframe:
        if timeframe.microseconds <= DAY_US:
            parts[timeframe] = lake.bars.fingerprint(symbol, timeframe, *day_range(day))
    return fingerprint_of(parts)


def _possible(lake: Lake) -> Iterable[str]:
    yield from lake.table("trades").keys()
    for symbol in lake.bars.symbols():
        for month in lake.bars.months(symbol):
            for day in range(*month_range(month), DAY_US):
                yield f"{symbol}/{from_us(day):%Y-%m-%d}"


FOLLOWING = Following(
    inputs_of,
    lambda lake, key: [lake.bars.folder(key.split("/")[0]), lake.table("trades").path(key).parent],
    _possible,
)


def check_profiles(lake: Lake, cells: Iterable[DayCell]) -> Iterator[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check, with the sessions that broke it."""
    broken: dict[str, dict[str, int]] = {name: {} for name in _CHECKS}
    data = LakeData(lake)
    for cell in cells:
        partition = lake.frames("volume_profile").partition(cell.stored)
        for group in partition.header.groups if partition else ():
            rows = partition.read(group) if partition else pl.DataFrame()
            for session in rows.partition_by("session_start", maintain_order=True):
                for name, is_right in (("total", _is_total(data, session)), ("area", _is_area(session))):
                    if not is_right:
                        broken[name][cell.key] = broken[name].get(cell.key, 0) + 1
    for name, found in broken.items():
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not found,
            metadata={"sessions_broken": sum(found.values()), "partitions_broken": found},
        )


def _is_total(data: LakeData, rows: pl.DataFrame) -> bool:
    symbol, method = rows["symbol"][0], rows["method"][0]
    start, end = to_us(rows["session_start"][0]), to_us(rows["session_through"][0])
    if method == "trades":
        source = float(data.trades(symbol, start, end)["quantity"].sum())
    else:
        source = float(data.bars(symbol, Timeframe.parse(method.partition(":")[2]), start, end)["volume"].sum())
    sides = rows.select((pl.col("taker_buy_volume") + pl.col("taker_sell_volume") - pl.col("volume")).abs().max())
    slack = _SLACK * source
    return abs(float(rows["volume"].sum()) - source) <= slack and (sides.item() or 0.0) <= slack


def _is_area(rows: pl.DataFrame) -> bool:
    control = rows.filter("is_poc")
    inside = rows.filter("in_value_area")
    return bool(
        control.height == 1
        and control["in_value_area"][0]
        and (rows["volume"] * (1 - _SLACK) <= control["volume"][0]).all()
        and inside["volume"].sum() >= rows["value_area_pct"][0] * rows["volume"].sum() * (1 - _SLACK)
        and inside["price_low"][0] == rows["val"][0]
        and inside["price_high"][-1] == rows["vah"][0]
        and (rows["price_low"].diff().drop_nulls() > 0).all()
        and (rows["volume"] >= 0).all()
    )


def _metadata(cell: DayCell, sessions: dict[int, list[SessionProfile]]) -> Told:
    whole = sessions[SESSION_HOURS[0]][0]
    profile = whole.profile
    every = [each.profile for found in sessions.values() for each in found if each.profile]
    if profile is None:
        note = f"There is no profile of this day: {whole.reason}."
        return {"dagster/row_count": sum(each.rows.height for each in every), "note": dg.MetadataValue.text(note)}
    title = f"{cell.symbol} {cell.day} {profile.method}"
    return {
        "dagster/row_count": sum(each.rows.height for each in every),
        "sessions": len(every),
        "range": dg.MetadataValue.text(
            f"{from_us(whole.start):%Y-%m-%d %H:%M} … {from_us(whole.through):%Y-%m-%d %H:%M} UTC"
        ),
        "method": profile.method,
        "poc": profile.poc,
        "vah": profile.vah,
        "val": profile.val,
        "row_size": profile.row_size,
        "volume": profile.volume,
        "plot": dg.MetadataValue.md(histogram(title, profile.rows, profile.poc, profile.val, profile.vah)),
    }
