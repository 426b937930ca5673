"""The universe: which symbols the platform keeps, and where each one's bars come from."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mdplatform.errors import CorruptPartition
from mdplatform.lake.lock import locked
from mdplatform.market.timeframe import Timeframe


class Member(msgspec.Struct, frozen=True):
    """Where the bars of a symbol come from: the name of its source, and the timeframe that is asked for.

    A symbol whose bars came from files has no source that could be asked again.
    """

    source: str | None
    timeframe: Timeframe


class Universe:
    """The members, in one small JSON file that is replaced whole."""

    def __init__(self, path: Path, locks: Path) -> None:
        self._path = path
        self._lock = locks / "universe.lock"

    def members(self) -> dict[str, Member]:
        """Give the members by symbol."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Member])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as broken:
            raise CorruptPartition(
                "The list of symbols cannot be read", value=str(self._path), remedy=f"Mend or remove it ({broken})"
            ) from broken

    def add(self, symbol: str, source: str | None, timeframe: Timeframe) -> None:
        """Add a symbol. One that has a source keeps it when files of the same symbol are taken in."""
        with locked(self._lock):
            members = self.members()
            if source is None and symbol in members:
                return
            members[symbol] = Member(source, timeframe)
            temporary = self._path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(dict(sorted(members.items())))))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
