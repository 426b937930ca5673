"""Macro series: one row an observation as it stood in one vintage: what it is of, and when it was known."""

from __future__ import annotations

import polars as pl

from mdplatform.market.bars import INSTANT
from mdplatform.market.dataset import Dataset

LATEST, VINTAGES = "latest values", "vintages"
"""The forms of a series, which do not mix: values as they stand today know nothing of what was revised when."""

MACRO = Dataset(
    name="macro",
    columns={
        "series_id": pl.String(),
        "ref_period": INSTANT,
        "value": pl.Float64(),
        "published_at": INSTANT,
        "vintage": INSTANT,
    },
    time="available_at",
    unique=("ref_period", "vintage"),
    by=("series_id",),
    meanings={
        "series_id": "FRED's name of the series",
        "ref_period": "the first instant (UTC) of the day, month or quarter that the value is of",
        "value": "the observation; null where the agency published that there is none (`.`)",
        "published_at": "the instant of publication",
        "vintage": "the day (00:00 UTC) of the release that this value came with",
        "available_at": "the first instant at which a strategy could have known it",
    },
)
