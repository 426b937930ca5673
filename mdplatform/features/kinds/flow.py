"""Order flow: what takers did, from bars with taker columns or from trades, and what trading costs by it.

Where both are possible, `method` says which is used: `bars` (the default: the exchange's own sums) or `trades`. Their
sums are the same where every trade was known by its bar's close; trades that are not those of the bars have no value
(`trade_coverage`). CVD adds up the rows that opened since its anchor.
"""

from __future__ import annotations

from collections.abc import Sequence

from mdplatform.features.data import Data, Grid, Values
from mdplatform.features.definition import ANCHORS, Definition, Parameter
from mdplatform.features.kinds import Need
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import Timeframe

VERSION = "flow 2"
"""Changes when a value does; it is part of every identity, and of the code version of what is computed with it."""

_LONGEST = 10_000
_METHOD = Parameter("method", "choice", "bars", choices=("bars", "trades"))


def _period(default: int, least: int = 1) -> Parameter:
    return Parameter("timeperiod", "integer", default, least, _LONGEST)


def _define(
    name: str,
    title: str,
    parameters: tuple[Parameter, ...] = (),
    outputs: tuple[str, ...] = (),
    rows_before: int | None = None,
    is_cumulative: bool = False,
    required: tuple[str, ...] = (),
) -> Definition:
    """Define a function; `rows_before` says how many rows beside its `timeperiod` a value needs, None for no period."""
    return Definition(
        name=name,
        title=title,
        group="Order Flow",
        is_cumulative=is_cumulative,
        inputs=(),
        parameters=parameters,
        outputs=outputs or (name.lower(),),
        kind="flow",
        engine=VERSION,
        lengths=lambda given: (0 if rows_before is None else given["timeperiod"] + rows_before, 0),
        required=required,
    )


def _size(most: float) -> Parameter:
    return Parameter("size", "real", 1.0, 1e-12, most)


def _trade_bars(name: str, what: str, *parameters: Parameter) -> Definition:
    return _define(
        name,
        f"Bars {what}, begun anew each UTC day: how many were completed in the row, and the newest one",
        parameters,
        ("count", "open", "high", "low", "close", "volume"),
        required=("size",) if name in ("DOLLAR_BARS", "VOLUME_BARS") else (),
    )


DEFINITIONS = (
    _define("AMIHUD", "Amihud's illiquidity (1 / quote asset)", (_period(20),), rows_before=0),
    _define(
        "CVD",
        "Cumulative volume delta since its anchor (base asset)",
        (_METHOD, Parameter("anchor", "choice", "day", choices=ANCHORS)),
        is_cumulative=True,
    ),
    _define(
        "CUSUM_EVENTS",
        "How often the symmetric CUSUM filter of log returns, begun anew each UTC day, fired in the row",
        (Parameter("threshold", "real", 0.01, 1e-9, 10),),
        ("up", "down"),
    ),
    _define("DELTA", "Taker buys less taker sells (base asset)", (_METHOD,)),
    _trade_bars("DOLLAR_BARS", "of at least that turnover (quote asset)", _size(1e15)),
    _define(
        "FOOTPRINT_IMBALANCE",
        "Price rows with a diagonal imbalance in the bar, and the longest stack of them",
        (Parameter("row_size", "real", 1.0, 1e-12, 1e12), Parameter("ratio", "real", 3.0, 1, 1e6)),
        ("buy_imbalances", "sell_imbalances", "buy_stack", "sell_stack"),
        required=("row_size",),
    ),
    _trade_bars(
        "IMBALANCE_BARS",
        "that close where takers lean to a side by more than was to be expected",
        Parameter("measure", "choice", "tick", choices=("tick", "volume", "dollar")),
        Parameter("expected_count", "integer", 1000, 1, 1_000_000_000),
        Parameter("span", "real", 20.0, 1, 1e6),
        Parameter("most", "real", 5.0, 1, 1e6),
    ),
    _define(
        "KYLE_LAMBDA",
        "Kyle's lambda (quote asset for each unit of the base asset)",
        (_period(20, 3), _METHOD),
        rows_before=-1,
    ),
    _define(
        "LARGE_TRADE_VOLUME",
        "Volume of large trades by taker's side (base asset): from min_quantity on, or where that is 0, from the "
        "quantile of the sizes of the UTC days before",
        (
            Parameter("min_quantity", "real", 0.0, 0, 1e15),
            Parameter("quantile", "real", 0.99, 0, 1),
            Parameter("days", "integer", 1, 1, 30),
        ),
        ("large_buy_volume", "large_sell_volume"),
    ),
    _define("ROLL_SPREAD", "Roll's effective spread (quote asset)", (_period(20, 2),), rows_before=1),
    _define(
        "TAKER_IMBALANCE", "Taker buys less sells by their sum, in [-1, 1]", (_period(20), _METHOD), rows_before=-1
    ),
    _define("TAKER_RATIO", "The share of the volume that takers bought, in [0, 1]", (_METHOD,)),
    _trade_bars("TICK_BARS", "of so many trades", Parameter("size", "integer", 1000, 1, 1_000_000_000)),
    _define(
        "TRADE_FLOW",
        "Sums of the row's trades (base asset; quote_volume in the quote asset)",
        (),
        ("taker_buy_volume", "taker_sell_volume", "volume", "quote_volume", "trade_count"),
    ),
    _define(
        "TRADE_SIZE_QUANTILE",
        "Quantile of trade sizes, linear between trades (base asset)",
        (Parameter("q", "real", 0.5, 0, 1), _period(1)),
        rows_before=-1,
    ),
    _trade_bars("VOLUME_BARS", "of at least that volume (base asset)", _size(1e15)),
    _define(
        "VPIN",
        "Order flow toxicity in [0, 1]; buckets are cut from the start of the UTC day before, each of bucket_volume, "
        "or where that is 0, of that day's volume by their number",
        (Parameter("buckets", "integer", 50, 1, 10_000), Parameter("bucket_volume", "real", 0.0, 0, 1e15)),
    ),
)
_OF_BARS = ("AMIHUD", "ROLL_SPREAD")


def evaluate(specs: Sequence[FeatureSpec], grid: Grid, data: Data) -> dict[FeatureSpec, Values]:
    """Give the values of `specs` in each row of the grid, from bars or from trades as each says."""
    from mdplatform.features.flow.of_bars import evaluate_bars
    from mdplatform.features.flow.of_trades import evaluate_trades

    of_bars = [spec for spec in specs if _method(spec) == "bars"]
    of_trades = [spec for spec in specs if _method(spec) == "trades"]
    values = evaluate_bars(of_bars, grid, data) if of_bars else {}
    return values | (evaluate_trades(of_trades, grid, data) if of_trades else {})


def reads(spec: FeatureSpec, symbol: str, timeframe: Timeframe) -> frozenset[Need]:
    """The bars of the symbol, which trades are held against where those are what it is made of, and its trades."""
    return frozenset({Need("bars", symbol), Need(_method(spec), symbol)})


def _method(spec: FeatureSpec) -> str:
    return "bars" if spec.name in _OF_BARS else str(spec.arguments.get("method", "trades"))
