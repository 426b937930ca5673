"""The asset `sentiment_features`: what sentiment was each hour, by provider, for the market and each symbol named.

1. A month needs the documents of its own, those before that reach into it (the longest window, and the time for which a
   text is remembered), and the newest before them, by which ages go on.
2. Rows are the hours that closed by the newest document of the lake: what came after it is not known.
3. Each value is that of the feature of the same parameters (`features.kinds.sentiment`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import dagster as dg
import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.assets.common import OWNERS, column_schema, data_version
from mdplatform.assets.following import INPUTS, Following, fingerprint_of
from mdplatform.assets.partitions import MONTH
from mdplatform.assets.plots import counts_table, sparkline
from mdplatform.errors import NoData
from mdplatform.features import parse_feature
from mdplatform.features.data import Grid, TableData
from mdplatform.features.guard import REASONS, STATUSES
from mdplatform.features.kinds.sentiment import reach
from mdplatform.features.panel import evaluate_on
from mdplatform.features.sentiment import COPY_WINDOW, KERNEL_VERSION
from mdplatform.lake import Lake
from mdplatform.market.bars import INSTANT
from mdplatform.market.time import iso, month_of, month_range, to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.resources import LakeResource

FEATURES = {
    "score": "SENTIMENT(provider={},scope={})",
    "mean": "SENTIMENT_MEAN(provider={},scope={})",
    "decayed": "SENTIMENT_DECAYED(provider={},scope={})",
    "count": "SENTIMENT_COUNT(provider={},scope={})",
    "dispersion": "SENTIMENT_DISPERSION(provider={},scope={})",
    "age_hours": "SENTIMENT_AGE(provider={},scope={})",
}
"""The columns, and the features whose values they are."""
HISTORY = COPY_WINDOW + max(
    reach(parse_feature(text.format("any", "market")), Timeframe.H1) for text in FEATURES.values()
)
"""How far before its first row (microseconds) the documents of a month reach."""
MONTHS_BEFORE = -(-HISTORY // (28 * 24 * Timeframe.H1.microseconds))

SCHEMA: dict[str, pl.DataType] = {
    "provider": pl.String(),
    "symbol": pl.String(),
    "open_time": INSTANT,
    "available_at": INSTANT,
    **dict.fromkeys(FEATURES, pl.Float64()),
    **{f"{name}.status": pl.String() for name in FEATURES},
}
_DESCRIBED = {
    "symbol": "the symbol that the documents speak of; empty: the market as a whole",
    "score": "the newest score, at most 48 hours old",
    "mean": "mean score of the last 24 hours",
    "decayed": "mean score, weighted by half for every 24 hours of age; the newest at most a week old",
    "count": "documents of the last 24 hours",
    "dispersion": "standard deviation of the scores of the last 24 hours",
    "age_hours": "hours since the newest document",
}
_DESCRIPTION = """
Sentiment hour by hour: newest score, mean, decayed mean, count, dispersion and age, for each provider, of the market
and of each symbol that documents name. Each row is made of documents that were available at its close, each text once;
each null has a reason.
"""


@dg.asset(
    partitions_def=MONTH,
    deps=[
        dg.AssetDep(
            "sentiment",
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-MONTHS_BEFORE, allow_nonexistent_upstream_partitions=True
            ),
        )
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="features",
    kinds={"parquet", "python"},
    owners=OWNERS,
    tags={"domain": "sentiment"},
    code_version=f"1 sentiment {KERNEL_VERSION}",
    description=_DESCRIPTION,
    metadata={"dagster/column_schema": column_schema(SCHEMA, _DESCRIBED)},
    check_specs=[
        dg.AssetCheckSpec(
            "reasons",
            asset="sentiment_features",
            description="No value is NaN or infinite, each null has a reason, scores lie in −1 to 1; read back.",
        )
    ],
    pool="lake",
)
def sentiment_features(
    context: dg.AssetExecutionContext, lake: LakeResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Materialize the months of the run. Raises `NoData` if no document reaches into any of them."""
    versions: list[str] = []
    broken: dict[str, int] = {}
    for month in sorted(context.partition_keys):
        inputs = inputs_of(lake.lake, month)  # before they are read
        frame = hourly(lake.lake, month)
        if frame.is_empty():
            note = dg.MetadataValue.text("No document was available in this month or before.")
            context.add_asset_metadata({"dagster/row_count": 0, "note": note}, partition_key=month)
            continue
        store = lake.lake.frames("sentiment_features")
        header = store.write(month, {Timeframe.H1: frame}, {"month": month, INPUTS: inputs})
        versions.append(header.data_version)
        context.add_asset_metadata(_metadata(month, frame), partition_key=month)
        if count := broken_rows(lake.lake, month):
            broken[month] = count
    if not versions:
        raise NoData(
            f"No documents for any of the {len(context.partition_keys)} months",
            value=context.partition_keys[0],
            remedy="Take them in first: mdplatform ingest fear_greed:",
        )
    yield dg.MaterializeResult(data_version=data_version(versions))
    yield dg.AssetCheckResult(
        check_name="reasons",
        passed=not broken,
        metadata={"rows_broken": sum(broken.values()), "partitions_broken": broken},
    )


def inputs_of(lake: Lake, month: str) -> str:
    """Give the fingerprint of the documents that a month is computed from; empty where there are none up to it."""
    store = lake.table("sentiment")
    keys, first = store.keys(), month_of(month_range(month)[0] - HISTORY)
    before = [key for key in keys if key < first][-1:]
    partitions = {key: store.partition(key) for key in (*before, *(key for key in keys if first <= key <= month))}
    if not partitions:
        return ""
    versions = {key: each.header.data_version if each else "" for key, each in partitions.items()}
    return fingerprint_of(versions | {"ends": str(_ends(lake, month))})


FOLLOWING = Following(
    inputs_of, lambda lake, key: [lake.table("sentiment").path(key).parent], lambda lake: lake.table("sentiment").keys()
)


def hourly(lake: Lake, month: str) -> pl.DataFrame:
    """Give the month's hours (`SCHEMA`) for each provider, of the market and each symbol; empty if there are none."""
    start, end = month_range(month)
    step = Timeframe.H1.microseconds
    opens = np.arange(start, _ends(lake, month) - step + 1, step)
    store = lake.table("sentiment")
    keys = store.keys()
    rows = store.read([key for key in keys if key <= month], end=end)
    near = rows.filter(rows["available_at"].dt.epoch("us") >= start - HISTORY)
    if near.is_empty() or not len(opens):
        return pl.DataFrame(schema=SCHEMA)
    data = TableData(sentiment_rows=rows)
    parts = [
        _of_place(str(provider), symbol, opens, data)
        for (provider,), of_provider in sorted(near.partition_by("provider", as_dict=True).items())
        for symbol in _symbols(of_provider)
    ]
    return pl.concat(parts)


def _ends(lake: Lake, month: str) -> int:
    """Give when the month's last row closes at the latest: with the month, or with the last hour that is known of."""
    store, end = lake.table("sentiment"), month_range(month)[1]
    newest = store.read(store.keys()[-1:])["available_at"].max()
    return end if newest is None else min(end, Timeframe.H1.floor(to_us(newest)))  # type: ignore[arg-type]


def _symbols(rows: pl.DataFrame) -> Sequence[str]:
    """Give the symbols that documents name, sorted; the empty one first, where some name none."""
    return rows.select(pl.col("symbols").str.split(",").explode().unique().sort())["symbols"].to_list()


def _of_place(provider: str, symbol: str, opens: NDArray[np.int64], data: TableData) -> pl.DataFrame:
    grid = Grid(symbol, Timeframe.H1, opens)
    scope = "symbol" if symbol else "market"
    specs = {name: parse_feature(_quoted(text, provider, scope)) for name, text in FEATURES.items()}
    answers = evaluate_on(grid, specs.values(), data)
    words = pl.Series(STATUSES)
    values = [pl.Series(name, answers[spec].outputs[0], nan_to_null=True) for name, spec in specs.items()]
    statuses = [words.gather(answers[spec].statuses).alias(f"{name}.status") for name, spec in specs.items()]
    times = pl.DataFrame(
        {"open_time": pl.Series(opens).cast(INSTANT), "available_at": pl.Series(grid.close_time).cast(INSTANT)}
    )
    return times.with_columns(
        pl.lit(provider).alias("provider"), pl.lit(symbol).alias("symbol"), *values, *statuses
    ).select(list(SCHEMA))


def _quoted(text: str, provider: str, scope: str) -> str:
    return text.format(f'"{provider}"', scope)


def broken_rows(lake: Lake, month: str) -> int:
    """Read a partition back; count the rows with a value that cannot be, or a null without a reason."""
    partition = lake.frames("sentiment_features").partition(month)
    frame = partition.read(Timeframe.H1) if partition else pl.DataFrame(schema=SCHEMA)
    wrong = [
        (~pl.col(name).is_finite()).fill_null(False)
        | (pl.col(name).is_null() & ~pl.col(f"{name}.status").is_in(REASONS))
        for name in FEATURES
    ]
    wrong += [(pl.col(name).abs() > 1 + 1e-12).fill_null(False) for name in ("score", "mean", "decayed")]
    return int(frame.select(pl.any_horizontal(wrong).sum()).item())


def _metadata(month: str, frame: pl.DataFrame) -> dict[str, dg.MetadataValue | int]:
    statuses: Counter[str] = Counter()
    for name in FEATURES:
        statuses.update(dict(frame[f"{name}.status"].value_counts().iter_rows()))
    places = frame.group_by("provider", "symbol", maintain_order=True).agg(pl.col("count").sum())
    shown = places.sort("count", descending=True, maintain_order=True).head(4)
    lines = [
        (
            f"{provider} {symbol}".strip(),
            frame.filter((pl.col("provider") == provider) & (pl.col("symbol") == symbol))["decayed"],
        )
        for provider, symbol, _ in shown.iter_rows()
    ]
    first, last = frame["open_time"].min(), frame["available_at"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return {
        "dagster/row_count": frame.height,
        "providers": frame["provider"].n_unique(),
        "symbols": frame.filter(pl.col("symbol") != "")["symbol"].n_unique(),
        "values_by_status": dg.MetadataValue.md(counts_table("status", statuses)),
        "range": dg.MetadataValue.text(f"{iso(first)} … {iso(last)}"),
        "plot": dg.MetadataValue.md(sparkline(f"Decayed sentiment {month}", lines)),
    }
