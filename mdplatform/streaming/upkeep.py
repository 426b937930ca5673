"""The upkeep of the lake while a feed runs: what its journal noted is staged and sealed, and readers are told of it.

All of it is done in threads, and again and again by the engine. What goes wrong is said once, and tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mdplatform.lake import Lake
from mdplatform.streaming.journal import Journal
from mdplatform.streaming.troubles import Troubles


class Upkeep:
    """Stages and seals what `journal` notes. `announce` says of a symbol that the lake has new bars, and may raise."""

    def __init__(self, lake: Lake, journal: Journal, announce: Callable[[str], object], troubles: Troubles) -> None:
        self._lake = lake
        self._journal = journal
        self._announce = announce
        self._troubles = troubles
        self._unannounced: set[str] = set()
        self._damaged: list[Path] = []

    async def stage(self) -> None:
        """Have what was noted written down."""
        lost = self._journal.counts.lost
        if self._journal.waiting:
            await self._troubles.attempt("The inbox of the lake cannot be written", self._journal.stage)
        self._troubles.note("Bars are left out of the lake, for too many wait", lost > 0, f"{lost} so far")

    async def seal(self) -> None:
        """Have what was written down merged into the lake, and readers told of it."""
        await self._troubles.attempt("The lake cannot be written", self._seal)
        damaged = ", ".join(map(str, self._damaged))
        told = f"Take in again what the lake lacks of that time, with mdplatform ingest, then remove {damaged}"
        self._troubles.note("A feed's log is damaged, and bars of it are lost", bool(damaged), told)
        await self._troubles.attempt("Readers cannot be told of new bars", self._tell)

    def _seal(self) -> None:
        try:
            self._journal.seal(self._unannounced.add)
        finally:
            self._damaged = self._lake.inbox.damaged()

    def _tell(self) -> None:
        for symbol in sorted(self._unannounced):
            self._announce(symbol)
            self._unannounced.discard(symbol)
