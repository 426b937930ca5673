"""Lookups: what both readers share, which is everything but talking to Redis.

A read goes in these steps; the readers do 2 and 5, each in its way:

1. `prepare` checks the input, before any work.
2. One `MGET` fetches the blob and the sequence of the symbol's bars.
3. `judge` takes the blob if it is sound, fresh and long enough. Fresh is what `publisher` says; where the reader sees
   the lake, its files are a second witness: the blob must not be older than they are. So bars that were stored while
   Redis was away, when nobody could bump their sequence, do not leave an old value in force.
4. Otherwise `compute` works the values out from the lake, by the function that the publisher uses.
5. What was computed for the usual window is published with the sequence that step 2 read.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from numbers import Integral

from mdplatform.errors import InvalidFeature, NoData, ParameterOutOfRange, PlatformError, UnknownSymbol
from mdplatform.features import FeatureLike, FeatureSpec, parse_feature
from mdplatform.lake import Lake
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import BadBlob, Blob, decode
from mdplatform.serving.keys import bars_key, blob_key
from mdplatform.serving.publisher import read_sequence
from mdplatform.serving.result import FeatureResult, make_result, output_names
from mdplatform.serving.timings import Timings
from mdplatform.serving.window import feature_blobs, feature_history
from mdplatform.settings import Settings

DEFAULT_TIMEFRAME = "15m"
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Target:
    """A feature in a timeframe, with what each read needs of it; kept, because to work it out costs as much as a
    read."""

    spec: FeatureSpec
    timeframe: Timeframe

    @cached_property
    def blob_id(self) -> str:
        """The id under which the whole feature lies in Redis."""
        return self.spec.whole.id

    @cached_property
    def feature(self) -> str:
        """The canonical text."""
        return str(self.spec.at(None))

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The short name of each output and its column."""
        return output_names(self.spec)


@dataclass
class Lookup:
    """One checked question, and what has become of it."""

    symbol: str
    target: Target
    n: int
    sequence: int = 0
    notes: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)

    @property
    def keys(self) -> tuple[str, str]:
        """The keys of the blob and of the symbol's bars."""
        return blob_key(self.symbol, self.target.timeframe, self.target.blob_id), bars_key(self.symbol)

    def judge(self, raw: bytes | None, sequence: bytes | None, changed_at: int) -> FeatureResult | None:
        """Give the answer if what Redis held is one, else None; remember the sequence for publishing.

        `changed_at` is when the symbol's bars in the lake were last changed, in microseconds, 0 where it is not known.
        """
        self.sequence = read_sequence(sequence)
        if raw is None:
            return None
        try:
            blob = decode(raw)
            if blob.key != self.keys[0]:
                raise BadBlob("it is of another feature")
        except BadBlob as bad:
            self.notes.append(f"What Redis held was no valid blob ({bad}), and was not used")
            return None
        self.timings.mark("decode")
        if blob.sequence < self.sequence or blob.read_at < changed_at:
            return None
        if not blob.rows or (blob.rows < self.n and not blob.whole):
            return None
        return self.answer(blob, cached=True)

    def answer(self, blob: Blob, *, cached: bool) -> FeatureResult:
        """Give the answer that the blob holds."""
        return make_result(
            blob,
            self.target.feature,
            self.target.outputs,
            self.n,
            cached=cached,
            notes=tuple(self.notes),
            timings=self.timings.finish(),
        )

    def without_redis(self, reason: str) -> None:
        """Note that Redis was of no use."""
        self.notes.append(f"Redis was not used ({reason}); the values are computed from the lake")


class Library:
    """Checks questions and computes answers from the lake; thread-safe."""

    def __init__(self, settings: Settings, lake: Lake | None = None) -> None:
        self.settings = settings
        self.lake = lake if lake is not None else Lake(settings.lake_dir)

    def prepare(self, symbol: str, feature: FeatureLike, timeframe: str | None, n: int) -> Lookup:
        """Check a question. Raises `InvalidSymbol`, `UnknownTimeframe`, `ParameterOutOfRange`, what a feature can."""
        timings = Timings()
        if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= MOST_ROWS:
            raise ParameterOutOfRange("n is refused", value=n, remedy=f"Allowed: an integer from 1 to {MOST_ROWS}")
        lookup = Lookup(parse_symbol(symbol), _target(feature, timeframe), int(n), timings=timings)
        timings.mark("check")
        return lookup

    def judge(self, lookups: Sequence[Lookup], held: Sequence[bytes | None]) -> list[FeatureResult | None]:
        """Give the answers that are in what Redis held under the keys of the lookups, one after the other."""
        for each in lookups:
            each.timings.mark("redis")
        return [
            each.judge(held[2 * place], held[2 * place + 1], self._changed_at(each.symbol))
            for place, each in enumerate(lookups)
        ]

    def _changed_at(self, symbol: str) -> int:
        """Give when the folder of the symbol's bars was changed, which is when one of its files was replaced."""
        try:
            changed_at = self.lake.bars.path(symbol, "").parent.stat().st_mtime_ns // 1000
        except OSError:
            return 0
        return changed_at if changed_at <= time.time_ns() // 1000 else 0  # a clock that was put back proves nothing

    def compute(self, lookups: Sequence[Lookup]) -> list[Blob]:
        """Compute the blob of each; those of one symbol and timeframe share bars. Raises `UnknownSymbol`, `NoData`.

        A blob has `window_rows` rows, as the publisher makes it, or `n` where more are wanted.
        """
        groups: dict[tuple[str, Timeframe, int], list[Lookup]] = defaultdict(list)
        for each in lookups:
            groups[each.symbol, each.target.timeframe, max(each.n, self.settings.window_rows)].append(each)
        found: dict[tuple[str, Timeframe, int, str], Blob] = {}
        for (symbol, timeframe, rows), group in groups.items():
            blobs = feature_blobs(self.lake, symbol, timeframe, [each.target.spec for each in group], rows)
            if not blobs:
                raise self.nothing(symbol, timeframe)
            found.update({(symbol, timeframe, rows, blob.spec_id): blob for blob in blobs})
        for each in lookups:
            each.timings.mark("compute")
        return [
            found[each.symbol, each.target.timeframe, max(each.n, self.settings.window_rows), each.target.blob_id]
            for each in lookups
        ]

    def is_publishable(self, lookup: Lookup) -> bool:
        """Tell whether what is computed for this lookup is the usual window."""
        return lookup.n <= self.settings.window_rows

    def history(
        self,
        symbol: str,
        feature: FeatureLike,
        timeframe: str | None,
        start: datetime | str | None,
        end: datetime | str | None,
        as_of: datetime | str | None,
    ) -> FeatureResult:
        """Give the rows with `start <= open_time < end`, as they were known at `as_of`."""
        lookup = self.prepare(symbol, feature, timeframe, 1)
        target, begin, stop = lookup.target, _microseconds(start), _microseconds(end)
        known = None if as_of is None else _instant(as_of)
        blob = feature_history(self.lake, lookup.symbol, target.timeframe, target.spec, begin, stop, known)
        if blob is None:
            if target.timeframe not in self.lake.bars.timeframes(lookup.symbol):
                raise self.nothing(lookup.symbol, target.timeframe)
            raise NoData(
                f"No {target.timeframe} bars of {lookup.symbol} in that range",
                value=f"{start} to {end}" + (f" as of {as_of}" if as_of is not None else ""),
                remedy="Ask for another range, or take in the bars with `mdplatform ingest`",
            )
        lookup.timings.mark("compute")
        timings = lookup.timings.finish()
        return make_result(blob, target.feature, target.outputs, None, cached=False, timings=timings)

    def nothing(self, symbol: str, timeframe: Timeframe) -> PlatformError:
        """Give the error that says why there is nothing, and what to do."""
        take_in = f"`mdplatform ingest PATH --symbol {symbol} --timeframe {timeframe}` takes in its bars"
        if symbol not in (known := self.lake.bars.symbols()):
            error = UnknownSymbol(symbol, known)
            error.remedy = f"{error.remedy}. {take_in}"
            return error
        readable = " ".join(each.value for each in self.lake.bars.timeframes(symbol)) or "none"
        return NoData(f"No {timeframe} bars of {symbol} in the lake", remedy=f"There are: {readable}. {take_in}")


def _target(feature: FeatureLike, timeframe: str | None) -> Target:
    if isinstance(feature, str) and (timeframe is None or isinstance(timeframe, str)):
        return _target_of_text(feature, timeframe)
    return _agree(parse_feature(feature), timeframe)


@lru_cache(maxsize=4096)
def _target_of_text(feature: str, timeframe: str | None) -> Target:
    return _agree(parse_feature(feature), timeframe)


def _agree(spec: FeatureSpec, timeframe: str | None) -> Target:
    told = None if timeframe is None else Timeframe.parse(timeframe)
    if told is not None and spec.timeframe is not None and told is not spec.timeframe:
        raise InvalidFeature(
            f"The feature says {spec.timeframe} and the question {told}",
            value=str(spec),
            remedy="Leave one of them out",
        )
    return Target(spec, told or spec.timeframe or Timeframe.parse(DEFAULT_TIMEFRAME))


def _instant(given: datetime | str) -> datetime:
    """Read a time, ISO 8601 where it is text; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ParameterOutOfRange(
            "Not a time", value=given, remedy="Write it as 2024-03-01 or 2024-03-01T12:30:00Z"
        ) from None


def _microseconds(given: datetime | str | None) -> int | None:
    return None if given is None else to_us(_instant(given))
