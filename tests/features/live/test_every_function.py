"""Every function of the registry, live and in a batch: the same bits and the same statuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mdplatform.errors import PlatformError
from mdplatform.features import FeatureSpec, definition, evaluate, parse_feature, standing_catalogue
from mdplatform.features.guard import STATUSES
from mdplatform.features.registry import indicator_names
from mdplatform.market.bars import VALUE_COLUMNS
from mdplatform.market.timeframe import Timeframe

from .bars import check, market, table, troubled

DEFAULTS = ["MAVP(close,trade_count)" if name == "MAVP" else name for name in indicator_names()]


def choices() -> Iterator[FeatureSpec]:
    """Each function once with each choice of each parameter that is not its default: averages, anchors."""
    for name in indicator_names():
        inputs = ["close", "trade_count"] if name == "MAVP" else []
        for each in definition(name).parameters:
            for choice in each.choices:
                if choice != each.default:
                    yield parse_feature({"name": name, "parameters": {each.name: choice}, "inputs": inputs})


def drawn(seed: int) -> Iterator[FeatureSpec]:
    """Each function with parameters, and where it may be others, input columns, drawn at random."""
    random = np.random.default_rng(seed)
    for name in indicator_names():
        parameters: dict[str, float] = {}
        for each in definition(name).parameters:
            if each.kind == "choice":
                continue
            low, high = float(each.minimum or 0), float(each.maximum or 0)
            if each.kind == "integer":
                parameters[each.name] = int(random.integers(int(max(low, 1)), int(min(high, 40)) + 1))
            else:
                parameters[each.name] = float(np.clip(float(each.default) * random.uniform(0.5, 1.5), low, high))
        inputs = []
        if name == "MAVP" or random.random() < 0.5:
            free = sum(each.free for each in definition(name).inputs)
            inputs = [str(each) for each in random.choice(VALUE_COLUMNS, free)]
        try:
            yield parse_feature({"name": name, "parameters": parameters, "inputs": inputs})
        except PlatformError:
            yield parse_feature({"name": name, "inputs": ["close", "volume"] if name == "MAVP" else []})


@pytest.mark.parametrize("opened_at", [0, 430])
def test_every_function_equals_the_batch_on_troubled_bars(opened_at: int) -> None:
    check(troubled(market(830)), DEFAULTS, [opened_at], 400)


def test_the_troubled_bars_bring_up_every_reason() -> None:
    found = evaluate(troubled(market(830)), DEFAULTS).statuses.values()
    seen = {STATUSES[each] for statuses in found for each in np.unique(statuses)}
    assert seen == set(STATUSES) - {"stale", "not_available_yet"}


@pytest.mark.parametrize("opened_at", [1, 200])
def test_every_choice_of_every_parameter_equals_the_batch(opened_at: int) -> None:
    check(troubled(market(320, seed=8), seed=3), list(choices()), [opened_at], 120)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_drawn_parameters_and_inputs_equal_the_batch(seed: int) -> None:
    check(troubled(market(400, seed), seed), list(drawn(seed)), [seed * 90], 150)


def test_values_become_settled_in_the_row_in_which_they_do_in_a_batch() -> None:
    features = ["EMA(5)", "RSI(2)", "MACD(3,5,2)", "ATR(3)", "T3(3)", "SAR(0.3,0.3)", "KAMA(4)"]
    check(market(500), features, [0, 40], 300)


def test_the_standing_catalogue_equals_the_batch_on_an_exchanges_bars(shared_data: Path) -> None:
    raw = pl.read_parquet(shared_data / "ready" / "klines" / "binance_spot_15m" / "BTCUSDT.parquet").head(3300)
    names = dict(zip(raw.columns[1:6], VALUE_COLUMNS[:5], strict=True))
    names |= {"quote_volume": "quote_volume", "trades": "trade_count"}
    names |= {"taker_buy_base": "taker_buy_volume", "taker_buy_quote": "taker_buy_quote_volume"}
    columns = {name: raw[source].cast(pl.Float64).to_numpy().copy() for source, name in names.items()}
    start = pl.from_epoch(raw["open_time"], "ms").dt.replace_time_zone("UTC")[0]
    bars = table(columns, Timeframe.M15, start)
    check(bars, standing_catalogue().features, [1600], 1700)
    check(troubled(bars), standing_catalogue().features, [1600, 3000], 300)
    check(bars, DEFAULTS, [2990], 300)
