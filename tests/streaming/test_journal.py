"""The journal: what a stream closed is in the lake as if a file had brought it, whatever happens on the way."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdplatform.assets.bars import merge_inbox
from mdplatform.assets.partitions import Cell
from mdplatform.errors import PlatformError
from mdplatform.lake import Lake
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.streaming.journal import Journal, raw_bars
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.sealing import Sealed, merge_waiting

START = 1_735_689_600_000_000  # 2025-01-01
NOW = START + 40 * 86_400_000_000


def bars(count: int, symbol: str = "BTCUSDT", start: int = START, seed: int = 7) -> list[LiveBar]:
    random = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.001, count))), 2)
    found = []
    for row in range(count):
        opened = float(close[row - 1]) if row else 100.0
        high, low = max(opened, float(close[row])), min(opened, float(close[row]))
        volume = float(np.round(random.uniform(1, 9), 3))
        found.append(
            LiveBar(
                symbol,
                Timeframe.M1,
                start + row * MINUTE_US,
                opened,
                high,
                low,
                float(close[row]),
                volume,
                round(volume * high, 5),
                float(row % 9 + 1),
                round(volume / 2, 3),
                round(volume * high / 2, 5),
                available_at=start + (row + 1) * MINUTE_US,
                source="venue",
            )
        )
    return found


def journal(lake: Lake, *symbols: str, now: int = NOW, **options: int) -> Journal:
    return Journal(lake, symbols or ("BTCUSDT",), "venue", lambda: now, **options)


def told(_: str) -> None:
    """Nobody has to be told."""


def test_small_steps_give_the_very_lake_that_one_delivery_gives(tmp_path: Path) -> None:
    stepwise, whole = Lake(tmp_path / "live"), Lake(tmp_path / "batch")
    every = bars(1500, start=START + 30 * 86_400_000_000)  # over a month's end
    noting = journal(stepwise)
    noting._staged_at["BTCUSDT"] = 0
    for number, bar in enumerate(every):
        noting.add(bar)
        if number % 100 == 0:
            noting.stage()
            noting._staged_at["BTCUSDT"] = 0  # the instant is written beside each row; here it is the same for all
        if number % 400 == 0:
            noting.seal(told)
    noting.stage()
    noting.seal(told)
    for batch in whole.inbox.stage(
        "BTCUSDT", Timeframe.M1, "venue", "k", raw_bars(every), datetime(2025, 2, 10, tzinfo=UTC)
    ):
        whole.bars.merge("BTCUSDT", batch.month, [batch])
    for month in ("2025-01", "2025-02"):
        live, batch_made = stepwise.bars.partition("BTCUSDT", month), whole.bars.partition("BTCUSDT", month)
        assert live is not None
        assert batch_made is not None
        assert live.header.data_version == batch_made.header.data_version
    assert stepwise.inbox.symbols() == []
    assert stepwise.bars.read("BTCUSDT", Timeframe.H1).height == 25


def test_corrections_become_revisions_in_whatever_step_they_come(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = bars(2)
    better = with_changes(first, volume=50.0, revision=1)
    noting = journal(lake)
    for bar in (first, second, better):
        noting.add(bar)
    noting.stage()
    noting.seal(told)
    best = with_changes(first, volume=60.0, revision=2)
    noting.add(best)
    noting.stage()
    noting.seal(told)
    revisions = lake.bars.revisions("BTCUSDT", "2025-01", Timeframe.M1)
    assert revisions["revision"].to_list() == [0, 1, 2, 0]
    assert lake.bars.read("BTCUSDT", Timeframe.M1)["volume"].to_list() == [60.0, second.volume]


def with_changes(bar: LiveBar, **changes: object) -> LiveBar:

    return msgspec.structs.replace(bar, **changes)


def test_what_is_not_known_is_null_and_a_gap_is_no_row(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = bars(2)
    nan = math.nan
    noting = journal(lake)
    noting.add(with_changes(first, taker_buy_volume=nan, taker_buy_quote_volume=nan, trade_count=nan))
    noting.add(with_changes(second, open=nan, high=nan, low=nan, close=nan, state="gap"))
    assert noting.waiting == 1
    noting.stage()
    noting.seal(told)
    row = lake.bars.read("BTCUSDT", Timeframe.M1)
    assert row.height == 1
    assert row["taker_buy_volume"].to_list() == row["trade_count"].to_list() == [None]


def test_a_clock_that_was_set_back_changes_no_order_and_quarantines_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = bars(2)
    now = [NOW]
    noting = Journal(lake, ["BTCUSDT"], "venue", lambda: now[0])
    noting.add(first)
    noting.stage()
    now[0] = START - 3_600_000_000  # before the bars close
    noting.add(with_changes(first, volume=70.0, revision=1))
    noting.add(second)
    noting.stage()
    noting._log.rotate()  # as the system does for a process that ends
    again = Journal(lake, ["BTCUSDT"], "venue", lambda: now[0])  # a process that begins anew
    again.add(with_changes(first, volume=80.0, revision=2))
    again.stage()
    again.seal(told)
    last = Journal(lake, ["BTCUSDT"], "venue", lambda: now[0])  # and another, for which nothing waits
    last.add(with_changes(second, volume=90.0, revision=1))
    last.stage()
    last.seal(told)
    revisions = lake.bars.revisions("BTCUSDT", "2025-01", Timeframe.M1)
    assert lake.bars.read("BTCUSDT", Timeframe.M1)["volume"].to_list() == [80.0, 90.0]
    assert revisions["revision"].to_list() == [0, 1, 2, 0, 1]
    assert revisions["ingested_at"][4] > revisions["ingested_at"][2] > revisions["ingested_at"][1]


def test_a_log_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    every = [bar for symbol in ("ADAUSDT", "BTCUSDT") for bar in bars(3, symbol)]
    noting = journal(lake, "ADAUSDT", "BTCUSDT")
    blocked = tmp_path / "lake" / "inbox"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    for bar in every:
        noting.add(bar)
    with pytest.raises(OSError):
        noting.stage()
    assert noting.waiting == 6
    assert not noting.is_safe("ADAUSDT", START + MINUTE_US)
    blocked.unlink()
    noting.add(bars(4)[3])
    assert noting.stage() == 7
    assert noting.is_safe("ADAUSDT", START + 3 * MINUTE_US)
    noting.seal(told)
    assert lake.bars.read("BTCUSDT", Timeframe.M1).height == 4
    assert lake.bars.read("ADAUSDT", Timeframe.M1).height == 3


def test_what_waits_is_bounded_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    noting = journal(Lake(tmp_path), most_waiting=5)
    for bar in bars(8):
        noting.add(bar)
    assert (noting.waiting, noting.counts.lost) == (5, 3)


def test_what_is_left_out_counts_neither_as_safe_nor_as_sealed_whatever_comes_behind_it(tmp_path: Path) -> None:
    first, second, third, fourth = bars(4)
    noting = journal(Lake(tmp_path), most_waiting=2)
    for bar in (first, second, third):
        noting.add(bar)
    noting.stage()
    noting.add(fourth)
    noting.stage()
    noting.seal(told)
    assert noting.is_safe("BTCUSDT", second.close_time)
    assert not noting.is_safe("BTCUSDT", third.close_time)
    assert not noting.is_safe("BTCUSDT", fourth.close_time)
    assert second.close_time <= noting.sealed("BTCUSDT") < third.close_time


def test_the_asset_may_merge_the_same_inbox_at_the_same_time(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first, second = bars(2)
    noting = journal(lake)
    noting.add(first)
    noting.stage()
    noting._log.rotate()  # as at a seal that came no further
    seen_by_the_run = lake.inbox.pending("BTCUSDT", "2025-01")
    noting.add(with_changes(first, volume=50.0, revision=1))
    noting.add(second)
    noting.stage()
    noting.seal(told)
    version = lake.bars.partition("BTCUSDT", "2025-01")
    report = lake.bars.merge("BTCUSDT", "2025-01", seen_by_the_run)  # it comes late, with what was merged before
    for batch in seen_by_the_run:
        lake.inbox.clear(batch)
    assert (report.changed, report.taken) == (False, 0)
    after = lake.bars.partition("BTCUSDT", "2025-01")
    assert version is not None
    assert after is not None
    assert after.header.data_version == version.header.data_version


def test_the_batches_of_a_month_leave_no_endless_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdplatform.lake.bars._PASSING_KEPT", 8)
    lake = Lake(tmp_path)
    batches = []
    for number, bar in enumerate(bars(20)):
        rows = raw_bars([bar])
        at = datetime(2025, 2, 10, 0, 0, number % 60, number, tzinfo=UTC)
        batches += lake.inbox.stage("BTCUSDT", Timeframe.M1, "venue", f"live-{number:016x}", rows, at)
    files = lake.inbox.stage(
        "BTCUSDT", Timeframe.M1, "file", "f" * 32, raw_bars(bars(1)), datetime(2025, 2, 10, tzinfo=UTC)
    )
    lake.bars.merge("BTCUSDT", "2025-01", [*files, *(replace(each, path=None) for each in batches[:15])])
    lake.bars.merge("BTCUSDT", "2025-01", batches[15:])
    partition = lake.bars.partition("BTCUSDT", "2025-01")
    assert partition is not None
    held = partition.header.notes["batches"]
    assert held[0] == "f" * 32
    assert held[1:] == [batch.key for batch in batches[-8:]]


def test_what_is_too_much_for_one_step_is_logged_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdplatform.streaming.journal._MOST_AT_ONCE", 4)
    lake = Lake(tmp_path)
    noting = journal(lake)
    for bar in bars(10):
        noting.add(bar)
    assert noting.stage() == 10
    assert noting.waiting == 0
    assert noting.seal(told) == 1
    assert lake.bars.read("BTCUSDT", Timeframe.M1)["volume"].to_list() == [bar.volume for bar in bars(10)]


def test_where_nothing_waits_nobody_is_asked_to_merge_and_all_is_sealed(tmp_path: Path) -> None:
    noting = journal(Lake(tmp_path))
    noting.sealer = lambda symbols: pytest.fail(f"asked for {symbols}")
    noting.mark_safe("BTCUSDT", START)
    assert noting.seal(told) == 0
    assert noting.sealed("BTCUSDT") == START


def test_symbols_are_told_of_once_the_lake_has_their_bars(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    noting = journal(lake, "ADAUSDT", "BTCUSDT", "ETHUSDT")
    seen: list[tuple[str, int]] = []
    for bar in (*bars(2, "BTCUSDT"), *bars(1, "ETHUSDT")):
        noting.add(bar)
    noting.stage()
    assert noting.seal(lambda symbol: seen.append((symbol, lake.bars.read(symbol, Timeframe.M1).height))) == 2
    assert seen == [("BTCUSDT", 2), ("ETHUSDT", 1)]
    assert noting.seal(lambda symbol: seen.append((symbol, 0))) == 0
    assert len(seen) == 2


def test_two_that_stage_at_once_stage_each_bar_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    noting = journal(lake)
    threads = [threading.Thread(target=noting.stage) for _ in range(4)]
    for place, bar in enumerate(bars(40)):
        noting.add(bar)
        if place % 10 == 5:
            threads[place // 10].start()
    for thread in threads:
        thread.join()
    noting.stage()
    assert (noting.counts.staged, noting.waiting) == (40, 0)
    noting._log.rotate()
    assert sum(len(batch.rows) for batch in lake.inbox.pending("BTCUSDT", "2025-01")) == 40


def test_raw_bars_have_the_types_of_a_delivery() -> None:
    frame = raw_bars(bars(2))
    assert frame.schema["trade_count"] == pl.Int64()
    assert_frame_equal(frame["open"].to_frame(), pl.DataFrame({"open": [each.open for each in bars(2)]}))


def test_merging_a_month_for_which_nothing_waits_does_nothing(tmp_path: Path) -> None:
    assert not merge_waiting(Lake(tmp_path), "BTCUSDT", "2025-01").changed


def test_bars_that_are_noted_while_segments_change_are_in_the_lake_once_and_in_order(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    noting = journal(lake)
    every = bars(90)
    done = threading.Event()

    def stage() -> None:
        while not done.is_set():
            noting.stage()

    staging = threading.Thread(target=stage)
    staging.start()
    try:
        for place, bar in enumerate(every):
            noting.add(bar)
            noting.add(with_changes(bar, volume=50.0, revision=1))
            if place % 45 == 20:
                noting.seal(told)
    finally:
        done.set()
        staging.join()
    noting.stage()
    noting.seal(told)
    revisions = lake.bars.revisions("BTCUSDT", "2025-01", Timeframe.M1)
    assert revisions["revision"].to_list() == [0, 1] * 90
    assert revisions["volume"].to_list() == [volume for bar in every for volume in (bar.volume, 50.0)]
    assert revisions["ingested_at"].is_sorted()
    assert list((tmp_path / "inbox" / "_live").iterdir()) == []


def test_a_run_of_the_asset_takes_in_what_a_dead_feed_logged(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    noting = journal(lake, "ADAUSDT", "BTCUSDT")
    for bar in (*bars(3, "ADAUSDT"), *bars(2, "BTCUSDT")):
        noting.add(bar)
    noting.stage()
    noting._log.rotate()  # as the system does for a process that ends
    by_run = Lake(tmp_path)
    assert by_run.inbox.symbols() == ["ADAUSDT", "BTCUSDT"]
    assert merge_inbox(by_run, Cell("2025-01", "ADAUSDT")).taken == 3
    assert lake.inbox.symbols() == ["BTCUSDT"]


def test_a_feed_takes_in_what_a_dead_one_logged_of_symbols_that_it_does_not_follow(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    dead = journal(lake, "ADAUSDT", "BTCUSDT")
    for bar in (*bars(3, "ADAUSDT"), *bars(2, "BTCUSDT")):
        dead.add(bar)
    dead.stage()
    dead._log.rotate()  # as the system does for a process that ends
    announced: list[str] = []
    assert journal(Lake(tmp_path), "BTCUSDT").seal(announced.append) == 2
    assert announced == ["BTCUSDT", "ADAUSDT"]
    assert lake.inbox.symbols() == []


def test_a_damaged_log_is_said_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    noting = journal(lake)
    every = bars(3)
    for bar in every:
        noting.add(bar)
        noting.stage()
    (segment,) = (tmp_path / "inbox" / "_live").iterdir()
    content = bytearray(segment.read_bytes())
    content[40] ^= 1
    segment.write_bytes(content)
    with pytest.raises(PlatformError, match="set aside"):
        noting.seal(told)
    assert noting.sealed("BTCUSDT") == 0
    noting.add(bars(4)[3])
    noting.stage()
    assert noting.seal(told) == 1
    stored = lake.bars.read("BTCUSDT", Timeframe.M1)
    assert stored["open_time"].dt.epoch("us").to_list() == [bar.open_time for bar in bars(4)[1:]]
    assert segment.with_suffix(".damaged").read_bytes() == content


def test_steps_of_a_symbol_stay_in_order_where_another_joins_with_the_clock_set_back(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    (bar,) = bars(1)
    (other,) = bars(1, "ADAUSDT")
    times = [NOW, NOW - 3_600_000_000]
    noting = Journal(lake, ("ADAUSDT", "BTCUSDT"), "venue", lambda: times[0])
    noting.add(bar)
    noting.stage()
    noting.sealer = busy
    with pytest.raises(PlatformError, match="busy"):
        noting.seal(told)
    del times[0]
    noting.add(other)
    noting.add(with_changes(bar, volume=8.0, revision=1))
    noting.stage()
    noting.sealer = Journal(lake, ("ADAUSDT", "BTCUSDT"), "venue").sealer
    noting.seal(told)
    assert lake.bars.read("BTCUSDT", Timeframe.M1)["volume"].to_list() == [8.0]


def busy(symbols: Sequence[str]) -> Iterator[Sealed]:
    return (Sealed(symbol, problem="busy") for symbol in symbols)
