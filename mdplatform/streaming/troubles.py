"""Troubles: what goes wrong around a stream, logged once when it begins and once when it is over."""

from __future__ import annotations

import logging

log = logging.getLogger("mdplatform.feed")


class Troubles:
    """The troubles that there are, by what is said of them."""

    def __init__(self) -> None:
        self._there: set[str] = set()

    def note(self, trouble: str, is_there: bool, told: str = "") -> None:
        """Say whether a trouble is there, and what is told of it."""
        if is_there and trouble not in self._there:
            self._there.add(trouble)
            log.error("%s; the stream goes on. %s", trouble, told)
        elif not is_there and trouble in self._there:
            self._there.discard(trouble)
            log.warning("Over: %s", trouble[:1].lower() + trouble[1:])
