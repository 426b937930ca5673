"""Files of trades, in every form that the archive and the wild have."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path, PurePath

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdplatform.errors import (
    ChecksumMismatch,
    EmptyFile,
    InvalidSymbol,
    MislabelledFile,
    PlatformError,
    TruncatedFile,
    UnknownColumns,
    UnknownFormat,
    UnknownTimeUnit,
)
from mdplatform.market.trades import TRADES
from mdplatform.sources.table_delivery import TableDelivery, TableOptions
from mdplatform.sources.trade_files import AGGREGATED, NUMBERED_FROM, SINGLE, read_trades, symbol_of

AT = 1_735_689_600_000
"""2025-01-01 in milliseconds."""
AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
LINES = [f"{7 + n},{100 + n}.5,0.25,{70 + n},{70 + n},{AT + n},{'true' if n % 2 else 'false'}" for n in range(4)]


def read(path: Path, **options: object) -> TableDelivery:
    [delivery] = read_trades(path, TableOptions(**options))  # type: ignore[arg-type]
    assert delivery.rows.schema == TRADES.delivered
    return delivery


def put(folder: Path, text: str, name: str = "BTCUSDT-aggTrades-2025-01-01.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_form_of_the_same_dump_gives_the_same_rows(tmp_path: Path) -> None:
    lines = [f"{line},{'True'}" for line in LINES]
    expected = read(put(tmp_path, "\n".join(lines) + "\n"))
    assert expected.rows.rows() == [
        ("BTCUSDT", 7 + n, at := datetime(2025, 1, 1, 0, 0, 0, n * 1000, tzinfo=UTC), 100.5 + n, 0.25, n % 2 == 1, at)
        for n in range(4)
    ]
    micro = [line.replace(f",{AT + n},", f",{(AT + n) * 1000},") for n, line in enumerate(lines)]
    upper = [line.replace("true", "True").replace("false", "False") for line in lines]
    forms = {
        "headed": "\n".join([AGG, *LINES]),
        "micro": "\n".join(micro),
        "upper": "\n".join(upper) + "\n",
        "crlf": "\r\n".join(lines) + "\r\n",
        "futures": "\n".join(LINES),
        "bom": "\ufeff" + "\n".join([AGG, *LINES]) + "\n\n",
    }
    for name, text in forms.items():
        folder = tmp_path / name
        folder.mkdir()
        path = put(folder, text)
        assert read(path).rows.equals(expected.rows), name
        packed = folder / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert read(packed).rows.equals(expected.rows), name
        zipped = folder / "BTCUSDT-aggTrades-2025-01-01.zip"
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.write(path, path.name)
        assert read(zipped).rows.equals(expected.rows), name


def test_dumps_of_single_trades_are_told_from_aggregated_ones_of_as_many_columns(tmp_path: Path) -> None:
    spot = "\n".join(f"{n},100.5,2.0,201.0,{AT + n},True,True" for n in range(3))
    single = read(put(tmp_path, spot, "BTCUSDT-trades-2025-01-01.csv"))
    assert single.form == SINGLE
    assert single.rows["time"].dt.epoch("ms").to_list() == [AT, AT + 1, AT + 2]
    futures = "\n".join(f"{n},100.5,2.0,201.0,{AT + n},true" for n in range(3))
    assert read(put(tmp_path, futures, "BTCUSDT-trades-2025-01-02.csv")).rows.equals(single.rows)
    headed = "id,price,qty,quote_qty,time,is_buyer_maker\n" + futures
    of_headed = read(put(tmp_path, headed, "BTCUSDT-trades-2025-01-03.csv"))
    assert of_headed.rows.equals(single.rows)
    assert of_headed.form == SINGLE
    assert read(put(tmp_path, "\n".join(LINES))).form == AGGREGATED


def test_the_side_of_the_taker_says_whose_order_rested(tmp_path: Path) -> None:
    text = f"timestamp,id,side,price,amount\n{AT},1,sell,5.0,1.0\n{AT},2, buy ,5.0,1.0\n{AT},3,,5.0,1.0\n"
    delivery = read(put(tmp_path, text, "BTCUSDT-trades.csv"))
    assert delivery.rows["is_buyer_maker"].to_list() == [True, False, None]
    assert delivery.notes == ()


def test_a_word_that_is_no_side_sets_its_row_aside(tmp_path: Path) -> None:
    text = f"timestamp,id,side,price,amount\n{AT},1,sell,5.0,1.0\n{AT},2,both,5.0,1.0\n"
    delivery = read(put(tmp_path, text, "BTCUSDT-trades.csv"))
    assert delivery.rows.height == 1
    assert delivery.set_aside["rule"].to_list() == ["side_unknown"]
    assert '"side":"both"' in delivery.set_aside["row"][0]


BOOKS = {
    "updates": f"symbol,timestamp,first_update_id,last_update_id,side,price,qty\nBTCUSDT,{AT},5,9,a,20472.80,0.000\n",
    "typed": f"symbol,timestamp,update_type,price,qty\nBTCUSDT,{AT},snap,20472.80,1.0\n",
    "snapshot": f"symbol,timestamp,is_snapshot,side,price,amount\nBTC-PERPETUAL,{AT},true,buy,6421.5,18640\n",
    "levels": f"timestamp,side,price,amount\n{AT},bid,6421.5,18640\n{AT},ASK,6422.5,1\n",
    "short": f"timestamp,side,price,amount\n{AT},b,6421.5,18640\n{AT},a,6422.5,1\n",
}


@pytest.mark.parametrize("book", list(BOOKS))
def test_an_order_book_is_no_file_of_trades(tmp_path: Path, book: str) -> None:
    with pytest.raises(UnknownColumns, match=r"BTCUSDT-x.csv is an order book, not trades"):
        read(put(tmp_path, BOOKS[book], "BTCUSDT-x.csv"))


@pytest.mark.parametrize(
    "name",
    [
        "binance/btcusdt-depth-snap.csv",
        "binance/btcusdt-depth-update.csv",
        "tardis/deribit_incremental_book_L2_BTC-PERPETUAL.csv",
    ],
)
def test_order_books_of_the_wild_are_told_from_trades(shared_data: Path, name: str) -> None:
    with pytest.raises(UnknownColumns, match="order book"):
        read(shared_data / "ticks/nautechsystems__nautilus_trader/tests/test_data" / name)


@pytest.mark.parametrize("word", ["ask", "bid", "a"])
def test_a_side_of_a_book_among_sides_of_takers_sets_its_row_aside(tmp_path: Path, word: str) -> None:
    text = f"timestamp,id,side,price,amount\n{AT},1,sell,5.0,1.0\n{AT},2,{word},5.0,1.0\n"
    delivery = read(put(tmp_path, text, "BTCUSDT-trades.csv"))
    assert delivery.rows["trade_id"].to_list() == [1]
    assert delivery.set_aside["rule"].to_list() == ["side_unknown"]


@pytest.mark.parametrize("bad", ["", "???", " ", '"a b"'])
def test_a_row_whose_own_symbol_is_none_is_set_aside_and_the_rest_goes_on(tmp_path: Path, bad: str) -> None:
    lines = ["symbol,id,time,price,qty", f"ETHUSDT,1,{AT},5.0,1.0", f"{bad},2,{AT},5.0,1.0", f"BTCUSDT,3,{AT},5.0,1.0"]
    first, second = read_trades(put(tmp_path, "\n".join(lines), "all-trades.csv"), TableOptions())
    assert [each.rows["symbol"].to_list() for each in (first, second)] == [["ETHUSDT"], ["BTCUSDT"]]
    assert (first.set_aside["rule"].to_list(), second.set_aside.height) == (["symbol_invalid"], 0)
    assert '"id":"2"' in first.set_aside["row"][0]
    with pytest.raises(InvalidSymbol):
        list(read_trades(put(tmp_path, "\n".join([lines[0], lines[2]]), "bad-trades.csv"), TableOptions()))


def test_a_line_with_more_cells_than_the_header_is_named(tmp_path: Path) -> None:
    text = "\n".join([AGG, *LINES[:2], LINES[2] + ",1,2", *LINES[3:]])
    with pytest.raises(UnknownFormat, match=r"01\.csv, line 4: 9 cells, where the first line has 7") as refused:
        read(put(tmp_path, text))
    assert LINES[2] in str(refused.value)


def test_without_sides_and_ids_it_is_said_what_is_lost(tmp_path: Path) -> None:
    text = "1672531436,90.54,1.1\n1672531436,90.55,1.2\n1672531471,90.45,1.0\n"
    delivery = read(put(tmp_path, text, "BCHEUR.csv"))
    assert delivery.rows["is_buyer_maker"].null_count() == 3
    assert delivery.rows["trade_id"].to_list() == [1672531436 * 10**9, 1672531436 * 10**9 + 1, 1672531471 * 10**9]
    assert delivery.rows["trade_id"].min() > NUMBERED_FROM  # type: ignore[operator]
    assert ["side" in note for note in delivery.notes] == [True, False]
    assert ["no numbers" in note for note in delivery.notes] == [False, True]


def test_ids_that_are_texts_are_replaced_by_numbers_of_time_and_order(tmp_path: Path) -> None:
    text = f"timestamp,id,side,price,amount\n{AT},ab-1,sell,5.0,1.0\n{AT},cd-2,buy,5.0,1.0\n"
    assert read(put(tmp_path, text, "XBTUSD-trades.csv")).rows["trade_id"].to_list() == [AT * 10**6, AT * 10**6 + 1]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (f"5,0,1.0,1,1,{AT},true", "price_not_positive"),
        (f"5,-3,1.0,1,1,{AT},true", "price_not_positive"),
        (f"5,inf,1.0,1,1,{AT},true", "price_not_positive"),
        (f"5,nan,1.0,1,1,{AT},true", "price_missing"),
        (f"5,dear,1.0,1,1,{AT},true", "price_missing"),
        (f"5,100.0,-1.0,1,1,{AT},true", "quantity_invalid"),
        (f"5,100.0,,1,1,{AT},true", "quantity_invalid"),
        (f"5,100.0,1e400,1,1,{AT},true", "quantity_invalid"),
        ("5,100.0,1.0,1,1,,true", "time_missing"),
        ("5,100.0,1.0,1,1,0,true", "time_missing"),
        ("5,100.0,1.0,1,1,noon,true", "time_missing"),
        (f"five,100.0,1.0,1,1,{AT},true", "key_missing"),
        (f"8,100.0,9.0,1,1,{AT + 1},true", "comes_twice"),
        (f"5,100.0,1.0,1,1,{AT},perhaps", "side_unknown"),
    ],
)
def test_a_bad_row_is_set_aside_by_its_rule_and_the_rest_goes_on(tmp_path: Path, row: str, rule: str) -> None:
    delivery = read(put(tmp_path, "\n".join([AGG, *LINES, row])))
    assert delivery.rows["trade_id"].to_list() == [7, 8, 9, 10]
    assert delivery.set_aside["rule"].to_list() == [rule]
    first = row.split(",")[0]
    assert f'"agg_trade_id":"{first}"' in delivery.set_aside["row"][0]


def test_a_row_that_comes_twice_alike_counts_once(tmp_path: Path) -> None:
    delivery = read(put(tmp_path, "\n".join([AGG, *LINES, LINES[0], LINES[2]])))
    assert (delivery.rows.height, delivery.repeated, delivery.set_aside.height) == (4, 2, 0)


def test_a_trade_of_quantity_zero_and_huge_numbers_are_trades(tmp_path: Path) -> None:
    text = "\n".join([AGG, f"1,1e-12,0,1,1,{AT},true", f"9223372036854775807,1e15,1e18,1,1,{AT},true"])
    assert read(put(tmp_path, text)).rows.height == 2


def test_what_was_received_later_than_it_happened_is_available_later(tmp_path: Path) -> None:
    text = f"symbol,timestamp,local_timestamp,id,side,price,amount\nXBTUSD,{AT},{AT + 5},1,sell,5,1\n"
    text += f"XBTUSD,{AT},{AT - 5},2,sell,5,1\n"
    rows = read(put(tmp_path, text, "trades.csv")).rows
    assert (rows["available_at"] - rows["time"]).dt.total_milliseconds().to_list() == [5, 0]


def test_columns_can_be_said(tmp_path: Path) -> None:
    text = f"stamp,close,lots,no\n{AT},5.0,2.0,1\n"
    path = put(tmp_path, text, "BNBUSDT.csv")
    with pytest.raises(UnknownColumns, match="--column time=NAME"):
        read(path)
    columns = {"time": "stamp", "price": "close", "quantity": "lots", "trade_id": "no"}
    assert read(path, columns=columns).rows["price"].to_list() == [5.0]
    with pytest.raises(UnknownColumns, match="stamp, close, lots, no"):
        read(path, columns=columns | {"time": "when"})
    with pytest.raises(UnknownColumns, match="trade_id"):
        read(path, columns=columns | {"cost": "no"})


def test_only_what_is_in_the_range_is_given(tmp_path: Path) -> None:
    path = put(tmp_path, "\n".join([AGG, *LINES]))
    delivery = read(path, start=(AT + 1) * 1000, end=(AT + 3) * 1000)
    assert delivery.rows["trade_id"].to_list() == [8, 9]


def test_one_delivery_a_symbol(tmp_path: Path) -> None:
    text = f"symbol,time,id,price,qty\nETH/USDT,{AT},1,5.0,1.0\nBTC/USDT,{AT},1,6.0,1.0\nETH/USDT,{AT},2,7.0,1.0\n"
    path = put(tmp_path, text, "all.csv")
    assert [(each.rows["symbol"][0], each.rows.height) for each in read_trades(path, TableOptions())] == [
        ("ETHUSDT", 2),
        ("BTCUSDT", 1),
    ]
    with pytest.raises(MislabelledFile, match="BTCUSDT"):
        list(read_trades(path, TableOptions(symbol="ETHUSDT")))


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        ("", "BTCUSDT-trades.csv", EmptyFile),
        ("\n\n", "BTCUSDT-trades.csv", EmptyFile),
        (AGG, "BTCUSDT-trades.csv", EmptyFile),
        ("1;2;3\n4;5;6", "BTCUSDT-trades.csv", PlatformError),
        ("1,2,3,4,5\n", "BTCUSDT-trades.csv", UnknownColumns),
        ("open_time,open,high,low,close,volume\n1,2,3,4,5,6", "BTCUSDT-trades.csv", UnknownColumns),
        (f"{AT},1.0,2.0", "trades.csv", MislabelledFile),
        (f"symbol,time,price,qty\n../x,{AT},1,2", "t.csv", InvalidSymbol),
        (f"symbol,time,price,qty\n,{AT},1,2", "t.csv", InvalidSymbol),
        (f"id,time,price,qty\n1,{AT},1,2\n2,{AT * 1000},1,2", "BTCUSDT-trades.csv", UnknownTimeUnit),
        ("[[1,2,3]]", "BTCUSDT-trades.json", UnknownFormat),
        ('[{"id":1,', "BTCUSDT-trades.json", TruncatedFile),
        ("\0\0\0\0", "BTCUSDT-trades.csv", UnknownFormat),
        (f"7,1,1,1,1,{AT},true", "BTCUSD_PERP-aggTrades-2025-01-01.csv", UnknownColumns),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_path(
    tmp_path: Path, text: str, name: str, error: type[PlatformError]
) -> None:
    path = put(tmp_path, text, name)
    with pytest.raises(error) as refused:
        list(read_trades(path, TableOptions()))
    assert error is InvalidSymbol or name in str(refused.value)


def test_a_file_that_differs_from_its_checksum_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "\n".join(LINES))
    checksum = path.with_name(path.name + ".CHECKSUM")
    checksum.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    assert read(path).rows.height == 4
    checksum.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(ChecksumMismatch):
        read(path)


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT-aggTrades-2025-01-31.zip", "BTCUSDT"),
        ("1000SHIBUSDT-trades-2025-01.csv.gz", "1000SHIBUSDT"),
        ("BTCUSDT_250328-aggTrades-2025-01.zip", "BTCUSDT_250328"),
        ("btcusdt-trades.parquet", "BTCUSDT"),
        ("XRP_ETH-trades.feather", "XRP_ETH"),
        ("binance_spot_aggtrades_XRPETH_20191011-13.parquet", "XRPETH"),
        ("bitmex_trades_XBTUSD.csv", "XBTUSD"),
        ("BCHEUR.csv", "BCHEUR"),
        ("trades.csv", None),
        ("public_trades_list.csv", None),
        ("2025-01-31.csv", None),
    ],
)
def test_the_symbol_of_a_name(name: str, symbol: str | None) -> None:
    assert symbol_of(PurePath(name)) == symbol


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 10**12),
            st.floats(1e-9, 1e12),
            st.floats(0, 1e12),
            st.integers(AT, AT + 10**9),
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[0],
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_written_is_read_to_the_last_bit(
    rows: list[tuple[int, float, float, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("trades")
    lines = [f"{number},{price!r},{quantity!r},1,1,{at},{maker}" for number, price, quantity, at, maker in rows]
    of_csv = read(put(folder, "\n".join([AGG, *lines])))
    expected = [(number, price, quantity, at, maker) for number, price, quantity, at, maker in rows]
    own = of_csv.rows.select("trade_id", "price", "quantity", pl.col("time").dt.epoch("ms"), "is_buyer_maker")
    assert own.rows() == expected
    frame = pl.DataFrame(rows, schema=["agg_trade_id", "price", "qty", "timestamp", "is_buyer_maker"], orient="row")
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    path = folder / "BTCUSDT-aggTrades.parquet"
    path.write_bytes(buffer.getvalue())
    assert read(path).rows.equals(of_csv.rows)


def test_the_wild_files_are_read(shared_data: Path) -> None:
    ticks, of = shared_data / "ticks", "freqtrade__freqtrade/tests/testdata"
    ours = read(shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet")
    assert (ours.rows.height, ours.set_aside.height, ours.form) == (12_477, 0, AGGREGATED)
    feather = read(ticks / of / "XRP_ETH-trades.feather", symbol="XRPETH")
    assert feather.rows.equals(ours.rows)
    assert read(ticks / of / "XRP_OLD-trades.json.gz").rows.equals(ours.rows)
    renko = "srlcarlg__renkodf/examples/data/BNBUSDT-aggTrades-2023-06_9000Rows.parquet"
    assert read(ticks / renko, columns={"price": "close"}).rows.height == 8_999
    nautilus = ticks / "nautechsystems__nautilus_trader/tests/test_data"
    trades = read(nautilus / "binance/btcusdt-trades.parquet")
    assert (trades.rows.height, trades.rows["symbol"][0], trades.rows["is_buyer_maker"].null_count()) == (
        2_001,
        "BTCUSDT",
        0,
    )
    tardis = read(nautilus / "tardis/bitmex_trades_XBTUSD.csv").rows
    assert (tardis["available_at"] > tardis["time"]).all()
    assert read(ticks / of / "kraken/trades_csv/BCHEUR.csv").rows["is_buyer_maker"].null_count() == 148


def test_the_trades_of_a_minute_are_the_exchanges_own_bar(shared_data: Path) -> None:
    trades = read(shared_data / "ready/ticks/binance_spot_aggtrades_XRPETH_20191011-13.parquet").rows
    theirs = pl.read_ipc(shared_data / "ticks/freqtrade__freqtrade/tests/testdata/XRP_ETH-1m.feather")
    ours = trades.group_by_dynamic("time", every="1m").agg(
        pl.col("price").first().alias("open"),
        pl.col("price").max().alias("high"),
        pl.col("price").min().alias("low"),
        pl.col("price").last().alias("close"),
        pl.col("quantity").sum().alias("volume"),
    )
    both = theirs.with_columns(pl.col("date").dt.cast_time_unit("us").alias("time")).join(ours, on="time", how="full")
    assert both.height == theirs.height == ours.height
    for name in ("open", "high", "low", "close"):
        assert (both[name] == both[f"{name}_right"]).all(), name
    assert ((both["volume"] - both["volume_right"]).abs() < 1e-6).all()
