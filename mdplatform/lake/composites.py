"""The composites that a home keeps: formulas registered by name and version, for every process of the platform."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from mdplatform.errors import CorruptPartition
from mdplatform.features.composites import Composite, check_all
from mdplatform.lake.lock import locked


class CompositeStore:
    """The composites, in one small JSON file that is replaced whole."""

    def __init__(self, path: Path, locks: Path) -> None:
        self._path = path
        self._lock = locks / "composites.lock"

    def all(self) -> list[Composite]:
        """Give every composite, by name and version. Raises `CorruptPartition` for a file that cannot be read."""
        try:
            changed = self._path.stat()
        except FileNotFoundError:
            return []
        return list(_read(self._path, changed.st_mtime_ns, changed.st_size, changed.st_ino))

    def add(self, declared: Iterable[Mapping[str, Any]]) -> list[Composite]:
        """Keep these, all or none, and give them; raises what `features.composites.check_all` raises."""
        with locked(self._lock):
            made = check_all(declared, self.all())
            held = {(each.name, each.version): each for each in (*self.all(), *made)}
            temporary = self._path.with_suffix(".tmp")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode([held[key] for key in sorted(held)])))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        return made


@lru_cache(maxsize=16)
def _read(path: Path, changed_at: int, size: int, inode: int) -> tuple[Composite, ...]:
    """Read the file; what identifies its content is in the arguments, so that it is read once."""
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=list[Composite]))
    except (OSError, msgspec.MsgspecError) as broken:
        raise CorruptPartition(
            "The list of composites cannot be read", value=str(path), remedy=f"Mend or remove it ({broken})"
        ) from broken
