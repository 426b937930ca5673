"""The rebuilt order book, against the book that a made venue really had, and against a venue's own best prices."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features import book_features
from mdplatform.features.flow.book import join_messages, read_messages, rebuild_tops
from mdplatform.market.depth import DEPTH
from mdplatform.sources.recording import read_recording
from mdplatform.sources.table_delivery import TableOptions

START = 1_700_000_000_000_000
FEW = settings(max_examples=40, deadline=None)
Book = dict[tuple[bool, int], int]
"""Quantity by side (true: bid) and price in ticks."""


def depth_of(messages: list[Mapping[str, object]]) -> pl.DataFrame:
    """Make rows of depth of messages, a millisecond apart unless they say when."""
    rows = []
    for number, message in enumerate(messages):
        levels: Book = message["levels"]  # type: ignore[assignment]
        for (is_bid, ticks), quantity in levels.items():
            rows.append(
                {
                    "time": message.get("time", START + number * 1000),
                    "first_update_id": message["first"],
                    "last_update_id": message["last"],
                    "previous_update_id": message.get("previous"),
                    "is_snapshot": message.get("is_snapshot", False),
                    "is_bid": is_bid,
                    "price": ticks / 10,
                    "quantity": float(quantity),
                }
            )
    schema = {name: kind for name, kind in DEPTH.columns.items() if name != "symbol"}
    return pl.DataFrame(rows, schema=schema | {"time": pl.Int64()}).cast({"time": schema["time"]})  # type: ignore[dict-item]


def change(first: int, last: int, levels: Book, **more: object) -> dict[str, object]:
    return {"first": first, "last": last, "levels": levels, **more}


def snapshot(last: int, levels: Book, **more: object) -> dict[str, object]:
    return {"first": last, "last": last, "levels": levels, "is_snapshot": True, **more}


def statuses(messages: list[dict[str, object]]) -> list[str]:
    return book_features(depth_of(messages))["status"].to_list()


WHOLE: Book = {(True, 1000): 5, (True, 999): 7, (False, 1001): 2, (False, 1003): 9}


# -- a made venue -----------------------------------------------------------------------------------------------------


@st.composite
def feeds(draw: st.DrawFn) -> tuple[list[dict[str, object]], dict[int, Book], list[tuple[str, int, int]]]:
    """Draw what a venue sent and what arrived; give the messages, the book after each update, and the arrivals."""
    is_futures = draw(st.booleans())
    books: dict[int, Book] = {0: {(True, 99): 5, (False, 101): 5}}
    sent = []
    update = 0
    for _ in range(draw(st.integers(1, 12))):
        first, changed = update + 1, {}
        for _ in range(draw(st.integers(1, 3))):
            is_bid = draw(st.booleans())
            price = draw(st.integers(96, 100)) if is_bid else draw(st.integers(101, 105))
            book = dict(books[update])
            changed[is_bid, price] = book[is_bid, price] = draw(st.integers(0, 3))
            update += 1
            books[update] = {level: quantity for level, quantity in book.items() if quantity}
        sent.append((first, update, changed))
    messages, arrivals = [], []
    spread = 7 if is_futures else 1  # a future's numbers are shared with others: they have holes
    for number, (first, last, changed) in enumerate(sent):
        if draw(st.integers(0, 5)):
            message = change(first * spread, last * spread, changed)
            if is_futures:
                message = change(first * spread - 3, last * spread, changed, previous=(first - 1) * spread)
            messages.append(message)
            arrivals.append(("change", first, last))
        if draw(st.integers(0, 3)) == 0:
            behind = draw(st.integers(0, min(number, 4)))
            at = draw(st.integers(sent[number - behind][0] - 1, sent[min(number + 1, len(sent) - 1)][1]))
            if books[at]:
                messages.append(snapshot(at * spread, books[at]))
                arrivals.append(("snapshot", at, at))
    return messages, books, arrivals


@FEW
@given(feeds(), st.integers(1, 4))
def test_a_known_book_is_the_venue_s_own_and_a_hole_is_never_taken_for_one(
    feed: tuple[list[dict[str, object]], dict[int, Book], list[tuple[str, int, int]]], levels: int
) -> None:
    messages, books, arrivals = feed
    found = book_features(depth_of(messages), levels)
    assert len(found) == len(messages)
    arrived: set[int] = set()
    base, newest = None, 0
    for row, (kind, first, last) in zip(found.iter_rows(named=True), arrivals, strict=True):
        if kind == "snapshot":
            base = last
        else:
            arrived |= set(range(first, last + 1))
            newest = max(newest, last)
        if base is None or not set(range(base + 1, newest + 1)) <= arrived:
            assert row["status"] == "gap"
            assert row["best_bid"] is None
            continue
        book = books[max(base, newest)]
        bids = sorted(((price, book[True, price]) for side, price in book if side), reverse=True)
        asks = sorted((price, book[False, price]) for side, price in book if not side)
        assert row["best_bid"] == (bids[0][0] / 10 if bids else None)
        assert row["ask_quantity"] == (asks[0][1] if asks else None)
        if not bids or not asks:
            assert row["status"] == "degenerate"
            assert row["spread"] is None
            continue
        assert row["status"] == "settled"
        assert row["spread"] == pytest.approx((asks[0][0] - bids[0][0]) / 10)
        assert row["mid"] == pytest.approx((asks[0][0] + bids[0][0]) / 20)
        weighted = (bids[0][0] * asks[0][1] + asks[0][0] * bids[0][1]) / (bids[0][1] + asks[0][1]) / 10
        assert row["microprice"] == pytest.approx(weighted)
        for name, count in (("imbalance", 1), ("imbalance_levels", levels)):
            bid, ask = (sum(quantity for _, quantity in side[:count]) for side in (bids, asks))
            assert row[name] == pytest.approx((bid - ask) / (bid + ask))
            assert -1 <= row[name] <= 1


@FEW
@given(feeds(), st.floats(0, 1))
def test_what_comes_later_changes_no_row_and_pieces_join_to_the_whole(
    feed: tuple[list[dict[str, object]], dict[int, Book], list[tuple[str, int, int]]], share: float
) -> None:
    messages = feed[0]
    cut = int(share * len(messages))
    whole = book_features(depth_of(messages))
    assert book_features(depth_of(messages[:cut])).equals(whole[:cut])
    rows = depth_of(messages)
    if 0 < cut < len(messages):
        edge = sum(len(each["levels"]) for each in messages[:cut])  # type: ignore[arg-type]
        joined = join_messages([read_messages(rows[:edge]), read_messages(rows[edge:])])
        np.testing.assert_array_equal(rebuild_tops(joined, (1,)).bid, whole["best_bid"].to_numpy())


# -- Binance's rules --------------------------------------------------------------------------------------------------


def test_changes_that_came_before_the_snapshot_are_applied_to_it() -> None:
    found = book_features(
        depth_of([change(1, 4, {(True, 1000): 1}), change(5, 8, {(False, 1001): 3}), snapshot(6, WHOLE)])
    )
    assert found["status"].to_list() == ["gap", "gap", "settled"]
    assert found.row(2, named=True)["ask_quantity"] == 3  # from the change that reaches beyond the snapshot
    assert found.row(2, named=True)["bid_quantity"] == 5  # not from the one that it holds


@pytest.mark.parametrize(
    ("first", "last", "status"),
    [(7, 9, "settled"), (4, 7, "settled"), (2, 6, "settled"), (8, 9, "gap")],
)
def test_the_first_change_after_a_spot_snapshot_must_reach_it(first: int, last: int, status: str) -> None:
    assert statuses([snapshot(6, WHOLE), change(first, last, {(True, 1000): 1})]) == ["settled", status]


@pytest.mark.parametrize(("previous", "status"), [(6, "settled"), (3, "settled"), (9, "gap")])
def test_a_future_s_change_names_the_one_before(previous: int, status: str) -> None:
    messages = [snapshot(6, WHOLE), change(40, 50, {(True, 1000): 1}, previous=previous)]
    assert statuses(messages) == ["settled", status]
    assert statuses([*messages, change(60, 70, {(True, 1000): 2}, previous=50)])[-1] == status
    assert statuses([*messages, change(60, 70, {(True, 1000): 2}, previous=55)])[-1] == "gap"


def test_after_a_hole_there_is_no_book_until_the_next_snapshot() -> None:
    messages = [snapshot(6, WHOLE), change(8, 9, {(True, 1000): 1}), change(10, 11, {(True, 1000): 2})]
    assert statuses(messages) == ["settled", "gap", "gap"]
    assert statuses([*messages, snapshot(12, WHOLE)])[-1] == "settled"
    assert statuses([*messages, snapshot(7, WHOLE)])[-1] == "settled"  # the changes since then are there
    assert statuses([*messages, snapshot(6, WHOLE)])[-1] == "gap"


def test_a_crossed_book_and_one_without_a_side_have_no_middle() -> None:
    crossed = book_features(
        depth_of([snapshot(6, WHOLE), change(7, 7, {(True, 1001): 1}), change(8, 8, {(False, 1001): 0})])
    )
    assert crossed["status"].to_list() == ["settled", "degenerate", "settled"]
    assert crossed["spread"].to_list() == [pytest.approx(0.1), None, pytest.approx(0.2)]
    assert crossed["best_bid"].to_list() == [100.0, 100.1, 100.1]
    assert statuses([snapshot(6, {(True, 1000): 1})]) == ["degenerate"]


@pytest.mark.filterwarnings("error")
def test_sums_beyond_doubles_are_degenerate_and_what_needs_none_is_not() -> None:
    huge = depth_of([snapshot(6, {(True, 1000): 1, (False, 1001): 1, (False, 1002): 1})]).with_columns(
        quantity=pl.lit(1e308)
    )
    best = book_features(huge, levels=1)
    assert best.select("imbalance", "status").row(0) == (0.0, "settled")
    assert best["microprice"][0] == pytest.approx(best["mid"][0])
    deep = book_features(huge, levels=2)
    assert deep.select("spread", "imbalance_levels", "status").row(0) == (None, None, "degenerate")


def test_messages_are_put_into_the_order_in_which_they_became_known() -> None:
    rows = depth_of([snapshot(6, WHOLE), change(7, 7, {(True, 1000): 1}), change(8, 8, {(True, 1000): 2})])
    late = rows["time"].dt.epoch("us") + pl.Series([0] * 4 + [9000, 0])
    found = book_features(rows.with_columns(available_at=late.cast(DEPTH.schema["available_at"])))
    assert found["last_update_id"].to_list() == [6, 8, 7]
    assert found["status"].to_list() == ["settled", "gap", "gap"]


def test_no_messages_make_no_rows() -> None:
    assert book_features(depth_of([])).is_empty()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"price": 0.0}, "price is not"), ({"price": float("nan")}, "price is not"), ({"is_bid": None}, "null"),
        ({"quantity": -1.0}, "quantity is not"), ({"quantity": float("inf")}, "quantity is not"),
        ({"first_update_id": 99}, "above"), ({"price": "much"}, "other types"),
    ],
)  # fmt: skip
def test_rows_that_make_no_sense_are_refused(broken: dict[str, object], said: str) -> None:
    rows = depth_of([snapshot(6, WHOLE)])
    with pytest.raises(InvalidTable, match=said):
        book_features(rows.with_columns(**{name: pl.lit(value) for name, value in broken.items()}))


def test_tables_and_levels_that_make_no_sense_are_refused() -> None:
    rows = depth_of([snapshot(6, WHOLE), change(7, 7, {(True, 1000): 1})])
    for wrong, said in ((rows.drop("price"), "lack columns: 'price'"), (rows[::-1], "out of order"), ([1], "a frame")):
        with pytest.raises(InvalidTable, match=said):
            book_features(wrong)  # type: ignore[arg-type]
    for levels in (0, 5001, 2.5, True):
        with pytest.raises(ParameterOutOfRange):
            book_features(rows, levels)  # type: ignore[arg-type]
    for table in (rows.to_arrow(), rows.to_pandas()):
        assert book_features(table).equals(book_features(rows))


# -- real data --------------------------------------------------------------------------------------------------------


def test_the_best_prices_are_those_that_the_venue_sent_beside(shared_data: Path) -> None:
    folder = shared_data / "live" / "nkaz001__hftbacktest" / "examples" / "spot"
    parts, wanted = [], {}
    for day in ("20240808", "20240809"):
        path = folder / f"btcusdt_{day}.gz"
        deliveries = read_recording(path, TableOptions(symbol="BTCUSDT"))
        parts += [each.rows for each in deliveries if each.dataset is DEPTH]
        for line in gzip.decompress(path.read_bytes()).splitlines():
            if b"bookTicker" in line:
                told = json.loads(line.split(b" ", 1)[1])["data"]
                wanted[told["u"]] = tuple(float(told[name]) for name in "bBaA")
    found = book_features(pl.concat(parts), 20)
    assert found["status"].value_counts().sort("count").rows() == [("gap", 3), ("settled", 6493)]
    columns = ("best_bid", "bid_quantity", "best_ask", "ask_quantity")
    both = [row for row in found.filter(status="settled").iter_rows(named=True) if row["last_update_id"] in wanted]
    assert len(both) > 1000
    assert all(tuple(row[name] for name in columns) == wanted[row["last_update_id"]] for row in both)
    assert found.select(pl.col("imbalance", "imbalance_levels").abs().max()).row(0) <= (1.0, 1.0)
    assert (found["spread"].drop_nulls() > 0).all()


def test_a_recording_of_futures_follows_its_chain_from_the_snapshot_on(shared_data: Path) -> None:
    path = shared_data / "live" / "nkaz001__collect-binancefutures" / "sample_data" / "btcusdt_20220811.dat.gz"
    depth = next(each.rows for each in read_recording(path, TableOptions(symbol="BTCUSDT")) if each.dataset is DEPTH)
    found = book_features(depth)
    assert found["status"].unique().to_list() == ["settled"]
    assert found["spread"].round(6).is_between(0.1, 5).all()
    changes = depth.filter(~pl.col("is_snapshot"))["last_update_id"].unique(maintain_order=True)
    lost = depth.filter(pl.col("is_snapshot") | (pl.col("last_update_id") != changes[100]))
    told = book_features(lost)
    assert told.filter(pl.col("last_update_id") < changes[100])["status"].unique().to_list() == ["settled"]
    assert told.filter(pl.col("last_update_id") > changes[100])["status"].unique().to_list() == ["gap"]


def test_a_snapshot_and_changes_of_ten_minutes_later_make_no_book(shared_data: Path) -> None:
    folder = shared_data / "ticks" / "nautechsystems__nautilus_trader" / "tests" / "test_data" / "binance"
    parts = [
        pl.read_csv(folder / f"btcusdt-depth-{name}.csv").select(
            pl.from_epoch("timestamp", "ms").dt.replace_time_zone("UTC").dt.cast_time_unit("us").alias("time"),
            "first_update_id",
            "last_update_id",
            pl.col("pu").replace(-1, None).alias("previous_update_id"),
            pl.lit(name == "snap").alias("is_snapshot"),
            (pl.col("side") == "b").alias("is_bid"),
            "price",
            pl.col("qty").alias("quantity"),
        )
        for name in ("snap", "update")
    ]
    found = book_features(pl.concat(parts))
    assert found["status"].to_list() == ["degenerate", "gap"]  # the file holds the first hundred rows: bids alone
    assert found["best_bid"].to_list() == [parts[0]["price"].max(), None]
