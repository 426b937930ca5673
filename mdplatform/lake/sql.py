"""SQL over the lake, for people: DuckDB views on its files, which can read nothing else and write nothing."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from mdplatform.errors import InvalidQuery

_NOT_SHOWN = {"inbox", "locks"}
_NEWEST = """
select * from bar_revisions
qualify row_number() over (partition by symbol, timeframe, open_time order by revision desc) = 1
"""
_GAPS = """
select symbol, timeframe, close_time as gap_start, next_open as gap_end,
       (epoch_us(next_open) - epoch_us(close_time)) // (epoch_us(close_time) - epoch_us(open_time)) as bars_missing
from (select *, lead(open_time) over (partition by symbol, timeframe order by open_time) as next_open from bars)
where next_open > close_time
"""


def ask(lake: Path, query: str, most_rows: int | None = None) -> pl.DataFrame:
    """Answer `query` over the views `bars`, `bar_revisions`, `gaps`, `quarantine` and one for each asset's folder.

    Raises `InvalidQuery` with DuckDB's own words.
    """
    with duckdb.connect(":memory:") as connection:
        try:
            connection.execute("SET TimeZone = 'UTC'")
            views = _make_views(connection, lake)
            connection.execute("SET allowed_directories = [?]", [str(lake)])
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            relation = connection.sql(query)
            if relation is None:
                return pl.DataFrame()
            table = (relation if most_rows is None else relation.limit(most_rows)).to_arrow_table()
        except duckdb.Error as refused:
            known = f"Views: {', '.join(views)}" if views else "The lake is empty; take data in: mdplatform ingest …"
            raise InvalidQuery(" ".join(str(refused).split()), remedy=known) from None
    answer = pl.from_arrow(table)
    assert isinstance(answer, pl.DataFrame)
    return answer


def _make_views(connection: duckdb.DuckDBPyConnection, lake: Path) -> list[str]:
    views = []
    for folder in sorted(lake.iterdir()) if lake.is_dir() else ():
        if folder.name in _NOT_SHOWN or next(folder.rglob("*.parquet"), None) is None:
            continue
        name = "bar_revisions" if folder.name == "bars" else folder.name
        files = str(folder / "**" / "*.parquet").replace("'", "''")
        connection.execute(
            f"""create view "{name}" as select * from read_parquet('{files}', union_by_name = true)"""
        )
        views.append(name)
    if "bar_revisions" in views:
        connection.execute(f"create view bars as {_NEWEST}")
        connection.execute(f"create view gaps as {_GAPS}")
        views += ["bars", "gaps"]
    return sorted(views)
