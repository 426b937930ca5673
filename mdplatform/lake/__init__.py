"""The lake: the platform's truth, as Parquet files that are written whole, read by key, and never changed in place."""

from mdplatform.lake.lake import Lake

__all__ = ["Lake"]
