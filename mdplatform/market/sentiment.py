"""Sentiment: scored texts and indices, one row a document (or a day of an index)."""

from __future__ import annotations

import polars as pl

from mdplatform.market.bars import INSTANT
from mdplatform.market.dataset import Dataset

SENTIMENT = Dataset(
    name="sentiment",
    columns={
        "provider": pl.String(),
        "doc_id": pl.String(),
        "symbols": pl.String(),
        "score": pl.Float64(),
        "label": pl.String(),
        "confidence": pl.Float64(),
        "model": pl.String(),
        "text_hash": pl.String(),
        "published_at": INSTANT,
        "seen_at": INSTANT,
    },
    time="available_at",
    unique=("provider", "doc_id", "available_at"),
    period="month",
    meanings={
        "provider": "who scored or published it, such as `fear_greed` or `news`",
        "doc_id": "the provider's own id, or a hash of the row; one that comes again at another instant is a copy",
        "symbols": "the symbols it speaks of, with commas between, sorted; empty: the market as a whole",
        "score": "−1 (all negative) to 1 (all positive)",
        "label": "the class, as delivered",
        "confidence": "the model's own, 0 to 1; null where it gives none",
        "model": "what scored it",
        "text_hash": "hash of the normalised text: a syndicated copy has the same one, and counts once",
        "published_at": "when it was published",
        "seen_at": "when the provider or this platform had it",
        "available_at": "max(published_at, seen_at); the end of the day where only a date is known",
    },
)
