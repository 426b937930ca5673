"""The order book, rebuilt from snapshots and changes as a venue sends them, and what its top says.

1. Rows of one message (same time, last update and sort) are applied together; a quantity of 0 takes a level away.
2. Until there is a snapshot the book is not known. A snapshot replaces the book; changes that came before it but are
   newer than it (Binance's snapshot may arrive after the first of them) are applied to it.
3. A change that is not newer than the book is left out. The next one must follow the book without a hole: its first
   update is at most the book's last + 1 (spot: `U <= last + 1 <= u`, later `U = last + 1`), or where the message names
   the one before it, that is at most the book's last (futures: `pu`). If it does not, the book is not known again
   (`gap`) until the next snapshot.
4. A book whose best bid is not below its best ask is crossed, and with a side empty it has no middle: `degenerate`.
   So is a sum of quantities that no double can hold.

Binance: How to manage a local order book correctly (spot and USD-M futures API documents).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mdplatform.errors import InvalidTable, ParameterOutOfRange
from mdplatform.features.guard import DEGENERATE, GAP, SETTLED, STATUSES
from mdplatform.features.talib_functions import Floats
from mdplatform.features.trade_arrays import known_at
from mdplatform.market.bars import INSTANT
from mdplatform.market.depth import DEPTH

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_LEVELS = 5000

_COLUMNS = tuple(name for name in DEPTH.columns if name != "symbol")


@dataclass(frozen=True)
class Messages:
    """Messages of one book, in the order in which they were stored; message m has the rows `[starts[m], after[m])`.

    `known` is the instant (microseconds) before a close at which a row may use it; `link` the update that it follows.
    """

    time: NDArray[np.int64]
    known: NDArray[np.int64]
    link: NDArray[np.int64]
    last_id: NDArray[np.int64]
    is_snapshot: NDArray[np.bool_]
    starts: NDArray[np.int64]
    after: NDArray[np.int64]
    is_bid: NDArray[np.bool_]
    price: Floats
    quantity: Floats

    def only(self, wanted: NDArray[np.bool_]) -> Messages:
        """Give those of the messages; the rows of the others stay, unused."""
        of_rows = ("is_bid", "price", "quantity")
        return Messages(**{name: each if name in of_rows else each[wanted] for name, each in vars(self).items()})


@dataclass(frozen=True)
class Tops:
    """The top of the book after each message, by the instant at which it was `known` (ascending).

    `newest` is the instant of the last message that is in the book; `statuses` tell whether there is a value.
    `quantities` has for each number of levels that was asked for the quantity on the bids and on the asks.
    """

    known: NDArray[np.int64]
    newest: NDArray[np.int64]
    message: NDArray[np.int64]
    statuses: NDArray[np.int8]
    bid: Floats
    bid_quantity: Floats
    ask: Floats
    ask_quantity: Floats
    quantities: Floats

    def imbalance(self, column: int) -> Floats:
        """Give (bids − asks) / (bids + asks) by quantity, of the levels in that place."""
        bids, asks = self.quantities[:, 2 * column], self.quantities[:, 2 * column + 1]
        with np.errstate(invalid="ignore"):
            return np.asarray((bids / 2 - asks / 2) / (bids / 2 + asks / 2))  # the halves' sum is never infinite

    @property
    def spread(self) -> Floats:
        """The best ask less the best bid, in the quote asset."""
        return self.ask - self.bid

    @property
    def mid(self) -> Floats:
        """The middle of the best bid and the best ask."""
        return self.ask / 2 + self.bid / 2

    @property
    def microprice(self) -> Floats:
        """The best prices weighted by the quantity at the other side's: near to the ask where bids outweigh."""
        share = self.bid_quantity / 2 / (self.bid_quantity / 2 + self.ask_quantity / 2)
        return self.bid + (self.ask - self.bid) * share


def book_features(depth: pl.DataFrame | pa.Table | pd.DataFrame, levels: int = 5) -> pl.DataFrame:
    """Give the top of the book after each message of `depth` (columns of `DEPTH`; `symbol` may lack).

    Columns: `time`, `last_update_id`, `best_bid`, `bid_quantity`, `best_ask`, `ask_quantity`, `spread`, `mid`,
    `microprice` (the mid weighted by the other side's quantity), `imbalance` of the best level and `imbalance_levels`
    of so many best `levels` ((bids − asks) / (bids + asks), in [−1, 1]), and `status`: `settled`, or why there is no
    value: `gap` or `degenerate` (the best prices are told even so where the book is crossed). Messages of one instant
    are in the order of the table. Raises `InvalidTable` and `ParameterOutOfRange`.
    """
    if isinstance(levels, bool) or not isinstance(levels, Integral) or not 1 <= levels <= MOST_LEVELS:
        raise ParameterOutOfRange(
            "levels is out of range", value=levels, remedy=f"Allowed: an integer from 1 to {MOST_LEVELS}"
        )
    messages = read_messages(_as_frame(depth))
    tops = rebuild_tops(messages, (1, levels))
    values = {
        "spread": tops.spread,
        "mid": tops.mid,
        "microprice": tops.microprice,
        "imbalance": tops.imbalance(0),
        "imbalance_levels": tops.imbalance(1),
    }
    told = tops.statuses
    told[(told == SETTLED) & ~np.all([np.isfinite(each) for each in values.values()], axis=0)] = DEGENERATE
    sound = told == SETTLED
    best = {
        "best_bid": tops.bid,
        "bid_quantity": tops.bid_quantity,
        "best_ask": tops.ask,
        "ask_quantity": tops.ask_quantity,
    }
    return pl.DataFrame(
        [
            pl.Series("time", messages.time[tops.message]).cast(INSTANT),
            pl.Series("last_update_id", messages.last_id[tops.message]),
            *(pl.Series(name, each, nan_to_null=True) for name, each in best.items()),
            *(pl.Series(name, np.where(sound, each, np.nan), nan_to_null=True) for name, each in values.items()),
            pl.Series(STATUSES).gather(told).alias("status"),
        ]
    )


def rebuild_tops(messages: Messages, levels: tuple[int, ...]) -> Tops:
    """Rebuild the book and give its top after each message, in the order in which they became known."""
    from mdplatform.features.flow.book_kernel import rebuild

    order = np.argsort(messages.known, kind="stable")
    places, best, depth = rebuild(
        order,
        messages.starts,
        messages.after,
        messages.link,
        messages.last_id,
        messages.is_snapshot,
        messages.is_bid,
        messages.price,
        messages.quantity,
        np.array(levels, np.int64),
    )
    bid, bid_quantity, ask, ask_quantity = np.ascontiguousarray(best.T)
    statuses = np.full(len(order), SETTLED, np.int8)
    statuses[~(bid < ask)] = DEGENERATE
    statuses[places < 0] = GAP
    known = messages.known[order]
    newest = known[np.maximum(places, 0)] if len(known) else known
    return Tops(known, newest, order, statuses, bid, bid_quantity, ask, ask_quantity, depth)


def read_messages(rows: pl.DataFrame) -> Messages:
    """Give the messages in rows of `DEPTH`, ascending by time. Raises `InvalidTable`."""
    _check(rows)
    ids = rows.select("time", "last_update_id", "is_snapshot")
    begins = ids.select(pl.any_horizontal(pl.all() != pl.all().shift()).fill_null(True)).to_series()
    starts = begins.arg_true().to_numpy().astype(np.int64)
    heads = rows[starts]
    link = heads.select(pl.coalesce("previous_update_id", pl.col("first_update_id") - 1)).to_series()
    known = known_at(heads) if "available_at" in heads.columns else heads["time"]
    return Messages(
        time=_microseconds(heads["time"]),
        known=_microseconds(known),
        link=link.to_numpy(),
        last_id=heads["last_update_id"].to_numpy(),
        is_snapshot=heads["is_snapshot"].to_numpy(),
        starts=starts,
        after=np.append(starts[1:], len(rows)) if len(starts) else starts,
        is_bid=rows["is_bid"].to_numpy(),
        price=np.ascontiguousarray(rows["price"].to_numpy()),
        quantity=np.ascontiguousarray(rows["quantity"].to_numpy()),
    )


def join_messages(parts: list[Messages]) -> Messages:
    """Put messages that follow one another together."""
    offsets = np.cumsum([0, *(len(part.price) for part in parts[:-1])])
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    counts = [len(part.starts) for part in parts]
    for name in ("starts", "after"):
        joined[name] = joined[name] + np.repeat(offsets, counts)
    return Messages(**joined)


def _as_frame(depth: pl.DataFrame | pa.Table | pd.DataFrame) -> pl.DataFrame:
    module = type(depth).__module__.partition(".")[0]
    if module == "pandas":
        depth = pl.from_pandas(depth)  # type: ignore[arg-type]
    elif module == "pyarrow":
        depth = pl.from_arrow(depth)  # type: ignore[assignment]
    if not isinstance(depth, pl.DataFrame):
        raise InvalidTable("Depth is a frame of polars or pandas, or a table of Arrow", value=type(depth).__name__)
    missing = [name for name in _COLUMNS if name not in depth.columns]
    if missing:
        remedy = f"They have: {', '.join(depth.columns)}"
        raise InvalidTable("Rows of depth lack columns", value=", ".join(missing), remedy=remedy)
    try:
        return depth.cast({name: DEPTH.columns[name] for name in _COLUMNS})
    except pl.exceptions.PolarsError as error:
        raise InvalidTable("Rows of depth are of other types", value=str(error).partition("\n")[0]) from error


def _check(rows: pl.DataFrame) -> None:
    rules = {
        "a value is null": pl.any_horizontal(
            pl.col(name).is_null() for name in _COLUMNS if name != "previous_update_id"
        ),
        "price is not a finite number above 0": ~(pl.col("price").is_finite() & (pl.col("price") > 0)),
        "quantity is not a finite number, 0 or more": ~(pl.col("quantity").is_finite() & (pl.col("quantity") >= 0)),
        "first_update_id is above last_update_id": pl.col("first_update_id") > pl.col("last_update_id"),
        "time is out of order": pl.col("time") < pl.col("time").shift(),
    }
    wrong = rows.select(rule.fill_null(False).alias(name) for name, rule in rules.items())
    for name in rules:
        if wrong[name].any():
            raise InvalidTable(f"Rows of depth whose {name}; the first is row {wrong[name].arg_max()}")


def _microseconds(instants: pl.Series) -> NDArray[np.int64]:
    return instants.cast(INSTANT).to_physical().to_numpy()
