"""Near: a reader's way to what its process holds of Redis.

All readers of a process that read the same Redis share one cache and one tracking connection, from the first read of
the first of them until the last is closed.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mdplatform.serving.keys import is_tracked, read_sequence
from mdplatform.serving.near_cache import NearCache
from mdplatform.serving.tracking import BOUND_SECONDS, Tracking
from mdplatform.settings import Settings

if TYPE_CHECKING:
    from mdplatform.serving.lookup import Library, Lookup
    from mdplatform.serving.result import FeatureResult


class _Shared:
    """What the readers of a process share."""

    def __init__(self, settings: Settings) -> None:
        self.users = 0
        self.cache = NearCache(settings.near_cache_mb * 1_000_000)
        self.tracking = Tracking(settings, self.cache)


class Near:
    """What one reader has of what is held near; thread-safe. Close it.

    Nothing is held where the settings say so, or where Redis cannot tell what is written (before version 6).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shared: _Shared | None = None
        _all.add(self)

    def get(self, keys: Sequence[str]) -> list[Any] | None:
        """Give what Redis holds under these keys, None unless all is held near and proven to be no older than
        `tracking.BOUND_SECONDS`: bytes, None for a key that does not exist, or what `replace` has put there."""
        shared = self._shared
        if shared is None:
            return None
        proven_at = shared.tracking.proven_at
        held = shared.cache.get(keys)
        # the clock last: this process may have stood still meanwhile
        return held if time.monotonic() - proven_at <= BOUND_SECONDS else None

    def replace(self, key: str, had: object, value: object) -> None:
        """Put another form of what is held in its place, such as a decoded one."""
        if self._shared is not None:
            self._shared.cache.replace(key, had, value)

    @contextmanager
    def filling(self, keys: Sequence[str]) -> Iterator[dict[str, bytes | None]]:
        """Read these keys from Redis inside the `with`, and put what was read into the dictionary, to be kept."""
        read: dict[str, bytes | None] = {}
        shared = self._shared or self._open()
        fill = None if shared is None else shared.cache.begin(filter(is_tracked, keys))
        try:
            yield read
        finally:
            if shared is not None:
                if fill is not None:
                    shared.cache.keep(fill, read)
                elif read:  # it answers
                    shared.tracking.want()

    def look(self, library: Library, lookups: Sequence[Lookup]) -> list[FeatureResult | None]:
        """Give the answers that are held near and are fresh, by the sequences that are held and by the lake."""
        return [self._answer(library, each) for each in lookups]

    def close(self) -> None:
        """Hold nothing for this reader; it may be used again."""
        with _opening:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.users -= 1
            if shared.users:
                return
            for place in [place for place, each in _shared.items() if each is shared]:
                del _shared[place]
        shared.tracking.close()

    def _answer(self, library: Library, lookup: Lookup) -> FeatureResult | None:
        held = self.get(lookup.keys)
        if held is None:
            return None
        raw, *sequences = held
        lookup.sequences = tuple(map(read_sequence, sequences))
        blob = lookup.fresh(raw, library.changed_at(lookup))
        lookup.timings.mark("near")
        if blob is None:
            lookup.notes.clear()  # Redis is asked, and told of
            return None
        if blob is not raw:
            self.replace(lookup.keys[0], raw, blob)
        return lookup.answer(blob, layer="near")

    def _open(self) -> _Shared | None:
        megabytes = self._settings.near_cache_mb
        if not megabytes:
            return None
        place = (self._settings.redis_url or str(self._settings.valkey_dir), megabytes)
        with _opening:
            if self._shared is None:
                if place not in _shared:
                    _shared[place] = _Shared(self._settings)
                _shared[place].users += 1
                self._shared = _shared[place]
            return self._shared


_all: weakref.WeakSet[Near] = weakref.WeakSet()
_shared: dict[tuple[str, int], _Shared] = {}
_opening = threading.Lock()


def _forked() -> None:
    """Begin anew in a child: the thread and the word of what is written stay with the parent."""
    global _opening
    _opening = threading.Lock()
    _shared.clear()
    for each in _all:
        each._shared = None


os.register_at_fork(after_in_child=_forked)
