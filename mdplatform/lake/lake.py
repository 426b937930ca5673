"""The lake as a whole: one folder, and the stores that lie in it."""

from __future__ import annotations

from pathlib import Path

from mdplatform.lake.bars import BarStore
from mdplatform.lake.frames import FrameStore
from mdplatform.lake.inbox import Inbox
from mdplatform.lake.universe import Universe


class Lake:
    """The stores under `folder`. Opening it reads and writes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = Inbox(folder / "inbox")
        self.bars = BarStore(folder / "bars", folder / "quarantine", folder / "locks")
        self.universe = Universe(folder / "universe.json", folder / "locks")

    def frames(self, asset: str) -> FrameStore:
        """Give the store of what one asset computes from bars, such as `technical_indicators`."""
        return FrameStore(self.folder / asset)
