"""A child: one program started beside this process, watched until it says that it is ready, and ended."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mdplatform.errors import ProcessFailed
from mdplatform.processes import minder

GRACE_SECONDS = 8.0
"""How long a child may take to end after SIGTERM."""
_LOG_BYTES = 8_000_000
_TAIL_BYTES = 4096
_TAIL_LINES = 15


@dataclass(frozen=True)
class Program:
    """What to start. It is ready when it prints a line of JSON with `"ready": true`, or one that `is_ready` knows."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_ready: Callable[[str], bool] | None = None


class Child:
    """A started program, whose standard output goes to its log through a thread here, and standard error directly.

    `events` gets the child once it is ready, and once it has ended.
    """

    def __init__(self, program: Program, log: Path, events: queue.SimpleQueue[Child]) -> None:
        self.name = program.name
        self.log = log
        self.pid = 0
        self.is_ready = False
        self.told: dict[str, object] = {}
        """What the line that said so told besides."""
        self._program = program
        self._events = events
        _turn_over(log)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", minder.__file__, str(GRACE_SECONDS), *program.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(program.environment),
                start_new_session=True,
            )
        self._reading = threading.Thread(target=self._read, name=f"log of {program.name}", daemon=True)
        self._reading.start()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def ask_to_end(self) -> None:
        """Have it end, by closing the pipe on which its minder waits; returns at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> None:
        """Wait for its end, which is forced after the grace."""
        try:
            self._process.wait(GRACE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel ends the child with its minder
            self._process.wait()
        self._reading.join(1.0)
        if self._process.stdout is not None and not self._reading.is_alive():
            self._process.stdout.close()

    def failure(self, cause: str) -> ProcessFailed:
        """Say that it is not there as it should be, with the end of its log."""
        told = tail(self.log)
        return ProcessFailed(
            f"{self.name} {cause}",
            value=str(self.log),
            remedy=f"The end of its log:\n{told}" if told else "Its log is empty",
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            for line in self._process.stdout:
                if not self._understand(line):
                    log.write(line)
        self._process.wait()
        self._events.put(self)

    def _understand(self, line: bytes) -> bool:
        """Take what the minder and the program tell; give whether it was the minder's line."""
        text = line.decode("utf-8", "replace").rstrip()
        told = _object(text)
        if not self.pid and isinstance(pid := told.get("pid"), int) and "ready" not in told:
            self.pid = pid
            return True
        known = self._program.is_ready
        if not self.is_ready and (known(text) if known is not None else told.get("ready") is True):
            self.told = told
            self.is_ready = True
            self._events.put(self)
        return False


def tail(log: Path) -> str:
    """Give the last lines of a log, "" if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])
    except OSError:
        return ""


def _object(text: str) -> dict[str, object]:
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _turn_over(log: Path) -> None:
    """Set a log that has grown long aside, in the place of the one set aside before."""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
