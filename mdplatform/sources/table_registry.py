"""The readers of tables beside bars and the remotes that have some: the one place where a new one is entered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mdplatform.errors import UnknownSource
from mdplatform.settings import Settings
from mdplatform.sources.binance_trades import BinanceTrades
from mdplatform.sources.fear_greed import FearGreed
from mdplatform.sources.files import ENDINGS
from mdplatform.sources.fred import Fred
from mdplatform.sources.macro_files import read_macro
from mdplatform.sources.recording import ENDINGS as RECORDINGS
from mdplatform.sources.recording import read_recording
from mdplatform.sources.registry import ALIASES, SOURCES
from mdplatform.sources.sentiment_files import ENDINGS as OF_SENTIMENT
from mdplatform.sources.sentiment_files import read_sentiment
from mdplatform.sources.table_delivery import ReadFile, TableRemote
from mdplatform.sources.trade_files import read_trades


@dataclass(frozen=True)
class FileReader:
    """A reader of files, the endings by which it finds them in a folder, and what it `uses` of `TableOptions`."""

    read: ReadFile
    endings: tuple[str, ...] = ENDINGS
    uses: tuple[str, ...] = ("symbol", "columns")


READERS: dict[str, FileReader] = {
    "macro": FileReader(read_macro, uses=("symbol", "columns", "observed", "lag_days")),
    "trades": FileReader(read_trades),
    "sentiment": FileReader(read_sentiment, OF_SENTIMENT, ("symbol", "columns", "provider", "scorer")),
    "recording": FileReader(read_recording, RECORDINGS, ("symbol",)),
}
"""Readers by what files are taken as: `mdplatform ingest PATH --as trades`."""

REMOTES: dict[str, dict[str, Callable[[Settings], TableRemote]]] = {
    "macro": {Fred.name: Fred.from_settings},
    "sentiment": {FearGreed.name: FearGreed.from_settings},
    "trades": {"binance": BinanceTrades.from_settings, "binance_archive": BinanceTrades.from_settings},
}
"""Remotes by what they are taken as, and by the word before the colon: `fred:CPIAUCSL`."""


def kind_of_remote(target: str) -> str | None:
    """Give what a target such as `fred:CPIAUCSL` is taken as; None for paths and for sources of bars."""
    name, colon, _ = target.partition(":")
    if not colon or name in {*SOURCES, *ALIASES}:
        return None
    return next((kind for kind, remotes in REMOTES.items() if name in remotes), None)


def remote(kind: str, name: str, settings: Settings) -> TableRemote:
    """Give the remote of that name, set up by `settings`. Raises `UnknownSource`."""
    try:
        return REMOTES[kind][name](settings)
    except KeyError:
        raise UnknownSource(name, REMOTES.get(kind, {})) from None
