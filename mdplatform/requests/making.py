"""Making and checking requests: what a strategy writes becomes a `DataRequest`, or one error that names the field."""

from __future__ import annotations

from typing import Any

from mdplatform.requests.request import DataRequest, RequestType


def make(type: RequestType | str, **fields: Any) -> DataRequest:
    """Make a checked request of that type from what a strategy writes; see the functions of each type.

    Raises a `PlatformError` with its `field` set.
    """
    raise NotImplementedError


def check(request: DataRequest) -> DataRequest:
    """Check a request that came over the wire as `make` would; give it in canonical form. Raises like `make`."""
    raise NotImplementedError
