"""Frames are made in order, each once, complete or marked, in whatever order packets come, or not."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidRequest, PlatformError
from mdplatform.streaming import assembler as module
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.cursor import decode, encode
from mdplatform.streaming.frame import Frame
from mdplatform.streaming.frame_cell import UnknownColumn
from mdplatform.streaming.shape import Shape

from .packets import LAYOUT, MINUTE, NOON, cell, packet

STEP = 5 * MINUTE
SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT")
RSI = "RSI(timeperiod=14)"


def shape(**given: object) -> Shape:
    known = {"symbols": SYMBOLS[:2], "timeframes": ["15m", "5m"], "data_types": ["price", "indicators"]}
    return Shape.of(**{**known, "features": [RSI], "grace": 2.0, **given})  # type: ignore[arg-type]


def made(of: Shape | None = None) -> Assembler:
    return Assembler(of or shape(), {LAYOUT.id: LAYOUT})


def steps(frames: list[Frame]) -> list[float]:
    return [(each.time_us - NOON) / STEP for each in frames]


def test_a_frame_comes_when_all_that_is_due_has_come():
    assembler = made()
    assert assembler.take(packet("BTCUSDT", NOON)) == []
    [frame] = assembler.take(packet("ETHUSDT", NOON))
    assert frame.time_us == NOON
    assert frame.is_complete
    assert frame.missing == ()
    assert frame["ETHUSDT", "15m"]["rsi"] == 50.0


def test_what_did_not_come_within_the_grace_is_marked_and_counted_from_the_first_sign():
    assembler = made()
    for symbol in SYMBOLS[:2]:
        assembler.take(packet(symbol, NOON), now=10.0)
    assert assembler.take(packet("BTCUSDT", NOON + STEP), now=20.0) == []
    assert assembler.due == 22.0
    assert assembler.tick(21.9) == []
    [frame] = assembler.tick(22.0)
    assert [tuple(each) for each in frame.missing] == [("ETHUSDT", "5m", "stale")]
    assert frame["ETHUSDT", "15m"].status == "fresh"
    assert frame["ETHUSDT", "5m"].close_time == frame["ETHUSDT", "15m"].close_time
    assert assembler.due is None


def test_a_symbol_that_stays_silent_delays_no_more_frames_until_it_is_heard_again():
    assembler, frames = made(), []
    for symbol in SYMBOLS[:2]:
        frames += assembler.take(packet(symbol, NOON), now=0.0)
    for step in (1, 2, 3):  # these wait, each for its grace
        assert assembler.take(packet("BTCUSDT", NOON + step * STEP), now=10.0 * step) == []
        frames += assembler.tick(10.0 * step + 2.0)
    for step in (4, 5):
        frames += assembler.take(packet("BTCUSDT", NOON + step * STEP), now=10.0 * step)
        assert steps(frames) == list(range(step + 1))
    assert {each.symbol for frame in frames[1:] for each in frame.missing} == {"ETHUSDT"}
    [late] = assembler.take(Packet("ETHUSDT", NOON + 5 * STEP, (cell("5m", NOON + 5 * STEP),)), now=51.0)
    assert (late.time_us, late.revision) == (NOON + 5 * STEP, 1)
    assert assembler.take(packet("BTCUSDT", NOON + 6 * STEP), now=60.0) == []
    assert assembler.due == 62.0
    [frame] = assembler.take(packet("ETHUSDT", NOON + 6 * STEP), now=61.0)
    assert frame.is_complete


def test_a_symbol_that_is_always_late_is_waited_for_as_long_as_it_is_heard():
    assembler = made()
    for step in range(8):
        assert assembler.take(packet("BTCUSDT", NOON + step * STEP), now=10.0 * step) == []
        [frame] = assembler.tick(10.0 * step + 2.0)
        assert not frame.is_complete
        assembler.take(packet("ETHUSDT", NOON + step * STEP), now=10.0 * step + 3.0)


def test_a_clock_that_is_set_back_an_hour_delays_nothing():
    assembler = made()
    for symbol in SYMBOLS[:2]:
        assembler.take(packet(symbol, NOON), now=10_000.0)
    assembler.take(packet("BTCUSDT", NOON + STEP), now=10_001.0)
    assert assembler.tick(6_401.0) == []
    assert assembler.due == 6_403.0
    assert steps(assembler.tick(6_403.0)) == [1]


def test_a_long_bar_stays_fresh_until_the_next_one_is_due():
    assembler, frames = made(), []
    for step in range(5):
        for symbol in SYMBOLS[:2]:
            frames += assembler.take(packet(symbol, NOON + step * STEP, close=100.0 + step))
    assert [each["BTCUSDT", "15m"].close for each in frames] == [100, 100, 100, 103, 103]
    assert all(each.is_complete for each in frames)


def test_a_symbol_that_runs_ahead_shows_no_later_bar_in_an_earlier_frame():
    assembler = made()
    for step in range(4):
        assert assembler.take(packet("BTCUSDT", NOON + step * STEP, close=100.0 + step)) == []
    frames = []
    for step in range(4):
        frames += assembler.take(packet("ETHUSDT", NOON + step * STEP))
    assert [each["BTCUSDT", "5m"].close for each in frames] == [100, 101, 102, 103]
    assert all(each.available_at == each.time for each in frames)


def test_late_and_corrected_cells_come_as_the_next_revision_of_their_frames():
    assembler = made()
    for step in range(3):
        for symbol in SYMBOLS[:2]:
            assembler.take(packet(symbol, NOON + step * STEP, close=100.0 + step))
    late = Packet("BTCUSDT", NOON + 2 * STEP, (cell("5m", NOON + STEP, 7.0, revision=1),))
    [frame] = assembler.take(late)
    assert (frame.time_us, frame.revision, frame["BTCUSDT", "5m"].close) == (NOON + STEP, 1, 7.0)
    assert frame["BTCUSDT", "5m"].revision == 1
    assert assembler.take(late) == []
    longer = Packet("BTCUSDT", NOON + 2 * STEP, (cell("15m", NOON, 8.0, revision=1),))
    assert [(each.time_us - NOON, each.revision) for each in assembler.take(longer)] == [
        (0, 1),
        (STEP, 2),
        (2 * STEP, 1),
    ]
    [after] = [*assembler.take(packet("BTCUSDT", NOON + 3 * STEP)), *assembler.take(packet("ETHUSDT", NOON + 3 * STEP))]
    assert (after.revision, after.to_tensor(3).values[0, 1, 3]) == (0, 102.0)


def test_cells_that_are_told_again_in_a_later_edition_stand_in_frames_in_tensors_and_where_they_wait():
    assembler = made(shape(timeframes=["5m"], window=4))
    for step in range(3):
        for symbol in SYMBOLS[:2]:
            assembler.take(packet(symbol, NOON + step * STEP, ("5m",), close=100.0 + step))
    assembler.take(packet("BTCUSDT", NOON + 3 * STEP, ("5m",)))  # waits for the other symbol

    def again(edition: int, first: float, revision: int = 0) -> list[Frame]:
        cells = (cell("5m", NOON + step * STEP, first + step, revision, edition=edition) for step in range(1, 4))
        return assembler.take(Packet("BTCUSDT", NOON + 3 * STEP, tuple(cells)))

    frames = again(1, 10.0)
    assert [(each.time_us - NOON, each.revision) for each in frames] == [(STEP, 1), (2 * STEP, 1)]
    assert frames[-1].to_tensor(3).values[0, :, 3].tolist() == [100, 11, 12]
    assert frames[-1]["BTCUSDT", "5m"]["RSI"] == 6.0
    assert again(1, 20.0) == again(0, 30.0) == []
    assert [each["BTCUSDT", "5m"].close for each in again(0, 40.0, revision=1)] == [41, 42]
    assert again(2, 50.0) == []  # of an earlier revision
    [frame] = assembler.take(packet("ETHUSDT", NOON + 3 * STEP, ("5m",)))
    assert frame.to_tensor(4).values[0, :, 3].tolist() == [100, 41, 42, 43]


def test_features_that_were_wished_for_are_shown_as_soon_as_the_feed_tells_a_bar_again_with_them():
    bare, more = Layout.of((), (), ()), Layout.of((RSI, "EMA(timeperiod=9)"), (RSI, "EMA(timeperiod=9)"), (1, 1))
    lacking = {"layout": bare.id, "numbers": b"", "statuses": b""}
    richer = {"layout": more.id, "numbers": np.array([50.0, 7.0]).tobytes(), "statuses": bytes(2)}
    of = shape(symbols=SYMBOLS[:1], timeframes=["5m"], window=2)
    assembler = Assembler(of, {each.id: each for each in (bare, LAYOUT, more)})

    def take(at: int, **given: object) -> list[Frame]:
        return assembler.take(Packet("BTCUSDT", at, (cell("5m", at, **given),)))

    [frame] = take(NOON, **lacking)
    assert frame["BTCUSDT", "5m"]["RSI"] is None
    [frame] = take(NOON)
    assert (frame.revision, frame["BTCUSDT", "5m"]["RSI"]) == (1, 50.0)
    assert take(NOON, **richer) == []  # of nothing that this shape wants
    assert take(NOON, **lacking) == []
    [frame] = take(NOON + STEP)
    assert frame.to_tensor(window=2).mask[0, 0].all()


def test_the_tensor_of_an_old_frame_that_is_corrected_has_all_of_its_window():
    assembler, last = made(shape(symbols=SYMBOLS[:1], window=8)), module.KEPT + 7
    for step in range(last + 1):
        assembler.take(packet("BTCUSDT", NOON + step * STEP, close=100.0 + step))
    oldest = last - module.KEPT + 1
    late = [cell("5m", NOON + step * STEP, 7.0, edition=1) for step in (oldest - 1, oldest)]
    [frame] = assembler.take(Packet("BTCUSDT", NOON + last * STEP, tuple(late)))
    values = frame.to_tensor(8).values[0, :, 3]
    assert frame.time_us == NOON + oldest * STEP
    assert values.tolist() == [*(100 + step for step in range(oldest - 7, oldest - 1)), 7, 7]


def test_a_frame_stays_as_it_was_given_whatever_comes_after_it():
    assembler, frames = made(shape(symbols=SYMBOLS[:1], timeframes=["5m"], window=3)), []
    for step in range(3 * module.KEPT):
        frames += assembler.take(packet("BTCUSDT", NOON + step * STEP, ("5m",), close=100.0 + step))
        if step % 5 == 4:
            assembler.take(
                Packet("BTCUSDT", NOON + step * STEP, (cell("5m", NOON + (step - 1) * STEP, 7.0, edition=1),))
            )
    for step, frame in enumerate(frames[2:], 2):
        known = [
            7.0 if back and (step - back) % 5 == 3 and step % 5 != 4 else 100.0 + step - back for back in (2, 1, 0)
        ]
        assert frame.to_tensor(3).values[0, :, 3].tolist() == known


def test_the_cursor_of_a_corrected_frame_goes_on_behind_the_frames_that_came_before_the_correction():
    assembler = made(shape(symbols=SYMBOLS[:1]))
    for step in range(4):
        [frame] = assembler.take(packet("BTCUSDT", NOON + step * STEP), place=f"{step}-0")
        assert decode(frame.cursor).time == NOON + step * STEP
    [corrected] = assembler.take(Packet("BTCUSDT", NOON + 3 * STEP, (cell("5m", NOON + STEP, 7.0, revision=1),)))
    assert corrected.time_us == NOON + STEP
    assert decode(corrected.cursor) == decode(frame.cursor)


def test_a_gap_is_missing_and_has_no_values():
    assembler = made(shape(symbols=SYMBOLS[:1]))
    gap = cell("5m", NOON, float("nan"), state="gap")
    [frame] = assembler.take(Packet("BTCUSDT", NOON, (gap, cell("15m", NOON))))
    told = frame["BTCUSDT", "5m"]
    assert (told.status, told.state, told.close, told["RSI"]) == ("missing", "gap", None, None)
    assert [each.timeframe for each in frame.missing] == ["5m"]
    assert not frame.to_tensor(1).mask[0, 0, :4].any()


def test_time_that_goes_on_without_cells_makes_marked_frames():
    assembler = made(shape(symbols=SYMBOLS[:1]))
    assembler.take(packet("BTCUSDT", NOON))
    frames = assembler.take(Packet("BTCUSDT", NOON + 3 * STEP))
    assert steps(frames) == [1, 2, 3]
    assert not any(each.is_complete for each in frames)


def test_nothing_is_given_up_to_where_it_began_and_a_cursor_tells_where_to_go_on():
    assembler = made()
    assembler.begin(NOON, {"BTCUSDT": "b0", "ETHUSDT": "e0"})
    assert assembler.take(packet("BTCUSDT", NOON), place="b1") == []
    assert assembler.take(packet("ETHUSDT", NOON), place="e1") == []
    assert assembler.take(packet("BTCUSDT", NOON + STEP), place="b2") == []
    assert assembler.take(packet("BTCUSDT", NOON + 2 * STEP), place="b3") == []
    [frame] = assembler.take(packet("ETHUSDT", NOON + STEP), place="e2")
    told = decode(frame.cursor)
    assert (told.time, told.places) == (NOON + STEP, {"BTCUSDT": "b2", "ETHUSDT": "e2"})


def test_forming_bars_make_frames_between_the_closed_ones_only_where_they_are_wanted():
    forming = cell("5m", NOON + STEP, 101.5, is_closed=False, available_at=NOON + MINUTE)
    for wanted in (True, False):
        assembler = made(shape(symbols=SYMBOLS[:1], forming=wanted))
        assembler.take(packet("BTCUSDT", NOON))
        ahead = Packet("BTCUSDT", NOON + STEP, (forming,))  # time is told by closed bars alone
        frames = assembler.form(ahead)
        assert len(frames) == wanted
        for frame in frames:
            assert (frame.time_us, frame.is_closed, frame["BTCUSDT", "5m"].close) == (NOON + MINUTE, False, 101.5)
            assert not frame["BTCUSDT", "5m"].is_closed
            assert frame["BTCUSDT", "15m"].is_closed
        assert assembler.form(ahead) == []
        [closed] = assembler.take(packet("BTCUSDT", NOON + STEP, close=102.0))
        assert (closed.is_closed, closed["BTCUSDT", "5m"].close) == (True, 102.0)


def test_instants_beyond_what_may_wait_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    assembler = made()
    assembler.take(packet("BTCUSDT", NOON))
    frames = assembler.take(packet("BTCUSDT", NOON + 100 * STEP))
    frames += assembler.take(packet("ETHUSDT", NOON + 100 * STEP))
    assert steps(frames) == list(range(91, 101))
    assert assembler.skipped == 91


def test_a_tensor_has_the_numbers_of_each_instant_and_masks_what_was_not_fresh():
    assembler = made(shape(window=8))
    frames = []
    for step in range(4):
        frames += assembler.take(packet("BTCUSDT", NOON + step * STEP, close=100.0 + step))
        if step != 2:
            frames += assembler.take(packet("ETHUSDT", NOON + step * STEP))
    tensor = frames[-1].to_tensor(window=6)
    assert tensor.shape == (2, 6, 10)
    assert tensor.values.dtype == np.float32
    assert tensor.features[3] == "close@5m"
    assert tensor.features[-1] == f"{RSI}@15m"
    np.testing.assert_array_equal(tensor.values[0, :, 3], np.float32([np.nan, np.nan, 100, 101, 102, 103]))
    np.testing.assert_array_equal(tensor.mask[1, :, 3], [False, False, True, True, False, True])
    assert tensor.times[-1] == np.datetime64(frames[-1].time.replace(tzinfo=None), "us")
    assert (np.isnan(tensor.values) == ~tensor.mask).all()
    for wrong in (0, 9, True, 2.0, "3"):
        with pytest.raises(InvalidRequest, match=r"window: .*1 to 8"):
            frames[-1].to_tensor(wrong)


def test_tables_have_a_row_a_place_in_microseconds_and_nulls_where_nothing_is_known():
    assembler = made()
    assembler.take(packet("BTCUSDT", NOON))
    [frame] = assembler.tick(5.0) or assembler.flush(NOON)
    table = frame.to_polars()
    assert table["status"].to_list() == ["fresh", "fresh", "missing", "missing"]
    assert table["close"].to_list() == [100.0, 100.0, None, None]
    assert table[RSI].to_list() == [50.0, 50.0, None, None]
    assert str(table.schema["close_time"]) == "Datetime(time_unit='us', time_zone='UTC')"
    pandas = frame.to_pandas()
    assert pandas.loc[("BTCUSDT", "15m"), "time"] == frame.time
    assert frame.to_arrow().num_rows == len(frame) == 4


def test_names_that_a_frame_does_not_have_are_refused_with_the_nearest():
    assembler = made(shape(symbols=SYMBOLS[:1]))
    [frame] = assembler.take(packet("BTCUSDT", NOON))
    with pytest.raises(PlatformError, match="Known: BTCUSDT, 15m, BTCUSDT, 5m"):
        frame["BTCUSDT", "1h"]
    with pytest.raises(UnknownColumn, match="close"):
        frame["BTCUSDT", "5m"]["EMA(20)"]
    assert frame["BTCUSDT", "5m"].get("EMA(20)") is None
    assert frame["BTCUSDT", "5m"][{"name": "RSI", "parameters": {"period": 14}}] == 50.0


@pytest.mark.parametrize("text", ["", "abc", "====", "é", encode(NOON, {})[:-2], "A" * 500])
def test_a_text_that_is_no_cursor_is_refused(text):
    with pytest.raises(InvalidRequest, match="Not a cursor"):
        decode(text)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), lost=st.floats(0, 0.5), disorder=st.integers(0, 6), last=st.integers(1, 14))
def test_frames_are_ordered_marked_and_never_twice_whatever_comes(seed, lost, disorder, last):
    """Any order, loss, repeats, corrections, and a clock that jumps back: against the rule, worked out by hand."""
    chance = random.Random(seed)
    sent = [
        (step + chance.uniform(0, disorder), packet(symbol, NOON + step * STEP, close=100.0 + step))
        for step in range(last + 1)
        for symbol in SYMBOLS
        if chance.random() >= lost
    ]
    sent += chance.sample(sent, len(sent) // 3)
    for when, each in chance.sample(sent, len(sent) // 4):
        revision, edition = chance.choice([(0, 1), (0, 2), (1, 0), (1, 1)])
        cells = tuple(
            cell(one.timeframe, one.close_time, 1.0 + 2 * revision + edition, revision, edition=edition)
            for one in each.cells
        )
        sent.append((when + chance.uniform(0, 3), Packet(each.symbol, each.at, cells)))
    sent.sort(key=lambda each: each[0])
    assembler, now, frames, heard = made(shape(symbols=SYMBOLS)), 1_000.0, [], []
    for _, each in sent:
        now += chance.choice([0.0, 0.1, 1.0, 3.0, -3600.0])
        frames += [(list(heard), frame) for frame in assembler.tick(now)]
        heard.append(each)
        frames += [(list(heard), frame) for frame in assembler.take(each, now)]
    while (due := assembler.due) is not None:
        frames += [(list(heard), frame) for frame in assembler.tick(due)]
    first = [frame.time_us for _, frame in frames if not frame.revision]
    assert all(after - before == STEP for before, after in pairwise(first))
    if sent:
        assert first[-1] == max(each.at for each in heard)
        assert first[0] == heard[0].at
    assert len({(frame.time_us, frame.revision) for _, frame in frames}) == len(frames)
    for known, frame in frames:
        for told in frame:
            best = [
                one
                for each in known
                if each.symbol == told.symbol
                for one in each.cells
                if one.timeframe == told.timeframe and one.close_time <= frame.time_us
            ]
            newest = max(best, key=lambda one: (one.open_time, one.revision, one.edition), default=None)
            due_at = told.timeframe.floor(frame.time_us)
            status = "missing" if newest is None else "fresh" if newest.close_time == due_at else "stale"
            assert told.status == status
            if newest is not None:
                assert told.revision == newest.revision
                assert told.values == tuple(np.frombuffer(newest.bar))
