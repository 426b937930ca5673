"""Recordings as feeds: what the exchange sent, as the batch path reads it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from mdplatform.errors import NoData, ParameterOutOfRange, PlatformError, SourceError
from mdplatform.feeds.recording import RecordingFeed
from mdplatform.feeds.registry import feed
from mdplatform.market.events import BookChange, Candle, Clock, Event, Lost, Trade
from mdplatform.market.timeframe import MINUTE_US
from mdplatform.market.trades import TRADES
from mdplatform.settings import Settings
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions
from tests.feeds.exchange import Exchange
from tests.feeds.following import following, of_trades, quick
from tests.feeds.venue import MINUTE_MS, START_MS, Message, Venue


def events_of(feed: RecordingFeed, since: Mapping[str, int] | None = None) -> list[Event]:
    async def main() -> list[Event]:
        return [event async for batch in feed.events(since or {}) for event in batch]

    return asyncio.run(main())


def recorded(folder: Path, messages: list[Message], ending: str = "\n") -> Path:
    path = folder / "session.gz"
    lines = [f"{(START_MS + place) * 10**6} {json.dumps({'data': data})}" for place, data in enumerate(messages)]
    path.write_bytes(gzip.compress(("\n".join(lines) + ending).encode()))
    return path


def session(minutes: int = 3) -> list[Message]:
    """The messages of a small venue."""
    told: list[Message] = []
    venue = Venue(["BTCUSDT"], tell=lambda _, data: told.append(data))
    for second in range(60 * minutes + 1):
        venue.trade("BTCUSDT", 100 + second % 7, 1, START_MS + second * 1000)
    return told


def test_the_real_sessions_give_exactly_the_trades_that_the_batch_path_reads(shared_data: Path) -> None:
    folder = shared_data / "live"
    paths = [folder / f"nkaz001__hftbacktest/examples/spot/btcusdt_2024080{day}.gz" for day in (8, 9)]
    for path in (*paths, folder / "nkaz001__collect-binancefutures/sample_data/btcusdt_20220811.dat.gz"):
        told = events_of(RecordingFeed(path))
        read = next(each.rows for each in read_recording(path, TableOptions()) if each.dataset is TRADES)
        trades = [each for each in told if isinstance(each, Trade)]
        columns = ("trade_id", "price", "quantity", "is_buyer_maker")
        assert [each[:1] + each[2:] for each in of_trades(trades)] == read.select(columns).rows()
        assert [each.time for each in trades] == read["time"].dt.epoch("us").to_list()
        clocks = [each.time for each in told if isinstance(each, Clock)]
        assert all(0 < after - before < 1_000_000 for before, after in pairwise(clocks))
        assert not any(isinstance(each, Lost) and each.kind != "book" for each in told)
        if path is paths[0]:
            assert_has_no_hole([each for each in told if isinstance(each, BookChange)])


def assert_has_no_hole(book: list[BookChange]) -> None:
    assert book[0].is_snapshot
    assert book[1].first_id <= book[0].last_id + 1 <= book[1].last_id
    assert all(after.first_id == before.last_id + 1 for before, after in pairwise(book[1:]))


def test_a_real_session_served_by_an_exchange_comes_out_of_the_live_feed_as_it_was_recorded(shared_data: Path) -> None:
    path = shared_data / "live/nkaz001__hftbacktest/examples/spot/btcusdt_20240808.gz"

    async def main() -> list[Trade]:
        async with Exchange(["BTCUSDT"], now=1_723_161_255_000) as exchange:
            since = {"BTCUSDT": exchange.now * 1000}
            async with following(quick(exchange, streams=["trades", "book"]), since) as followed:
                await exchange.connected(streams=2)
                for count, _ in enumerate(islice(exchange.play(path), 4_000)):
                    if count % 500 == 499:
                        exchange.skip(7)
                    if count % 20 == 0:
                        await asyncio.sleep(0)
                exchange.calm()
                last = exchange.venue.trade("BTCUSDT", "1", "1")["a"]
                await followed.until(lambda: followed.trades("BTCUSDT")[-1].trade_id == last)
                assert [each for each in followed.lost if each.kind != "book"] == []
                return followed.trades("BTCUSDT")[:-1]

    recorded = [each for each in events_of(RecordingFeed(path)) if isinstance(each, Trade)]
    served = asyncio.run(main())
    assert len(served) > 1_000
    assert of_trades(served) == of_trades(recorded)[: len(served)]


def test_candles_trades_and_clock_come_in_the_order_in_which_they_were_received(tmp_path: Path) -> None:
    feed = RecordingFeed(recorded(tmp_path, session()))
    told = events_of(feed)
    assert feed.bars_from == "candles"
    assert [each.trade_id for each in told if isinstance(each, Trade)] == list(range(1, 182))
    assert len([each for each in told if isinstance(each, Candle) and each.is_closed]) == 3
    assert {each.received_at for each in told[:1] if isinstance(each, Trade)} == {START_MS * 1000}
    assert told == events_of(RecordingFeed(recorded(tmp_path, session())))


def test_a_hole_is_said_and_what_comes_late_within_patience_is_put_in_order(tmp_path: Path) -> None:
    messages = session()
    late = messages.pop(50)
    messages.insert(51, late)
    del messages[100:110]
    told = events_of(RecordingFeed(recorded(tmp_path, messages)))
    ids = [each.trade_id for each in told if isinstance(each, Trade)]
    lost = [each for each in told if isinstance(each, Lost)]
    assert ids == sorted(set(ids))
    assert len(ids) == 171
    assert [(each.kind, each.symbol) for each in lost] == [("trades", "BTCUSDT")]
    assert lost[0].until - lost[0].since == 11_000_000


def test_lines_that_cannot_be_read_are_counted_and_a_cut_file_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    messages = session()
    path = recorded(tmp_path, messages, ending="\nnonsense\n123\n1737331200000000000 {\n")
    feed = RecordingFeed(path)
    assert sum(isinstance(each, Trade) for each in events_of(feed)) == 181
    assert feed.counts["unreadable"] == 3
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert 0 < sum(isinstance(each, Trade) for each in events_of(RecordingFeed(path))) < 181


def test_the_clock_goes_on_where_the_candles_of_one_symbol_end(tmp_path: Path) -> None:
    told: list[Message] = []
    venue = Venue(["BTCUSDT", "ETHUSDT"], tell=lambda _, data: told.append(data))
    for second in range(0, 60 * 30, 30):
        for symbol in venue.symbols:
            venue.trade(symbol, 100, 1, START_MS + second * 1000)
        venue.forming()
    ended = START_MS + 5 * MINUTE_MS + 1_000
    messages = [each for each in told if each["e"] == "kline" and (each["s"] == "BTCUSDT" or each["E"] < ended)]
    events = events_of(RecordingFeed(recorded(tmp_path, messages)))
    place = next(i for i, each in enumerate(events) if isinstance(each, Candle) and each.open_time >= ended * 1000)
    closed_later = [
        (at, each) for at, each in enumerate(events) if at > place and isinstance(each, Candle) and each.is_closed
    ]
    clocks = [(at, each.time) for at, each in enumerate(events) if isinstance(each, Clock)]
    assert clocks[-1][1] == told[-1]["E"] * 1000
    for at, candle in closed_later[3:]:  # while it is told, too: never more than a few minutes behind
        assert max(time for place, time in clocks if place < at) > candle.open_time - 2 * MINUTE_US


def test_a_recording_without_a_book_has_a_clock_from_its_first_message_on(tmp_path: Path) -> None:
    messages = [each for each in session() if each["e"] == "aggTrade"][:30]
    events = events_of(RecordingFeed(recorded(tmp_path, messages)))
    clocks = [each.time for each in events if isinstance(each, Clock)]
    assert clocks[0] == messages[0]["E"] * 1000
    assert clocks[-1] == messages[-1]["E"] * 1000


def test_the_clock_waits_for_no_book_that_is_not_recorded(tmp_path: Path) -> None:
    told: list[Message] = []
    venue = Venue(["BTCUSDT", "ETHUSDT"], tell=lambda _, data: told.append(data))
    for _ in range(5):
        venue.trade("ETHUSDT", 10, 1, venue.now + 100)
        venue.change_book("BTCUSDT", [("99", "1")], [])
    events = events_of(RecordingFeed(recorded(tmp_path, told)))
    clocks = [each.time for each in events if isinstance(each, Clock)]
    assert clocks[0] == told[0]["E"] * 1000
    assert len(clocks) > 3
    assert sum(isinstance(each, BookChange) for each in events) == 5


def test_that_a_recording_ends_before_what_is_known_is_said_at_its_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recorded(tmp_path, session())  # received in three minutes of nanoseconds
    told = events_of(RecordingFeed(path), {"BTCUSDT": (START_MS + 60 * MINUTE_MS) * 1000})
    assert [each for each in told if not isinstance(each, Clock)] == []
    assert "nothing of BTCUSDT in this recording is new" in caplog.text
    assert "2025-01-20T01:00:00+00:00" in caplog.text
    caplog.clear()
    assert events_of(RecordingFeed(path), {"BTCUSDT": START_MS * 1000})
    assert caplog.text == ""


def test_a_book_without_its_snapshot_does_not_hold_the_clock_at_the_end(tmp_path: Path) -> None:
    told: list[Message] = []
    venue = Venue(["BTCUSDT"], tell=lambda _, data: told.append(data))
    for _ in range(3):
        venue.advance(venue.now + 100)
        venue.change_book("BTCUSDT", [("99", "1")], [])
    events = events_of(RecordingFeed(recorded(tmp_path, told)))
    assert [each.last_id for each in events if isinstance(each, BookChange)] == [each["u"] for each in told]
    assert [each.kind for each in events if isinstance(each, Lost)] == ["book"]
    assert [each.time for each in events if isinstance(each, Clock)][-1] == venue.now * 1000


def test_what_is_known_already_is_left_out(tmp_path: Path) -> None:
    feed = RecordingFeed(recorded(tmp_path, session()))
    since = (START_MS + MINUTE_MS) * 1000
    told = events_of(feed, {"BTCUSDT": since})
    assert min(each.time for each in told if isinstance(each, Trade)) == since
    assert min(each.open_time for each in told if isinstance(each, Candle)) == since


def test_a_recording_is_told_at_a_speed_and_ends_when_it_is_closed(tmp_path: Path) -> None:
    async def main() -> tuple[float, int]:
        feed = RecordingFeed(path, speed=1.0)
        began = time.monotonic()
        async with following(feed, {}) as followed:
            await followed.ended.wait()
        slow = time.monotonic() - began
        feed = RecordingFeed(path, speed=1e-6)
        async with following(feed, {}) as followed:
            await followed.until(lambda: bool(followed.events))
        return slow, len(followed.trades("BTCUSDT"))

    path = recorded(tmp_path, session())  # 184 messages, one each ms
    slow, count = asyncio.run(main())
    assert slow > 0.15
    assert count < 181


@pytest.mark.parametrize(
    ("path", "symbols", "options", "error"),
    [
        ("absent.gz", [], {}, PlatformError),
        ("session.gz", ["ETHUSDT"], {}, NoData),
        ("session.gz", [], {"speed": -1}, ParameterOutOfRange),
        ("session.gz", [], {"speed": float("nan")}, ParameterOutOfRange),
        ("session.gz", [], {"streams": ["x"]}, ParameterOutOfRange),
        ("", [], {}, ParameterOutOfRange),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, settings: Settings, path: str, symbols: list[str], options: dict[str, Any], error: type[Exception]
) -> None:
    recorded(tmp_path, session(1))
    with pytest.raises(error):
        feed(f"recording:{tmp_path / path}" if path else "recording", settings, symbols, **options)


def test_what_is_no_recording_is_refused_by_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    for path, told in ((tmp_path, "is a folder. A recording is one file"), (tmp_path / "passwd", "is no recording")):
        for symbols in ([], ["BTCUSDT"]):
            with pytest.raises(SourceError, match=told):
                RecordingFeed(path, symbols)
