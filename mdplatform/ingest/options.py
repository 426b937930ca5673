"""Options of an ingest: one that a target does not use is refused, since nobody should believe that it was heeded."""

from __future__ import annotations

from collections.abc import Mapping

from mdplatform.errors import PlatformError
from mdplatform.ingest.report import Wanted
from mdplatform.sources.registry import ALIASES, SOURCES
from mdplatform.sources.scorers import scorer
from mdplatform.sources.table_registry import READERS, REMOTES

_OPTIONS = {
    "timeframe": "--timeframe",
    "columns": "--column",
    "provider": "--provider",
    "scorer": "--scorer",
    "observed": "--observed",
    "lag_days": "--lag-days",
}
"""What `Wanted` calls them, and the command line. Symbol and range are checked where they are used."""
_OF_BARS = ("timeframe",)


def check_options(kind_of: Mapping[str, str], wanted: Wanted) -> None:
    """Check that each target uses each option that is given.

    Raises `PlatformError` with what the option is for, and `UnknownScorer`.
    """
    given = [name for name in _OPTIONS if getattr(wanted, name) not in (None, {})]
    for target, kind in kind_of.items():
        for name in given:
            if name not in _used(target, kind):
                raise PlatformError(
                    f"{'A remote' if _is_remote(target, kind) else 'A file'} of {kind} does not use {_OPTIONS[name]}",
                    value=target,
                    remedy=f"Leave it out; it is for {_those_that_use(name)}",
                )
    if wanted.scorer is not None:
        scorer(wanted.scorer)


def _used(target: str, kind: str) -> tuple[str, ...]:
    if kind == "bars":
        return _OF_BARS
    return () if _is_remote(target, kind) or kind not in READERS else READERS[kind].uses


def _is_remote(target: str, kind: str) -> bool:
    word, colon, _ = target.partition(":")
    return bool(colon) and word in ({*SOURCES, *ALIASES} if kind == "bars" else REMOTES.get(kind, {}))


def _those_that_use(name: str) -> str:
    if name in _OF_BARS:
        return "bars"
    return " and ".join(f"files --as {kind}" for kind, reader in READERS.items() if name in reader.uses)
