"""What a worker writes to its log: one JSON object a line, for what matters. Answers are counted, not logged."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

log = logging.getLogger("mdplatform.worker")


class Events:
    """Writes events with their time and the worker's name."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def note(self, event: str, **told: object) -> None:
        """Write down something that belongs to the work."""
        self._write(logging.INFO, event, told)

    def warn(self, event: str, **told: object) -> None:
        """Write down something that somebody may want to look into."""
        self._write(logging.WARNING, event, told)

    def failed(self, event: str, failure: BaseException, **told: object) -> None:
        """Write down an error of the worker itself, with its traceback."""
        told["traceback"] = "".join(traceback.format_exception(failure))
        self._write(logging.ERROR, event, told)

    def _write(self, level: int, event: str, told: dict[str, object]) -> None:
        if log.isEnabledFor(level):
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = {"at": at, "level": logging.getLevelName(level), "worker": self._worker, "event": event, **told}
            log.log(level, json.dumps(line, default=str))


def log_to_stderr() -> None:
    """Have the lines written to standard error, as a worker process does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
