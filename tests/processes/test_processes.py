"""Processes are ready when the `with` begins, and gone when it ends, in whatever way it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mdplatform.errors import InvalidSetting, ProcessFailed
from mdplatform.processes import Program, run_programs

READY = """print('{"ready": true, "name": "this"}', flush=True)"""
WAIT = "import time\ntime.sleep(60)"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
WITH_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
"""


def program(name: str, *lines: str) -> Program:
    return Program(name, [sys.executable, "-c", "\n".join(lines)], dict(os.environ))


def is_gone(pid: int, seconds: float = 5.0) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def test_all_are_ready_inside_and_gone_after(tmp_path: Path) -> None:
    with run_programs([program("one", READY, WAIT), program("two", READY, WAIT)], tmp_path / "logs") as pids:
        assert list(pids) == ["one", "two"]
        assert not any(is_gone(pid, 0.05) for pid in pids.values())
    assert all(is_gone(pid) for pid in pids.values())
    assert '"ready": true' in (tmp_path / "logs" / "one.log").read_text()


def test_they_end_when_the_body_raises(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def fail() -> None:
        with run_programs([program("one", READY, WAIT)], tmp_path) as pids:
            seen.update(pids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_gone(seen["one"])


def test_what_they_started_ends_with_them(tmp_path: Path) -> None:
    with run_programs([program("one", WITH_A_CHILD, READY, WAIT)], tmp_path):
        grandchild = int((tmp_path / "one.log").read_text().split()[0])
        assert not is_gone(grandchild, 0.05)
    assert is_gone(grandchild)


def test_one_that_ends_early_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    programs = [program("good", READY, WAIT), program("bad", "raise SystemExit('no such file: here')")]
    with (
        pytest.raises(ProcessFailed, match=r"bad ended before(?s:.*)no such file: here"),
        run_programs(programs, tmp_path),
    ):
        pass


def test_one_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ProcessFailed, match=r"slow is not ready after 1 s(?s:.*)still thinking"),
        run_programs([program("slow", "print('still thinking', flush=True)", WAIT)], tmp_path, ready_seconds=0.6),
    ):
        pass


def test_a_folder_of_logs_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting), run_programs([], tmp_path / "file" / "logs"):
        pass


def test_one_that_does_not_heed_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdplatform.processes.child.GRACE_SECONDS", 0.3)
    with run_programs([program("stubborn", STUBBORN, READY, WAIT)], tmp_path) as pids:
        pass
    assert is_gone(pids["stubborn"])


def test_they_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    programs = run_programs([program("one", READY, WAIT)], tmp_path)
    pids: dict[str, int] = {}
    starter = threading.Thread(target=lambda: pids.update(programs.__enter__()))
    starter.start()
    starter.join()
    assert not is_gone(pids["one"], 0.2)
    programs.__exit__(None, None, None)
    assert is_gone(pids["one"])


STARTER = """
import os, signal, sys
from pathlib import Path
from mdplatform.processes import Program, run_programs
program = Program("one", {command!r}, dict(os.environ))
with run_programs([program], Path({logs!r})) as pids:
    fork = os.fork() if {fork} else 0
    if {fork} and fork == 0:
        os.close(0), os.close(1), signal.alarm(20), signal.pause()
    print(pids["one"], fork, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("fork", [False, True])
def test_they_end_when_this_process_is_killed(
    tmp_path: Path, python: Callable[[str], subprocess.Popen[str]], fork: bool
) -> None:
    command = [sys.executable, "-c", f"{READY}\n{WAIT}"]
    starter = python(STARTER.format(command=command, logs=str(tmp_path), fork=fork))
    assert starter.stdout is not None
    pid, copy = map(int, starter.stdout.readline().split())
    os.kill(starter.pid, signal.SIGKILL)
    assert is_gone(pid)
    if fork:  # it held the pipe on which the minder waits all the time
        os.kill(copy, signal.SIGKILL)


def test_a_killed_minder_takes_its_child_along(tmp_path: Path) -> None:
    with run_programs([program("one", READY, WAIT)], tmp_path) as pids:
        minder = int(Path(f"/proc/{pids['one']}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(minder, signal.SIGKILL)
        assert is_gone(pids["one"])
