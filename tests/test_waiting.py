"""Waiting for things: what Python 3.11 gets wrong is not used."""

from __future__ import annotations

import ast
from pathlib import Path

import mdplatform

PACKAGE = Path(mdplatform.__file__).parent


def test_nothing_waits_by_wait_for_which_may_swallow_a_cancellation() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "wait_for" and ast.unparse(node.value) == "asyncio"
    ]
    assert found == [], "use `async with asyncio.timeout(...)`"
