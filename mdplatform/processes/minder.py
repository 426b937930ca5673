"""The minder: a small process between this one and a child, so that the child ends however this one ends.

    python minder.py GRACE_SECONDS COMMAND…

It needs nothing but the standard library and has one thread, so that it may ask the kernel for signals between fork and
exec, which a process with threads must not. What it does:

1. It starts the command in a session of its own, told by the kernel to end with the minder, and writes one line to
   standard output, which the child shares: `{"pid": …}`.
2. It waits for the end of the child, of the starter (standard input closes, or the process is gone), or a SIGTERM.
3. It ends what is left of the child's group: SIGTERM, after the grace SIGKILL. Its exit status is the child's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def main(grace_seconds: float, command: list[str]) -> int:
    """Start the command, wait, and leave nothing of it; give its exit status, 128 + n after signal n."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    asked = _sources()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent, close_fds=True
    )
    sys.stdout.write(f'{{"pid": {child.pid}}}\n')
    sys.stdout.flush()
    while not _has_ended(child.pid):
        readable = select.select([woken, *asked], [], [])[0]
        if any(source in readable for source in asked) or any(n != signal.SIGCHLD for n in _signals(woken, readable)):
            _end(child.pid, woken, grace_seconds)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what the child left behind; its number is not given away before `wait`
    status = child.wait()
    return status if status >= 0 else 128 - status


def _sources() -> list[int]:
    """Give what becomes readable when the starter has gone: the pipe, and where there is such a thing its pidfd.

    A fork of the starter would keep the pipe open.
    """
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return [sys.stdin.fileno(), os.pidfd_open(os.getppid())]
    return [sys.stdin.fileno()]


def _end(pid: int, woken: int, grace_seconds: float) -> None:
    """Ask the child's group to end, and wait as long as the grace."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while not _has_ended(pid) and (left := deadline - time.monotonic()) > 0:
        _signals(woken, select.select([woken], [], [], left)[0])


def _has_ended(pid: int) -> bool:
    """Tell whether the child has ended, without taking its status."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signals(woken: int, readable: list[int]) -> bytes:
    return os.read(woken, 64) if woken in readable else b""


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
