"""The asset `sentiment`: scored documents that sources delivered, merged as revisions; one file a month."""

from collections import defaultdict
from collections.abc import Iterator

import dagster as dg
import polars as pl

from mdplatform.assets.common import OWNERS, REDIS_PROBLEM, column_schema, data_version
from mdplatform.assets.day_cells import Told, check_results, merged_metadata
from mdplatform.assets.partitions import MONTH
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.lake.tables import Merged
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.time import from_us, month_range
from mdplatform.resources import LakeResource, RedisResource

_CHECKS = {
    "schema": "The file has the columns of the dataset, with their types, and can be read.",
    "score_range": "Every document has a score from −1 to 1, and no confidence outside 0 to 1.",
    "available_after": "No document was available before it was published or seen, and each in its file's month.",
    "duplicates": "Each document has each revision once, counted from 0 without a hole.",
}
_SHOWN_LABELS = 20
_DESCRIPTION = """
Scored documents of all providers, by the month (UTC) in which each became available, with every revision.

Merges what waits in the inbox (`mdplatform ingest PATH --as sentiment`, `mdplatform ingest fear_greed:`). Syndicated
copies are kept, and count once where features are computed; labels are kept as delivered.
"""


@dg.asset(
    partitions_def=MONTH,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="market",
    kinds={"parquet", "polars"},
    owners=OWNERS,
    tags={"domain": "sentiment"},
    code_version="1",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SENTIMENT.schema, SENTIMENT.meanings)},
    check_specs=[
        dg.AssetCheckSpec(name, asset="sentiment", description=said, blocking=True) for name, said in _CHECKS.items()
    ],
    pool="lake",
)
def sentiment(
    context: dg.AssetExecutionContext, lake: LakeResource, redis: RedisResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the months of the run."""
    store = lake.lake.table("sentiment")
    versions: list[str] = []
    told: dict[str, Told] = {}
    changed = False
    for month in sorted(context.partition_keys):
        merged = store.merge(month)
        versions.append(merged.data_version)
        changed |= merged.changed
        told[month] = _metadata(month, merged, store.read([month]))
        context.log.info(f"{month}: {merged}")
    problem = redis.announce("sentiment", "", context.log, context.run.run_id) if changed else None
    for month, metadata in told.items():
        context.add_asset_metadata(metadata | ({REDIS_PROBLEM: problem} if problem else {}), partition_key=month)
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield from check_sentiment(lake.lake, list(told))


def check_sentiment(lake: Lake, months: list[str]) -> list[dg.AssetCheckResult]:
    """Read the partitions back and give one result a check."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for month in months:
        for name, count in _broken(lake, month).items():
            if count:
                found[name][month] = count
    return check_results(_CHECKS, found)


def _broken(lake: Lake, month: str) -> dict[str, int]:
    """Give how many rows of one month break each check."""
    try:
        partition = lake.table("sentiment").partition(month)
        rows = partition.read("rows") if partition else pl.DataFrame(schema=SENTIMENT.schema)
    except PlatformError:
        return {"schema": 1}
    if rows.schema != SENTIMENT.schema:
        return {"schema": max(rows.height, 1)}
    start, end = (from_us(each) for each in month_range(month))
    score, available = pl.col("score"), pl.col("available_at")
    tests = {
        "score_range": ~score.is_between(-1, 1).fill_null(False) | ~pl.col("confidence").is_between(0, 1),
        "available_after": (available < pl.max_horizontal("published_at", "seen_at"))
        | ~available.is_between(start, end, closed="left"),
    }
    counts = {name: int(rows.select(test.fill_null(False).sum()).item()) for name, test in tests.items()}
    expected = pl.int_range(pl.len(), dtype=pl.Int32).over(SENTIMENT.unique)
    ordered = rows.sort(*SENTIMENT.unique, "revision")
    return counts | {"duplicates": int(ordered.select((pl.col("revision") != expected).sum()).item())}


def _metadata(month: str, merged: Merged, rows: pl.DataFrame) -> Told:
    told = merged_metadata(merged, rows, "available_at")
    if rows.is_empty():
        return told | {"note": dg.MetadataValue.text("No document became available in this month.")}
    texts = rows["text_hash"].drop_nulls()
    labels = rows.select(pl.concat_str("provider", pl.col("label").fill_null("–"), separator=": ").alias("of"))["of"]
    daily = _daily(month, rows)
    return told | {
        "rows_by_provider": dg.MetadataValue.md(counts_table("provider", _counts(rows["provider"]))),
        "rows_by_label": dg.MetadataValue.md(counts_table("provider: label", _counts(labels))),
        "repeated_texts": len(texts) - texts.n_unique(),
        "about_the_market": int((rows["symbols"] == "").sum()),
        "plot": dg.MetadataValue.md(sparkline(f"Sentiment {month}, mean of each day", daily)),
    }


def _daily(month: str, rows: pl.DataFrame) -> list[tuple[str, pl.Series]]:
    """Give the mean score of each day of the month for each of the largest providers; null where there is none."""
    start, end = (from_us(each) for each in month_range(month))
    days = pl.DataFrame({"day": pl.datetime_range(start, end, "1d", closed="left", eager=True).dt.date()})
    means = rows.group_by("provider", pl.col("available_at").dt.date().alias("day")).agg(pl.col("score").mean())
    return [
        (
            name,
            days.join(means.filter(pl.col("provider") == name), on="day", how="left", maintain_order="left")["score"],
        )
        for name in list(_counts(rows["provider"]))[:4]
    ]


def _counts(values: pl.Series) -> dict[str, int]:
    """Give how many there are of each, the most frequent first."""
    counted = values.value_counts().sort(["count", values.name], descending=[True, False])
    return dict(counted.head(_SHOWN_LABELS).iter_rows())
