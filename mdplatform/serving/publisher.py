"""Publishing: how values get into Redis, such that a reader never takes an old one for a new one.

Whatever values depend on (a symbol's bars, its trades, a macro series, …: see `freshness`) has a *sequence*. It only
grows. The protocol has two sides:

- Who changes it writes the lake **first** and then calls `bump`, which also announces the change on a stream.
- Who computes features reads the sequences of all that they depend on **first** (0 where there is none), then the lake,
  and publishes with the sequences that it read.

A blob is *fresh* if each of its sequences is at least what Redis holds. Suppose that it is fresh with regard to a bump:
then its computer read the sequence after that bump, hence the lake after that change. So what lands in between makes a
blob stale, never wrongly fresh; a stale blob costs a computation, nothing else. Where Redis was away at the change, so
that the bump failed, readers that see the lake find it out from its files (see `lookup`).

Of two blobs for one key the one with the higher `(sequence, watermark)` stays, whatever order they arrive in: a
script in Redis compares them (the watermark is the last row's `available_at`). By default a bump's number is the
clock in microseconds, or one more than the last where the clock is behind: so that the order outlives a flush of
Redis. Where a blob has several sequences the highest counts: a later computation's is never lower. Should an older one
come after it with the same highest, the blob is stale, and is computed anew.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import redis

from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.redis.keys import CHANGES, CHANGES_KEPT
from mdplatform.serving.codec import HIGHEST_SEQUENCE, Blob, encode
from mdplatform.serving.freshness import sequence_keys, stored
from mdplatform.serving.keys import bars_key, need_key, read_sequence
from mdplatform.serving.window import feature_blobs
from mdplatform.settings import Settings
from mdplatform.valkey.connection import REDIS_FAILURES, unavailable

if TYPE_CHECKING:
    from mdplatform.features import FeatureSpec
    from mdplatform.lake import Lake

# KEYS[1] the blob's key; ARGV[1] the blob, ARGV[2] its life in milliseconds. Gives 1 if it was stored, 0 if it is
# outdated. The places are those of the trailer that `codec` describes. What is no blob is overwritten.
PUBLISH_SCRIPT = """
local function order(trailer)
  if string.sub(trailer, 1, 5) ~= 'MDP1 ' then return nil end
  return tonumber(string.sub(trailer, 15, 30)), tonumber(string.sub(trailer, 32, 48))
end
local trailer = redis.pcall('GETRANGE', KEYS[1], -48, -1)
if type(trailer) == 'string' and #trailer == 48 then
  local held_sequence, held_watermark = order(trailer)
  local sequence, watermark = order(string.sub(ARGV[1], -48))
  if held_sequence and held_watermark and (held_sequence > sequence
      or (held_sequence == sequence and held_watermark > watermark)) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS[1] the sequence's key; ARGV[1] the number; ARGV[2] "1" if the result must be higher than before. Gives the number
# now held.
BUMP_SCRIPT = """
local held = tonumber(redis.call('GET', KEYS[1]) or '-1') or -1
local number = tonumber(ARGV[1])
if number <= held then
  if ARGV[2] ~= '1' then return string.format('%.0f', held) end
  number = held + 1
end
local text = string.format('%.0f', number)
redis.call('SET', KEYS[1], text)
return text
"""
BLOBS_AT_ONCE = 64


@dataclass(frozen=True)
class Published:
    """What became of blobs: `stored`, or `outdated` because Redis holds newer ones; and how many bytes were sent."""

    stored: int = 0
    outdated: int = 0
    sent_bytes: int = 0

    def __add__(self, other: Published) -> Published:
        return Published(self.stored + other.stored, self.outdated + other.outdated, self.sent_bytes + other.sent_bytes)


class Publisher:
    """Writes blobs and sequence numbers; every method raises `RedisUnavailable` if Redis does not take them."""

    def __init__(self, connection: redis.Redis, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings

    def bars_sequence(self, symbol: str) -> int:
        """Give the sequence of the symbol's bars, 0 if there is none. Call it before reading the lake."""
        return self._sequences([bars_key(symbol)])[bars_key(symbol)]

    def bump_bars(self, symbol: str, sequence: int | None = None) -> int:
        """Say that the symbol's bars have changed; see `bump`."""
        return self.bump("bars", symbol, sequence)

    def bump(self, dataset: str, key: str, sequence: int | None = None, *, run_id: str = "") -> int:
        """Say that a dataset (`trades`, `macro`, …) has changed for a symbol or series, after the lake has the change.

        The key is empty where the dataset is not told apart by one. Gives the sequence now held. A given `sequence`
        lower than the one held changes nothing. Without one it is the clock, and always higher.

        The change is also announced to the request workers, whose requests may be waiting for it, with the id of the
        Dagster run that made it, if one did.
        """
        number = time.time_ns() // 1000 if sequence is None else checked_sequence(sequence)
        try:
            with self._connection.pipeline(transaction=False) as pipe:
                pipe.eval(BUMP_SCRIPT, 1, need_key(dataset, key), str(number), str(int(sequence is None)))
                change = {"need": f"{dataset}/{key}"} | ({"run": run_id} if run_id else {})
                pipe.xadd(CHANGES, change, maxlen=CHANGES_KEPT, approximate=True)  # type: ignore[arg-type]
                held = pipe.execute()[0]
        except REDIS_FAILURES as failure:
            raise unavailable(self._settings, failure) from None
        return int(cast(bytes, held))

    def publish(self, blobs: Iterable[Blob], *, sequence: int | Sequence[int], made_by: str = "") -> Published:
        """Store blobs that were computed from inputs of that sequence (or those), many in one round trip."""
        payloads = sign(blobs, sequence=sequence, made_by=made_by)
        results: list[int] = []
        try:
            for start in range(0, len(payloads), BLOBS_AT_ONCE):
                with self._connection.pipeline(transaction=False) as pipe:
                    for arguments in payloads[start : start + BLOBS_AT_ONCE]:
                        pipe.eval(PUBLISH_SCRIPT, 1, *arguments, life_ms(self._settings))
                    results += [int(result) for result in pipe.execute()]
        except REDIS_FAILURES as failure:
            raise unavailable(self._settings, failure) from None
        return Published(sum(results), len(results) - sum(results), sum(len(payload) for _, payload in payloads))

    def publish_features(
        self, lake: Lake, symbol: str, timeframe: Timeframe, specs: Sequence[FeatureSpec], *, made_by: str = ""
    ) -> Published:
        """Compute the newest `window_rows` rows of each feature from the lake and store them, by the protocol above.

        Stores nothing if the lake has no bars of the symbol in that timeframe.
        """
        whole = (stored(spec, symbol, timeframe) for spec in specs)
        keys = {spec.id: sequence_keys(spec, symbol, timeframe) for spec in whole}
        held = self._sequences({key for each in keys.values() for key in each})
        groups: dict[tuple[int, ...], list[Blob]] = defaultdict(list)
        for blob in feature_blobs(lake, symbol, timeframe, specs, self._settings.window_rows):
            groups[tuple(held[key] for key in keys[blob.spec_id])].append(blob)
        total = Published()
        for sequences, blobs in groups.items():
            total += self.publish(blobs, sequence=sequences, made_by=made_by)
        return total

    def _sequences(self, keys: Iterable[str]) -> dict[str, int]:
        wanted = list(keys)
        try:
            held = cast("list[bytes | None]", self._connection.mget(wanted)) if wanted else []
        except REDIS_FAILURES as failure:
            raise unavailable(self._settings, failure) from None
        return dict(zip(wanted, map(read_sequence, held), strict=True))


def sign(blobs: Iterable[Blob], *, sequence: int | Sequence[int], made_by: str) -> list[tuple[str, bytes]]:
    """Give key and bytes of each blob, with the sequence (or those), the maker and the present time in it."""
    numbers = tuple(sequence) if isinstance(sequence, Sequence) else (sequence,)
    highest, several = max(map(checked_sequence, numbers)), numbers if len(numbers) > 1 else ()
    now = time.time_ns() // 1000
    signed = (replace(blob, sequence=highest, sequences=several, made_by=made_by, published_at=now) for blob in blobs)
    return [(blob.key, encode(blob)) for blob in signed]


def life_ms(settings: Settings) -> int:
    """Give how long a blob is kept, in milliseconds."""
    return max(1, round(settings.cache_days * 86_400_000))


def checked_sequence(sequence: int) -> int:
    """Give `sequence` back if it is one."""
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 0 <= sequence <= HIGHEST_SEQUENCE:
        raise ValueError(f"a sequence is an integer from 0 to {HIGHEST_SEQUENCE}, not {sequence!r}")
    return sequence
