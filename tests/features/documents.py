"""Scored documents for tests, and the plainest reading of what counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from hypothesis import strategies as st

from mdplatform.features.sentiment import COPY_WINDOW
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.timeframe import MINUTE_US

HOUR = 60 * MINUTE_US
BEGIN = 1_735_689_600_000_000
"""2025-01-01T00:00Z."""

Document = tuple[int, float | None, str, str | None]
"""When it became available (µs), its score, the symbols it names, its text."""


def table(documents: Iterable[Document], provider: str = "news") -> pl.DataFrame:
    """Give documents as rows of `SENTIMENT.schema`, in the order of time and then of the list."""
    rows: list[dict[str, Any]] = [
        {
            "provider": provider,
            "doc_id": f"{number:06d}",
            "symbols": symbols,
            "score": score,
            "text_hash": text,
            "published_at": at,
            "available_at": at,
            "source": "test",
            "revision": 0,
            "ingested_at": at,
        }
        for number, (at, score, symbols, text) in enumerate(documents)
    ]
    return pl.DataFrame(rows, schema=SENTIMENT.schema, orient="row").sort("available_at", "doc_id")


def counting(documents: Sequence[Document], symbol: str | None) -> list[tuple[int, float]]:
    """Give instant and score of each document that counts, by looking at all pairs."""
    about = [
        (at, number, score, text if text is not None else f"id {number}")
        for number, (at, score, symbols, text) in enumerate(documents)
        if score is not None and (symbols == "" if symbol is None else symbol in symbols.split(","))
    ]
    about.sort(key=lambda each: each[:2])
    kept = []
    for place, (at, _, score, text) in enumerate(about):
        copy = any(other == text and at - earlier <= COPY_WINDOW for earlier, _, _, other in about[:place])
        if not copy:
            kept.append((at, score))
    return kept


def documents(most: int = 25, hours: int = 24 * 90) -> st.SearchStrategy[list[Document]]:
    """Give lists of documents over some months, with copies, equal instants and missing scores."""
    one = st.tuples(
        st.integers(0, hours * 4).map(lambda quarter: BEGIN + quarter * HOUR // 4),
        st.none() | st.sampled_from([-1.0, 1.0, 0.0, 0.1]) | st.floats(-1, 1).map(lambda x: round(x, 6)),
        st.sampled_from(["", "", "BTCUSDT", "BTCUSDT,ETHUSDT", "BTCUSD"]),
        st.none() | st.sampled_from("abcde"),
    )
    return st.lists(one, max_size=most)
