"""Volume profiles as features: what each row's window is, what it is made of, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import ParameterOutOfRange
from mdplatform.features import Grid, TableData, Truncated, Values, frame, parse_feature, volume_profile
from mdplatform.features.guard import STATUSES
from mdplatform.features.kinds import Need
from mdplatform.features.panel import evaluate_on, reads
from mdplatform.features.profile.session import session_profile
from mdplatform.features.profile.volume_profile import volume_profile_of_bars
from mdplatform.features.trade_arrays import known_at
from mdplatform.market.bars import BAR_SCHEMA, empty_bars
from mdplatform.market.time import from_us, to_us
from mdplatform.market.timeframe import DAY_US, MINUTE_US, Timeframe
from mdplatform.market.trades import TRADES

from . import world

BEGIN = to_us(datetime(2025, 1, 6, tzinfo=UTC))
HOUR_US = 60 * MINUTE_US
STEP = 15 * MINUTE_US
NAMES = ("poc", "vah", "val", "volume", "row_size")

Bar = tuple[float | None, float | None, float | None]


def of_bars(bars: Sequence[Bar | None], minutes: int = 15, begin: int = BEGIN) -> pl.DataFrame:
    """Bars (low, high, volume); None is a gap."""
    step = minutes * MINUTE_US
    rows = [
        {
            "symbol": "BTCUSDT",
            "timeframe": f"{minutes}m",
            "open_time": begin + at * step,
            "close_time": begin + (at + 1) * step,
            "open": bar[0] if bar else None,
            "high": bar[1] if bar else None,
            "low": bar[0] if bar else None,
            "close": bar[1] if bar else None,
            "volume": bar[2] if bar else None,
            "quote_volume": None,
            "trade_count": None,
            "taker_buy_volume": None,
            "taker_buy_quote_volume": None,
            "is_closed": True,
            "state": "observed" if bar else "gap",
            "source": "test",
            "revision": 0,
            "available_at": begin + (at + 1) * step,
            "ingested_at": begin + (at + 1) * step,
        }
        for at, bar in enumerate(bars)
    ]
    return pl.DataFrame(rows, infer_schema_length=None).cast(dict(BAR_SCHEMA))


def of_trades(trades: Sequence[tuple[int, float, float]], late: Mapping[int, int] | None = None) -> pl.DataFrame:
    """Trades (microseconds after BEGIN, price, quantity); `late` tells by how much some were known later."""
    rows = [
        {
            "symbol": "BTCUSDT",
            "trade_id": at,
            "time": BEGIN + time,
            "price": price,
            "quantity": quantity,
            "is_buyer_maker": at % 2 == 0,
            "source": "test",
            "revision": 0,
            "available_at": BEGIN + time + (late or {}).get(at, 0),
            "ingested_at": BEGIN + time,
        }
        for at, (time, price, quantity) in enumerate(trades)
    ]
    return pl.DataFrame(rows, schema=dict(TRADES.schema) if not rows else None).cast(dict(TRADES.schema))


def rows_of(count: int, first: int = 0, timeframe: Timeframe = Timeframe.M15) -> Grid:
    return Grid("BTCUSDT", timeframe, BEGIN + (first + np.arange(count)) * timeframe.microseconds)


def values(text: str, grid: Grid, data: TableData | Truncated) -> Values:
    spec = parse_feature(text)
    return evaluate_on(grid, [spec], data)[spec]


def statuses(found: Values) -> list[str]:
    return [STATUSES[each] for each in found.statuses]


DAY_OF_BARS: list[Bar | None] = [(100.0 + at % 7, 107.0 + at % 11, 1.0 + at % 3) for at in range(96)]


@pytest.mark.parametrize(
    "text", ["VOLUME_PROFILE", "VOLUME_PROFILE(session_hours=8)", "ROLLING_VOLUME_PROFILE(hours=30)"]
)
def test_each_row_is_the_profile_of_what_was_known_in_its_window(text: str) -> None:
    spec, methods = parse_feature(text), set()
    length = int(spec.arguments.get("session_hours", spec.arguments.get("hours", 0))) * HOUR_US
    grid = world.grid()
    whole = evaluate_on(grid, [spec], world.data())[spec]
    trades = world.data().trades(grid.symbol, None, None)
    time, known = trades["time"].to_physical().to_numpy(), known_at(trades).to_physical().to_numpy()
    with_late_ones = [at for at, end in enumerate(grid.close_time) if ((time < end) & (known >= end)).any()]
    for at in sorted({*range(0, len(grid), 17), *with_late_ones}):
        if STATUSES[whole.statuses[at]] != "settled":
            continue
        end = int(grid.close_time[at])
        start = end - length if spec.name.startswith("ROLLING") else (end - 1) // length * length
        alone = evaluate_on(Grid(grid.symbol, grid.timeframe, grid.open_time[at : at + 1]), [spec], world.data())[spec]
        size = whole.outputs[4][at]
        if alone.method == "trades":
            rows = world.data().trades(grid.symbol, start, end)
            wanted = volume_profile(rows.filter(known_at(rows).to_physical() < end), size)
        else:
            assert alone.method == "bars:5m"
            wanted = volume_profile_of_bars(world.data().bars(grid.symbol, Timeframe.M5, start, end), size)
        methods.add(alone.method)
        assert [each[at] for each in whole.outputs] == pytest.approx(
            [getattr(wanted, name) for name in NAMES], rel=1e-12
        )
    assert methods == {"trades", "bars:5m"}
    assert set(str(whole.method).split()) == methods


def test_bars_alone_make_a_profile_and_the_method_says_so() -> None:
    data = TableData({"BTCUSDT": of_bars(DAY_OF_BARS * 2)})
    found = values("VOLUME_PROFILE", rows_of(192), data)
    assert found.method == "bars:15m"
    assert statuses(found) == ["settled"] * 192
    for at in (0, 50, 95, 96, 150, 191):
        bars = data.bars("BTCUSDT", Timeframe.M15, BEGIN + at // 96 * DAY_US, BEGIN + (at + 1) * STEP)
        wanted = volume_profile_of_bars(bars, found.outputs[4][at])
        assert [each[at] for each in found.outputs] == pytest.approx([getattr(wanted, name) for name in NAMES])


def test_the_smallest_bars_that_divide_the_rows_are_taken() -> None:
    data = TableData({"BTCUSDT": of_bars(DAY_OF_BARS)})
    assert values("VOLUME_PROFILE", rows_of(24, timeframe=Timeframe.H1), data).method == "bars:15m"
    assert values("VOLUME_PROFILE(session_hours=1)", rows_of(24, timeframe=Timeframe.H1), data).method == "bars:15m"


def test_after_a_gap_there_is_nothing_until_the_session_ends() -> None:
    bars = [*DAY_OF_BARS, *DAY_OF_BARS]
    bars[40] = None
    found = values("VOLUME_PROFILE", rows_of(192), TableData({"BTCUSDT": of_bars(bars)}))
    assert statuses(found) == ["settled"] * 40 + ["gap"] * 56 + ["settled"] * 96
    assert np.isnan(found.outputs[0][40:96]).all()
    rolling = values("ROLLING_VOLUME_PROFILE(hours=2)", rows_of(192), TableData({"BTCUSDT": of_bars(bars)}))
    assert statuses(rolling) == ["insufficient_history"] * 7 + ["settled"] * 33 + ["gap"] * 8 + ["settled"] * 144


@dataclass
class Several(TableData):
    """Bars of several timeframes, each as it was delivered."""

    delivered: dict[Timeframe, TableData] = field(default_factory=dict)

    def bars(self, symbol: str, timeframe: Timeframe, start: int | None, end: int | None) -> pl.DataFrame:
        held = self.delivered.get(timeframe)
        return held.bars(symbol, timeframe, start, end) if held else empty_bars()


def test_longer_bars_stand_in_where_shorter_ones_have_a_gap() -> None:
    short: list[Bar | None] = [(100.0, 101.0, 1.0)] * 96 * 3
    short[30] = None
    delivered = {
        Timeframe.M5: TableData({"BTCUSDT": of_bars(short, 5)}),
        Timeframe.M15: TableData({"BTCUSDT": of_bars([(100.0, 101.0, 3.0)] * 96)}),
    }
    found = values("VOLUME_PROFILE", rows_of(96), Several(delivered=delivered))
    assert statuses(found) == ["settled"] * 96
    assert found.method == "bars:5m bars:15m"
    assert found.outputs[3].tolist() == pytest.approx([3.0 * (at + 1) for at in range(96)])


def test_before_there_were_bars_there_is_too_little_history_wherever_the_grid_begins() -> None:
    data = TableData({"BTCUSDT": of_bars(DAY_OF_BARS * 2, begin=BEGIN + 10 * STEP)})
    for first in (0, 10, 50):
        found = statuses(values("VOLUME_PROFILE", rows_of(120 - first, first), data))
        assert found == (["insufficient_history"] * 96 + ["settled"] * 24)[first:]


def test_a_window_without_volume_is_degenerate_and_one_of_unknown_volume_is_missing() -> None:
    still: list[Bar | None] = [(100.0, 100.0, 0.0)] * 3 + [(100.0, 101.0, 1.0)]
    found = values("VOLUME_PROFILE", rows_of(4), TableData({"BTCUSDT": of_bars(still)}))
    assert statuses(found) == ["degenerate"] * 3 + ["settled"]
    assert np.isnan(found.outputs[3][:3]).all()
    untold: list[Bar | None] = [(100.0, 101.0, 1.0), (100.0, 101.0, None), (100.0, 101.0, 1.0)]
    found = values("VOLUME_PROFILE", rows_of(3), TableData({"BTCUSDT": of_bars(untold)}))
    assert statuses(found) == ["settled", "missing_volume", "missing_volume"]


def test_a_fragment_of_trades_does_not_pass_for_the_whole() -> None:
    trades = [(at * STEP + 1, 100.0, 1.0) for at in range(96)]
    bars = of_bars([(100.0, 101.0, 1.0)] * 96)
    whole = TableData({"BTCUSDT": bars}, {"BTCUSDT": of_trades(trades)})
    assert values("VOLUME_PROFILE", rows_of(96), whole).method == "trades"
    part = TableData({"BTCUSDT": bars}, {"BTCUSDT": of_trades(trades[10:])})
    assert values("VOLUME_PROFILE", rows_of(96), part).method == "bars:15m"
    until = TableData({"BTCUSDT": bars}, {"BTCUSDT": of_trades(trades[:10])})
    found = values("VOLUME_PROFILE", rows_of(96), until)
    assert found.method == "trades bars:15m"
    assert found.outputs[3].tolist() == pytest.approx([at + 1.0 for at in range(96)])


def test_without_bars_trades_are_taken_at_their_word_on_the_days_that_have_them() -> None:
    data = TableData({}, {"BTCUSDT": of_trades([(0, 100.0, 2.0), (STEP, 101.0, 3.0), (DAY_US, 102.0, 1.0)])})
    found = values("VOLUME_PROFILE(row_size=1)", rows_of(96 * 3), data)
    assert found.method == "trades"
    assert found.outputs[0][[0, 1, 95, 96]].tolist() == [100.5, 101.5, 101.5, 102.5]
    assert found.outputs[3][[0, 1, 95, 96]].tolist() == [2.0, 5.0, 5.0, 1.0]
    assert statuses(found)[-96:] == ["insufficient_history"] * 96


def test_trades_that_were_known_late_are_not_used_before() -> None:
    trades = of_trades([(1, 100.0, 1.0), (STEP - 1, 101.0, 5.0), (STEP + 1, 100.0, 1.0)], late={1: 2})
    found = values("VOLUME_PROFILE(row_size=1)", rows_of(2), TableData({}, {"BTCUSDT": trades}))
    assert found.outputs[3].tolist() == [1.0, 7.0]
    bars = of_bars([(100.0, 101.0, 6.0), (100.0, 100.0, 1.0)])
    found = values("VOLUME_PROFILE(row_size=1)", rows_of(2), TableData({"BTCUSDT": bars}, {"BTCUSDT": trades}))
    assert found.method == "bars:15m trades"
    assert found.outputs[3].tolist() == [6.0, 7.0]


def test_bars_that_come_with_a_delay_count_in_their_row_and_those_too_late_are_gaps() -> None:
    bars = of_bars(DAY_OF_BARS[:4])
    later = pl.when(pl.int_range(pl.len()) == 1).then(pl.col("available_at") + pl.duration(minutes=16))
    held = bars.with_columns(available_at=pl.col("available_at") + pl.duration(minutes=15))
    assert statuses(values("VOLUME_PROFILE", rows_of(4), TableData({"BTCUSDT": held}))) == ["settled"] * 4
    bars = bars.with_columns(available_at=later.otherwise("available_at"))
    data = TableData({"BTCUSDT": bars})
    assert statuses(values("VOLUME_PROFILE", rows_of(4), data)) == ["settled", "gap", "gap", "gap"]
    for at in range(4):
        cut = values("VOLUME_PROFILE", rows_of(1, at), Truncated(data, BEGIN + (at + 1) * STEP))
        assert statuses(cut) == statuses(values("VOLUME_PROFILE", rows_of(1, at), data))


def test_bad_trades_of_the_lake_make_way_for_bars() -> None:
    bars = of_bars([(100.0, 101.0, 1.0)] * 4)
    for wrong in (float("nan"), 0.0, -1.0, float("inf")):
        trades = of_trades([(at * STEP, wrong if at == 2 else 100.0, 1.0) for at in range(4)])
        data = TableData({"BTCUSDT": bars}, {"BTCUSDT": trades})
        assert values("VOLUME_PROFILE", rows_of(4), data).method == "trades bars:15m"


def test_the_row_size_of_a_session_is_that_of_its_first_price() -> None:
    bars: list[Bar | None] = [(1999.0, 5000.0, 1.0)] * 96 + [(2000.0, 5000.0, 1.0)] * 96
    found = values("VOLUME_PROFILE", rows_of(192), TableData({"BTCUSDT": of_bars(bars)}))
    assert found.outputs[4].tolist() == [1.0] * 96 + [2.0] * 96
    rolling = values("ROLLING_VOLUME_PROFILE", rows_of(192), TableData({"BTCUSDT": of_bars(bars)}))
    assert rolling.outputs[4][95:].tolist() == [1.0] * 96 + [2.0]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2 * DAY_US // 60_000_000 - 1), st.integers(990, 1010), st.integers(1, 5)), max_size=60
    ),
    st.integers(0, 190),
    st.sampled_from(["VOLUME_PROFILE(session_hours=4)", "ROLLING_VOLUME_PROFILE(hours=3,algorithm=one_row)"]),
    st.booleans(),
)
def test_a_row_is_the_same_alone_and_on_data_cut_off_at_its_close(
    trades: list[tuple[int, int, int]], at: int, text: str, with_bars: bool
) -> None:
    rows = of_trades([(minute * MINUTE_US, price / 10, quantity / 10) for minute, price, quantity in sorted(trades)])
    bars: list[Bar | None] = [(100.0, 100.0, 0.0)] * 192
    for minute, price, quantity in trades:
        low, high, volume = bars[minute // 15] or (None, None, None)
        low, high = min(low or 0.0, price / 10), max(high or 0.0, price / 10)
        bars[minute // 15] = (low, high, (volume or 0.0) + quantity / 10)
    data = TableData({"BTCUSDT": of_bars(bars)} if with_bars else {}, {"BTCUSDT": rows})
    whole = values(text, rows_of(192), data)
    for source in (data, Truncated(data, BEGIN + (at + 1) * STEP)):
        alone = values(text, rows_of(1, at), source)
        assert alone.statuses[0] == whole.statuses[at]
        for output, other in zip(alone.outputs, whole.outputs, strict=True):
            np.testing.assert_allclose(output[0], other[at], rtol=1e-12, equal_nan=True)


def test_a_session_s_profile_is_what_the_feature_says_at_its_end_and_until_a_gap_before() -> None:
    bars = [*DAY_OF_BARS]
    bars[81] = None
    data = TableData({"BTCUSDT": of_bars(bars)})
    found = session_profile(data, "BTCUSDT", BEGIN, 8, BEGIN + DAY_US)
    told = values("VOLUME_PROFILE(session_hours=8)", rows_of(1, 31), data)
    assert found.profile is not None
    assert [getattr(found.profile, name) for name in NAMES] == [each[0] for each in told.outputs]
    assert (found.through, found.profile.method, found.reason) == (BEGIN + 8 * HOUR_US, "bars:15m", "")
    assert session_profile(data, "BTCUSDT", BEGIN, 24, BEGIN + DAY_US).through == BEGIN + 20 * HOUR_US
    assert session_profile(data, "BTCUSDT", BEGIN, 24, BEGIN + 5 * HOUR_US + 1).through == BEGIN + 5 * HOUR_US
    none = session_profile(data, "BTCUSDT", BEGIN + 20 * HOUR_US, 1, BEGIN + DAY_US)
    assert (none.profile, none.reason) == (None, "gap")
    assert session_profile(data, "BTCUSDT", BEGIN, 24, BEGIN).reason == "insufficient_history"


def test_a_frame_names_the_outputs_and_joins_another_timeframe() -> None:
    answer = frame(
        "BTCUSDT",
        ["VOLUME_PROFILE.poc", {"name": "VOLUME_PROFILE", "timeframe": "1h", "output": "vah"}],
        "15m",
        data=TableData({"BTCUSDT": of_bars(DAY_OF_BARS)}),
        statuses=True,
    )
    call = "VOLUME_PROFILE(row_size=0,value_area_pct=0.7,algorithm=two_row,session_hours=24)"
    assert f"{call}.poc" in answer.columns
    assert f"{call}.vah@1h" in answer.columns
    assert answer[f"{call}.vah@1h"].null_count() == 3


def test_what_a_profile_reads() -> None:
    wanted = frozenset({Need("trades", "BTCUSDT"), Need("bars", "BTCUSDT")})
    assert reads([parse_feature("VOLUME_PROFILE")], "BTCUSDT", Timeframe.M15) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "VOLUME_PROFILE(row_size=-1)",
        "VOLUME_PROFILE(value_area_pct=0)",
        "VOLUME_PROFILE(value_area_pct=70)",
        "VOLUME_PROFILE(algorithm=three_row)",
        "VOLUME_PROFILE(session_hours=5)",
        "VOLUME_PROFILE(session_hours=0)",
        "ROLLING_VOLUME_PROFILE(hours=0)",
        "ROLLING_VOLUME_PROFILE(hours=1.5)",
        "ROLLING_VOLUME_PROFILE(hours=100000)",
    ],
)
def test_parameters_out_of_range_are_refused_as_they_are_read(text: str) -> None:
    with pytest.raises(ParameterOutOfRange, match="Allowed"):
        parse_feature(text)


@pytest.mark.parametrize("size", ["0.3333333333333333", "1e-13"])
def test_row_sizes_that_no_price_has_are_refused_when_they_are_named(size: str) -> None:
    with pytest.raises(ParameterOutOfRange, match="row_size of VOLUME_PROFILE"):
        parse_feature(f"VOLUME_PROFILE(row_size={size})")


def test_a_row_size_that_makes_too_many_rows_is_refused_as_it_is_used() -> None:
    data = TableData({"BTCUSDT": of_bars([(1.0, 1000.0, 1.0)] * 4)})
    with pytest.raises(ParameterOutOfRange, match="row size"):
        values("VOLUME_PROFILE(row_size=0.00001)", rows_of(4), data)


def test_real_trades_make_the_profiles_of_the_exchange_s_own_bars(shared_data: Path) -> None:
    raw = pl.read_parquet(shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet")
    trades = raw.select(
        pl.lit("XRPETH").alias("symbol"),
        pl.col("agg_trade_id").alias("trade_id"),
        (pl.col("transact_time") * 1000).alias("time"),
        "price",
        "quantity",
        "is_buyer_maker",
        pl.lit("test").alias("source"),
        pl.lit(0).alias("revision"),
        (pl.col("transact_time") * 1000).alias("available_at"),
        (pl.col("transact_time") * 1000).alias("ingested_at"),
    ).cast(dict(TRADES.schema))
    own = pl.read_ipc(shared_data / "ticks/freqtrade__freqtrade/tests/testdata/XRP_ETH-1m.feather")
    first = to_us(datetime(2019, 10, 11, tzinfo=UTC))
    known = {at: (low, high, volume) for at, low, high, volume in own[["date", "low", "high", "volume"]].rows()}
    minutes = [datetime.fromtimestamp(first // 1_000_000 + 60 * at, UTC) for at in range(2 * 1440)]
    # a minute without trades has no bar in that file; the exchange's own would be flat, of volume 0
    bars = of_bars([known.get(minute, (0.0014, 0.0014, 0.0)) for minute in minutes], 1, first)
    bars = bars.with_columns(symbol=pl.lit("XRPETH"))
    grid = Grid("XRPETH", Timeframe.M15, first + np.arange(2 * 96) * STEP)
    from_trades = values("VOLUME_PROFILE", grid, TableData({"XRPETH": bars}, {"XRPETH": trades}))
    from_bars = values("VOLUME_PROFILE", grid, TableData({"XRPETH": bars}))
    assert (from_trades.method, from_bars.method) == ("trades", "bars:1m")
    assert statuses(from_trades) == statuses(from_bars) == ["settled"] * 192
    np.testing.assert_allclose(from_trades.outputs[3], from_bars.outputs[3], rtol=1e-12)
    for at in (5, 95, 150, 191):
        end = int(grid.close_time[at])
        rows = trades.filter(
            pl.col("time").is_between(from_us((end - 1) // DAY_US * DAY_US), from_us(end), closed="left")
        )
        wanted = volume_profile(rows, from_trades.outputs[4][at])
        assert [each[at] for each in from_trades.outputs] == [getattr(wanted, name) for name in NAMES]


def test_real_bars_make_the_same_profiles_whatever_rows_are_asked_for(shared_data: Path) -> None:
    raw = pl.read_parquet(shared_data / "ready/klines/binance_spot_15m/BTCUSDT.parquet")[: 30 * 96]
    first = int(raw["open_time"][0]) * 1000
    data = TableData({"BTCUSDT": of_bars(raw[["low", "high", "volume"]].rows(), 15, first)})  # type: ignore[arg-type]
    for text in ("VOLUME_PROFILE(session_hours=12,row_size=25)", "ROLLING_VOLUME_PROFILE(hours=36)"):
        whole = values(text, Grid("BTCUSDT", Timeframe.M15, first + np.arange(30 * 96) * STEP), data)
        for at, count in ((200, 1), (287, 3), (1000, 200), (2500, 380)):
            part = values(text, Grid("BTCUSDT", Timeframe.M15, first + (at + np.arange(count)) * STEP), data)
            for output, other in zip(part.outputs, whole.outputs, strict=True):
                np.testing.assert_allclose(output, other[at : at + count], rtol=1e-12)
