"""The near cache: what was answered lately, in this process, and by what it is known to be fresh still.

What is kept carries the sequences of all that it depends on, as they were read before it was computed, and the times of
their folders in the lake (`serving.freshness`). It is given again only while nobody has bumped a sequence beyond those
and no folder has another time: so an old value is never given, and a near hit costs one small `MGET` for many.

A folder's time has the clock ticks of the file system, so that two changes in one tick look like one. What was read so
soon after a change is kept for as short a time only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from mdplatform.errors import PlatformError
from mdplatform.market.quality import Tally
from mdplatform.requests.answer import Part
from mdplatform.serving.codec import Blob
from mdplatform.serving.lookup import Target
from mdplatform.worker.parts import rows_part, tally_of

NEAR_BYTES = 128_000_000
RACY_NS = 20_000_000
"""How long after a change of a folder another one may leave its time as it is."""
ERRORS_KEPT_NS = 1_000_000_000
_ORDERED_NS = 60_000_000_000
_MOST_CUTS = 16
_OVERHEAD = 2_000


@dataclass(frozen=True)
class Cut:
    """A part, and the counts that its quality is told from."""

    part: Part
    tally: Tally


@dataclass(frozen=True)
class Witness:
    """What tells whether something has changed: sequences, None where Redis was away, and stamps of folders.

    `seen_at` is when they were looked at, nanoseconds: before anything was read.
    """

    sequences: tuple[int, ...] | None
    stamps: tuple[int, ...]
    seen_at: int

    @property
    def is_racy(self) -> bool:
        """Whether a folder was changed so lately that one more change might not show."""
        return any(abs(self.seen_at - each) < RACY_NS for each in self.stamps)

    def vouches_for(self, taken: Witness) -> bool:
        """Tell whether what was taken under that witness is unchanged under this one."""
        if taken.stamps != self.stamps or (taken.is_racy and abs(self.seen_at - taken.seen_at) > RACY_NS):
            return False
        if self.sequences is None:
            return True
        if taken.sequences is None:
            return False
        return all(had >= now for had, now in zip(taken.sequences, self.sequences, strict=True))


@dataclass
class Kept:
    """What is kept for one identity: a blob from which rows are cut, one part, or why there is none.

    `until` is in nanoseconds, None for ever.
    """

    witness: Witness
    blob: Blob | None = None
    whole_cut: Cut | None = None
    error: PlatformError | None = None
    until: int | None = None
    size: int = _OVERHEAD
    _cuts: dict[tuple[str, int], Cut] = field(default_factory=dict)

    def has(self, n: int | None) -> bool:
        """Tell whether it has so many rows, or all that there are."""
        return self.blob is None or n is None or self.blob.rows >= n or self.blob.whole

    def cut(self, target: Target | None, n: int | None) -> Cut:
        """Give the newest `n` rows of what the target picks; equal ones are encoded once."""
        if self.blob is None or target is None or n is None:
            assert self.whole_cut is not None
            return self.whole_cut
        cut = self._cuts.get((target.feature, n))
        if cut is None:
            part = rows_part(self.blob, target, n)
            cut = Cut(part, tally_of(self.blob.batch.column("status"), part.rows, n))
            if len(self._cuts) >= _MOST_CUTS:
                self.size -= len(self._cuts.pop(next(iter(self._cuts))).part.data) + _OVERHEAD
            self._cuts[target.feature, n] = cut
            self.size += len(part.data) + _OVERHEAD
        return cut


class NearCache:
    """Keeps what was answered lately, at most so many bytes of it: the longest unused goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, n: int | None, now: Witness) -> Kept | None:
        """Give what is kept under that key, if it is long enough and nothing has changed; else forget it."""
        kept = self._kept.get(key)
        if kept is None or not kept.has(n):
            return None
        if not now.vouches_for(kept.witness) or (kept.until is not None and now.seen_at >= kept.until):
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: Hashable, kept: Kept | None) -> None:
        """Keep it, unless what is there was taken later, or it could not be told from what a later change made."""
        if kept is None or (kept.witness.is_racy and kept.witness.sequences is None):
            return
        held = self._kept.get(key)
        if held is not None and 0 < held.witness.seen_at - kept.witness.seen_at < _ORDERED_NS:
            return
        self._forget(key)
        self._kept[key] = kept
        self._count(kept.size)

    def cut(self, key: Hashable, kept: Kept, target: Target | None, n: int | None) -> Cut:
        """Give rows of what is kept, as `Kept.cut` does, and count what that takes."""
        before = kept.size
        cut = kept.cut(target, n)
        if kept.size != before and self._kept.get(key) is kept:
            self._count(kept.size - before)
        return cut

    def _count(self, more: int) -> None:
        self.size += more
        while self.size > self._most_bytes and self._kept:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= kept.size


def kept_blob(blob: Blob, witness: Witness) -> Kept:
    """Give what to keep of the newest rows of a feature."""
    return Kept(witness, blob=blob, size=_OVERHEAD + int(blob.batch.nbytes))


def kept_part(part: Part, tally: Tally, witness: Witness, until: int | None = None) -> Kept:
    """Give what to keep of a part; `until` is in microseconds."""
    cut = Cut(part, tally)
    return Kept(witness, whole_cut=cut, until=None if until is None else until * 1000, size=_OVERHEAD + len(part.data))
