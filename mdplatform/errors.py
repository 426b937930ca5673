"""Every error that the platform raises for a person to read: cause, value and remedy in one line.

Catch `PlatformError` for all of them. Bad input is refused with one of these before any work is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class PlatformError(Exception):
    """Something is wrong that a person can mend: `cause`, the `value` that caused it, and the `remedy`.

    What is wrong in a text also has its `column` (from 1, else 0) and `pointed`, the text with a caret under it; what
    is wrong in a request has its `field`, such as `indicators[0].parameters`.
    """

    column: int = 0
    pointed: str = ""
    field: str = ""

    def __init__(self, cause: str, *, value: object = None, remedy: str = "") -> None:
        self.cause = cause
        self.value = value
        self.remedy = remedy
        super().__init__(cause)

    def __str__(self) -> str:
        cause = f"{self.field}: {self.cause}" if self.field else self.cause
        shown = cause if self.value is None else f"{cause}: {self.value!r}"
        told = f"{shown}. {self.remedy}" if self.remedy else shown
        return f"{told} (at column {self.column})\n{self.pointed}" if self.pointed else told

    def __reduce__(self) -> tuple[object, ...]:
        place = {"column": self.column, "pointed": self.pointed, "field": self.field}
        return (_rebuild, (type(self), self.cause, self.value, self.remedy), place)


def _rebuild(kind: type[PlatformError], cause: str, value: object, remedy: str) -> PlatformError:
    error = kind.__new__(kind)
    PlatformError.__init__(error, cause, value=value, remedy=remedy)
    return error


class UnknownName(PlatformError):
    """A name that is not on a list; the remedy says the nearest ones, or the whole list where it is short."""

    kind = "name"

    def __init__(self, value: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"Unknown {self.kind}", value=value, remedy=_suggest(value, names, self.kind))


def _suggest(value: str, names: Sequence[str], kind: str) -> str:
    if not names:
        return f"No {kind} is known yet"
    if len(names) <= 16:
        return f"Known: {', '.join(names)}"
    by_folded = {name.casefold(): name for name in names}
    near = [by_folded[match] for match in get_close_matches(str(value).casefold(), by_folded, n=3, cutoff=0.5)]
    return f"Nearest known: {', '.join(near)}" if near else f"{len(names)} are known, such as {', '.join(names[:5])}"


class UnknownTimeframe(UnknownName):
    """Not one of the timeframes of the conventions (case matters)."""

    kind = "timeframe"

    def __init__(self, value: str, known: Iterable[str]) -> None:
        PlatformError.__init__(self, "Unknown timeframe", value=value, remedy=f"Allowed: {' '.join(known)}")


class UnknownSymbol(UnknownName):
    """A symbol of which the lake holds nothing."""

    kind = "symbol"


class UnknownFeature(UnknownName):
    """A feature name that is neither in the registry nor an alias."""

    kind = "feature"


class UnknownParameter(UnknownName):
    """A parameter that the feature does not take."""

    kind = "parameter"


class UnknownOutput(UnknownName):
    """An output that the feature does not give."""

    kind = "output"


class UnknownInput(UnknownName):
    """An input column that bars do not have."""

    kind = "input column"


class UnknownComposite(UnknownName):
    """A composite indicator that nobody registered."""

    kind = "composite"


class UnknownSeries(UnknownName):
    """A macro series of which the lake holds nothing."""

    kind = "series"


class UnknownProvider(UnknownName):
    """A provider of sentiment of which the lake holds no document."""

    kind = "provider"


class UnknownAsset(UnknownName):
    """An asset that the platform does not define."""

    kind = "asset"


class UnknownSource(UnknownName):
    """A source of market data that the platform does not have."""

    kind = "source"


class InvalidSymbol(PlatformError):
    """A text that cannot be a symbol (1 to 32 of A–Z, 0–9, `_`, `-`, `.`; it starts with a letter or digit)."""


class InvalidTable(PlatformError):
    """A table of trades, depth, sentiment or macro observations that lacks columns, or whose rows make no sense."""


class InvalidFeature(PlatformError):
    """A feature's text or form that cannot be read."""


class InvalidFormula(InvalidFeature):
    """A formula that is refused: the cause says at which `column` (from 1), and the value shows it with a caret."""

    def __init__(self, cause: str, *, value: object = None, remedy: str = "", column: int = 0) -> None:
        super().__init__(cause, value=value, remedy=remedy)
        self.column = column

    def __str__(self) -> str:
        cause = f"{self.field}: {self.cause}" if self.field else self.cause
        told = f"{cause}. {self.remedy}" if self.remedy else cause
        return told if self.value is None else f"{told}\n{self.value}"


class ParameterOutOfRange(PlatformError):
    """A parameter's value outside the range that the registry states."""


class InvalidBars(PlatformError):
    """A table of bars that misses columns, or whose rows are not in order."""


class SourceError(PlatformError):
    """A file or an answer of a source that is refused whole; nothing of it is stored."""


class EmptyFile(SourceError):
    """A file with no rows."""


class TruncatedFile(SourceError):
    """A file that ends in the middle: a cut archive, or a last row that lacks fields."""


class UnknownFormat(SourceError):
    """A file that is none of the formats which are read."""


class UnknownColumns(SourceError):
    """A file whose columns are not those of bars."""


class MislabelledFile(SourceError):
    """A file whose name (or the caller) says another symbol or timeframe than its rows."""


class OversizedFile(SourceError):
    """A file that is larger, unpacked, than the settings allow."""


class ChecksumMismatch(SourceError):
    """A file that differs from the checksum beside it."""


class UnknownTimeUnit(SourceError):
    """Epoch numbers that are no plausible time in seconds, milli-, micro- or nanoseconds."""


class SourceUnavailable(SourceError):
    """A remote source that does not answer, or has no such data."""


class NoData(PlatformError):
    """Nothing in the lake for what was asked."""


class CorruptPartition(PlatformError):
    """A file of the lake that cannot be read."""


class InvalidSetting(PlatformError):
    """A setting with a value that is not allowed."""


class RedisUnavailable(PlatformError):
    """The Redis (or embedded Valkey) server cannot be reached."""


class InvalidQuery(PlatformError):
    """An SQL text that DuckDB refuses."""


class MaterializationFailed(PlatformError):
    """A Dagster run that ended in failure."""


class ProcessFailed(PlatformError):
    """A process of the platform that ended by itself, or did not become ready in time."""


class LakeBusy(PlatformError):
    """A part of the lake that another process has held for too long."""


class FeedBusy(PlatformError):
    """A feed that another process follows already for the same home."""


class TransportUnavailable(PlatformError):
    """The server that carries requests does not answer."""


class TransportRefused(TransportUnavailable):
    """The server that carries requests answers, but refuses a step: trying the same again is of no use to a worker."""


class InvalidPost(PlatformError):
    """A post, topic, cursor or wish that a broadcast refuses."""


class InvalidRequest(PlatformError):
    """A request that is refused before any work."""


class RequestRejected(PlatformError):
    """A request that was not admitted, because too many are open; try again after `retry_after_seconds`."""

    retry_after_seconds: float = 0.0


class RequestFailed(PlatformError):
    """A request whose final answer says that it failed."""


class UnknownRequest(PlatformError):
    """A request id of which nothing is known (any more)."""


class InvalidKey(PlatformError):
    """An API key that is missing, unknown, or may not do what was asked."""


class InvalidPreprocessing(PlatformError, ValueError):
    """Rows, parameters or a file that the preprocessing for models cannot take; `field` says which.

    A `ValueError` too, as scikit-learn expects of its parts.
    """


class SchemaMismatch(InvalidPreprocessing):
    """Rows whose columns, types, timeframe or features are not those that a preprocessing was fitted on."""
