"""The near cache: bounded by bytes, and never an answer that its witness does not vouch for."""

from __future__ import annotations

import polars as pl
import pytest

from mdplatform.market.quality import Tally
from mdplatform.market.timeframe import Timeframe
from mdplatform.requests.answer import Part
from mdplatform.serving.codec import Blob, make_batch
from mdplatform.serving.lookup import Library
from mdplatform.settings import Settings
from mdplatform.worker.near import RACY_NS, NearCache, Witness, kept_blob, kept_part

NOW = 10**18
LONG_AGO = NOW - 10 * RACY_NS
SEEN = Witness((5, 7), (LONG_AGO, LONG_AGO), NOW)


def part(size: int = 10) -> Part:
    return Part(source="computed", layer="lake", version="1", available_at=0, rows=1, data=b"x" * size)


def seen(sequences=(5, 7), stamps=(LONG_AGO, LONG_AGO), at=NOW + 1):
    return Witness(sequences, stamps, at)


@pytest.mark.parametrize(
    ("now", "is_given"),
    [
        (seen(), True),
        (seen((5, 8)), False),
        (seen((6, 7)), False),
        (seen((0, 0)), True),  # a flushed Redis knows less, not more
        (seen(stamps=(LONG_AGO, LONG_AGO + 1)), False),
        (seen(stamps=(LONG_AGO, LONG_AGO - 1)), False),  # a clock that was put back
        (seen(stamps=(0, LONG_AGO)), False),
        (seen(None), True),
        (seen(None, (LONG_AGO, 0)), False),
    ],
)
def test_what_is_kept_is_given_while_nothing_it_depends_on_has_changed(now, is_given):
    near = NearCache(10_000)
    near.put("key", kept_part(part(), Tally(1), SEEN))
    assert (near.get("key", None, now) is not None) == is_given
    assert len(near) == is_given, "what is old is forgotten"


def test_what_was_taken_without_redis_is_not_vouched_for_by_sequences():
    near = NearCache(10_000)
    near.put("key", kept_part(part(), Tally(1), seen(None)))
    assert near.get("key", None, seen(None)) is not None
    assert near.get("key", None, seen()) is None


def test_what_was_read_within_a_tick_of_a_change_is_kept_no_longer_than_that():
    racy = Witness((5, 7), (NOW - 1000, LONG_AGO), NOW)
    near = NearCache(10_000)
    near.put("key", kept_part(part(), Tally(1), racy))
    assert near.get("key", None, seen(stamps=racy.stamps)) is not None
    assert near.get("key", None, seen(stamps=racy.stamps, at=NOW + 2 * RACY_NS)) is None
    near.put("key", kept_part(part(), Tally(1), Witness(None, racy.stamps, NOW)))
    assert near.get("key", None, seen(None, racy.stamps)) is None, "and not at all where nobody counts changes"


def test_what_becomes_known_at_an_instant_ends_what_is_kept_then():
    near = NearCache(10_000)
    near.put("key", kept_part(part(), Tally(1), SEEN, until=NOW // 1000 + 5))
    assert near.get("key", None, seen(at=NOW + 4_999)) is not None
    assert near.get("key", None, seen(at=NOW + 5_000)) is None


def test_an_older_answer_that_comes_later_replaces_nothing():
    near = NearCache(10_000)
    near.put("key", kept_part(part(20), Tally(1), SEEN))
    near.put("key", kept_part(part(10), Tally(1), Witness((4, 7), SEEN.stamps, NOW - 1)))
    kept = near.get("key", None, seen())
    assert kept is not None
    assert len(kept.cut(None, None).part.data) == 20


def test_the_longest_unused_goes_first_and_the_bytes_stay_bounded():
    near = NearCache(10_000)
    for number in range(1000):
        near.put(number, kept_part(part(1000), Tally(1), SEEN))
        assert near.get(0, None, seen()) is not None
        assert near.size <= 10_000
    assert len(near) == 3
    near.put("too large", kept_part(part(20_000), Tally(1), SEEN))
    assert (near.size, len(near)) == (0, 0)


def test_cuts_are_counted_too():
    target = Library(Settings()).prepare("BTCUSDT", "RSI", "15m", 1).target
    times = pl.Series(range(5000)).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"open_time": times, "available_at": times, target.feature: [1.0] * 5000})
    batch = make_batch(frame.with_columns(pl.lit("settled").alias("status")))
    blob = Blob("BTCUSDT", Timeframe.M15, target.feature, target.blob_id, batch, "1", True, "")
    near = NearCache(1_000_000)
    near.put("key", kept_blob(blob, SEEN))
    before = near.size
    for n in range(1, 100):
        kept = near.get("key", n * 10, seen())
        assert kept is not None
        cut = near.cut("key", kept, target, n * 10)
        assert near.cut("key", kept, target, n * 10) is cut
        assert cut.part.rows == n * 10
    assert before < near.size == kept.size < before + 16 * 60_000
    for n in range(4900, 5000):
        near.cut("key", kept, target, n)
        assert near.size <= 1_000_000
