"""The sources there are, by name: the one place where a new source is entered."""

from __future__ import annotations

from collections.abc import Callable

from mdplatform.errors import UnknownSource
from mdplatform.settings import Settings
from mdplatform.sources.binance_archive import BinanceArchive
from mdplatform.sources.protocol import Source
from mdplatform.sources.simulated import SimulatedMarket

SOURCES: dict[str, Callable[[Settings], Source]] = {
    "binance_archive": BinanceArchive.from_settings,
    "simulated": SimulatedMarket.from_settings,
}
ALIASES = {"binance": "binance_archive"}


def source(name: str, settings: Settings) -> Source:
    """Give the source of that name, set up by `settings`. Raises `UnknownSource`."""
    try:
        return SOURCES[ALIASES.get(name, name)](settings)
    except KeyError:
        raise UnknownSource(name, [*SOURCES, *ALIASES]) from None
