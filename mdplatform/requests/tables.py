"""The tables of an answer: one long Arrow table, or a wide pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from mdplatform.requests.answer import Result


def long_table(results: Sequence[Result]) -> pa.Table:
    """Give one row for each symbol, timeframe, output and bar."""
    raise NotImplementedError


def wide_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Give one row for each symbol, timeframe and bar, with a column for each output."""
    raise NotImplementedError
