"""A delivery of a table beside bars: rows of one dataset as a source gave them, and those that were set aside.

A *reader* of files is a function `read(path, options) -> Iterator[TableDelivery]`, a *remote* a class with
`deliveries(name, start, end)`. Each is one file here and one line in `table_registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from mdplatform.errors import InvalidTable
from mdplatform.market.dataset import Dataset
from mdplatform.market.table_rules import sift_table
from mdplatform.sources.files import DEFAULT_MAX_BYTES

SET_ASIDE = pl.Schema({"rule": pl.String(), "row": pl.String()})
"""Rows that broke a rule: its name, and the row as it was delivered, as text (JSON where it had columns)."""


@dataclass(frozen=True, eq=False)
class TableDelivery:
    """Rows of one `dataset` (`dataset.delivered`), all of which keep the rules of `market.table_rules`.

    `source` says where they come from, such as `file:BTCUSDT-aggTrades-2025-01-31.zip`; `set_aside` (`SET_ASIDE`) are
    those that did not; `repeated` counts exact repetitions, which are left out; `notes` say in words what the source
    lacks and what is lost by that. Rows of two `form`s tell the same events twice, such as single and aggregated
    trades, and are not let into one partition; an empty one goes with any. Of a `snapshot` of macro values only those
    are news that differ from what the lake says was known then.
    """

    dataset: Dataset
    source: str
    rows: pl.DataFrame
    set_aside: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SET_ASIDE))
    repeated: int = 0
    notes: tuple[str, ...] = ()
    form: str = ""
    snapshot: bool = False

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        source: str,
        rows: pl.DataFrame,
        *,
        raw: pl.DataFrame | None = None,
        set_aside: pl.DataFrame | None = None,
        notes: tuple[str, ...] = (),
        form: str = "",
        snapshot: bool = False,
    ) -> TableDelivery:
        """Sift `rows` by the rules, and make a delivery.

        `raw` has the same rows as the source gave them, for what is set aside; `set_aside` are rows that were it
        already, since they could not even be read. Raises `InvalidTable` for rows of another schema.
        """
        if rows.schema != dataset.delivered:
            raise InvalidTable(f"Not a table of {dataset.name}", value=dict(rows.schema))
        sifted = sift_table(dataset, rows)
        aside = set_aside if set_aside is not None else pl.DataFrame(schema=SET_ASIDE)
        if sifted.broken.height:
            told = (rows if raw is None else raw)[sifted.broken["number"]]
            aside = pl.concat([aside, set_aside_rows(told, sifted.broken["rule"])])
        return cls(dataset, source, sifted.kept, aside, sifted.repeated, notes, form, snapshot)


def set_aside_rows(raw: pl.DataFrame, rule: str | pl.Series) -> pl.DataFrame:
    """Give rows as what is set aside (`SET_ASIDE`) under a rule's name, or each under its own."""
    texts = row_texts(raw).to_frame()
    return texts.with_columns((pl.lit(rule) if isinstance(rule, str) else rule).alias("rule")).select(list(SET_ASIDE))


def row_texts(rows: pl.DataFrame) -> pl.Series:
    """Give each row as the text of a JSON object; bytes, which JSON does not have, as hexadecimal digits."""
    safe = pl.DataFrame([_without_bytes(column) for column in rows.iter_columns()])
    return safe.select(pl.struct(pl.all()).struct.json_encode().alias("row")).to_series()


def _without_bytes(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Binary:
        return column.bin.encode("hex")
    if column.dtype.is_nested() and "Binary" in str(column.dtype):
        return pl.Series(column.name, [None if each is None else str(each) for each in column.to_list()], pl.String)
    return column


@dataclass(frozen=True)
class TableOptions:
    """What a caller says of files: what they don't say themselves, and what of them is wanted.

    `columns` maps our names to the file's; `start` and `end` (µs, end exclusive) bound the dataset's own time. Of macro
    values without vintages `observed` says when they stood so, and `lag_days` how long after its date each was public;
    `taken_at` is the instant of taking in, by default the process's own. `scorer` names what scores texts that bring no
    score (`sources.scorers`).
    """

    symbol: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    provider: str | None = None
    start: int | None = None
    end: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    observed: datetime | None = None
    lag_days: int | None = None
    taken_at: datetime | None = None
    scorer: str | None = None


ReadFile = Callable[[Path, TableOptions], Iterator[TableDelivery]]
"""Give what a file holds. Raises an error of the family `SourceError` where it is refused."""


class TableRemote(Protocol):
    """A place that tables come from by name: `fred:CPIAUCSL` asks the remote `fred` for `CPIAUCSL`.

    One that also is a `sources.protocol.Downloads` shows its progress.
    """

    name: str

    def deliveries(self, name: str, start: int | None, end: int | None) -> Iterator[TableDelivery]:
        """Give what there is of `name` in `[start, end)` (µs since the epoch; None: all there is)."""
        ...
