"""Compiled kernels let other threads run: a worker's loop goes on while they compute."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from numba.core.dispatcher import Dispatcher

import mdplatform
from mdplatform import features

HOME = "mdplatform/features/compiled.py"


def modules() -> list[ModuleType]:
    names = [each.name for each in pkgutil.walk_packages(features.__path__, f"{features.__name__}.")]
    return [importlib.import_module(name) for name in names]


def test_no_kernel_holds_the_lock_on_the_interpreter():
    kernels = {
        f"{module.__name__}.{name}": value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, Dispatcher)
    }
    assert len(kernels) >= 25, "they are found"
    assert [name for name, each in kernels.items() if not each.targetoptions.get("nogil")] == []


def test_kernels_are_made_in_one_place():
    """So that none is missed which is made inside a function."""
    package = Path(mdplatform.__file__).parent
    makers = {"cfunc", "generated_jit", "guvectorize", "jit", "njit", "stencil", "vectorize"}
    found = set()
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_use = isinstance(node, ast.Attribute) and node.attr in makers and ast.unparse(node.value) == "numba"
            is_import = isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba"
            if is_use or is_import:
                found.add(str(path.relative_to(package.parent)))
    assert found == {HOME}
