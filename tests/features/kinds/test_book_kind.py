"""The kind `book`: the top of the book at each row's close, how old it is, and the reason where there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features import Grid, TableData, Values, book_features, evaluate_on, parse_feature
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.panel import reads
from mdplatform.market.bars import INSTANT
from mdplatform.market.depth import DEPTH
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe

from . import world

DAY = world.BEGIN
MIDNIGHT = DAY + DAY_US


def book(*messages: tuple[int, int, bool, float, float], delay: int = 0) -> TableData:
    """Make depth of `(time, update, is snapshot, bid, ask)`: a level a side, each of quantity 2 and 1."""
    rows = [
        (time, update, whole, is_bid, price, 2.0 if is_bid else 1.0)
        for time, update, whole, bid, ask in messages
        for is_bid, price in ((True, bid), (False, ask))
    ]
    names = ("time", "last_update_id", "is_snapshot", "is_bid", "price", "quantity")
    made = pl.DataFrame(rows, schema=list(names), orient="row").with_columns(
        symbol=pl.lit("BTCUSDT"), first_update_id=pl.col("last_update_id"), previous_update_id=pl.lit(None),
        source=pl.lit("test"), revision=0, available_at=(pl.col("time") + delay).cast(INSTANT),
        ingested_at=pl.col("time").cast(INSTANT), time=pl.col("time").cast(INSTANT),
    )  # fmt: skip
    return TableData(depth_of={"BTCUSDT": made.select(pl.col(name).cast(kind) for name, kind in DEPTH.schema.items())})


def at(data: TableData, closes: list[int], feature: str = "SPREAD") -> tuple[list[str], Values]:
    spec = parse_feature(feature)
    answers = [
        evaluate_on(Grid("BTCUSDT", Timeframe.M1, np.array([close - MINUTE_US])), [spec], data)[spec]
        for close in closes
    ]
    told = [STATUSES[each.statuses[0]] for each in answers]
    return told, Values(tuple(np.array([[each.outputs[0][0]] for each in answers]).T), answers[0].statuses)


def test_rows_have_the_newest_message_that_was_known_at_their_close() -> None:
    data = world.data()
    rows = world.grid("5m")
    depth = data.depth("BTCUSDT", None, None)
    known = depth["available_at"].dt.epoch("us").to_numpy()
    features = {"SPREAD": "spread", "BOOK_MID": "mid", "MICROPRICE": "microprice", "BOOK_IMBALANCE": "imbalance",
                "BOOK_IMBALANCE(levels=5)": "imbalance_levels"}  # fmt: skip
    answers = evaluate_on(rows, [parse_feature(each) for each in features], data)
    seen = 0
    for number, close in enumerate(rows.close_time.tolist()):
        past = depth.filter(pl.Series(known <= close))
        if past.is_empty():
            continue
        last = book_features(past).row(-1, named=True)
        for feature, name in features.items():
            values = answers[parse_feature(feature)]
            status = STATUSES[values.statuses[number]]
            if close > world.BOOK[1] + MINUTE_US:
                assert status in ("stale", "gap")
            elif last["status"] == "settled":
                assert values.outputs[0][number] == pytest.approx(last[name], rel=1e-12)
                assert values.ages is not None
                assert 0 <= values.ages[number] <= MINUTE_US
                seen += 1
            else:
                assert status == last["status"]
    assert seen > 200


def test_a_message_counts_when_it_was_received() -> None:
    data = book((DAY + MINUTE_US - 10, 5, True, 99.0, 101.0), delay=10)
    assert at(data, [DAY + MINUTE_US])[0] == ["settled"]
    assert at(book((DAY + MINUTE_US - 10, 5, True, 99.0, 101.0), delay=11), [DAY + MINUTE_US])[0] == [
        "not_available_yet"
    ]
    assert at(book((DAY + MINUTE_US, 5, True, 99.0, 101.0)), [DAY + MINUTE_US])[0] == ["not_available_yet"]


def test_an_old_book_is_stale() -> None:
    data = book((DAY, 5, True, 99.0, 101.0))
    closes = [DAY + MINUTE_US, DAY + 2 * MINUTE_US]
    assert at(data, closes)[0] == ["settled", "stale"]
    assert at(data, closes, "SPREAD(max_age=120)")[0] == ["settled", "settled"]


def test_a_book_lasts_from_the_day_before_and_no_longer() -> None:
    data = book((MIDNIGHT - MINUTE_US, 5, True, 99.0, 101.0), *[
        (MIDNIGHT + step * DAY_US // 2, 6 + step, False, 98.0, 102.0) for step in range(4)
    ])  # fmt: skip
    closes = [MIDNIGHT + step * DAY_US // 2 + MINUTE_US for step in range(4)]
    assert at(data, closes)[0] == ["settled", "settled", "gap", "gap"]
    assert at(data, [MIDNIGHT])[0] == ["settled"]


def test_a_lost_message_leaves_a_gap_and_a_crossed_book_no_middle() -> None:
    data = book((DAY, 5, True, 99.0, 101.0), (DAY + 2 * MINUTE_US, 7, False, 98.0, 102.0))
    assert at(data, [DAY + MINUTE_US, DAY + 3 * MINUTE_US])[0] == ["settled", "gap"]
    assert at(book((DAY, 5, True, 101.0, 101.0)), [DAY + MINUTE_US])[0] == ["degenerate"]


@dataclass
class Watched(TableData):
    """Tables that note from when on depth was asked for."""

    asked: list[int | None] = field(default_factory=list)

    def depth(self, symbol: str, start: int | None, end: int | None) -> pl.DataFrame:
        self.asked.append(start)
        return super().depth(symbol, start, end)


def test_no_more_is_read_than_the_book_can_depend_on_and_values_are_those_of_all() -> None:
    random = np.random.default_rng(3)
    messages, update = [], 10
    for at in range(DAY, DAY + 2 * DAY_US, 2 * MINUTE_US):
        update += 1 + (random.random() < 0.01)  # now and then one is lost
        if random.random() < 0.01:
            messages.append((at, update - int(random.integers(0, 3)), True, 90.0, 110.0))
        bid, ask = 95 + random.integers(0, 40) / 10, 99 + random.integers(1, 40) / 10
        messages.append((at + 1000, update, False, float(bid), float(ask)))
    data = book(*messages)
    late = random.choice([0, 0, 0, 0, 70_000_000], len(data.depth_of["BTCUSDT"]) // 2).repeat(2)
    rows = data.depth_of["BTCUSDT"].with_columns(
        available_at=(pl.col("time").dt.epoch("us") + pl.Series(late)).cast(INSTANT)
    )
    whole = book_features(rows)
    known = (rows["time"].dt.epoch("us").to_numpy() + np.maximum(late - 1, 0))[::2]
    order = np.sort(known)
    grid = Grid("BTCUSDT", Timeframe.M15, np.arange(MIDNIGHT, MIDNIGHT + DAY_US, 15 * MINUTE_US))
    spec = parse_feature("SPREAD(max_age=86400)")
    together = evaluate_on(grid, [spec], TableData(depth_of={"BTCUSDT": rows}))[spec]
    spared = 0
    for number, close in enumerate(grid.close_time.tolist()):
        watched = Watched(depth_of={"BTCUSDT": rows})
        alone = evaluate_on(Grid("BTCUSDT", Timeframe.M15, grid.open_time[number : number + 1]), [spec], watched)[spec]
        last = whole.row(int(np.searchsorted(order, close)) - 1, named=True)
        for found, place in ((together, number), (alone, 0)):
            assert STATUSES[found.statuses[place]] == last["status"]
            wanted = np.nan if last["spread"] is None else last["spread"]
            np.testing.assert_allclose(found.outputs[0][place], wanted, rtol=1e-12)
        spared += min(each for each in watched.asked if each is not None) > DAY
    assert spared > 10
    assert {STATUSES[each] for each in together.statuses} == {"settled", "gap"}


def test_the_microprice_leans_to_the_side_with_less() -> None:
    told, values = at(book((DAY, 5, True, 99.0, 102.0)), [DAY + MINUTE_US], "MICROPRICE")
    assert told == ["settled"]
    assert values.outputs[0][0] == pytest.approx((99 * 1 + 102 * 2) / 3)


@pytest.mark.filterwarnings("error")
def test_a_sum_beyond_doubles_is_degenerate_and_leaves_the_other_features_alone() -> None:
    depth = book((DAY, 1, True, 99.0, 101.0), (DAY, 1, True, 98.0, 102.0)).depth_of["BTCUSDT"]
    data = TableData(depth_of={"BTCUSDT": depth.with_columns(quantity=pl.lit(1e308))})
    grid = Grid("BTCUSDT", Timeframe.M1, np.array([DAY]))
    specs = [parse_feature(each) for each in ("BOOK_IMBALANCE(levels=2)", "BOOK_IMBALANCE", "BOOK_MID", "MICROPRICE")]
    found = evaluate_on(grid, specs, data)
    assert [STATUSES[found[each].statuses[0]] for each in specs] == ["degenerate", "settled", "settled", "settled"]
    assert [found[each].outputs[0][0] for each in specs[1:]] == [0.0, 100.0, 100.0]


def test_it_reads_depth_and_refuses_parameters_out_of_range() -> None:
    assert reads([parse_feature("SPREAD")], "BTCUSDT", Timeframe.M1) == {Need("depth", "BTCUSDT")}
    for wrong in ("BOOK_IMBALANCE(levels=0)", "SPREAD(max_age=0)", "MICROPRICE(max_age=90000)"):
        with pytest.raises(ParameterOutOfRange):
            parse_feature(wrong)
