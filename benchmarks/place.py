"""Where benchmarks run: a home of their own in a temporary folder, whatever the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdplatform.settings import Settings


@contextmanager
def temporary_settings() -> Iterator[Settings]:
    """Give the settings of an empty home. No server of the user's is ever touched: its Redis is emptied many times."""
    for name in [name for name in os.environ if name.startswith("MDPLATFORM_")]:
        del os.environ[name]
    from mdplatform.settings import Settings

    with TemporaryDirectory(prefix="mdplatform-benchmark-") as folder:
        os.environ["MDPLATFORM_HOME"] = folder  # Dagster's resources read it for themselves
        try:
            yield Settings.load(home=Path(folder))
        finally:
            del os.environ["MDPLATFORM_HOME"]
            os.environ.pop("DAGSTER_HOME", None)
