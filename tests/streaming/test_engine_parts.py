"""The engine's parts alone: posts that wait, what is standing, the lease, lanes that are corrected."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mdplatform.errors import FeedBusy, TransportUnavailable
from mdplatform.features.guard import GAP
from mdplatform.features.parse import parse_feature
from mdplatform.lake import Lake
from mdplatform.market.bars import BAR_SCHEMA, empty_bars
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging.broadcast import Post
from mdplatform.streaming.lane import KEPT, Lane, as_live, as_table, open_features
from mdplatform.streaming.lease import leased
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.opening import fulfil, refused
from mdplatform.streaming.outgoing import Outgoing
from mdplatform.streaming.standing import LINGER_SECONDS, MOST_FEATURES, Standing
from mdplatform.streaming.track import Track
from mdplatform.streaming.wishes import Wish, encode_wishes

from .scripted import START, in_loop


class Server:
    """A broadcaster whose server comes and goes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.calls: list[int] = []
        self.is_away = False

    async def send(self, posts: Sequence[Post]) -> None:
        self.calls.append(len(posts))
        if self.is_away:
            raise TransportUnavailable("gone")
        self.got += [post.body for post in posts]

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        return {topic: {} for topic in topics}

    async def wishes(self) -> dict[str, bytes]:
        return {}

    async def close(self) -> None:
        return None


def posts(first: int, count: int) -> list[tuple[Post, int]]:
    return [(Post("BTCUSDT", b"%d" % number), number) for number in range(first, first + count)]


def bodies(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


@in_loop
async def test_posts_go_in_order_and_many_at_once() -> None:
    server = Server()
    outgoing = Outgoing(server, lambda *_: True)
    outgoing.put(posts(0, 1200))
    running = asyncio.create_task(outgoing.run())
    assert await outgoing.drained(5.0)
    outgoing.put(posts(1200, 1))
    assert await outgoing.drained(5.0)
    running.cancel()
    assert server.got == bodies(*range(1201))
    assert server.calls == [500, 500, 200, 1]
    assert outgoing.sent == 1201


@in_loop
async def test_what_waits_for_a_server_that_is_away_is_sent_when_it_is_back() -> None:
    server, troubles = Server(), []
    outgoing = Outgoing(server, lambda *_: True, troubles.append)
    server.is_away = True
    running = asyncio.create_task(outgoing.run())
    outgoing.put(posts(0, 3))
    while len(server.calls) < 3:
        await asyncio.sleep(0.001)
    assert outgoing.waiting == 3
    server.is_away = False
    assert await outgoing.drained(5.0)
    running.cancel()
    assert server.got == bodies(0, 1, 2)
    assert [type(each) for each in troubles] == [TransportUnavailable, type(None)]


@in_loop
async def test_the_oldest_that_are_on_disk_are_let_go_when_too_many_wait() -> None:
    server = Server()
    outgoing = Outgoing(server, lambda symbol, until: until < 6, most=4)
    outgoing.put(posts(0, 8))
    assert (outgoing.waiting, outgoing.let_go) == (4, 4)
    async with asyncio.timeout(1):
        await outgoing.room()
    running = asyncio.create_task(outgoing.run())
    assert await outgoing.drained(5.0)
    running.cancel()
    assert server.got == bodies(4, 5, 6, 7)


@in_loop
async def test_what_is_not_on_disk_is_never_let_go_and_keeps_the_feed_waiting() -> None:
    server, safe = Server(), [0]
    server.is_away = True
    outgoing = Outgoing(server, lambda symbol, until: until < safe[0], most=4)
    running = asyncio.create_task(outgoing.run())
    outgoing.put(posts(0, 8))
    waiting = asyncio.create_task(outgoing.room())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert outgoing.waiting == 8
    safe[0] = 100  # the journal has caught up
    async with asyncio.timeout(5):
        await waiting
    assert outgoing.waiting == 4
    server.is_away = False
    assert await outgoing.drained(5.0)
    running.cancel()
    assert server.got[-4:] == bodies(4, 5, 6, 7)


def wished(standing: Standing, symbol: str, timeframe: Timeframe) -> list[str]:
    return [str(each) for each in standing.wanted()[symbol].get(timeframe, ())]


def test_wishes_are_added_to_what_is_standing_and_linger() -> None:
    standing = Standing(["BTCUSDT", "ETHUSDT"], [Timeframe.M5], [parse_feature("RSI")])
    assert wished(standing, "BTCUSDT", Timeframe.M5) == ["RSI(timeperiod=14)"]
    one = encode_wishes([Wish(("BTCUSDT", "OTHER"), ("5m", "3m", "7m"), ("SMA(5)", "RSI(14)"))])
    other = encode_wishes([Wish(("ETHUSDT",), ("1h",), (), True)])
    assert standing.update({"one": one, "other": other, "broken": b"\xc1"}, 100.0)
    assert not standing.update({"one": one, "other": other, "broken": b"\xc1"}, 100.0)
    assert wished(standing, "BTCUSDT", Timeframe.M5) == ["RSI(timeperiod=14)", "SMA(timeperiod=5)"]
    assert wished(standing, "BTCUSDT", Timeframe.M3) == ["RSI(timeperiod=14)", "SMA(timeperiod=5)"]
    assert list(standing.wanted()["ETHUSDT"]) == [Timeframe.M5, Timeframe.H1]
    assert standing.forming == {("ETHUSDT", Timeframe.H1)}
    assert "broken" in standing.refused
    assert not standing.update({}, 100.0 + LINGER_SECONDS - 1)
    assert Timeframe.M3 in standing.wanted()["BTCUSDT"]
    assert standing.forming == frozenset()
    assert standing.update({}, 100.0 + LINGER_SECONDS)
    assert list(standing.wanted()["BTCUSDT"]) == list(standing.wanted()["ETHUSDT"]) == [Timeframe.M5]


def test_wishes_are_bounded_and_what_cannot_be_live_is_refused() -> None:
    standing = Standing(["BTCUSDT"], [Timeframe.M5], [])
    many = tuple(f"SMA(timeperiod={length})" for length in range(2, 2 + MOST_FEATURES + 50))
    standing.update({"greedy": encode_wishes([Wish(("BTCUSDT",), ("5m",), many)])}, 0.0)
    assert len(standing.wanted()["BTCUSDT"][Timeframe.M5]) == MOST_FEATURES
    specs = [parse_feature("SMA(5)"), parse_feature("CORRELATION(reference=ETHUSDT)")]
    why = refused(specs, Timeframe.M5)
    assert list(why) == [str(specs[1])]
    standing.refuse(many[0], Timeframe.M5, "no")
    assert many[0] not in wished(standing, "BTCUSDT", Timeframe.M5)
    standing.update({"greedy": encode_wishes([Wish(("BTCUSDT",), ("1m", "5m"), many[:2])])}, LINGER_SECONDS + 1)
    assert wished(standing, "BTCUSDT", Timeframe.M5) == [many[1]]
    assert wished(standing, "BTCUSDT", Timeframe.M1) == sorted(many[:2])
    assert [str(each) for each in standing.wished()[Timeframe.M1]] == list(many[:2])
    standing.update({}, 2 * LINGER_SECONDS + 1)
    assert standing.wished() == standing._specs == {}


def test_a_lease_is_held_once_and_freed_by_the_death_of_its_holder(
    tmp_path: Path, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    holder = python(f"""
        import sys
        from pathlib import Path
        from mdplatform.streaming.lease import leased
        with leased(Path({str(tmp_path)!r}), "binance"):
            print("held", flush=True)
            sys.stdin.read()
    """)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FeedBusy, match=f"process {holder.pid} on "), leased(tmp_path, "binance"):
        pass
    with leased(tmp_path, "simulated"):
        pass
    holder.kill()
    holder.wait()
    with leased(tmp_path, "binance"):
        assert str(os.getpid()) in (tmp_path / "binance.json").read_text()


def minute(place: int, close: float = 100.0, **changes: object) -> LiveBar:
    open_time = START + place * MINUTE_US
    bar = LiveBar(
        "BTCUSDT", Timeframe.M1, open_time, 100.0, 110.0, 90.0, close, 1.0, 100.0, 3.0, math.nan, math.nan,
        available_at=open_time + MINUTE_US, source="scripted",
    )  # fmt: skip
    return msgspec.structs.replace(bar, **changes)


def lane(tmp_path: Path, *features: str) -> Lane:
    specs = [parse_feature(each) for each in features]
    return Lane("BTCUSDT", Timeframe.M1, open_features(Lake(tmp_path), "BTCUSDT", Timeframe.M1, specs, empty_bars(), 0))


def test_a_lane_takes_each_bar_once_and_knows_what_was_told(tmp_path: Path) -> None:
    own = lane(tmp_path, "SMA(2)")
    cells = [own.take(minute(place)) for place in (0, 1, 1, 0)]
    assert [cell is None for cell in cells] == [False, False, True, True]
    assert cells[1] is not None
    assert (cells[1].state, cells[1].quality) == ("observed", 1.0)
    assert own.is_news(cells[1])
    assert not own.is_news(cells[1])
    assert not own.is_news(own.cell(minute(0), None))
    assert own.is_news(own.cell(minute(1, revision=1), None))


def test_a_lane_takes_only_newer_revisions_of_what_it_keeps(tmp_path: Path) -> None:
    own = lane(tmp_path)
    for place in (0, 1, 3):
        own.take(minute(place))
    assert not own.correct(minute(1, 101.0))
    assert own.correct(minute(1, 101.0, revision=1))
    assert own.correct(minute(2, 102.0))  # it comes late, into a hole
    assert not own.correct(minute(-1, revision=1))
    assert own.kept[1].close == 101.0
    assert [bar.open_time for bar in own.kept] == [minute(place).open_time for place in range(4)]


def test_a_correction_while_there_are_no_features_has_all_behind_it_told_with_features_later(tmp_path: Path) -> None:
    own = lane(tmp_path, "SMA(2)")
    track = Track("BTCUSDT", "feed", [own])
    track.sent = [Timeframe.M1]
    for place in range(8):
        own.take(minute(place))
    for place in (5, 3):  # of the first one features cannot be opened, and the second one finds none
        corrected = [minute(place, 101.0, revision=1)]
        assert track.correct(corrected)
        first = track.touched(corrected)[Timeframe.M1]
        opened = open_features(Lake(tmp_path), "BTCUSDT", Timeframe.M1, own.opened.specs, as_table(own.kept), first)
        assert track.give_up(corrected) if place == 5 else track.adopt({Timeframe.M1: opened}, corrected)
    cells = asyncio.run(fulfil(Lake(tmp_path), track, {Timeframe.M1: (parse_feature("SMA(2)"),)}))
    assert [cell.open_time for cell in cells] == [minute(place).open_time for place in range(3, 8)]
    assert {(bool(cell.layout), cell.edition) for cell in cells} == {(True, 3)}


def test_a_timeframe_that_nobody_wishes_any_more_leaves_the_correction_of_others_whole(tmp_path: Path) -> None:
    own = lane(tmp_path, "SMA(2)")
    track = Track("BTCUSDT", "feed", [own])
    track.sent = [Timeframe.M1]
    for place in range(4):
        own.take(minute(place))
    corrected = [minute(2, 101.0, revision=1)]
    assert track.correct(corrected)
    opened = open_features(
        Lake(tmp_path), "BTCUSDT", Timeframe.M1, own.opened.specs, as_table(own.kept), minute(2).open_time
    )
    track.sent = []  # while its features were opened
    assert [cell.revision for cell in track.adopt({Timeframe.M1: opened}, corrected)] == [1, 0]


def test_a_lane_keeps_what_the_lake_does_not_have_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdplatform.streaming.lane.MOST_KEPT", 2 * KEPT)
    own = lane(tmp_path)

    def kept_after(*places: int) -> list[int]:
        for place in places:
            own.take(minute(place))
        return [(bar.open_time - START) // MINUTE_US for bar in own.kept]

    assert kept_after(*range(KEPT + 100)) == list(range(KEPT + 100))
    own.sealed = minute(50).open_time
    assert kept_after(KEPT + 100) == list(range(50, KEPT + 101))
    own.sealed = minute(KEPT + 90).open_time
    assert kept_after(KEPT + 101) == list(range(102, KEPT + 102))
    assert kept_after(*range(KEPT + 102, 5 * KEPT)) == list(range(3 * KEPT, 5 * KEPT))


def test_a_layout_is_taken_from_the_facts_an_hour_after_its_last_use(tmp_path: Path) -> None:
    own = lane(tmp_path, "SMA(2)")
    track = Track("BTCUSDT", "feed", [own])
    second, hour = 1_000_000, 3_600_000_000

    def facts_at(place: int, now: int) -> dict[str, bool]:
        cell = own.take(minute(place))
        assert cell is not None
        return {
            name: bool(value)
            for name, value in track.post(cell.close_time, [cell], now, now).facts.items()
            if name.startswith("layout:")
        }

    first = f"layout:{own.opened.layout.id}"
    track.note_layouts(["cell:1m", first, "layout:of-another-process"], START)
    assert facts_at(0, START) == {first: True}
    assert facts_at(1, START + hour // 2) == {first: True}
    own.adopt(lane(tmp_path, "SMA(3)").opened)
    second_one = f"layout:{own.opened.layout.id}"
    assert facts_at(2, START + hour // 2 + second) == {second_one: True}
    assert facts_at(3, START + hour + second) == {second_one: True, "layout:of-another-process": False}
    assert facts_at(4, START + hour + hour // 2 + second) == {second_one: True, first: False}
    assert facts_at(5, START + 2 * hour) == {second_one: True}


def test_a_gap_is_a_cell_of_no_quality(tmp_path: Path) -> None:
    own = lane(tmp_path, "SMA(2)")
    own.take(minute(0))
    nan = dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume", "trade_count"), math.nan)
    gap = own.take(minute(1, state="gap", revision=-1, **nan))
    assert gap is not None
    assert (gap.state, gap.quality, gap.revision) == ("gap", 0.0, -1)
    assert own.is_news(gap)
    assert own.correct(minute(1))
    assert own.is_news(own.cell(minute(1), None))


def test_a_bar_that_cannot_be_computed_on_is_taken_for_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = lane(tmp_path, "SMA(2)")
    own.take(minute(0))
    cell = own.take(minute(1, -1.0))
    assert cell is not None
    assert list(cell.statuses) == [GAP]
    assert "taken for missing" in caplog.text


def test_bars_and_tables_are_the_same_there_and_back() -> None:
    bars = [minute(0), minute(1, state="no_trade", revision=2)]
    table = as_table(bars)
    assert table.schema == BAR_SCHEMA
    assert table["taker_buy_volume"].null_count() == 2
    assert [each.values[:7] for each in as_live(table)] == [each.values[:7] for each in bars]
    assert_frame_equal(as_table(as_live(table)), table)
    assert as_live(pl.DataFrame(schema=BAR_SCHEMA)) == []
