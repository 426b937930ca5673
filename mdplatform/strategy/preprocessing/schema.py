"""The schema that a preprocessing is fitted on, and in which way rows differ from it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mdplatform.errors import PlatformError, SchemaMismatch
from mdplatform.market.timeframe import Timeframe
from mdplatform.strategy.preprocessing.refusal import refused
from mdplatform.strategy.preprocessing.table import Table


class Column(msgspec.Struct, frozen=True):
    """A column: its name, its type (`""` where rows tell none), and which feature of the platform it is.

    `feature` is `FeatureSpec.id`, which stands for parameters, inputs and the version of what computes it; `""` for a
    column of one's own.
    """

    name: str
    dtype: str
    feature: str = ""


class Schema(msgspec.Struct, frozen=True):
    """The columns, in order, what else the rows told, and their timeframe (`""` where they tell none).

    `has_symbols` and `has_times` say whether the rows told `symbol` and `open_time`: what looks back goes by these.
    """

    columns: tuple[Column, ...]
    has_symbols: bool
    has_times: bool
    timeframe: str = ""

    @classmethod
    def of(cls, table: Table, timeframe: str | None = None) -> Schema:
        """Give the schema of a table; `timeframe` where its rows do not tell. Raises `InvalidPreprocessing`."""
        told = timeframe_of(table)
        if timeframe is not None and told and Timeframe.parse(timeframe) != told:
            raise mismatch("The rows are of another timeframe", "timeframe", told, f"Expected: {timeframe}")
        columns = (Column(name, dtype, feature_id(name)) for name, dtype in zip(table.names, table.dtypes, strict=True))
        known = Timeframe.parse(timeframe).value if timeframe is not None else told
        return cls(tuple(columns), table.symbols is not None, table.times is not None, known)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(each.name for each in self.columns)

    def check(self, table: Table) -> None:
        """Raise `SchemaMismatch`, which says what differs: a column, its place, its type, a key, or the timeframe.

        Rows may tell more than those that were fitted, and never less: without symbols, rows of several would be taken
        for one series; without times, neither a hole nor a bar that comes twice would be seen.
        """
        check_names(self.names, table.names)
        for column, dtype in zip(self.columns, table.dtypes, strict=True):
            if dtype and column.dtype and dtype != column.dtype:
                raise mismatch("The column is of another type", column.name, dtype, f"Fitted on: {column.dtype}")
        remedy = "Fitted on rows that tell it: give it with each row, or fit without"
        if self.has_symbols and table.symbols is None:
            raise mismatch("The rows name no symbols", "symbol", None, remedy)
        if self.has_times and table.times is None:
            raise mismatch("The rows tell no times", "open_time", None, remedy)
        told = timeframe_of(table)
        if told and self.timeframe and told != self.timeframe:
            raise mismatch("The rows are of another timeframe", "timeframe", told, f"Fitted on: {self.timeframe}")

    def check_features(self) -> None:
        """Raise `SchemaMismatch` where a column's name now stands for another feature than when this was made."""
        for column in self.columns:
            if column.feature != feature_id(column.name):
                raise mismatch(
                    "The feature is not computed as it was when this was fitted",
                    column.name,
                    None,
                    "Another version of the platform or its libraries: fit again, or install that version",
                )


def check_names(fitted: Sequence[str], given: Sequence[str]) -> None:
    """Raise `SchemaMismatch` where columns are missing, extra, or in another order."""
    if tuple(fitted) == tuple(given):
        return
    missing = [name for name in fitted if name not in set(given)]
    extra = [name for name in given if name not in set(fitted)]
    if missing or extra:
        told = [f"{cause}: {', '.join(names)}" for cause, names in (("missing", missing), ("extra", extra)) if names]
        raise mismatch(
            f"The columns are not those that were fitted ({'; '.join(told)})",
            (missing or extra)[0],
            None,
            f"Fitted on, in this order: {', '.join(fitted)}",
        )
    at = next(at for at, (ours, theirs) in enumerate(zip(fitted, given, strict=True)) if ours != theirs)
    raise mismatch(
        f"The columns are in another order (column {at + 1} was {fitted[at]})",
        given[at],
        None,
        f"Fitted on, in this order: {', '.join(fitted)}",
    )


def timeframe_of(table: Table) -> str:
    """Give the timeframe that the rows tell, by their column `timeframe`, else by their length; `""` for none."""
    if table.timeframes:
        return Timeframe.parse(table.timeframes[0]).value
    if table.lengths is None or not len(table.lengths):
        return ""
    shortest, longest = int(table.lengths.min()), int(table.lengths.max())
    known = next((each.value for each in Timeframe if each.microseconds == longest), "")
    if not known or shortest != longest:
        raise refused(
            "The rows are of no one timeframe",
            field="close_time",
            value=f"{shortest / 60e6:g} to {longest / 60e6:g} minutes",
            remedy=f"close_time - open_time is one of {' '.join(Timeframe)}",
        )
    return known


def feature_id(name: str) -> str:
    """Give the identity of the platform's feature of that name, `""` where it is none."""
    from mdplatform.features import parse_feature

    try:
        return parse_feature(name).id
    except PlatformError:  # a column of one's own: it has a name alone
        return ""


def mismatch(cause: str, field: str, value: object, remedy: str) -> SchemaMismatch:
    """Make the error of rows that are not those that were fitted."""
    error = SchemaMismatch(cause, value=value, remedy=remedy)
    error.field = field
    return error
