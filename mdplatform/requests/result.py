"""One result of an answer, with the ease of what a reader gives: values, rows, frames, and where they came from.

Nothing heavy is imported before values are looked at.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from mdplatform.requests.answer import Part, PartKind, Quality
    from mdplatform.serving.result import FeatureResult

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OBSERVATIONS = "observations of "


class Result:
    """Rows of a feature, a correlation matrix, or what is known of a macro series; see `Part` for what it is made of.

    `kind` tells which. A feature has `values`, `status`, `rows` and, where values have an age, `ages`; a correlation
    has `matrix`, `observations`, `symbols`, `estimator` and `is_psd`; a series has `values` and `rows`. All have
    `to_pandas`, `to_arrow` and `to_dict`. A value that is null is NaN in arrays and None in rows.
    """

    def __init__(self, part: Part) -> None:
        self.part = part

    @property
    def kind(self) -> PartKind:
        """`feature`, `correlation` or `series`."""
        return self.part.kind

    @property
    def symbol(self) -> str:
        """The symbol; empty for a correlation and a series."""
        return self.part.symbol

    @property
    def feature(self) -> str:
        """The canonical text of the feature, `CORRELATION_MATRIX`, or the name of the series."""
        return self.part.feature

    @property
    def timeframe(self) -> str:
        """The timeframe of the rows; empty for a series."""
        return self.part.timeframe

    @property
    def source(self) -> str:
        """`cache`, `computed` or `run`."""
        return self.part.source

    @property
    def layer(self) -> str:
        """Where it was: `near`, `redis`, `memory`, `lake` or `run`."""
        return self.part.layer

    @property
    def version(self) -> str:
        """The hash of the content that the values were taken from."""
        return self.part.version

    @property
    def run_id(self) -> str:
        """The Dagster run that made it, empty where none did."""
        return self.part.run_id

    @property
    def made_by(self) -> str:
        """What computed it: a run or a worker."""
        return self.part.made_by

    @property
    def engine(self) -> str:
        """The library that computed it, and its version."""
        return self.part.engine

    @property
    def method(self) -> str | None:
        """How it was computed where there is a choice, such as `trades` or `bars:1m`."""
        return self.part.method

    @property
    def outputs(self) -> dict[str, str]:
        """The short name of each output, and its column."""
        return dict(self.part.outputs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong on the way, in words."""
        return self.part.notes

    @property
    def quality(self) -> Quality | None:
        """Components of quality, None where it was not assessed."""
        return self.part.quality

    @property
    def about(self) -> dict[str, Any]:
        """What else is told of it, such as the estimator of a correlation."""
        return dict(self.part.about)

    @property
    def available_at(self) -> datetime:
        """The first instant at which the newest row could have been known."""
        return _EPOCH + timedelta(microseconds=self.part.available_at)

    def __len__(self) -> int:
        return self.part.rows

    @cached_property
    def table(self) -> pa.Table:
        """The rows as they came: `open_time, available_at`, the outputs by their canonical text, `status`, maybe `age`;
        or the matrix, or the series.
        """
        import pyarrow as pa

        return pa.ipc.open_stream(self.part.data).read_all()

    @property
    def open_time(self) -> datetime | None:
        """The open time of the newest row's bar; None without rows, and where rows are no bars."""
        if self.kind != "feature" or not len(self):
            return None
        return self._rows_of_feature.open_time

    @cached_property
    def values(self) -> npt.NDArray[np.float64]:
        """The values, oldest first: shape `(n,)`, or `(n, outputs)` for several outputs; the matrix of a correlation.

        A null is NaN here. Not to be written to.
        """
        if self.kind == "feature":
            return self._rows_of_feature.values
        if self.kind == "correlation":
            return self.matrix
        return _array(self.table, "value")

    @property
    def status(self) -> list[str]:
        """For each row of a feature `settled`, `unsettled`, or the reason why it has no value."""
        return self._rows_of_feature.status if self.kind == "feature" else []

    @property
    def ages(self) -> list[timedelta | None] | None:
        """For each row how old the value was at its close, None where it has no age; None where age has no meaning."""
        return self._rows_of_feature.ages if self.kind == "feature" else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as dictionaries of plain values: times as ISO 8601 texts, a null as None."""
        if self.kind == "feature":
            return self._rows_of_feature.rows
        return [{name: _plain(value) for name, value in row.items()} for row in self.table.to_pylist()]

    # A correlation.

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of a correlation, in the order of the matrix; the one symbol of a feature."""
        if self.kind == "correlation":
            return tuple(cast("list[str]", self.table.column("symbol").to_pylist()))
        return (self.symbol,) if self.symbol else ()

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """The correlation of each pair, shape `(symbols, symbols)`; NaN where it is null. Not to be written to."""
        return self._square("")

    @cached_property
    def observations(self) -> npt.NDArray[np.int64]:
        """The number of common rows of each pair, shape `(symbols, symbols)`. Not to be written to."""
        return self._square(_OBSERVATIONS).astype("int64")

    @property
    def estimator(self) -> str:
        """How a correlation was computed, as in `pearson, pairwise`."""
        return str(self.part.about.get("estimator", ""))

    @property
    def is_psd(self) -> bool | None:
        """Whether a correlation is positive semi-definite; None where that cannot be told."""
        return self.part.about.get("is_psd")

    # Tables.

    def to_arrow(self) -> pa.Table:
        """Give the rows as an Arrow table, as they came."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Give a frame: of a feature on `open_time` (UTC), with `available_at`, the outputs by their short names and
        `status`; of a correlation the matrix; of a series its rows on `ref_period`.
        """
        if self.kind == "feature":
            return self._rows_of_feature.to_pandas()
        if self.kind == "series":
            return self.table.to_pandas().set_index("ref_period")
        import pandas

        return pandas.DataFrame(self.matrix.copy(), index=list(self.symbols), columns=list(self.symbols))

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: where it came from, and `rows`, or `symbols, matrix, observations`."""
        from mdplatform.market.time import iso

        part, quality = self.part, self.quality
        told: dict[str, Any] = {
            "kind": part.kind.value,
            "symbol": part.symbol,
            "feature": part.feature,
            "timeframe": part.timeframe,
            "source": part.source,
            "layer": part.layer,
            "version": part.version,
            "available_at": iso(self.available_at),
            "made_by": part.made_by,
            "run_id": part.run_id,
            "engine": part.engine,
            "method": part.method,
            "outputs": self.outputs,
            "notes": list(part.notes),
            "quality": None if quality is None else quality.to_dict(),
            "about": self.about,
        }
        if self.kind != "correlation":
            return {**told, "rows": self.rows}
        cells = [[None if value != value else value for value in row] for row in self.matrix.tolist()]
        return {**told, "symbols": list(self.symbols), "matrix": cells, "observations": self.observations.tolist()}

    def __repr__(self) -> str:
        return f"<Result {self}: {len(self)} rows, {self.source} ({self.layer})>"

    def __str__(self) -> str:
        return " ".join(each for each in (self.symbol, self.timeframe, self.feature) if each)

    @cached_property
    def _rows_of_feature(self) -> FeatureResult:
        from mdplatform.serving.result import FeatureResult

        part = self.part
        return FeatureResult(
            symbol=part.symbol,
            feature=part.feature,
            timeframe=part.timeframe,
            source=part.source,
            layer=part.layer,
            version=part.version,
            table=_one_batch(self.table),
            outputs=self.outputs,
            made_by=part.made_by,
            engine=part.engine,
            notes=part.notes,
            method=part.method,
        )

    def _square(self, prefix: str) -> npt.NDArray[np.float64]:
        import numpy as np

        if self.kind != "correlation":
            raise AttributeError(f"{self} is no correlation matrix")
        columns = [_array(self.table, f"{prefix}{symbol}") for symbol in self.symbols]
        square = np.column_stack(columns) if columns else np.empty((0, 0))
        square.flags.writeable = False
        return square


def _array(table: pa.Table, column: str) -> npt.NDArray[np.float64]:
    """Give a column of numbers, a null as NaN."""
    import polars as pl
    import pyarrow as pa

    numbers = pl.Series(table.column(column).cast(pa.float64()))
    return cast("npt.NDArray[np.float64]", numbers.to_numpy())


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    """Give the table's only batch, an empty one where it has none."""
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
