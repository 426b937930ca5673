"""The feeds there are, by name: the one place where a new feed is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mdplatform.errors import UnknownSource
from mdplatform.feeds.protocol import Feed
from mdplatform.settings import Settings

FEEDS: dict[str, Callable[[Settings, Sequence[str]], Feed]] = {}
"""What makes each feed, of the settings and the symbols that are wanted."""


def feed(name: str, settings: Settings, symbols: Sequence[str]) -> Feed:
    """Give the feed of that name for those symbols. Raises `UnknownSource`, and what the feed refuses."""
    try:
        make = FEEDS[name]
    except KeyError:
        raise UnknownSource(name, list(FEEDS)) from None
    return make(settings, symbols)
