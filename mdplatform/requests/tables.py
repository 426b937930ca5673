"""The tables of an answer: one long Arrow table, or a wide pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import polars as pl

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mdplatform.requests.result import Result

_INSTANT = pl.Datetime("us", "UTC")
LONG_SCHEMA: dict[str, Any] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "feature": pl.String,
    "output": pl.String,
    "open_time": _INSTANT,
    "available_at": _INSTANT,
    "value": pl.Float64,
    "status": pl.String,
}
_KEYS = ("symbol", "timeframe", "open_time")


def long_table(results: Sequence[Result]) -> pa.Table:
    """Give one row for each symbol, timeframe, output and bar.

    Of a correlation there is one for each pair, the other symbol being the output; of a series one for each period,
    which is its `open_time`.
    """
    frames = [frame for each in results for frame in _long(each)]
    return pl.concat([pl.DataFrame(schema=LONG_SCHEMA), *frames]).to_arrow()


def _long(result: Result) -> list[pl.DataFrame]:
    table = _frame(result.table)
    told: dict[str, Any] = {"timeframe": result.timeframe, "feature": result.feature}
    if result.kind == "correlation":
        told["available_at"] = result.available_at
        return [
            _stated(table.select("symbol", value=other), output=other, open_time=None, status=None, **told)
            for other in result.symbols
        ]
    told["symbol"] = result.symbol
    if result.kind == "series":
        return [
            _stated(table.select("value", "available_at", open_time="ref_period"), output="value", status=None, **told)
        ]
    rows = ("open_time", "available_at", "status")
    return [_stated(table.select(*rows, value=column), output=name, **told) for name, column in result.outputs.items()]


def _stated(frame: pl.DataFrame, **told: Any) -> pl.DataFrame:
    """Add columns of one value each, and bring all into the schema."""
    stated = frame.with_columns(pl.lit(value).alias(name) for name, value in told.items())
    return stated.select(pl.col(name).cast(kind) for name, kind in LONG_SCHEMA.items())


def wide_frame(results: Sequence[Result], *, statuses: bool = False) -> pd.DataFrame:
    """Give one row for each symbol, timeframe and bar (the index), with `available_at` and a column for each output;
    with `statuses` also `status of FEATURE` and, where values have one, `age of FEATURE`.

    Correlations give their matrices, below one another where there are several timeframes; series their rows.
    """
    import pandas as pd

    if results and all(each.kind != "feature" for each in results):
        if len(results) == 1:
            return results[0].to_pandas()
        names = [each.timeframe or each.feature for each in results]
        of = "timeframe" if results[0].kind == "correlation" else "series"
        return pd.concat([each.to_pandas() for each in results], keys=names, names=[of])
    groups: dict[tuple[str, str], list[Result]] = {}
    for each in results:
        groups.setdefault((each.symbol, each.timeframe), []).append(each)
    frames = [_side_by_side(symbol, timeframe, group, statuses) for (symbol, timeframe), group in groups.items()]
    empty = pl.DataFrame(schema={name: LONG_SCHEMA[name] for name in (*_KEYS, "available_at")})
    whole = pl.concat([empty, *frames], how="diagonal")
    return whole.to_pandas().set_index(list(_KEYS))


def _side_by_side(symbol: str, timeframe: str, results: Sequence[Result], statuses: bool) -> pl.DataFrame:
    """Lay the features of one symbol and timeframe side by side; a row is known when the last of its values is."""
    whole: pl.DataFrame | None = None
    for each in results:
        frame = _frame(each.table)
        beside = [name for name in ("status", "age") if statuses and name in frame.columns]
        told = (pl.col(name).alias(f"{name} of {each.feature}") for name in beside)
        frame = frame.select("open_time", "available_at", *each.outputs.values(), *told)
        if whole is None:
            whole = frame
            continue
        new = [name for name in frame.columns if name not in whole.columns]
        if whole["open_time"].equals(frame["open_time"]):
            later = pl.max_horizontal(whole["available_at"], frame["available_at"])
            whole = whole.with_columns(frame.select(new)).with_columns(later.alias("available_at"))
            continue
        whole = whole.join(frame.select("open_time", "available_at", *new), on="open_time", how="full", coalesce=True)
        later = pl.max_horizontal("available_at", "available_at_right").alias("available_at")
        whole = whole.with_columns(later).drop("available_at_right").sort("open_time")
    assert whole is not None
    return whole.select(pl.lit(symbol).alias("symbol"), pl.lit(timeframe).alias("timeframe"), pl.all())


def _frame(table: pa.Table) -> pl.DataFrame:
    return cast(pl.DataFrame, pl.from_arrow(table))
