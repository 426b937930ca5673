"""Ctrl-C while a program begins ends it with one line, and is not lost between two programs."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = "import os, signal, sys\nfrom mdplatform.interrupts import *\nme = os.getpid()\n"
HERE = "leave_at_once()\nos.kill(me, signal.SIGINT)\nprint('went on')"
NEXT = f"""
keep_for_the_next_program()
os.kill(me, signal.SIGINT)
os.execv(sys.executable, [sys.executable, "-c", {BEGINNING + "leave_at_once()"!r}])
"""
LATER = """
with leaving_at_once():
    pass
try:
    os.kill(me, signal.SIGINT)
except KeyboardInterrupt:
    os._exit(7)
"""


@pytest.mark.parametrize(
    ("program", "status", "said"), [(HERE, 130, "Interrupted\n"), (NEXT, 130, "Interrupted\n"), (LATER, 7, "")]
)
def test_a_program_that_is_interrupted_as_it_begins_says_so_in_a_line(program: str, status: int, said: str) -> None:
    ended = subprocess.run([sys.executable, "-c", BEGINNING + program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", said)
