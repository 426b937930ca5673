"""Downloads: one file by HTTP, verified, resumed where it was cut, and kept.

1. The checksum beside the file is fetched first. A finished file that has it is not fetched again; one that has another
   was re-issued, and is.
2. The body goes to a `.part` file named by that checksum, so that a resumed part is never of an older issue; what is
   there already is asked for by `Range`.
3. Connection errors, short bodies, stalls, 429 and 5xx are tried again after a back-off that doubles and is jittered;
   `Retry-After` is honoured.
4. A verified body replaces the file in one rename. A body with a wrong sum is thrown away and fetched anew.

Processes that want the same folder take turns, so that two never write to one part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from mdplatform.errors import ChecksumMismatch, OversizedFile, SourceUnavailable
from mdplatform.sources.unpack import parse_checksum

Progress = Callable[[int, int | None, str], None]
"""Called as `(bytes_done, bytes_total, file_name)`; the total is None while it is unknown."""

_FIRST_DELAY, _LONGEST_DELAY, _LONGEST_RETRY_AFTER = 0.5, 30.0, 300.0


class _TryAgain(Exception):
    """An attempt that failed in a way that may pass; `delay` seconds where the server says so."""

    def __init__(self, why: str, delay: float | None = None) -> None:
        super().__init__(why)
        self.delay = delay


class Downloader:
    """Fetches files into `folder`; `retries` and `timeout_seconds` are for each file and each answer.

    `max_bytes` bounds a body, `progress` is told of every chunk, `sleep` waits between attempts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        retries: int,
        timeout_seconds: float,
        max_bytes: int,
        progress: Progress | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self.retries = retries
        self.max_bytes = max_bytes
        self._progress = progress or (lambda done, total, name: None)
        self._sleep = sleep
        self._client = httpx.Client(
            timeout=timeout_seconds, follow_redirects=True, headers={"Accept-Encoding": "identity"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(self, url: str) -> Path | None:
        """Give the verified local copy of `url`, or None where the server has no such file (404).

        Raises `SourceUnavailable` when all attempts failed, `ChecksumMismatch` when the body never had its checksum,
        `OversizedFile`.
        """
        name = url.rsplit("/", 1)[-1]
        for attempt in range(self.retries + 1):
            try:
                expected = self._checksum(url, name)
                if expected is None:
                    return None
                with _alone(self.folder):
                    return self._current(name, expected) or self._body(url, name, expected)
            except (_TryAgain, ChecksumMismatch) as failed:
                if attempt == self.retries:
                    if isinstance(failed, ChecksumMismatch):
                        raise
                    raise SourceUnavailable(
                        f"{url} cannot be fetched after {attempt + 1} attempts",
                        value=str(failed),
                        remedy="Try again later, or see MDPLATFORM_ARCHIVE_URL, _RETRIES and _TIMEOUT_SECONDS",
                    ) from None
                self._sleep(self._delay(attempt, failed))
        raise AssertionError("the last attempt returns or raises")

    def _delay(self, attempt: int, failed: Exception) -> float:
        said = failed.delay if isinstance(failed, _TryAgain) else None
        if said is not None:
            return min(said, _LONGEST_RETRY_AFTER)
        return min(_FIRST_DELAY * 2.0**attempt, _LONGEST_DELAY) * random.uniform(0.5, 1.0)

    def _checksum(self, url: str, name: str) -> str | None:
        """Give the sha256 that the server states, or None where it has neither checksum nor file."""
        try:
            answer = self._client.get(f"{url}.CHECKSUM")
            if answer.status_code == 404:
                if self._client.head(url).status_code == 200:
                    raise SourceUnavailable(f"{url} has no checksum beside it", remedy="Take it in by hand as a file")
                return None
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            raise _TryAgain(why(failed)) from None
        _check_status(answer)
        return parse_checksum(answer.content[: 1 << 16], name, f"{url}.CHECKSUM")

    def _current(self, name: str, expected: str) -> Path | None:
        path = self.folder / name
        if path.is_file() and _sha256(path) == expected:
            size = path.stat().st_size
            self._progress(size, size, name)
            return path
        return None

    def _body(self, url: str, name: str, expected: str) -> Path:
        part = self.folder / f"{name}.{expected[:16]}.part"
        for stale in self.folder.glob(f"{name}.*.part"):
            if stale != part:
                stale.unlink(missing_ok=True)
        self._receive(url, name, part)
        found = _sha256(part)
        if found != expected:
            part.unlink()
            raise ChecksumMismatch(
                f"{url} differs from its checksum ({expected})", value=found, remedy="Try again later"
            )
        path = self.folder / name
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        return path

    def _receive(self, url: str, name: str, part: Path) -> None:
        """Bring `part` to its full length: what is missing is asked for, or all if the server gives no ranges."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                if answer.status_code == 416:
                    part.unlink(missing_ok=True)
                    raise _TryAgain("the part is longer than the file")
                _check_status(answer)
                resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
                    f"bytes {have}-"
                )
                if have and not resumed:
                    have = 0
                length = answer.headers.get("Content-Length", "")
                total = have + int(length) if length.isdigit() else None
                self._room(url, total or 0)
                with part.open("ab" if resumed else "wb") as file:
                    self._progress(have, total, name)
                    # Not of a stated size: httpx would hold bytes back, and lose them where the body is cut.
                    for chunk in answer.iter_raw():
                        file.write(chunk)
                        have += len(chunk)
                        self._room(url, have)
                        self._progress(have, total, name)
        except httpx.HTTPError as failed:
            raise _TryAgain(why(failed)) from None
        if total is not None and have != total:
            raise _TryAgain(f"the body ended after {have} of {total} bytes")

    def _room(self, url: str, size: int) -> None:
        if size > self.max_bytes:
            raise OversizedFile(
                f"{url} is larger than allowed", value=f"more than {self.max_bytes} bytes",
                remedy="Raise MDPLATFORM_MAX_FILE_MB if you trust it",
            )  # fmt: skip


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write to a folder; the lock goes with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _check_status(answer: httpx.Response) -> None:
    status = answer.status_code
    if status == 429 or status >= 500:
        raise _TryAgain(f"HTTP {status}", retry_after(answer.headers.get("Retry-After")))
    if status not in (200, 206):
        raise SourceUnavailable(f"{answer.request.url} is refused", value=f"HTTP {status}")


def retry_after(text: str | None) -> float | None:
    """Give the seconds of a `Retry-After` header, which is a number or a date."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def why(failed: Exception) -> str:
    """Say in words what failed."""
    return f"{type(failed).__name__}: {failed}" if str(failed) else type(failed).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
