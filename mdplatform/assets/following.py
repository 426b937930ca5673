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
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mdplatform.lake import Lake

INPUTS = "inputs"
"""The note of a partition's file that holds the fingerprint of what it was computed from."""


_YOUNG_NS = 2_000_000_000


@dataclass(frozen=True)
class Following:
    """How one asset follows.

    `fingerprint(lake, key)` tells what a partition is computed from, empty if there is nothing. `folders(lake, key)`
    are those in which it looks: none of them has changed, if none was written to. `possible(lake)` gives the keys of
    the partitions that could be made. A key is a path in the asset's folder, `BTCUSDT/2025-01` or `2025-01`; what
    stands before the last `/` is the symbol, within which partitions ascend with time.
    """

    fingerprint: Callable[[Lake, str], str]
    folders: Callable[[Lake, str], Iterable[Path]]
    possible: Callable[[Lake], Iterable[str]]


def fingerprint_of(parts: Mapping[str, str]) -> str:
    """Give one fingerprint of many, by name; those that are empty do not count, and if all are, so is it."""
    told = "\0".join(f"{name} {part}" for name, part in parts.items() if part)
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest() if told else ""


def bar_partitions(lake: Lake) -> Iterable[str]:
    """Give `BTCUSDT/2025-01` for each symbol and month of which there are bars."""
    return (f"{symbol}/{month}" for symbol in lake.bars.symbols() for month in lake.bars.months(symbol))


class Watch:
    """Finds the stale partitions of one asset, again and again; reads again only where a folder or file has changed."""

    def __init__(self, lake: Lake, asset: str, following: Following) -> None:
        self._lake = lake
        self._store = lake.frames(asset)
        self._following = following
        self._fingerprints: dict[str, tuple[object, str]] = {}
        self._notes: dict[str, tuple[object, str | None]] = {}

    def stale(self) -> dict[str, str]:
        """Give the partitions that are stale or wanted, each with the fingerprint of its inputs now."""
        found: dict[str, str] = {}
        newest: dict[str, str] = {}
        for key in self._store.all_keys():
            newest[_symbol(key)] = max(key, newest.get(_symbol(key), ""))
            now = self._fingerprint(key)
            if now and now != self._note(key):
                found[key] = now
        for key in self._following.possible(self._lake) if newest else ():
            if _symbol(key) in newest and key > newest[_symbol(key)]:
                now = self._fingerprint(key)
                if now:
                    found[key] = now
        return dict(sorted(found.items()))

    def _fingerprint(self, key: str) -> str:
        written = [_written(folder) for folder in self._following.folders(self._lake, key)]
        known = self._fingerprints.get(key)
        if known is not None and known[0] == written:
            return known[1]
        now = self._following.fingerprint(self._lake, key)
        if time.time_ns() - max(written, default=0) > _YOUNG_NS:  # else another write may bear the same time
            self._fingerprints[key] = (written, now)
        return now

    def _note(self, key: str) -> str | None:
        at = self._store.path(key).stat()
        signature = (at.st_ino, at.st_mtime_ns, at.st_size)
        known = self._notes.get(key)
        if known is None or known[0] != signature:
            known = self._notes[key] = (signature, self._store.note(key, INPUTS))
        return known[1]


@cache
def watch(folder: Path, asset: str, following: Following) -> Watch:
    """Give the watch of an asset in the lake at `folder`, one for each."""
    return Watch(Lake(folder), asset, following)


def _written(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _symbol(key: str) -> str:
    return key.rpartition("/")[0]
