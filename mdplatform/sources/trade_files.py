"""Files of trades: Binance's `aggTrades` and `trades` dumps, Parquet, Feather, JSON and CSV with the names of the wild.

1. `cells` reads the file, with or without a header; columns are found by name, or as the caller says, or by place.
2. The symbol comes from the caller, a column or the file's name; they must agree.
3. Numbers, times (one unit a file) and truth values are converted; what cannot be is null, and set aside by its rule.
4. The taker's side comes from `is_buyer_maker`, else from `side` (of the taker: `sell` means the buyer's order rested).
   Without either it is null, and the delivery says so. `bid` and `ask` are sides of a book and no taker's: a file of
   them is refused, as is one with other marks of an order book, whose levels would pass for trades.
5. Trades without a number of their own, or whose ids are texts, are numbered by time and order within it
   (`NUMBERED_FROM` and up): the same file gives the same numbers; one that begins inside an instant gives others.
6. `available_at` is the trade's time, or when it was received where a column says so and that is later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePath

import polars as pl

from mdplatform.errors import InvalidSymbol, MislabelledFile, UnknownColumns
from mdplatform.market.symbol import parse_symbol
from mdplatform.market.trades import TRADES
from mdplatform.sources.cells import Cells, choose, instants, numbers, read_cells, texts, truths
from mdplatform.sources.columns import OF_A_BOOK, fold
from mdplatform.sources.labels import labels_of, stem_of
from mdplatform.sources.table_delivery import TableDelivery, TableOptions, set_aside_rows

NUMBERED_FROM = 10**18
"""Ids from here on are not the venue's: microseconds since the epoch × 1,000 + order within the microsecond."""
_PER_INSTANT = 1_000
SINGLE, AGGREGATED, NUMBERED = "single trades", "aggregated trades", "trades without numbers of the venue"
SIDE_UNKNOWN, SYMBOL_INVALID = "side_unknown", "symbol_invalid"
"""The rules that a row breaks whose side is a word for neither, and whose own symbol is empty or can be none."""

SPELLINGS = {
    "trade_id": "trade_id agg_trade_id agg_id aggregate_trade_id id tid",
    "time": "transact_time trade_time time timestamp ts datetime date",
    "price": "price trade_price px",
    "quantity": "quantity qty amount size sz volume",
    "is_buyer_maker": "is_buyer_maker buyer_maker isbuyermaker",
    "side": "side taker_side aggressor_side",
    "received_at": "local_timestamp received_at receive_time recv_time",
    "symbol": "symbol",
}
"""Our names (and `side`, `received_at`, which become columns of ours), and how files call them, folded."""

_REQUIRED = ("time", "price", "quantity")
_WITHOUT_HEADER = {
    8: ("trade_id", "price", "quantity", "", "", "time", "is_buyer_maker", ""),  # spot aggTrades
    7: ("trade_id", "price", "quantity", "", "", "time", "is_buyer_maker"),  # futures aggTrades
    6: ("trade_id", "price", "quantity", "", "time", "is_buyer_maker"),  # futures trades
    3: ("time", "price", "quantity"),  # Kraken's
}
_SPOT_TRADES = ("trade_id", "price", "quantity", "", "time", "is_buyer_maker", "")
_SIDES_OF_A_BOOK = {"bid", "ask", "bids", "asks", "a"}
_KIND = re.compile(r"(?:^|[-_.])(agg_?trades|trades)(?=$|[-_.])", re.IGNORECASE)
_DATES = re.compile(r"[-_.]\d{8}(-\d+)?$")
_COUNTED_IN_CONTRACTS = re.compile(r"[A-Z0-9]+USD_(PERP|\d{6})")
_NO_SIDE = "it does not say which side took: delta, taker ratios and all that follows from them are null"
_NO_ID = "its trades have no numbers: they are numbered by time and order, so don't mix it with files that have them"


def read_trades(path: Path, options: TableOptions) -> Iterator[TableDelivery]:
    """Give the trades of one file, one delivery a symbol. Raises errors of `SourceError`, and `InvalidSymbol`."""
    cells = read_cells(path, options.max_bytes)
    frame, found = cells.frame, _find(cells, options, path)
    _refuse_book(frame, found, path)
    form = _form(cells, found, path)
    frame, aside = _with_symbols(frame, found)
    for symbol, part in _by_symbol(frame, found, path, cells, options):
        if _COUNTED_IN_CONTRACTS.fullmatch(symbol):
            raise UnknownColumns(
                f"{path} is of a coin-margined future, whose quantities are contracts",
                value=symbol,
                remedy="Take spot or USD-margined trades",
            )
        yield _deliver(symbol, part, found, path, options, form, aside)
        aside = aside.clear()  # it is told once


def _find(cells: Cells, options: TableOptions, path: Path) -> dict[str, str]:
    frame = cells.frame
    if cells.named:
        found = choose(frame, SPELLINGS, options.columns, path)
    elif options.columns:
        found = choose(frame, dict.fromkeys(SPELLINGS, ""), options.columns, path)
    else:
        places = _WITHOUT_HEADER.get(frame.width, ())
        if frame.width == 7 and _is_truth(frame[0, 5]) and _is_truth(frame[0, 6]):
            places = _SPOT_TRADES
        found = {name: str(at) for at, name in enumerate(places) if name}
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise UnknownColumns(
            f"{path} is not a table of trades: {' '.join(missing)} missing",
            value=", ".join(frame.columns)[:200] if cells.named else f"{frame.width} columns without a header",
            remedy=f"Say which column is which: --column {missing[0]}=NAME",
        )
    return found


def _refuse_book(frame: pl.DataFrame, found: dict[str, str], path: Path) -> None:
    """Raise `UnknownColumns` for a table of levels: it has times, prices and quantities too."""
    marks = [name for name in frame.columns if fold(name) in set(map(fold, OF_A_BOOK))]
    if not marks and "side" in found and "is_buyer_maker" not in found:
        sides = texts(frame[found["side"]].unique()).str.to_lowercase().drop_nulls()
        marks = sorted(set(sides) & _SIDES_OF_A_BOOK)
        if sides.is_in(["sell", "buy", "s"]).any():
            marks = []
    if marks:
        raise UnknownColumns(
            f"{path} is an order book, not trades",
            value=", ".join(marks),
            remedy="Depth is taken in from recordings of the exchange's stream: --as recording",
        )


def _with_symbols(frame: pl.DataFrame, found: dict[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the rows whose own symbol is one from the others, which are set aside; if none is, nothing is parted."""
    if "symbol" not in found:
        return frame, set_aside_rows(frame.clear(), SYMBOL_INVALID)
    said = frame[found["symbol"]]
    sound = said.is_in([each for each in said.unique().to_list() if _symbol(each) is not None]).fill_null(False)
    if not sound.any():
        sound = sound | True
    return frame.filter(sound), set_aside_rows(frame.filter(~sound), SYMBOL_INVALID)


def _symbol(said: object) -> str | None:
    try:
        return parse_symbol(str(said or "").replace("/", ""))
    except InvalidSymbol:
        return None


def _is_truth(cell: object) -> bool:
    return str(cell).strip().lower() in ("true", "false")


def _by_symbol(
    frame: pl.DataFrame, found: dict[str, str], path: Path, cells: Cells, options: TableOptions
) -> Iterator[tuple[str, pl.DataFrame]]:
    named = symbol_of(PurePath(path)) or (symbol_of(PurePath(cells.inner_name)) if cells.inner_name else None)
    if "symbol" not in found:
        symbol = options.symbol or named
        if symbol is None:
            raise MislabelledFile(
                f"{path} says its symbol neither in its name nor in its rows", remedy="Say it with --symbol"
            )
        yield symbol, frame
        return
    for key, part in frame.partition_by(found["symbol"], as_dict=True, maintain_order=True).items():
        said = parse_symbol(str(key[0] or "").replace("/", ""))
        if options.symbol is not None and said != options.symbol:
            raise MislabelledFile(f"{path} has rows of symbol {said}, but --symbol says {options.symbol}", value=said)
        yield said, part


def symbol_of(path: PurePath) -> str | None:
    """Give the symbol that a file's name says, if any.

    >>> symbol_of(PurePath("BTCUSDT-aggTrades-2025-01-31.zip")), symbol_of(PurePath("btcusdt-trades.parquet"))
    ('BTCUSDT', 'BTCUSDT')
    >>> symbol_of(PurePath("binance_spot_aggtrades_XRPETH_20191011-13.parquet"))
    'XRPETH'
    """
    stem = _DATES.sub("", stem_of(path.name))
    kind = _KIND.search(stem)
    if kind is None:
        said = labels_of(PurePath(stem))[0]
    else:
        before, after = stem[: kind.start()], stem[kind.end() :].strip("-_.")
        if re.fullmatch(r"[A-Z0-9_]*[A-Z][A-Z0-9_]*", after):
            said = after
        else:
            said = before.upper() if before != before.lower() or not re.search(r"[a-z]", after) else None
    try:
        return parse_symbol(said) if said else None
    except InvalidSymbol:
        return None


def _deliver(
    symbol: str,
    cells: pl.DataFrame,
    found: dict[str, str],
    path: Path,
    options: TableOptions,
    form: str,
    aside: pl.DataFrame,
) -> TableDelivery:
    notes: list[str] = []
    time = instants(cells[found["time"]], path)
    maker, unclear = _is_buyer_maker(cells, found)
    if maker is None or maker.null_count() == len(maker):
        notes.append(f"{path.name}: {_NO_SIDE}")
    received = instants(cells[found["received_at"]], path) if "received_at" in found else time
    rows = pl.DataFrame(
        {
            "symbol": pl.Series([symbol], dtype=pl.String).new_from_index(0, len(cells)),
            "time": time,
            "price": numbers(cells[found["price"]]),
            "quantity": numbers(cells[found["quantity"]]),
            "is_buyer_maker": maker if maker is not None else pl.Series([None] * len(cells), dtype=pl.Boolean),
            "available_at": received,
        }
    ).with_columns(pl.max_horizontal("time", "available_at").alias("available_at"))
    ids = numbers(cells[found["trade_id"]], pl.Int64) if "trade_id" in found else None
    if ids is None or 2 * (ids.null_count() - cells[found["trade_id"]].null_count()) > len(ids):
        notes.append(f"{path.name}: {_NO_ID}")
        ids, form = _numbered(rows, path), NUMBERED
    rows = rows.with_columns(ids.alias("trade_id")).select(list(TRADES.delivered)).cast(TRADES.delivered)
    if options.start is not None or options.end is not None:
        within = _within(rows, options)
        rows, cells, unclear = rows.filter(within), cells.filter(within), unclear.filter(within)
    aside = pl.concat([aside, set_aside_rows(cells.filter(unclear), SIDE_UNKNOWN)])
    rows, cells = rows.filter(~unclear), cells.filter(~unclear)
    source = f"file:{path.name}"
    return TableDelivery.of(TRADES, source, rows, raw=cells, set_aside=aside, notes=tuple(notes), form=form)


def _form(cells: Cells, found: dict[str, str], path: Path) -> str:
    """Tell single from aggregated trades, whose numbers are not of one kind; empty where that cannot be told."""
    if not cells.named and "trade_id" in found:
        return SINGLE if found["time"] == "4" else AGGREGATED
    names = {fold(name) for name in cells.frame.columns}
    kind = _KIND.search(stem_of(path.name))
    if names & {"aggtradeid", "aggid", "firsttradeid"} or (kind and "agg" in kind[1].lower()):
        return AGGREGATED
    return SINGLE if {"id", "quoteqty"} <= names else ""


def _is_buyer_maker(cells: pl.DataFrame, found: dict[str, str]) -> tuple[pl.Series | None, pl.Series]:
    """Give whether the buyer's order rested, and which rows say something else than a side."""
    if "is_buyer_maker" in found:
        said = cells[found["is_buyer_maker"]]
        told = truths(said)
    elif "side" in found:
        said = texts(cells[found["side"]])
        told = truths(said, true=("sell", "s"), false=("buy", "b"))
    else:
        return None, pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(cells))
    return told, told.is_null() & said.is_not_null()


def _numbered(rows: pl.DataFrame, path: Path) -> pl.Series:
    told = rows.select(
        pl.int_range(pl.len()).over("time").alias("order"),
        pl.col("time").dt.epoch("us").alias("at"),
    )
    most = told.filter(pl.col("at").is_not_null())["order"].max()
    if isinstance(most, int) and most >= _PER_INSTANT:
        raise UnknownColumns(
            f"{path} has no ids, and over {_PER_INSTANT} trades at one instant", value=str(rows["time"].mode()[0]),
            remedy="Say the column of ids with --column trade_id=NAME",
        )  # fmt: skip
    return told.select(pl.col("at") * _PER_INSTANT + pl.col("order")).to_series()


def _within(rows: pl.DataFrame, options: TableOptions) -> pl.Series:
    at = pl.col("time").dt.epoch("us")
    inside = pl.lit(True)
    if options.start is not None:
        inside = inside & (at >= options.start)
    if options.end is not None:
        inside = inside & (at < options.end)
    return rows.select((inside | at.is_null()).alias("inside")).to_series()
