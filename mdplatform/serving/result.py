"""What a reader gives: the newest rows of a feature, where they came from and how long it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from mdplatform.market.time import from_us, iso
from mdplatform.serving.codec import Blob

if TYPE_CHECKING:
    import pandas as pd

    from mdplatform.features import FeatureSpec


@dataclass(frozen=True)
class FeatureResult:
    """Rows of one feature, oldest first.

    `source` is `cache` or `computed`; `layer` is `near` (this process's own memory), `redis` or `lake`; `version` is
    the hash of the content that the rows were taken from; `notes` says in words what went wrong on the way; `timings`
    are milliseconds by stage, `total` among them. `table` has `open_time`, `available_at`, the outputs by their
    canonical text, `status` and, for features of slow series, `age`. `method` says how the values were computed where
    there is a choice, such as `trades` or `bars:1m`.
    """

    symbol: str
    feature: str
    timeframe: str
    source: str
    layer: str
    version: str
    table: pa.RecordBatch = field(repr=False)
    outputs: dict[str, str]
    made_by: str = ""
    engine: str = ""
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    method: str | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def elapsed_ms(self) -> float:
        """How long the read took, in milliseconds."""
        return self.timings.get("total", 0.0)

    @property
    def available_at(self) -> datetime:
        """The first instant at which the newest row could have been known."""
        return self._newest("available_at")

    @property
    def open_time(self) -> datetime:
        """The open time of the newest row's bar."""
        return self._newest("open_time")

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """The values: shape `(n,)` for one output, `(n, outputs)` for several, not to be written to.

        A null is NaN here, and only here.
        """
        columns = [pl.Series(self.table.column(column)).to_numpy() for column in self.outputs.values()]
        return columns[0] if len(columns) == 1 else np.column_stack(columns)

    @property
    def status(self) -> list[str]:
        """For each row `settled`, `unsettled`, or the reason why it has no value."""
        return cast(list[str], self.table.column("status").to_pylist())

    @property
    def ages(self) -> list[timedelta | None] | None:
        """For each row how old the value was at its close, None where it has no age; None where age has no meaning."""
        if "age" not in self.table.schema.names:
            return None
        return cast("list[timedelta | None]", self.table.column("age").to_pylist())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dictionaries of plain values, as in `to_dict`."""
        names = {name: self.table.column(column).to_pylist() for name, column in self.outputs.items()}
        opened, known = (self._microseconds(name) for name in ("open_time", "available_at"))
        ages = self.ages
        rows = []
        for index, status in enumerate(self.status):
            values = {name: column[index] for name, column in names.items()}
            row = {"open_time": iso(from_us(opened[index])), "available_at": iso(from_us(known[index])), **values}
            row["settled"] = status == "settled"
            if None in values.values():
                row["reason"] = status
            if ages is not None and (age := ages[index]) is not None:
                row["age_seconds"] = age.total_seconds()
            rows.append(row)
        return rows

    def _microseconds(self, column: str) -> list[int]:
        return cast(list[int], self.table.column(column).cast(pa.int64()).to_pylist())

    def _newest(self, column: str) -> datetime:
        return from_us(cast(int, self.table.column(column)[-1].value))

    def to_arrow(self) -> pa.Table:
        """Give an Arrow table: `open_time`, `available_at`, the outputs by their canonical text, and `status`."""
        return pa.Table.from_batches([self.table])

    def to_pandas(self) -> pd.DataFrame:
        """Give a pandas frame on `open_time` (UTC): `available_at`, the outputs by their short names, `status`."""
        frame = self.to_arrow().to_pandas().set_index("open_time")
        return frame.rename(columns={column: name for name, column in self.outputs.items()})

    def to_dict(self) -> dict[str, Any]:
        """Give the form that `mdplatform read --json` prints.

        `symbol, feature, timeframe, source, version, rows` and what else is known; each row has `open_time` and
        `available_at` (ISO 8601, UTC), each output by its name (a number or null), `settled`, `reason` where an output
        is null, and `age_seconds` where the value has an age. An output's name is its own where the function has
        several (`macdhist`), else the function's in small letters (`rsi`); `outputs` maps it to the canonical text.
        """
        return {
            "symbol": self.symbol,
            "feature": self.feature,
            "timeframe": self.timeframe,
            "source": self.source,
            "layer": self.layer,
            "version": self.version,
            "available_at": iso(self.available_at),
            "made_by": self.made_by,
            "engine": self.engine,
            "method": self.method,
            "outputs": dict(self.outputs),
            "notes": list(self.notes),
            "timings_ms": dict(self.timings),
            "rows": self.rows,
        }


def make_result(
    blob: Blob,
    feature: str,
    outputs: dict[str, str],
    n: int | None,
    *,
    layer: str,
    notes: tuple[str, ...] = (),
    timings: dict[str, float] | None = None,
) -> FeatureResult:
    """Give the newest `n` rows (all for None) of a blob from that layer, with the `outputs` (short name to column) of
    `feature`."""
    batch = blob.batch
    names = ["open_time", "available_at", *outputs.values(), "status"]
    if "age" in batch.schema.names:
        names.append("age")
    if batch.schema.names != names:
        batch = batch.select(names)
    return FeatureResult(
        symbol=blob.symbol,
        feature=feature,
        timeframe=blob.timeframe.value,
        source="computed" if layer == "lake" else "cache",
        layer=layer,
        version=blob.version,
        table=batch if n is None else batch.slice(max(0, batch.num_rows - n)),
        outputs=dict(outputs),
        made_by=blob.made_by,
        engine=blob.engine,
        notes=notes,
        timings=timings or {},
        method=blob.method,
    )


def output_names(spec: FeatureSpec) -> dict[str, str]:
    """Give the short name of each output and its column: the output's own, or the function's where it has only one.

    >>> from mdplatform.features import parse_feature
    >>> output_names(parse_feature("RSI"))
    {'rsi': 'RSI(timeperiod=14)'}
    """
    several = len(spec.definition.outputs) > 1
    columns = (f"{each}{spec.place}" for each in spec.columns)
    return dict(zip(spec.outputs if several else (spec.name.lower(),), columns, strict=True))
