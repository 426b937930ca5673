"""Files of sentiment: scored news of any shape, the Fear & Greed Index, GDELT; what a file is follows from its content.

For scored news:
1. `cells` reads CSV, Parquet, Feather, JSON or JSON lines; columns are found by name, or as the caller says.
2. Where there is a column of texts and none of scores, a scorer that the caller names fills score, label and model.
3. Symbols come from a column, or from the caller, and from nowhere else: a text is not searched for names.
4. A document without an id of its own is named by the hash of its time, text and symbols.
5. When it was available is worked out row by row (`sentiment_rows`): files mix times with bare dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from mdplatform.errors import MislabelledFile, UnknownColumns
from mdplatform.market.bars import INSTANT
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.sources import fear_greed, gdelt
from mdplatform.sources.cells import cells_of, choose, instants, numbers, texts
from mdplatform.sources.files import ENDINGS as BARS_ENDINGS
from mdplatform.sources.scorers import SCORERS, Scorer, scorer
from mdplatform.sources.sentiment_rows import (
    NO_SCORE,
    available_at,
    delivered,
    is_date_only,
    provider_of,
    symbols_in,
    text_hashes,
    within_options,
)
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, row_texts, set_aside_rows
from mdplatform.sources.unpack import Content, unpack

ENDINGS = (*BARS_ENDINGS, ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
"""What files of sentiment end with, in folders."""
SPELLINGS = {
    "published_at": "published_at published publish_date pub_date publication_date time timestamp datetime date",
    "seen_at": "seen_at crawled_at fetched_at received_at",
    "available_at": "available_at",
    "score": "score sentiment_score sentiment compound polarity tone",
    "text": "text title headline short_description description summary content body",
    "doc_id": "doc_id id article_id news_id uuid guid",
    "symbols": "symbols symbol tickers ticker",
    "label": "label sentiment_label classification",
    "confidence": "confidence probability",
    "model": "model",
}
"""Our names (and `text`, of which only the hash is kept), and how files call them, folded."""

_TIMES = ("published_at", "seen_at", "available_at")


def read_sentiment(path: Path, options: TableOptions) -> Iterator[TableDelivery]:
    """Give the documents of one file. Raises errors of `SourceError`, always with the path."""
    source = f"file:{path.name}"
    content = unpack(path, options.max_bytes)
    if gdelt.is_gkg(content.data):
        _refuse_unused(path, "GDELT's", options)
        yield gdelt.from_gkg(content.data, source, options)
        return
    body = _json_object(content)
    if fear_greed.is_body(body):
        _refuse_unused(path, "the Fear & Greed Index's", options)
        yield fear_greed.from_body(body, source, options)
        return
    if gdelt.is_timeline(body):
        _refuse_unused(path, "GDELT's", options)
        yield gdelt.from_timeline(body, source, options)
        return
    cells = cells_of(content, path, options.max_bytes)
    names = cells.frame.columns
    if not options.columns and fear_greed.is_table(names):
        _refuse_unused(path, "the Fear & Greed Index's", options)
        yield fear_greed.from_table(cells.frame, source, options)
    elif not options.columns and gdelt.is_timeline_table(names):
        _refuse_unused(path, "GDELT's", options)
        yield gdelt.from_timeline_table(cells.frame, source, options)
    else:
        yield scored(cells.frame, path, options)


def _refuse_unused(path: Path, whose: str, options: TableOptions) -> None:
    for given, option in ((options.columns, "--column"), (options.scorer, "--scorer")):
        if given:
            raise MislabelledFile(
                f"{path} is {whose}, whose columns and scores are known", value=given, remedy=f"Leave {option} out"
            )


def scored(frame: pl.DataFrame, path: Path, options: TableOptions, score_with: Scorer | None = None) -> TableDelivery:
    """Give the documents of a table, a row each; `score_with`, or else the options' scorer, scores texts without one.

    Raises `UnknownColumns` where it has no times, neither scores nor texts, or texts and no scorer; what the scorer
    raises.
    """
    found = choose(frame, SPELLINGS, options.columns, path)
    if options.scorer is not None:
        score_with = score_with or scorer(options.scorer)
    if "published_at" not in found or not {"score", "text"} & set(found):
        lacking = "published_at" if "published_at" not in found else "score"
        raise UnknownColumns(
            f"{path} is not a table of scored texts: {lacking} missing",
            value=", ".join(frame.columns)[:200],
            remedy=f"Say which column is which: --column {lacking}=NAME",
        )
    if "score" not in found and score_with is None:
        raise UnknownColumns(
            f"{path} has texts and no column of scores that is known",
            value=", ".join(frame.columns)[:200],
            remedy=f"Say which column is one: --column score=NAME; or let its texts be scored: --scorer "
            f"{'|'.join(SCORERS)}",
        )
    if "score" in found and score_with is not None:
        raise UnknownColumns(
            f"{path} has scores, which no scorer is for",
            value=found["score"],
            remedy="Leave --scorer out; or name what it is: --column COLUMN=NAME",
        )
    provider = provider_of(options, None, str(path))
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    words = ("text", "doc_id", "label", "model")
    told = {name: texts(frame[found[name]]) if name in found else nothing for name in words}
    times = {name: instants(frame[found[name]], path) for name in _TIMES if name in found}
    confidence = numbers(frame[found["confidence"]]) if "confidence" in found else nothing.cast(pl.Float64)
    symbols = _symbols(frame, found, options)
    rows = pl.DataFrame(
        {
            **times,
            "date_only": is_date_only(frame[found["published_at"]], times["published_at"]),
            "symbols": symbols,
            "label": told["label"],
            "model": told["model"],
            "confidence": confidence,
            "text_hash": text_hashes(told["text"]),
        }
    )
    rows, notes = _with_scores(rows, frame, found, told["text"], score_with, path)
    rows = _with_times(rows).with_columns(_ids(rows, told["doc_id"], "symbols" in found, frame))
    missing = rows["score"].is_null() | rows["score"].is_nan()
    no_symbols = symbols.is_null() & ~missing
    wanted = rows.select(within_options(rows, options).alias("wanted"))["wanted"] & ~missing & ~no_symbols
    aside = [
        set_aside_rows(frame.filter(missing), NO_SCORE),
        set_aside_rows(frame.filter(no_symbols), "symbol_invalid"),
    ]
    return TableDelivery.of(
        SENTIMENT,
        f"file:{path.name}",
        delivered(rows.filter(wanted), provider),
        raw=frame.filter(wanted),
        set_aside=pl.concat(aside),
        notes=notes,
    )


def _json_object(content: Content) -> dict[str, Any]:
    """Give what a JSON file holds where it is one object, else nothing: an array, lines, or no JSON at all."""
    data = content.data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if content.kind != "json" or not data.startswith(b"{"):
        return {}
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # lines, or broken: `cells_of` tells
    return body if isinstance(body, dict) else {}


def _symbols(frame: pl.DataFrame, found: dict[str, str], options: TableOptions) -> pl.Series:
    if options.symbol is not None or "symbols" not in found:
        return pl.Series("symbols", [options.symbol or ""], dtype=pl.String).new_from_index(0, len(frame))
    column = frame[found["symbols"]]
    cells = column.list.join(",") if column.dtype == pl.List(pl.String) else column.cast(pl.String)
    return pl.Series("symbols", [symbols_in(each) for each in cells.to_list()], dtype=pl.String)


def _with_scores(
    rows: pl.DataFrame, frame: pl.DataFrame, found: dict[str, str], told: pl.Series, by: Scorer | None, path: Path
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    if "score" in found:
        return rows.with_columns(numbers(frame[found["score"]]).alias("score")), ()
    assert by is not None
    known = told.is_not_null()
    answers = iter(by.score(told.drop_nulls().to_list()))
    given = [next(answers) if each else None for each in known.to_list()]
    filled = rows.with_columns(
        pl.Series("score", [each and each.score for each in given], dtype=pl.Float64),
        pl.Series("label", [each and each.label for each in given], dtype=pl.String),
        pl.Series("confidence", [each and each.confidence for each in given], dtype=pl.Float64),
        pl.lit(by.model).alias("model"),
    )
    return filled, (f"{path.name}: it has no scores; its texts were scored by {by.model}",)


def _with_times(rows: pl.DataFrame) -> pl.DataFrame:
    if "seen_at" not in rows.columns:
        rows = rows.with_columns(pl.lit(None, dtype=INSTANT).alias("seen_at"))
    by_rule = available_at("published_at", "seen_at", "date_only")
    if "available_at" in rows.columns:
        stated = pl.max_horizontal("published_at", "seen_at", "available_at")
        by_rule = pl.when(pl.col("available_at").is_not_null()).then(stated).otherwise(by_rule)
    return rows.with_columns(by_rule.alias("available_at"))


def _ids(rows: pl.DataFrame, given: pl.Series, by_symbol: bool, frame: pl.DataFrame) -> pl.Series:
    """Give each row an id: its own (with the symbols, where files have a row for each), else a hash of what it says."""
    at, hashes, symbols = (rows[name].to_list() for name in ("published_at", "text_hash", "symbols"))
    whole = row_texts(frame).to_list() if None in hashes else hashes
    ids = []
    for own, instant, text, names, row in zip(given.to_list(), at, hashes, symbols, whole, strict=True):
        if own is not None:
            ids.append(f"{own}:{names}" if by_symbol and names else own)
        else:
            ids.append(blake2b(f"{instant}\0{text or row}\0{names}".encode(), digest_size=12).hexdigest())
    return pl.Series("doc_id", ids, dtype=pl.String)
