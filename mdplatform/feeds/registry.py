"""The feeds there are, by name: the one place where a new feed is entered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from mdplatform.errors import UnknownParameter, UnknownSource
from mdplatform.feeds.binance import BinanceFeed
from mdplatform.feeds.protocol import Feed
from mdplatform.feeds.recording import RecordingFeed
from mdplatform.feeds.simulated import SimulatedFeed
from mdplatform.settings import Settings

FEEDS: dict[str, Callable[..., Feed]] = {
    "binance": BinanceFeed.from_settings,
    "recording": RecordingFeed.from_settings,
    "simulated": SimulatedFeed.from_settings,
}
"""What makes each feed, of the settings and the symbols that are wanted; its options are keywords."""


def feed(name: str, settings: Settings, symbols: Sequence[str], **options: object) -> Feed:
    """Give the feed of that name for those symbols; what stands behind a colon in `name` is its `path`.

    Options are those of the feed's `from_settings`: `streams`, `speed`, `start`, …; one that is None is not given.
    Raises `UnknownSource`, `UnknownParameter`, and what the feed refuses.
    """
    kind, _, path = name.partition(":")
    try:
        make = FEEDS[kind]
    except KeyError:
        raise UnknownSource(name, list(FEEDS)) from None
    given = {option: value for option, value in options.items() if value is not None}
    if path:
        given["path"] = path
    known = [each.name for each in inspect.signature(make).parameters.values() if each.kind is each.KEYWORD_ONLY]
    for option in given:
        if option not in known:
            raise UnknownParameter(option, known)
    return make(settings, symbols, **given)
