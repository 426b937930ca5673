"""What all assets say alike: who owns them, column schemas, and data versions of runs with many partitions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import dagster as dg
import polars as pl

REDIS_PROBLEM = "redis_problem"
"""The metadata of a partition that says why Redis was not told of it."""
SOURCE_PROBLEM = "source_problem"
"""The metadata of a partition that says why its source did not deliver."""
OWNERS = ["team:market-data"]


def column_schema(schema: Mapping[str, pl.DataType], described: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Describe the columns of a frame for Dagster's UI."""
    said = described or {}
    return dg.TableSchema(
        [dg.TableColumn(name, str(kind), description=said.get(name)) for name, kind in schema.items()]
    )


def data_version(versions: Iterable[str]) -> dg.DataVersion:
    """Give the data version of a run: its partition's own, or the hash of all of theirs where it has many.

    Dagster keeps one data version an output; a run that repeats the same partitions unchanged has the same one.
    """
    each = list(versions)
    if len(each) == 1:
        return dg.DataVersion(each[0])
    return dg.DataVersion(hashlib.blake2b("".join(each).encode(), digest_size=16).hexdigest())
