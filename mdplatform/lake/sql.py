"""SQL over the lake, for people: DuckDB over the lake's Parquet files, which reaches nothing else and writes nothing.

DuckDB is handed Arrow datasets and has no file system at all: a directory that it may read it may write as well, and
statements that read can write on the way (`EXPLAIN ANALYZE COPY …`, `WITH x AS (COPY …)`).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from mdplatform.errors import CorruptPartition, InvalidQuery
from mdplatform.lake.lake import DATASETS
from mdplatform.market.bars import QUARANTINE_SCHEMA

LONGEST_SECONDS = 60.0
_NOT_SHOWN = {"inbox", "locks"}
_NEWEST = """
select * from bar_revisions
qualify row_number() over (partition by symbol, timeframe, open_time order by revision desc) = 1
"""
_NEWEST_ROWS = """
select * from {revisions} as each anti join (
    select {identity}, max(revision) as newest from {revisions} where revision > 0 group by all
) as superseding on ({on}) and each.revision < superseding.newest
"""
_SET_ASIDE = "quarantined_rows"
_NAMES = {"bars": "bar_revisions", "quarantine": _SET_ASIDE, **{name: f"{name}_revisions" for name in DATASETS}}
"""What a folder of the lake is called, where that is not its own name."""
_GAPS = """
select symbol, timeframe, close_time as gap_start, next_open as gap_end,
       (epoch_us(next_open) - epoch_us(close_time)) // (epoch_us(close_time) - epoch_us(open_time)) as bars_missing
from (select *, lead(open_time) over (partition by symbol, timeframe order by open_time) as next_open from bars)
where next_open > close_time
"""
_WALLS = """
set TimeZone = 'UTC';
set memory_limit = '2GB';
set enable_external_access = false;
set python_enable_replacements = false;
set lock_configuration = true
"""


def ask(lake: Path, query: str, most_rows: int | None = None) -> pl.DataFrame:
    """Answer `query`, one statement that reads, over the views `bars`, `bar_revisions`, `gaps`, `quarantine`, `trades`
    and the other tables (`trades_revisions`: with all revisions), and one for each asset's folder; `most_rows` cuts the
    answer.

    Raises `InvalidQuery`, with DuckDB's own words where it refuses, and `CorruptPartition`.
    """
    datasets = _datasets(lake)
    views = _views(datasets)
    shown = sorted({*datasets, *views} - {_SET_ASIDE})
    with duckdb.connect(":memory:") as connection:
        try:
            for name, dataset in datasets.items():
                connection.register(name, dataset)
            for name, said in views.items():
                connection.execute(f"create view {name} as {said}")
            connection.execute(_WALLS)
            statements = connection.extract_statements(query)
            if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
                raise InvalidQuery("Not one statement that reads", value=query, remedy="Such as: select * from bars")
            bell = threading.Timer(LONGEST_SECONDS, connection.interrupt)
            bell.start()
            try:
                relation = connection.sql(query)
                if relation is None:
                    return pl.DataFrame()
                relation = _without_intervals(relation)
                table = (relation if most_rows is None else relation.limit(most_rows)).to_arrow_table()
            finally:
                bell.cancel()
        except duckdb.InterruptException:
            raise InvalidQuery(
                f"The query took more than {LONGEST_SECONDS:.0f} s", value=query, remedy="Ask for less at a time"
            ) from None
        except duckdb.Error as refused:
            known = f"Views: {', '.join(shown)}" if shown else "The lake is empty; take data in: mdplatform ingest …"
            raise InvalidQuery(" ".join(str(refused).split()), remedy=known) from None
    answer = pl.from_arrow(table)
    assert isinstance(answer, pl.DataFrame)
    return answer


def _without_intervals(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Give spans of time as texts: polars has no type for months and days beside microseconds."""
    if "INTERVAL" not in map(str, relation.types):
        return relation
    quoted = ('"' + name.replace('"', '""') + '"' for name in relation.columns)
    both = zip(quoted, map(str, relation.types), strict=True)
    return relation.project(", ".join(f"{name}::varchar as {name}" if of == "INTERVAL" else name for name, of in both))


def _views(datasets: dict[str, pyarrow.dataset.Dataset]) -> dict[str, str]:
    """Give what each view selects, in an order in which they can be made."""
    views = {"bars": _NEWEST, "gaps": _GAPS} if "bar_revisions" in datasets else {}
    if _SET_ASIDE in datasets:
        views["quarantine"] = f"select coalesce(dataset, 'bars') as dataset, * exclude (dataset) from {_SET_ASIDE}"
    for name, dataset in DATASETS.items():
        if f"{name}_revisions" in datasets:
            identity = (*dataset.by, *dataset.unique)
            views[name] = _NEWEST_ROWS.format(
                revisions=f"{name}_revisions",
                identity=", ".join(identity),
                on=" and ".join(f"each.{column} = superseding.{column}" for column in identity),
            )
    return views


def _datasets(lake: Path) -> dict[str, pyarrow.dataset.Dataset]:
    ds: Any = pyarrow.dataset  # its stubs lag behind it
    found = {}
    for folder in sorted(lake.iterdir()) if lake.is_dir() else ():
        files = [] if folder.name in _NOT_SHOWN else sorted(map(str, folder.rglob("*.parquet")))
        if files:
            factory = ds.FileSystemDatasetFactory(pyarrow.fs.LocalFileSystem(), files, ds.ParquetFileFormat())
            try:
                schema = factory.inspect(promote_options="default").remove_metadata()
            except (pa.ArrowException, OSError) as broken:
                raise CorruptPartition(
                    f"A file of the lake cannot be read ({broken})",
                    value=str(folder),
                    remedy="Move it away and materialize its partition again",
                ) from broken
            if folder.name == "quarantine":
                schema = pa.unify_schemas([_quarantine().schema, schema])
            found[_NAMES.get(folder.name, folder.name)] = factory.finish(schema)
    if found and _SET_ASIDE not in found:
        found[_SET_ASIDE] = ds.dataset(_quarantine())
    return found


def _quarantine() -> pa.Table:
    """Give an empty quarantine: rows of bars have columns, rows of other datasets are texts."""
    schema = {"dataset": pl.String(), **QUARANTINE_SCHEMA, "row": pl.String()}
    return pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest())
