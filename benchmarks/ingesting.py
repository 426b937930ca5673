"""Ingesting: dumps into bars, against `polars.read_csv` and `write_parquet` of the same rows.

One month of one-minute bars in the form of Binance's public dumps. The platform's side tells formats and units, refuses
what is mislabelled, hashes, sifts rows by rules, keeps revisions and builds six longer timeframes; the bare side does
none of that.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.market import deliveries, months, symbols
from benchmarks.measure import Comparison, WrongResult, compare, in_turns
from mdplatform.lake import Lake
from mdplatform.lake.inbox import Batch
from mdplatform.market.bars import RAW_SCHEMA
from mdplatform.market.resample import RESAMPLED
from mdplatform.market.timeframe import Timeframe
from mdplatform.sources.files import read_file

_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def run(short: bool) -> Iterator[Comparison]:
    """Compare reading a dump (CSV, zip), merging it, and the whole way from file to bars."""
    turns = 5 if short else 30
    symbol, month = symbols(1)[0], months(1)[0]
    rows = next(deliveries(symbol, Timeframe.M1, [month])).rows
    with TemporaryDirectory(prefix="mdplatform-benchmark-") as folder:
        place = Path(folder)
        dump = _write_dump(place, symbol, month, rows)
        packed = dump.with_suffix(".zip")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(dump, dump.name)
        for path in (dump, packed):
            _check_rows(read_file(path)[0].rows, rows)
            _check_rows(_as_raw(_bare_read(path)), rows)
            yield compare(
                "ingesting",
                f"read a dump ({path.suffix[1:]}), {len(rows):,} rows",
                "pl.read_csv",
                in_turns(turns, ours=partial(read_file, path), bare=partial(_bare_read, path)),
                amount=len(rows),
                amount_unit="rows",
            )
        batch = Batch(symbol, Timeframe.M1, month, "benchmark", "0" * 32, datetime.now(UTC), rows)
        lake, bare_file = Lake(place / "lake"), place / "bare.parquet"
        yield compare(
            "ingesting",
            f"merge into an empty partition, {len(rows):,} rows",
            "write_parquet",
            in_turns(
                turns,
                ours=lambda: lake.bars.merge(symbol, month, [batch]),
                bare=lambda: _bare_write(rows, bare_file),
                prepare=lambda: shutil.rmtree(lake.folder, ignore_errors=True),
            ),
            amount=len(rows),
            amount_unit="rows",
            note=_check_lake(lake, symbol, month, rows),
        )
        yield compare(
            "ingesting",
            f"zip to bars, {len(rows):,} rows",
            "pl.read_csv + write_parquet",
            in_turns(
                turns,
                ours=lambda: _take_in(lake, packed),
                bare=lambda: _bare_write(_as_raw(_bare_read(packed)), bare_file),
                prepare=lambda: shutil.rmtree(lake.folder, ignore_errors=True),
            ),
            amount=len(rows),
            amount_unit="rows",
            note=_check_lake(lake, symbol, month, rows),
        )


def _take_in(lake: Lake, path: Path) -> None:
    for each in read_file(path):
        now = datetime.now(UTC)
        for batch in lake.inbox.stage(each.symbol, each.timeframe, each.source, each.content_hash, each.rows, now):
            lake.bars.merge(batch.symbol, batch.month, [batch])
            lake.inbox.clear(batch)


def _write_dump(folder: Path, symbol: str, month: str, rows: pl.DataFrame) -> Path:
    """Write rows as a dump of 2025: times in microseconds, ends inclusive."""
    path = folder / f"{symbol}-1m-{month}.csv"
    table = rows.select(
        pl.col("open_time").dt.epoch("us"),
        *("open", "high", "low", "close", "volume"),
        pl.col("close_time").dt.epoch("us") - 1,
        *("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume"),
        pl.lit(0).alias("ignore"),
    )
    path.write_text(_HEADER + "\n" + table.write_csv(include_header=False))
    return path


def _bare_read(path: Path) -> pl.DataFrame:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return pl.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    return pl.read_csv(path)


def _as_raw(table: pl.DataFrame) -> pl.DataFrame:
    instant = RAW_SCHEMA["open_time"]
    return (
        table.rename({"count": "trade_count"})
        .with_columns(pl.col("open_time").cast(instant), (pl.col("close_time") + 1).cast(instant))
        .select(RAW_SCHEMA.names())
        .cast(RAW_SCHEMA)
    )


def _bare_write(rows: pl.DataFrame, path: Path) -> None:
    rows.write_parquet(path, compression="zstd", compression_level=1)


def _check_rows(given: pl.DataFrame, wanted: pl.DataFrame) -> None:
    if not given.equals(wanted):
        raise WrongResult("the rows of a dump were read wrongly")


def _check_lake(lake: Lake, symbol: str, month: str, rows: pl.DataFrame) -> str:
    """Hold the stored bars against the rows, and the hourly ones against sums made here."""
    held = lake.bars.revisions(symbol, month, Timeframe.M1)
    if not held.select(RAW_SCHEMA.names()).equals(rows):
        raise WrongResult("the lake holds other rows than were merged")
    hourly = lake.bars.revisions(symbol, month, Timeframe.H1)
    wanted = (
        rows.group_by_dynamic("open_time", every="1h")
        .agg(pl.first("open"), pl.max("high"), pl.min("low"), pl.last("close"), pl.sum("volume"), pl.len())
        .filter(pl.col("len") == 60)
    )
    prices = ["open_time", "open", "high", "low", "close"]
    near = ((hourly["volume"] - wanted["volume"]).abs() <= 1e-9 * wanted["volume"]).all()
    if not (hourly.select(prices).equals(wanted.select(prices)) and near):
        raise WrongResult("the hourly bars are not the sums of the minutes")
    if not hourly["source"].str.starts_with(RESAMPLED).all():
        raise WrongResult("the hourly bars were not built here")
    return f"{len(hourly):,} hourly bars equal"
