"""Tables that somebody hands over, made into those of the platform, or refused by the column that does not fit.

1. A frame of pandas, a table of Arrow and a lazy frame become a frame of polars.
2. Instants of other units and zones become UTC microseconds; without a zone they are UTC. Other columns are cast.
3. `available_at`, where it is missing, follows the rule of its kind: a bar's close, a trade's time, when a document was
   published and seen, when a macro value was published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from mdplatform.errors import InvalidBars, InvalidTable
from mdplatform.market.bars import BAR_SCHEMA, INSTANT, empty_bars
from mdplatform.market.dataset import Dataset

_NEEDED = {
    "trades": ("time", "price", "quantity", "is_buyer_maker"),
    "depth": ("time", "first_update_id", "last_update_id", "is_snapshot", "is_bid", "price", "quantity"),
    "sentiment": ("provider", "score"),
    "macro": ("ref_period", "value", "vintage"),
}
_KNOWN_FROM = {
    "trades": ("time",),
    "depth": ("time",),
    "sentiment": ("published_at", "seen_at"),
    "macro": ("published_at",),
}

Refusal = type[InvalidBars] | type[InvalidTable]


def given_rows(given: object, dataset: Dataset) -> pl.DataFrame:
    """Give a table (None: no rows) with the columns of `dataset.schema`, by its time. Raises `InvalidTable`."""
    if given is None:
        return pl.DataFrame(schema=dataset.schema)
    rows = _typed(_framed(given, dataset.name, InvalidTable), dataset.schema, dataset.name, InvalidTable)
    if "available_at" not in rows.columns:
        rows = _available(rows, _KNOWN_FROM[dataset.name], dataset.name, InvalidTable)
    _check(rows, (*_NEEDED[dataset.name], "available_at"), dataset.name, InvalidTable)
    for name in {dataset.time, "available_at"}:
        _refuse_nulls(rows, name, dataset.name, InvalidTable)
    missing = [pl.lit(None, kind).alias(name) for name, kind in dataset.schema.items() if name not in rows.columns]
    rows = rows.with_columns(missing) if missing else rows
    return rows if rows.get_column(dataset.time).is_sorted() else rows.sort(dataset.time, maintain_order=True)


def given_bars(given: object, symbol: str) -> pl.DataFrame:
    """Give bars (None: none) with their columns typed as in `BAR_SCHEMA`. Raises `InvalidBars`."""
    if given is None:
        return empty_bars()
    what = f"bars of {symbol}"
    bars = _typed(_framed(given, what, InvalidBars), BAR_SCHEMA, what, InvalidBars)
    if "open_time" in bars.columns:
        _refuse_nulls(bars, "open_time", what, InvalidBars)
    if "available_at" not in bars.columns and "close_time" in bars.columns:
        bars = _available(bars, ("close_time",), what, InvalidBars)
    return bars


def _framed(given: object, what: str, refusal: Refusal) -> pl.DataFrame:
    module = type(given).__module__.partition(".")[0]
    try:
        if isinstance(given, pl.LazyFrame):
            given = given.collect()
        elif module == "pandas":
            given = pl.from_pandas(given)  # type: ignore[call-overload]
        elif module == "pyarrow":
            given = pl.from_arrow(given)  # type: ignore[arg-type]
    except (TypeError, ValueError, ImportError, pl.exceptions.PolarsError) as error:
        raise refusal(f"The table of {what} cannot be read", value=str(error)) from error
    if not isinstance(given, pl.DataFrame):
        raise refusal(
            f"No table of {what}", value=type(given).__name__, remedy="Give a frame of polars or pandas, or Arrow's"
        )
    return given


def _typed(rows: pl.DataFrame, schema: Mapping[str, pl.DataType], what: str, refusal: Refusal) -> pl.DataFrame:
    changed = []
    for name, kind in schema.items():
        if name in rows.columns and rows.schema[name] != kind:
            changed.append(_cast(rows[name], kind, what, refusal))
    return rows.with_columns(changed) if changed else rows


def _cast(column: pl.Series, kind: pl.DataType, what: str, refusal: Refusal) -> pl.Series:
    name, held = column.name, column.dtype
    try:
        if kind != INSTANT:
            if held.is_temporal() or (kind.is_numeric() and not (held.is_numeric() or held == pl.Null)):
                raise refusal(
                    f"Column {name} of {what} is not numbers or text", value=str(held), remedy=f"Make it {kind}"
                )
            return column.cast(kind)
        if held == pl.Null or held == pl.Date:
            return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        if isinstance(held, pl.Datetime):
            if held.time_zone is None:
                column = column.dt.replace_time_zone("UTC")
            return column.dt.convert_time_zone("UTC").cast(INSTANT)
    except pl.exceptions.PolarsError as error:
        raise refusal(f"Column {name} of {what} does not convert", value=str(held), remedy=f"Make it {kind}") from error
    raise refusal(
        f"Column {name} of {what} is not a column of instants",
        value=str(held),
        remedy=f'Make it one, as by pl.from_epoch("{name}", "ms")',
    )


def _available(rows: pl.DataFrame, names: Iterable[str], what: str, refusal: Refusal) -> pl.DataFrame:
    there = [name for name in names if name in rows.columns]
    if not there:
        raise refusal(f"The table of {what} lacks columns", value="available_at", remedy="Say when each row was known")
    return rows.with_columns(pl.max_horizontal(there).alias("available_at"))


def _check(rows: pl.DataFrame, needed: Iterable[str], what: str, refusal: Refusal) -> None:
    missing = [name for name in needed if name not in rows.columns]
    if missing:
        remedy = f"It has: {', '.join(rows.columns)}"
        raise refusal(f"The table of {what} lacks columns", value=", ".join(missing), remedy=remedy)


def _refuse_nulls(rows: pl.DataFrame, name: str, what: str, refusal: Refusal) -> None:
    if rows[name].null_count():
        at = rows[name].is_null().arg_max()
        raise refusal(f"Column {name} of {what} is null; the first is row {at}", remedy="Leave such rows out")
