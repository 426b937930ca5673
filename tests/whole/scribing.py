"""Looks after a scribe: starts it, kills it, and reads what it wrote down."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import scribe

Line = dict[str, Any]


class Scribe:
    """A strategy as a process, which can be killed and started again."""

    def __init__(self, file: Path) -> None:
        self.lines: list[Line] = []
        """What is written down, as of the last look."""
        self._file = file
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it goes on behind what is written."""
        self._process = subprocess.Popen([sys.executable, "-P", str(scribe.__file__), str(self._file)])

    def kill(self) -> None:
        """Kill it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def look(self) -> list[Line]:
        """Read what was written down since the last look."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            self.lines += map(json.loads, whole.splitlines())
        return self.lines

    def wait_for(self, more: int) -> None:
        """Wait until so many more frames are written down."""
        wanted = len(self.look()) + more
        self.wait_until(lambda lines: len(lines) >= wanted)

    def wait_until(self, condition: Callable[[list[Line]], object], seconds: float = 40.0) -> None:
        """Wait until what is written down is as it should be."""
        end = time.monotonic() + seconds
        while not condition(self.look()):
            assert self._process is not None
            assert self._process.poll() is None, "it has ended by itself"
            assert time.monotonic() < end, f"it did not come about: {self.lines[-1:]}"
            time.sleep(0.02)
