"""How derived assets follow from what lies in the lake: what each partition was computed from, and which are stale.

A partition keeps in its file's notes, as `inputs`, the fingerprint of what it was computed from: the hashes of the days
of bars that reach into it, from `lookback + settle` rows before it to its end; the versions of tables. It is *stale*
when that fingerprint is another one now. So a correction of a bar makes exactly those partitions stale whose values it
can reach, and a run that changes nothing makes none stale, whatever Dagster's own data versions (one a run) say.

A partition that was never made is wanted if an older one of its symbol or series was: an asset that somebody has
materialized goes on with time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mdplatform.lake import Lake

INPUTS = "inputs"
"""The note of a partition's file that holds the fingerprint of what it was computed from."""


@dataclass(frozen=True)
class Following:
    """How one asset follows.

    `fingerprint(lake, key)` tells what a partition is computed from, empty if there is nothing. `possible(lake)` gives
    the keys of the partitions that could be made. A key is a path in the asset's folder, `BTCUSDT/2025-01` or
    `2025-01`; what stands before the last `/` is the symbol, within which partitions ascend with time.
    """

    fingerprint: Callable[[Lake, str], str]
    possible: Callable[[Lake], Iterable[str]]


def fingerprint_of(parts: Mapping[str, str]) -> str:
    """Give one fingerprint of many; empty if all are."""
    told = "\0".join(f"{name} {part}" for name, part in parts.items())
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest() if any(parts.values()) else ""


def stale(lake: Lake, asset: str, following: Following) -> dict[str, str]:
    """Give the partitions of `asset` that are stale or wanted, each with the fingerprint of its inputs now."""
    store = lake.frames(asset)
    found: dict[str, str] = {}
    newest: dict[str, str] = {}
    for key in store.all_keys():
        newest[_symbol(key)] = max(key, newest.get(_symbol(key), ""))
        now = following.fingerprint(lake, key)
        if now and now != store.note(key, INPUTS):
            found[key] = now
    for key in following.possible(lake) if newest else ():
        if _symbol(key) in newest and key > newest[_symbol(key)]:
            now = following.fingerprint(lake, key)
            if now:
                found[key] = now
    return dict(sorted(found.items()))


def _symbol(key: str) -> str:
    return key.rpartition("/")[0]
