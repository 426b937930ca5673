"""The keeper: a small process that owns the embedded Valkey of one home for as long as anybody uses it.

    python keeper.py DIRECTORY SOCKET MEMORY_MB BINARY

It needs nothing but the standard library, so that it starts fast and stays small. What it does:

1. It takes `keeper.lock` (one keeper a home), then `server.lock`, which the server inherits: no second server can ever
   write to the same files, even if an earlier keeper was killed and left its server behind; that one is shut down.
2. It starts `valkey-server` as its child, on a unix socket, told by the kernel to end with its parent.
3. It waits for the first answer, mends an append-only file that the server refuses (the unmended one is kept beside),
   and writes one JSON line to standard output: `{"ready": pid}` or `{"failed": reason, "log": tail}`.
4. It blocks in `flock` on `users.lock`, of which every user holds a share. The kernel gives the lock when the last
   user has gone, in whatever way it went: the keeper then shuts the server down and ends. It also
   ends when the server has died; the next user starts both again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

KEEPER_LOCK = "keeper.lock"
SERVER_LOCK = "server.lock"
USERS_LOCK = "users.lock"
START_LOCK = "start.lock"
LOG = "valkey.log"
APPEND_DIR = "appendonlydir"
LOAD_SECONDS = 300.0  # a full 100 GB server is not our case; half a gigabyte loads in about 5 s
STOP_SECONDS = 10.0
TAKE_OVER_SECONDS = 2.0
CLIENTS_MB = 48  # three of the largest values: less would cut a client again and again for what it may ask for
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The server cannot be started; the text says why."""


def ask(path: Path | str, command: bytes, seconds: float = 1.0) -> bytes | None:
    """Send one inline command to the server at `path`; give the first bytes of its answer, None if there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(seconds)
            link.connect(str(path))
            link.sendall(command + b"\r\n")
            return link.recv(4096) or None
    except OSError:
        return None


def answers(path: Path | str, seconds: float = 1.0) -> bool:
    """Tell whether a server at `path` is ready to serve."""
    return ask(path, b"PING", seconds) == b"+PONG\r\n"


def take_lock(descriptor: int, mode: int, seconds: float) -> bool:
    """Take a `flock`, waiting at most so long; only used while something starts or stops."""
    end = time.monotonic() + seconds
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.02)


def open_lock(directory: Path, name: str) -> int:
    """Open a lock file, which is never deleted: a deleted one would split its holders."""
    return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_tail(directory: Path, lines: int = 12) -> str:
    """Give the last lines of the server's log."""
    try:
        with (directory / LOG).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 8192))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
    except OSError:
        return ""


class Keeper:
    """One keeper of one server. `run` gives the exit status."""

    def __init__(self, directory: Path, path: Path, memory_mb: int, binary: Path) -> None:
        self.directory = directory
        self.path = path
        self.memory_mb = memory_mb
        self.binary = binary
        self.server: subprocess.Popen[bytes] | None = None
        self._events, self._notify = os.pipe()

    def run(self) -> int:
        """Keep the server until nobody uses it."""
        os.umask(0o077)
        self._catch_signals()
        keeper_lock = open_lock(self.directory, KEEPER_LOCK)
        if not take_lock(keeper_lock, fcntl.LOCK_EX, 0.5):  # whoever looks whether it is free holds it for a moment
            _report(failed="another keeper is at work")
            return 1
        os.truncate(keeper_lock, 0)
        os.write(keeper_lock, str(os.getpid()).encode())
        try:
            server_lock = self._take_over()
            self._start(server_lock)
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            self._stop()
            _report(failed=str(failure), log=log_tail(self.directory))
            return 1
        os.close(server_lock)
        threading.Thread(target=self._watch_server, daemon=True).start()
        threading.Thread(target=self._watch_users, daemon=True).start()
        _report(ready=os.getpid())
        os.read(self._events, 1)  # the server died, the users are gone, or a signal came
        self._stop()
        return 0

    def _catch_signals(self) -> None:
        os.set_blocking(self._notify, False)
        signal.set_wakeup_fd(self._notify, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def _take_over(self) -> int:
        """Take `server.lock`; a server that an earlier keeper left behind is shut down first."""
        lock = open_lock(self.directory, SERVER_LOCK)
        if take_lock(lock, fcntl.LOCK_EX, 0):
            return lock
        ask(self.path, b"SHUTDOWN")
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if take_lock(lock, fcntl.LOCK_EX, TAKE_OVER_SECONDS):
                return lock
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(os.pread(lock, 20, 0)), signal_number)
        if take_lock(lock, fcntl.LOCK_EX, TAKE_OVER_SECONDS):
            return lock
        raise Failed(f"an earlier server still runs in {self.directory} and does not end")

    def _start(self, server_lock: int) -> None:
        for attempt in ("first", "mended"):
            self._remove_socket()
            self._spawn(server_lock)
            if self._wait_until_ready():
                self._bound_clients()
                return
            if attempt == "mended" or not self._mend():
                raise Failed(self._why_it_ended())

    def _spawn(self, server_lock: int) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self.path),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "appenddirname": APPEND_DIR,
            "save": "",
            "maxmemory": f"{self.memory_mb}mb",
            "maxmemory-policy": "volatile-lru",
            "daemonize": "no",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        os.truncate(server_lock, 0)  # no earlier server's number may stay where a new one holds the lock
        log = self.directory / LOG
        with contextlib.suppress(OSError):
            log.replace(f"{log}.1")
        with log.open("wb") as output:
            self.server = subprocess.Popen(
                [str(self.binary), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                pass_fds=[server_lock],
                preexec_fn=_EndWith(os.getpid()),
            )
        os.pwrite(server_lock, str(self.server.pid).encode(), 0)

    def _wait_until_ready(self) -> bool:
        assert self.server is not None
        end = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < end:
            if answers(self.path):
                return True
            if self.server.poll() is not None:
                return False
            if select.select([self._events], [], [], 0.004)[0]:
                raise Failed("it was told to stop while it started")
        raise Failed(f"the server did not finish loading in {LOAD_SECONDS:.0f} s")

    def _bound_clients(self) -> None:
        """Have clients cut that do not read what they are sent; Redis before 7 knows no such bound."""
        ask(self.path, b"CONFIG SET maxmemory-clients %dmb" % max(CLIENTS_MB, self.memory_mb // 10))

    def _mend(self) -> bool:
        """Cut off what cannot be read of the append-only file, by the server's checker; tell whether it may help."""
        files = self.directory / APPEND_DIR
        if not self._refuses_its_file() or not files.is_dir():
            return False
        kept = f"{files}.broken"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(files, kept)
        checker = self.binary.name.replace("server", "check-aof")
        # Only what was appended can be cut. The checker gets that file alone, because it does not know the server's own
        # format of the base file; the server's binary is the checker, by the name under which it is called.
        for appended in files.glob("*.incr.aof"):
            subprocess.run(
                [checker, "--fix", str(appended)],
                executable=self.binary,
                input=b"y\n",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=STOP_SECONDS,
                check=False,
            )
        return True

    def _refuses_its_file(self) -> bool:
        said = log_tail(self.directory, 40).lower()
        return "append only file" in said or "fatal aof" in said

    def _why_it_ended(self) -> str:
        files = self.directory / APPEND_DIR
        if self._refuses_its_file():
            return f"its append-only file cannot be read; remove {files} (what it caches is computed again)"
        return f"the server ended with status {self.server.returncode if self.server else None}"

    def _watch_server(self) -> None:
        assert self.server is not None
        self.server.wait()
        os.write(self._notify, b"d")

    def _watch_users(self) -> None:
        users = open_lock(self.directory, USERS_LOCK)
        fcntl.flock(users, fcntl.LOCK_EX)  # held to the end of this process: who comes now waits for a fresh server
        os.write(self._notify, b"i")

    def _stop(self) -> None:
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            try:
                self.server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        self._remove_socket()

    def _remove_socket(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()


class _EndWith:
    """Run in the child before it becomes the server: ask Linux to end it with the keeper, however that ends."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.prctl = None
        if sys.platform == "linux":
            import ctypes

            self.prctl = ctypes.CDLL(None).prctl

    def __call__(self) -> None:
        if self.prctl is not None:
            self.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != self.parent:
                os._exit(1)


def _report(**said: object) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.close(sink)


def main(arguments: list[str]) -> int:
    """Run the keeper."""
    directory, path, memory_mb, binary = arguments
    return Keeper(Path(directory), Path(path), int(memory_mb), Path(binary)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
