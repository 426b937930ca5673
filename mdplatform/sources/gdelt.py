"""GDELT: files of the Global Knowledge Graph (GKG 2.0), and timelines of tone from the DOC 2.0 API.

GKG: 27 fields with tabs between, without header or quotes, one file each 15 minutes. Field 1 is the record's id, which
begins with the time of its batch: when GDELT had it, and thus when it was available, whenever the article was written.
Field 16 (V1.5TONE) begins with the tone, from −100 to 100 and mostly within ±10: the score is `tone / 100`. The text of
a record is its page's title (in field 27), else its address (field 5).

Timelines (`mode=timelinetone`, JSON or CSV): the average tone of 15 minutes, an hour or a day, each labelled by its
beginning; it is available at its end.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from mdplatform.errors import UnknownFormat
from mdplatform.market.bars import INSTANT
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.table_rules import EARLIEST
from mdplatform.market.timeframe import DAY_US, MINUTE_US
from mdplatform.sources.cells import numbers
from mdplatform.sources.columns import fold
from mdplatform.sources.sentiment_rows import (
    NO_SCORE,
    delivered,
    provider_of,
    text_hashes,
    within_options,
)
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, set_aside_rows

PROVIDER = "gdelt"
MODEL = "gdelt tone"
_FIELDS = 27
_RECORD = re.compile(rb"\d{14}-T?\d+\t")
_LENGTHS = (DAY_US, 60 * MINUTE_US, 15 * MINUTE_US)
_TONE = "average tone"


def is_gkg(data: bytes) -> bool:
    """Tell whether a file is one of the GKG: it begins with a record's id and a tab."""
    return _RECORD.match(data.removeprefix(b"\xef\xbb\xbf")) is not None


def from_gkg(data: bytes, source: str, options: TableOptions) -> TableDelivery:
    """Give a document for each record. Raises `UnknownFormat`."""
    header = "\t".join(f"field {number}" for number in range(1, _FIELDS + 1))
    try:
        frame = pl.read_csv(
            io.BytesIO(header.encode() + b"\n" + data.removeprefix(b"\xef\xbb\xbf")),
            separator="\t",
            quote_char=None,
            infer_schema=False,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as broken:
        raise UnknownFormat(f"{source} cannot be read as a GKG file", value=str(broken).splitlines()[0][:120]) from None
    record, address, tone, extras = (pl.col(f"field {number}") for number in (1, 5, 16, 27))
    rows = frame.select(
        record.alias("doc_id"),
        tone.str.split(",").list.first().cast(pl.Float64, strict=False).alias("tone"),
        _compact_time(record.str.slice(0, 14)).alias("seen_at"),
        _compact_time(extras.str.extract(r"<PAGE_PRECISEPUBTIMESTAMP>(\d{14})<")).alias("written_at"),
        pl.coalesce(extras.str.extract(r"(?s)<PAGE_TITLE>(.*?)</PAGE_TITLE>"), address).alias("text"),
    )
    plausible = pl.col("written_at").is_between(EARLIEST, pl.col("seen_at"))
    titles = [None if each is None else html.unescape(each) for each in rows["text"].to_list()]
    rows = rows.with_columns(
        pl.when(plausible).then(pl.col("written_at")).otherwise(pl.col("seen_at")).alias("published_at"),
        pl.col("seen_at").alias("available_at"),
        text_hashes(pl.Series(titles, dtype=pl.String)),
        _score(rows["tone"]),
    )
    return _deliver(rows, frame.select("field 1", "field 5", "field 16"), source, options)


def is_timeline(content: Mapping[str, Any]) -> bool:
    """Tell whether decoded JSON is a timeline of the DOC API."""
    return isinstance(content.get("timeline"), list)


def is_timeline_table(names: list[str]) -> bool:
    """Tell whether a table with these columns is a timeline of the DOC API."""
    return {"date", "series", "value"} <= {fold(name) for name in names}


def from_timeline(content: Mapping[str, Any], source: str, options: TableOptions) -> TableDelivery:
    """Give a document for each interval of the series of tone. Raises `UnknownFormat`."""
    details = content.get("query_details")
    title = str(details.get("title") or "") if isinstance(details, Mapping) else ""
    points = [
        {"Date": str(point.get("date")), "Series": str(series.get("series")), "Value": str(point.get("value"))}
        for series in content["timeline"]
        if isinstance(series, Mapping) and isinstance(series.get("data"), list)
        for point in series["data"]
        if isinstance(point, Mapping)
    ]
    frame = pl.DataFrame(points, schema={"Date": pl.String(), "Series": pl.String(), "Value": pl.String()})
    return from_timeline_table(frame, source, options, title)


def from_timeline_table(frame: pl.DataFrame, source: str, options: TableOptions, title: str = "") -> TableDelivery:
    """Give a document for each interval of a timeline of tone; `title` says what was asked. Raises `UnknownFormat`."""
    names = {fold(name): name for name in frame.columns}
    raw = frame.rename({names["date"]: "date", names["series"]: "series", names["value"]: "value"}).select(
        pl.col("date", "series", "value").cast(pl.String)
    )
    raw = raw.filter(pl.col("series").str.strip_chars().str.to_lowercase() == _TONE)
    if raw.is_empty():
        found = frame[names["series"]].cast(pl.String).unique().sort().to_list()
        raise UnknownFormat(
            f"{source} is no timeline of tone", value=found[:5], remedy="Ask the DOC API with mode=timelinetone"
        )
    begins = _interval_begins(raw["date"])
    steps = begins.unique().sort().diff().dt.total_microseconds().drop_nulls()
    shortest = int(steps.min()) if len(steps) else DAY_US  # type: ignore[arg-type]
    length = next((each for each in _LENGTHS if shortest >= each), _LENGTHS[-1])
    about = title or options.symbol or "market"
    rows = pl.DataFrame({"published_at": begins, "score": _score(numbers(raw["value"]))}).with_columns(
        pl.concat_str(pl.lit(f"tone of {about} "), pl.col("published_at").dt.strftime("%Y-%m-%dT%H:%MZ")).alias(
            "doc_id"
        ),
        (pl.col("published_at") + pl.duration(microseconds=length)).alias("available_at"),
    )
    rows = rows.with_columns(pl.col("available_at").alias("published_at"))
    return _deliver(rows, raw, source, options)


def _deliver(rows: pl.DataFrame, raw: pl.DataFrame, source: str, options: TableOptions) -> TableDelivery:
    rows = rows.with_columns(pl.lit(MODEL).alias("model"), pl.lit(options.symbol or "").alias("symbols"))
    missing = rows["score"].is_null() | rows["score"].is_nan()
    wanted = rows.select((within_options(rows, options) & ~missing).alias("wanted"))["wanted"]
    return TableDelivery.of(
        SENTIMENT,
        source,
        delivered(rows.filter(wanted), provider_of(options, PROVIDER, source)),
        raw=raw.filter(wanted),
        set_aside=set_aside_rows(raw.filter(missing), NO_SCORE),
    )


def _score(tones: pl.Series) -> pl.Series:
    return pl.Series("score", tones.cast(pl.Float64).to_numpy() / 100.0)  # polars would multiply by 0.01


def _compact_time(digits: pl.Expr) -> pl.Expr:
    return (
        digits.str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False).dt.replace_time_zone("UTC").cast(INSTANT)
    )


def _interval_begins(texts: pl.Series) -> pl.Series:
    at = pl.first().str.strip_chars()
    parsed = pl.coalesce(
        at.str.to_datetime(form, time_unit="us", strict=False)
        for form in ("%Y%m%dT%H%M%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%d%H%M%S")
    )
    days = at.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return texts.to_frame().select(pl.coalesce(parsed, days).dt.replace_time_zone("UTC").cast(INSTANT)).to_series()
