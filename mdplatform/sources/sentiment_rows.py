"""What readers of sentiment share: the hash of a text, the symbols it names, and when a document was available.

1. A text is normalised (Unicode's NFKC, case folded, white space made one blank) and hashed, so that a syndicated copy
   has the hash of the first.
2. A document is available when it was published and seen. Where only its date is known, it is available when that day
   (UTC) ends, unless the source says when it was seen.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from hashlib import blake2b

import polars as pl

from mdplatform.errors import InvalidSymbol, MislabelledFile
from mdplatform.market.bars import INSTANT
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.timeframe import DAY_US
from mdplatform.sources.table_delivery import TableOptions

PROVIDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""What can be the name of a provider, since features name it."""
NO_SCORE = "score_missing"
"""The rule that a document without a score breaks, where nothing scores texts."""

_DAY = timedelta(days=1)
_MIDNIGHT = r"\d[T ]00:00(:00(\.0*)?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?\s*$"
_BETWEEN = re.compile(r"[\s,;|\[\]\"'$]+")


def provider_of(options: TableOptions, default: str | None, path: str) -> str:
    """Give the provider that the caller names, or the `default`. Raises `MislabelledFile` for none and for no name."""
    given = options.provider or default
    if given is None:
        raise MislabelledFile(f"{path} does not say who scored it", remedy="Say it with --provider NAME")
    if not PROVIDER.fullmatch(given):
        raise MislabelledFile(
            "Not a name of a provider", value=given, remedy="Allowed: 1 to 64 letters, digits, `_`, `-` and `.`"
        )
    return given


def text_hash(text: str | None) -> str | None:
    """Give 32 hexadecimal digits that copies of a text have in common; None for no text.

    >>> text_hash("Bitcoin  is UP\\n") == text_hash("bitcoin is up"), text_hash("  ")
    (True, None)
    """
    normal = " ".join(unicodedata.normalize("NFKC", text or "").casefold().split())
    return blake2b(normal.encode("utf-8", "replace"), digest_size=16).hexdigest() if normal else None


def text_hashes(texts: pl.Series) -> pl.Series:
    """Give the hash of each text."""
    return pl.Series("text_hash", [text_hash(each) for each in texts.cast(pl.String).to_list()], dtype=pl.String)


def symbols_in(text: str | None) -> str | None:
    """Give the symbols that a cell names, sorted, with commas between; empty for none, None for what is no symbol.

    >>> symbols_in('["ETHUSDT", "btcusdt"]'), symbols_in(""), symbols_in("$BTC;ETH"), symbols_in("a#")
    ('BTCUSDT,ETHUSDT', '', 'BTC,ETH', None)
    """
    try:
        return ",".join(sorted({parse_symbol(each.upper()) for each in _BETWEEN.split(text or "") if each}))
    except InvalidSymbol:
        return None


def is_date_only(column: pl.Series, instants: pl.Series) -> pl.Series:
    """Tell which cells carry a date and no time of day: those at 00:00:00, in UTC or as written: files pad dates so.

    A document that was truly published in the first second of a day is thus available a day late, and never early.
    """
    padded = _is_midnight(instants)
    if column.dtype == pl.String:
        padded |= column.str.contains(_MIDNIGHT).fill_null(False)
    elif isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        padded |= _is_midnight(column.dt.replace_time_zone(None))
    return padded


def _is_midnight(times: pl.Series) -> pl.Series:
    return (times.dt.epoch("us") % DAY_US == 0).fill_null(False)


def available_at(published: str, seen: str, date_only: str) -> pl.Expr:
    """Give when each document was available: `max(published_at, seen_at)`; the end of the day where we know no more."""
    known_day = pl.when(pl.col(date_only) & pl.col(seen).is_null()).then(pl.col(published) + _DAY)
    return known_day.otherwise(pl.max_horizontal(published, seen)).cast(INSTANT)


def delivered(frame: pl.DataFrame, provider: str) -> pl.DataFrame:
    """Give `frame` the columns of `SENTIMENT.delivered`: those it lacks are null, `symbols` empty."""
    lacking = [
        pl.lit(None, dtype=kind).alias(name) for name, kind in SENTIMENT.delivered.items() if name not in frame.columns
    ]
    return (
        frame.with_columns(*lacking)
        .with_columns(pl.lit(provider).alias("provider"), pl.col("symbols").fill_null(""))
        .select([pl.col(name).cast(kind) for name, kind in SENTIMENT.delivered.items()])
    )


def within_options(frame: pl.DataFrame, options: TableOptions) -> pl.Expr:
    """Tell which rows became available in the caller's range; those without a time stay, to be set aside by a rule."""
    at = pl.col("available_at").dt.epoch("us")
    inside = pl.lit(True)
    if options.start is not None:
        inside = inside & (at >= options.start)
    if options.end is not None:
        inside = inside & (at < options.end)
    return inside | at.is_null()
