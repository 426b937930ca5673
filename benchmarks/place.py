"""Where benchmarks run: a home of their own in a temporary folder, whatever the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest.mock import patch

if TYPE_CHECKING:
    from mdplatform.settings import Settings


_PATIENCE_SECONDS = 30  # so that a busy machine does not turn hits into reads from the lake


@contextmanager
def temporary_settings(**more: object) -> Iterator[Settings]:
    """Give the settings of an empty home. The user's server is never touched, as the one used gets emptied."""
    with patch.dict(os.environ), TemporaryDirectory(prefix="mdplatform-benchmark-") as folder:
        for name in [name for name in os.environ if name.startswith("MDPLATFORM_")]:
            del os.environ[name]
        os.environ["MDPLATFORM_HOME"] = folder  # Dagster's resources read it for themselves
        from mdplatform.settings import Settings

        yield Settings.load(home=Path(folder), redis_timeout_seconds=_PATIENCE_SECONDS, **more)
