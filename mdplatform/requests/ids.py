"""Request ids: 32 hexadecimal digits that sort by time (UUID version 7) and come once."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Give an id; those of one process sort in the order in which they were made.

    >>> first, second = new_id(), new_id()
    >>> first < second, len(first), first[12]
    (True, 32, '7')
    """
    global _last
    with _lock:
        ticks = _last = max(_last + 1, time.time_ns() * 4096 // 1_000_000)  # 4,096 of them are a millisecond
    tail = int.from_bytes(os.urandom(8)) >> 2 | 0x8000_0000_0000_0000
    return f"{ticks >> 12:012x}7{ticks & 0xFFF:03x}{tail:016x}"
