"""The refusal of rows, parameters and files that cannot be taken."""

from __future__ import annotations

from mdplatform.errors import InvalidPreprocessing


def refused(cause: str, *, field: str = "", value: object = None, remedy: str = "") -> InvalidPreprocessing:
    """Make the error of rows or parameters that cannot be taken."""
    error = InvalidPreprocessing(cause, value=value, remedy=remedy)
    error.field = field
    return error
