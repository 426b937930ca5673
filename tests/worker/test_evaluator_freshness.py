"""No answer is older than the last bump, or the last change of the lake, before the call: in any order of events."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from mdplatform.serving.publisher import Publisher
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from mdplatform.valkey.embedded import embedded
from mdplatform.worker.evaluator import Evaluator
from tests.conftest import Market, raw_bars
from tests.worker.asking import ask, rows

SYMBOLS = ("AUSDT", "BUSDT")
EVENTS = st.one_of(
    st.tuples(st.just("deliver"), st.sampled_from(SYMBOLS), st.booleans()),
    st.tuples(st.just("correct"), st.sampled_from(SYMBOLS), st.booleans()),
    st.tuples(st.just("ask"), st.sampled_from(SYMBOLS), st.integers(0, 1)),
    st.tuples(st.just("ask together"), st.sampled_from(SYMBOLS), st.integers(0, 1)),
    st.tuples(st.just("flush"), st.just(""), st.just(False)),
)


class World:
    """Two symbols that grow and are corrected, and what their newest closes are."""

    def __init__(self, settings: Settings) -> None:
        self.market = Market(settings)
        self.bars = {each: raw_bars(60, seed=place) for place, each in enumerate(SYMBOLS)}
        self.lengths = dict.fromkeys(SYMBOLS, 40)
        for each in SYMBOLS:
            self.market.deliver(each, self.bars[each].head(40))

    def deliver(self, symbol: str) -> None:
        self.lengths[symbol] = min(60, self.lengths[symbol] + 1)
        self.market.deliver(symbol, self.bars[symbol].head(self.lengths[symbol]).tail(1))

    def correct(self, symbol: str) -> None:
        length = self.lengths[symbol]
        changed = self.bars[symbol].with_row_index()
        is_it = pl.col("index") == length - 1
        self.bars[symbol] = changed.with_columns(
            pl.when(is_it).then(pl.col(each) * 1.0001).otherwise(pl.col(each)).alias(each)
            for each in ("open", "high", "low", "close")
        ).drop("index")
        self.market.deliver(symbol, self.bars[symbol].head(length).tail(1))

    def average(self, symbol: str) -> float:
        return float(self.bars[symbol]["close"].head(self.lengths[symbol]).tail(2).mean())


async def _replay(settings: Settings, events) -> None:
    world = World(settings)
    with connect(settings) as client:
        publisher = Publisher(client, settings)
        client.flushall()
        async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
            workers = (one, other)
            for event, symbol, which in events:
                if event == "flush":
                    client.flushall()
                elif event in ("deliver", "correct"):
                    getattr(world, event)(symbol)
                    if which:  # else Redis was away when it was to be told
                        publisher.bump_bars(symbol)
                else:
                    asking = workers if event == "ask together" else (workers[which],)
                    asked = (ask(each, [symbol], ["SMA(timeperiod=2)"]) for each in asking)
                    for outcome in await asyncio.gather(*asked):
                        value = rows(outcome.body.parts[0])["SMA(timeperiod=2)"][-1]
                        assert value == pytest.approx(world.average(symbol), rel=1e-9), (event, symbol)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    """One server for all examples, each of which has a lake of its own."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with connect(settings):
        yield f"unix://{embedded(settings).path}"


@tried(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(EVENTS, min_size=4, max_size=12))
def test_no_answer_is_older_than_the_last_change_before_it(server: str, events) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_replay(Settings(home=Path(folder), redis_url=server), events))
