"""What a table of rows is, beside bars: its columns, which of them identify a row, and by what it is filed.

A row that comes again with other values is a correction: it gets the next `revision`, and the one before stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from mdplatform.market.bars import INSTANT

KEPT_BY_STORE = ("source", "revision", "available_at", "ingested_at")
"""The columns that every dataset ends with; `available_at` is the source's to say, the others are the store's."""

_STORE_COLUMNS = {"source": pl.String(), "revision": pl.Int32(), "available_at": INSTANT, "ingested_at": INSTANT}
_PARTITION_LENGTHS = {"day": "1d", "month": "1mo"}
_PARTITION_FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True)
class Dataset:
    """One dataset: `columns` and their types (those of the store follow), and how its rows are told apart and filed.

    Rows ascend by `time`, within it by `unique`, which together identify a row. `by` names the columns of texts that
    make a partition's key, and `period` is `day`, `month` or None: trades are filed by symbol and day, under
    `BTCUSDT/2025-01-31`. `meanings` says in words what each column holds.
    """

    name: str
    columns: Mapping[str, pl.DataType]
    time: str
    unique: tuple[str, ...]
    by: tuple[str, ...] = ()
    period: str | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pl.Schema:
        """All columns with their types, those of the store last."""
        return pl.Schema({**self.columns, **_STORE_COLUMNS})

    @property
    def delivered(self) -> pl.Schema:
        """What a source delivers: the dataset's own columns and `available_at`."""
        return pl.Schema({**self.columns, "available_at": INSTANT})

    def split(self, rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Give the rows of each partition by its key, keys ascending."""
        labels = list(self.by)
        if self.period is not None:
            # numbers, made texts once a partition: a text for each of a million rows takes longer than all the rest
            rows = rows.with_columns(pl.col(self.time).dt.truncate(_PARTITION_LENGTHS[self.period]).alias("__period"))
            labels.append("__period")
        split: dict[str, pl.DataFrame] = {}
        for key, part in rows.partition_by(labels, as_dict=True, maintain_order=True).items():
            texts = [
                each.strftime(_PARTITION_FORMATS[str(self.period)]) if isinstance(each, datetime) else str(each)
                for each in key
            ]
            split["/".join(texts)] = part.drop("__period", strict=False)
        return dict(sorted(split.items()))
