"""Sealing: merging what waits in the inbox into the lake, here or in a process beside the stream.

A merge holds the interpreter for milliseconds at a time, which the stream would wait for. So a feed has it done by a
child of low priority (`SealingProcess`), which begins with the first round and lives as long as the feed:
1. the feed writes the symbols to the child's input, a line a round;
2. the child answers with a line a symbol, and an empty one at the end;
3. a child that dies or is silent for too long is ended, and the round is asked once more of another: what was merged
   by the first is merged already;
4. a feed that dies, however it dies, leaves a child whose input ends, or whose next answer nobody can take: it ends.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mdplatform.errors import PlatformError, ProcessFailed
from mdplatform.lake import Lake
from mdplatform.lake.bars import MergeReport
from mdplatform.tuning import ONE_THREAD

ANSWER_SECONDS = 180.0
"""How long a child may take over one symbol: another process may hold each of its months for a minute."""
_END_SECONDS = 5.0
_NICE = 10


class Sealed(msgspec.Struct, frozen=True):
    """What became of a symbol (none: of the round): did anything wait, how many months changed, what went wrong."""

    symbol: str
    waited: bool = False
    changed: int = 0
    problem: str = ""


def seal(lake: Lake, symbols: Sequence[str]) -> Iterator[Sealed]:
    """Merge what waits for `symbols`, and all that feeds have let go of, a symbol at a time."""
    try:
        logged = lake.inbox.logged()
    except (PlatformError, OSError) as failed:
        yield Sealed("", problem=_told(failed))
        return
    for symbol in dict.fromkeys((*symbols, *sorted(logged))):
        try:
            reports = [merge_waiting(lake, symbol, month) for month in lake.inbox.months(symbol)]
        except Exception as failed:  # noqa: BLE001  # told to the journal; the other symbols' bars are no worse for it
            yield Sealed(symbol, problem=_told(failed))
        else:
            yield Sealed(symbol, bool(reports), sum(report.changed for report in reports))


def _told(failed: Exception) -> str:
    return str(failed) if isinstance(failed, PlatformError) else repr(failed)


def merge_waiting(lake: Lake, symbol: str, month: str) -> MergeReport:
    """Merge what waits for one month, and clear it away once it is in the lake, as the `bars` asset does."""
    waiting = lake.inbox.pending(symbol, month)
    report = lake.bars.merge(symbol, month, waiting)
    for batch in waiting:
        lake.inbox.clear(batch)
    return report


class SealingProcess:
    """Seals as `seal` does, in a child process that begins with the first call; for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-P", "-m", __name__, str(folder)]
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._asking, self._starting = threading.Lock(), threading.Lock()

    @property
    def pid(self) -> int | None:
        """The child's, if there is one."""
        return self._child.pid if self._child is not None else None

    def __call__(self, symbols: Sequence[str]) -> Generator[Sealed, None, None]:
        """Merge what waits. Raises `ProcessFailed` where two children failed one after the other, or it is closed."""
        with self._asking:
            for is_last in (False, True):
                child = self._running()
                try:
                    yield from _asked(child, symbols)
                except BaseException as failed:  # what it answers yet would be taken for answers to the next round
                    _end(child, 0.0)
                    self._child = None
                    if not isinstance(failed, OSError):
                        raise
                    if is_last:
                        raise ProcessFailed(
                            "The process that merges into the lake has ended twice",
                            value=str(failed),
                            remedy="Bars wait in the lake's inbox, and it is tried again",
                        ) from failed
                else:
                    return

    def close(self) -> None:
        """End the child, after 5 s even in a merge: that leaves the lake whole."""
        with self._starting:
            self._is_closed = True
            child = self._child
        if child is not None:
            _end(child, _END_SECONDS)

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._is_closed:
                raise ProcessFailed("The process that merges into the lake has been ended")
            if self._child is None:
                self._child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    env={**dict.fromkeys(ONE_THREAD, "1"), **os.environ},
                    start_new_session=True,  # Ctrl-C is for the feed, which has a last round to ask for
                )
            return self._child


def _asked(child: subprocess.Popen[bytes], symbols: Sequence[str]) -> Iterator[Sealed]:
    assert child.stdin is not None
    assert child.stdout is not None
    left = memoryview(msgspec.json.encode(list(symbols)) + b"\n")
    while left:
        left = left[child.stdin.write(left) or 0 :]
    for line in _lines(child.stdout.fileno()):
        if not line:
            return
        yield msgspec.json.decode(line, type=Sealed)


def _end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a child end by itself for so long."""
    assert child.stdin is not None
    with suppress(OSError):  # it is gone
        child.stdin.close()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(_END_SECONDS)


def _lines(pipe: int) -> Iterator[bytes]:
    """Give the lines that come, each within `ANSWER_SECONDS`. Raises `OSError` where none does."""
    held = b""
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        ready, _, _ = select.select([pipe], [], [], max(end - time.monotonic(), 0.0))
        if not ready:
            raise TimeoutError(f"it has not answered for {ANSWER_SECONDS:.0f} s")
        read = os.read(pipe, 65_536)
        if not read:
            raise BrokenPipeError("it has ended")
        *lines, held = (held + read).split(b"\n")
        yield from lines
        if lines:
            end = time.monotonic() + ANSWER_SECONDS


def main() -> None:
    """Answer rounds until the input ends."""
    os.nice(_NICE)
    lake = Lake(Path(sys.argv[1]))
    with suppress(BrokenPipeError):  # whoever asked has ended
        for line in sys.stdin.buffer:
            for sealed in seal(lake, msgspec.json.decode(line, type=list[str])):
                os.write(1, msgspec.json.encode(sealed) + b"\n")
            os.write(1, b"\n")


if __name__ == "__main__":
    main()
