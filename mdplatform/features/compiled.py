"""Kernels that go through rows one by one, compiled by numba.

Their machine code is cached beside their source, so that only the first process on a machine waits for the compiler.
A module that has such kernels is imported where something is computed, not before: numba is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile `function` when it is first called; it runs without the lock on the interpreter."""
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # there is no place to keep machine code: a file system that cannot be written to
        return cast(Kernel, numba.njit(nogil=True)(function))
