"""The lake as a whole: one folder, and the stores that lie in it."""

from __future__ import annotations

from pathlib import Path

from mdplatform.lake.bars import BarStore
from mdplatform.lake.composites import CompositeStore
from mdplatform.lake.frames import FrameStore
from mdplatform.lake.inbox import Inbox
from mdplatform.lake.tables import TableStore
from mdplatform.lake.universe import Universe
from mdplatform.market.depth import DEPTH
from mdplatform.market.macro import MACRO
from mdplatform.market.sentiment import SENTIMENT
from mdplatform.market.trades import TRADES

DATASETS = {each.name: each for each in (TRADES, DEPTH, SENTIMENT, MACRO)}
"""The datasets beside bars; a new one is one file in `market` and its name here."""


class Lake:
    """The stores under `folder`. Opening it reads and writes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = Inbox(folder / "inbox")
        self.bars = BarStore(folder / "bars", folder / "quarantine", folder / "locks")
        self.universe = Universe(folder / "universe.json", folder / "locks")
        self.composites = CompositeStore(folder / "composites.json", folder / "locks")

    def table(self, name: str) -> TableStore:
        """Give the store of one of `DATASETS`: `trades`, `depth`, `sentiment` or `macro`."""
        folder, inbox = self.folder / name, self.folder / "inbox" / f"_{name}"
        quarantine = self.folder / "quarantine" / f"_{name}"
        return TableStore(DATASETS[name], folder, inbox, self.folder / "locks", quarantine)

    def frames(self, asset: str) -> FrameStore:
        """Give the store of what one asset computes from bars, such as `technical_indicators`."""
        return FrameStore(self.folder / asset)
