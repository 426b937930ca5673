"""The logs of feeds: where closed bars wait, on the disk, for the months of the lake.

1. A feed appends each step to the *segment* that it has open (`FeedLog`): one write and one fsync for all symbols.
2. It holds a lock on that segment, which the system frees when it ends, however it ends. While it is held nobody else
   reads the segment; once it is free, nobody writes it any more, and it is read whole (`Segments`).
3. A segment waits for a month of each symbol in it. Whoever has merged one says so in a note beside the file; with the
   last of them the file is removed. A note that is lost does no harm: merging a segment again does nothing.

A segment comes into being with its first step whole in it. One that is damaged is set aside, for a person to look at;
the steps of it that are whole are merged.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mdplatform.errors import CorruptPartition
from mdplatform.lake.segment import Segment, Step, encode_step, read_segment, whole_steps

_SEGMENT, _CLEARED, _DAMAGED = ".log", ".cleared", ".damaged"


class FeedLog:
    """Appends the steps of one feed to segments under `folder`; not for two threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._file: int | None = None
        self._size = 0

    def append(self, step: Step) -> None:
        """Append a step, so that it outlasts a power cut. Raises `OSError`, and has appended nothing then."""
        frame = encode_step(step)
        if self._file is None:
            self._file = self._begin(frame, min(logged.staged_at for logged in step.bars))
        else:
            try:
                _write(self._file, frame)
            except OSError:
                with suppress(OSError):  # what could not be cut off is the torn end of a segment that gets no more
                    os.ftruncate(self._file, self._size)
                self.rotate()
                raise
        self._size += len(frame)

    def rotate(self) -> bool:
        """Let go of the open segment, for whoever merges it; tell whether there was one. The next step begins one."""
        if self._file is None:
            return False
        file, self._file, self._size = self._file, None, 0
        try:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that is just being started may have the file open as well
        finally:
            os.close(file)
        return True

    def _begin(self, frame: bytes, staged_at: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        _clean_up(self._folder)
        self._number += 1
        path = self._folder / f"{staged_at:020d}-{self._number:06d}-{secrets.token_hex(8)}{_SEGMENT}"
        temporary = path.with_name(f".{path.name}.tmp")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, frame)
            temporary.rename(path)
            _fsync_folder(self._folder)
        except BaseException:
            os.close(file)
            path.unlink(missing_ok=True)
            temporary.unlink(missing_ok=True)
            raise
        return file


class Segments:
    """The segments under `folder` that no feed writes any more, whosesoever they were."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: Mapping[Path, Segment] = {}

    def waiting(self) -> list[Segment]:
        """Give the segments of which parts wait, and these alone; oldest first.

        Raises `CorruptPartition` for one that is damaged and set aside now; the next time what is whole of it waits.
        """
        known: dict[Path, Segment] = {}
        found: list[Segment] = []
        for path in sorted(self._folder.glob(f"*{_SEGMENT}")):
            cleared = self._cleared(path)  # first: of a segment that is removed now, all is cleared
            segment = self._known.get(path) or self._read(path)
            if segment is None:
                continue
            left = {part: pieces for part, pieces in segment.parts.items() if part not in cleared}
            if not left:
                self._remove(path)
                continue
            known[path] = segment
            found.append(Segment(path, left))
        self._known = known
        return found

    def damaged(self) -> list[Path]:
        """Give the segments that were set aside, oldest first."""
        return sorted(self._folder.glob(f"*{_DAMAGED}"))

    def clear(self, path: Path, symbol: str, month: str) -> None:
        """Note that a part of a segment is merged, and remove the segment with its last one."""
        segment = (self._known.get(path) or self._read(path)) if path.exists() else None
        if segment is None:
            return  # all of it was cleared by somebody else
        with path.with_suffix(_CLEARED).open("a") as note:
            note.write(f"{symbol}/{month}\n")
        if self._cleared(path) >= segment.parts.keys():
            self._remove(path)

    def _cleared(self, path: Path) -> set[tuple[str, str]]:
        try:
            lines = path.with_suffix(_CLEARED).read_text().splitlines()
        except FileNotFoundError:
            return set()
        parts = (line.partition("/") for line in lines)
        return {(symbol, month) for symbol, _, month in parts}

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(_CLEARED).unlink(missing_ok=True)

    def _read(self, path: Path) -> Segment | None:
        """Read a segment; None where a feed still writes it, or it is gone."""
        try:
            return None if _is_held(path) else read_segment(path)
        except FileNotFoundError:
            return None
        except CorruptPartition as damaged:
            with suppress(FileNotFoundError):  # somebody else has done so
                _set_aside(path)
            raise CorruptPartition(
                damaged.cause,
                value=str(path.with_suffix(_DAMAGED)),
                remedy="It was set aside, and what is whole of it waits: take in again what the lake lacks since, with "
                "mdplatform ingest",
            ) from damaged


def _set_aside(path: Path) -> None:
    """Keep a damaged segment under another name, and what is whole of it under its own."""
    data = path.read_bytes()
    whole = whole_steps(data)
    if whole == data:
        return  # another process has done so
    _put(path.with_suffix(_DAMAGED), data)
    if whole:
        _put(path, whole)
    else:
        path.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def _put(path: Path, data: bytes) -> None:
    """Write a file whole, so that it outlasts a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or it would be cleaned up
        _write(file, data)
        temporary.rename(path)
    finally:
        os.close(file)
        temporary.unlink(missing_ok=True)


def _clean_up(folder: Path) -> None:
    """Remove what killed processes left behind: segments that never came into being, and notes on those that went."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if not _is_held(temporary):
                temporary.unlink()
    for note in folder.glob(f"*{_CLEARED}"):
        if not note.with_suffix(_SEGMENT).exists():
            note.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    """Tell whether a feed has the file open. Raises `FileNotFoundError`."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
