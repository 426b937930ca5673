"""Lending: results that are not published, such as ranges and matrices, for the workers that wait for the same.

What is of the usual window lies in Redis for every reader. All else lies there for some seconds only, under a key that
has all of the question in it, the sequences, and the times of the folders that were seen before it was computed: so who
finds it there would compute the same. A worker lends so many bytes at a time and no more; what is larger, or beyond
that, each worker computes itself.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import replace

import msgspec

from mdplatform.market.quality import Tally
from mdplatform.requests.answer import Part
from mdplatform.serving.codec import BadBlob, decode, encode
from mdplatform.serving.keys import lent_key
from mdplatform.worker.near import Kept, Witness, kept_blob, kept_part

LENT_SECONDS = 5.0
LARGEST_BYTES = 8_000_000
LENT_BYTES = 32_000_000
"""What one worker lends at a time, in all."""


class _Lent(msgspec.Struct, array_like=True):
    """What lies in Redis: the bytes of a blob, or a part with its counts; and when the folders were looked at."""

    seen_at: int
    blob: bytes | None = None
    part: Part | None = None
    tally: Tally = Tally(0)
    until: int | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Lent)


def place_of(identity: Hashable, rows: int, seen: Witness) -> str | None:
    """Give the key under which the answer is lent; None where Redis is away."""
    if seen.sequences is None:
        return None
    told = repr((identity, rows, seen.sequences, seen.stamps))
    return lent_key(hashlib.blake2b(told.encode(), digest_size=16).hexdigest())


def borrowed(raw: bytes | None, seen: Witness) -> Kept | None:
    """Read what was lent under the key of that witness; None if it is nothing, damaged, or may be old."""
    if not raw:
        return None
    try:
        lent = _decoder.decode(raw)
        blob = None if lent.blob is None else decode(lent.blob)
    except (BadBlob, msgspec.DecodeError, UnicodeDecodeError):
        return None
    taken = replace(seen, seen_at=lent.seen_at)
    if not seen.vouches_for(taken):
        return None
    if blob is not None:
        return kept_blob(blob, taken)
    return None if lent.part is None else kept_part(lent.part, lent.tally, taken, lent.until)


class Lending:
    """What this worker lends at present, in bytes."""

    def __init__(self, most_bytes: int = LENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._until: deque[tuple[float, int]] = deque()
        self._size = 0

    def lend(self, kept: Kept) -> bytes | None:
        """Give the bytes to be lent for `LENT_SECONDS`; None of errors, and of what is too much."""
        now = time.monotonic()
        while self._until and self._until[0][0] <= now:
            self._size -= self._until.popleft()[1]
        if kept.error is not None or kept.size > min(LARGEST_BYTES, self._most_bytes - self._size):
            return None
        if kept.blob is not None:
            lent = _Lent(kept.witness.seen_at, blob=encode(kept.blob))
        else:
            assert kept.whole_cut is not None
            until = None if kept.until is None else kept.until // 1000
            lent = _Lent(kept.witness.seen_at, None, kept.whole_cut.part, kept.whole_cut.tally, until)
        raw = _encoder.encode(lent)
        self._until.append((now + LENT_SECONDS, len(raw)))
        self._size += len(raw)
        return raw
