"""The asset `macro_features`: macro series as they were known, with their changes; one partition a series."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import SERIES
from mdplatform.assets.plots import Panel, counts_table, over_time
from mdplatform.errors import NoData
from mdplatform.features.guard import REASONS, STATUSES
from mdplatform.features.macro import ENGINE, TRANSFORMS, Steps, releases, steps
from mdplatform.lake import Lake
from mdplatform.lake.partition import write_partition
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import iso
from mdplatform.resources import LakeResource

PERIODS = {"zscore": 24}
"""Observations that a transform goes back over, 1 where none is stated."""

SCHEMA: dict[str, pl.DataType] = {
    "series_id": pl.String(),
    "available_at": INSTANT,
    "ref_period": INSTANT,
    "vintage": INSTANT,
    **dict.fromkeys(TRANSFORMS, pl.Float64()),
    **{f"{name}.status": pl.String() for name in TRANSFORMS},
}
_DESCRIBED = {
    "available_at": "the instant from which on this row stood, until the next one's",
    "ref_period": "the newest period that had been published",
    "vintage": "the day of the release that its value came with",
    "value": "the newest period's value",
    "diff": "its change from the observation before",
    "pct": "the same as a fraction of that one",
    "yoy": "its change from a year before, as a fraction of that value",
    "zscore": "its distance from the mean of the newest 24 values, in their standard deviations",
}
_DESCRIPTION = """
What was known of a macro series, from which instant on: value, changes and z-score, all made of the vintages that were
known then and not of today's history. A row is an instant at which anything of it changed. The same numbers as of the
features `MACRO`, `MACRO_DIFF`, `MACRO_PCT`, `MACRO_YOY` and `MACRO_ZSCORE`.
"""


@dg.asset(
    partitions_def=SERIES,
    deps=["macro_series"],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "macro"},
    code_version=f"1 {ENGINE}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(
            "reasons",
            asset="macro_features",
            description="No value is NaN or infinite, and each null has a reason; the file is read back.",
        )
    ],
    pool="lake",
)
def macro_features(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the series of the run. Raises `NoData` if there is nothing of any of them."""
    versions: list[str] = []
    broken: dict[str, int] = {}
    for series in context.partition_keys:
        written = write_features(lake.lake, series)
        if written is None:
            context.add_asset_metadata(
                {"dagster/row_count": 0, "note": dg.MetadataValue.text("There are no observations of this series.")},
                partition_key=series,
            )
            continue
        version, frame = written
        versions.append(version)
        context.add_asset_metadata(_metadata(series, frame), partition_key=series)
        if count := broken_rows(lake.lake, series):
            broken[series] = count
    if not versions:
        raise NoData(
            f"No observations of any of the {len(context.partition_keys)} series",
            value=context.partition_keys[0],
            remedy="Take them in first: mdplatform ingest fred:CPIAUCSL",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield dg.AssetCheckResult(
        check_name="reasons",
        passed=not broken,
        metadata={"rows_broken": sum(broken.values()), "partitions_broken": broken},
    )


def write_features(lake: Lake, series: str) -> tuple[str, pl.DataFrame] | None:
    """Write what was known of one series; give the data version and the frame, None where there is nothing of it."""
    inputs = inputs_of(lake, series)  # before they are read
    vintages = lake.table("macro").read([series])
    if vintages.is_empty():
        return None
    frame = as_known(series, vintages)
    notes = {"series": series, "engine": ENGINE, INPUTS: inputs}
    header = write_partition(lake.frames("macro_features").path(series), {"rows": frame}, notes, "available_at")
    return header.data_version, frame


def inputs_of(lake: Lake, series: str) -> str:
    """Give the fingerprint of what a series' partition is computed from: its vintages."""
    partition = lake.table("macro").partition(series)
    return fingerprint_of({series: partition.header.data_version if partition else ""})


FOLLOWING = Following(inputs_of, lambda lake, key: [lake.table("macro").path(key).parent], lambda lake: ())


def as_known(series: str, vintages: pl.DataFrame) -> pl.DataFrame:
    """Give the instants (`SCHEMA`) at which anything changed that was known of a series (`MACRO.schema`)."""
    events = releases(vintages)
    made: dict[str, Steps] = {name: steps(events, name, PERIODS.get(name, 1)) for name in TRANSFORMS}
    known = made["value"]
    words = pl.Series(STATUSES)
    frame = pl.DataFrame(
        {
            "available_at": pl.Series(known.available_at).cast(INSTANT),
            "ref_period": pl.Series(known.periods).cast(INSTANT),
            "vintage": pl.Series(known.vintages).cast(INSTANT),
            **{name: pl.Series(each.values, nan_to_null=True) for name, each in made.items()},
            **{f"{name}.status": words.gather(each.statuses) for name, each in made.items()},
        }
    )
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift()) for name in frame.columns[1:])
    changed = frame.filter(~same | (pl.int_range(pl.len()) == 0))
    return changed.select(pl.lit(series).alias("series_id"), *list(SCHEMA)[1:])


def broken_rows(lake: Lake, series: str) -> int:
    """Read a partition back; count the rows with a value that is no number, or a null without a reason."""
    partition = lake.frames("macro_features").partition(series)
    frame = partition.read("rows") if partition else pl.DataFrame(schema=SCHEMA)
    wrong = [
        (~pl.col(name).is_finite()).fill_null(False)
        | (pl.col(name).is_null() & ~pl.col(f"{name}.status").is_in(REASONS))
        for name in TRANSFORMS
    ]
    return int(frame.select(pl.any_horizontal(wrong).sum()).item())


def _metadata(series: str, frame: pl.DataFrame) -> dict[str, dg.MetadataValue | int]:
    statuses: Counter[str] = Counter()
    for name in TRANSFORMS:
        statuses.update(dict(frame[f"{name}.status"].value_counts().iter_rows()))
    panels = [Panel(name, [("", frame[name])]) for name in ("value", "yoy", "zscore")]
    return {
        "dagster/row_count": frame.height,
        "values_by_status": dg.MetadataValue.md(counts_table("status", statuses)),
        "range": dg.MetadataValue.text(f"{iso(frame['available_at'][0])} … {iso(frame['available_at'][-1])}"),
        "plot": dg.MetadataValue.md(over_time(f"{series} as known", frame["available_at"], panels)),
    }
