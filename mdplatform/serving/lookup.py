"""Lookups: what both readers share, which is everything but talking to Redis.

A read goes in these steps; the readers do 2 and 5, each in its way:

1. `prepare` checks the input, before any work.
2. One `MGET` fetches the blob and the sequences of what it depends on: the symbol's bars, and more for some features.
3. `judge` takes the blob if it is sound, fresh and long enough. Fresh is what `publisher` says; where the reader sees
   the lake, its files are a second witness: the blob must not be older than they are. So what was stored while Redis
   was away, when nobody could bump a sequence, does not leave an old value in force.
4. Otherwise `compute` works the values out from the lake, by the function that the publisher uses.
5. What was computed for the usual window is published with the sequences that step 2 read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, Any

from mdplatform.errors import NoData, ParameterOutOfRange, PlatformError, UnknownSymbol
from mdplatform.features import FeatureLike, FeatureSpec, parse_feature
from mdplatform.features.panel import as_instant, frame
from mdplatform.lake import Lake
from mdplatform.lake.data import LakeData
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.time import to_us
from mdplatform.market.timeframe import Timeframe
from mdplatform.serving.codec import BadBlob, Blob, decode
from mdplatform.serving.freshness import folders_of, needs, newest_change, sequence_keys, stamp
from mdplatform.serving.keys import blob_key, read_sequence
from mdplatform.serving.result import FeatureResult, make_result, output_names
from mdplatform.serving.timings import Timings
from mdplatform.serving.window import feature_blobs, feature_history
from mdplatform.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from mdplatform.features import Correlations

DEFAULT_TIMEFRAME = "15m"
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Target:
    """A feature in rows of a timeframe, with what each read needs of it; kept, because to work it out costs as much as
    a read.

    The feature names a timeframe only where it is not that of the rows, and a symbol only where it is not theirs.
    """

    spec: FeatureSpec
    timeframe: Timeframe
    _keys: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def blob_id(self) -> str:
        """The id under which the whole feature lies in Redis."""
        return replace(self.spec, output=None).id

    @cached_property
    def feature(self) -> str:
        """The canonical text."""
        return f"{self.spec}{self.spec.place}"

    def seen_from(self, symbol: str) -> Target:
        """Give the target in rows of that symbol, which it does not name then."""
        return Target(replace(self.spec, symbol=None), self.timeframe) if self.spec.symbol == symbol else self

    def keys(self, symbol: str) -> tuple[str, ...]:
        """Give the key of the blob for that symbol, and those of the sequences of what it depends on."""
        keys = self._keys.get(symbol)
        if keys is None:
            whole = replace(self.spec, output=None)
            keys = (blob_key(symbol, self.timeframe, self.blob_id), *sequence_keys(whole, symbol, self.timeframe))
            self._keys[symbol] = keys
        return keys

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
    sequences: tuple[int, ...] = (0,)
    notes: list[str] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The key of the blob, and those of the sequences of what it depends on."""
        return self.target.keys(self.symbol)

    def judge(self, raw: bytes | None, held: Sequence[bytes | None], changed_at: int) -> FeatureResult | None:
        """Give the answer if what Redis held is one, else None; remember the sequences for publishing.

        `held` are these. `changed_at` is when what the values depend on was last changed in the lake, in microseconds,
        0 where it is not known.
        """
        self.sequences = tuple(map(read_sequence, held))
        blob = self.fresh(raw, changed_at)
        return None if blob is None else self.answer(blob, layer="redis")

    def fresh(self, raw: bytes | Blob | None, changed_at: int) -> Blob | None:
        """Give the blob if it is sound, long enough, and fresh by the sequences and by the lake; else None."""
        if raw is None:
            return None
        try:
            blob = raw if isinstance(raw, Blob) else decode(raw)
            if blob.key != self.keys[0]:
                raise BadBlob("it is of another feature")
        except BadBlob as bad:
            self.notes.append(f"What Redis held was no valid blob ({bad}), and was not used")
            return None
        if blob is not raw:
            self.timings.mark("decode")
        computed_from = blob.sequences or (blob.sequence,)
        if len(computed_from) != len(self.sequences) or blob.read_at < changed_at:
            return None
        if any(computed < now for computed, now in zip(computed_from, self.sequences, strict=True)):
            return None
        if not blob.rows or (blob.rows < self.n and not blob.whole):
            return None
        return blob

    def answer(self, blob: Blob, *, layer: str) -> FeatureResult:
        """Give the answer that the blob holds, which comes from that layer."""
        return make_result(
            blob,
            self.target.feature,
            self.target.outputs,
            self.n,
            layer=layer,
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
        self._folder_of = folders_of(self.lake)

    def prepare(self, symbol: str, feature: FeatureLike, timeframe: str | None, n: int) -> Lookup:
        """Check a question. Raises `InvalidSymbol`, `UnknownTimeframe`, `ParameterOutOfRange`, what a feature can."""
        timings = Timings()
        if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n <= MOST_ROWS:
            raise ParameterOutOfRange("n is refused", value=n, remedy=f"Allowed: an integer from 1 to {MOST_ROWS}")
        name = parse_symbol(symbol)
        lookup = Lookup(name, _target(feature, timeframe).seen_from(name), int(n), timings=timings)
        timings.mark("check")
        return lookup

    def changed_at(self, lookup: Lookup) -> int:
        """Give when what the answer depends on was last changed in the lake (microseconds), 0 where it is not known."""
        target = lookup.target
        return newest_change(
            stamp(self._folder_of(each)) for each in needs(target.spec, lookup.symbol, target.timeframe)
        )

    def judge(self, lookups: Sequence[Lookup], held: Sequence[bytes | None]) -> list[FeatureResult | None]:
        """Give the answers that are in what Redis held under the keys of the lookups, one after the other."""
        for each in lookups:
            each.timings.mark("redis")
        results, place = [], 0
        for each in lookups:
            after = place + len(each.keys)
            results.append(each.judge(held[place], held[place + 1 : after], self.changed_at(each)))
            place = after
        return results

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
        known = None if as_of is None else as_instant(as_of)
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
        return make_result(blob, target.feature, target.outputs, None, layer="lake", timings=timings)

    def frame(
        self,
        symbols: Iterable[str] | str,
        features: Iterable[FeatureLike] | FeatureLike,
        timeframe: str,
        start: datetime | str | None,
        end: datetime | str | None,
        as_of: datetime | str | None,
        *,
        ages: bool,
        statuses: bool,
    ) -> pl.DataFrame:
        """Give one aligned frame of features, as `features.frame` does, from the lake."""
        return frame(symbols, features, timeframe, start, end, ages=ages, statuses=statuses, data=self._data(as_of))

    def correlation_matrix(
        self,
        symbols: Sequence[str],
        window: int,
        timeframe: str,
        end: datetime | str | None,
        as_of: datetime | str | None,
        options: Mapping[str, Any],
    ) -> Correlations:
        """Give the correlations of symbols, as `features.correlation_of` does, from the lake."""
        from mdplatform.features import correlation_of

        return correlation_of(symbols, window, timeframe, end, data=self._data(as_of), **options)

    def _data(self, as_of: datetime | str | None) -> LakeData:
        return LakeData(self.lake, None if as_of is None else as_instant(as_of))

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
    return target_of(parse_feature(feature), None if timeframe is None else Timeframe.parse(timeframe))


@lru_cache(maxsize=4096)
def target_of(spec: FeatureSpec, timeframe: Timeframe | None) -> Target:
    """Give the target; by the spec, since what a text means may change: a composite's newest version."""
    rows = timeframe or spec.timeframe or Timeframe.parse(DEFAULT_TIMEFRAME)
    return Target(spec.at(None) if spec.timeframe is rows else spec, rows)


def _microseconds(given: datetime | str | None) -> int | None:
    return None if given is None else to_us(as_instant(given))
