"""A crowd that asks as strategies do is answered from what is there: over nine results in ten are hits."""

from __future__ import annotations

import asyncio

from benchmarks.hits import crowd
from mdplatform.serving.publisher import Publisher
from mdplatform.valkey.connection import connect
from mdplatform.worker.evaluator import Evaluator
from tests.conftest import raw_bars


def test_over_ninety_percent_of_what_a_crowd_asks_for_are_hits(settings, processes, market):
    symbols = [f"S{number}USDT" for number in range(6)]
    bars = {each: raw_bars(1310, seed=place) for place, each in enumerate(symbols)}
    for each in symbols:
        market.deliver(each, bars[each].head(1300))

    async def asked():
        with connect(settings) as client:

            async def bar_of_the_first(number: int) -> None:
                market.deliver(symbols[0], bars[symbols[0]].head(1301 + number).tail(1))
                Publisher(client, settings).bump_bars(symbols[0])

            async with Evaluator(settings, worker="a") as one, Evaluator(settings, worker="b") as other:
                found = await crowd([one, other], symbols, strategies=600, rounds=5, between=bar_of_the_first)
                return found, one.computations + other.computations

    found, computations = asyncio.run(asked())
    assert found.failed == 0
    assert found.hit_rate > 0.9, found
    assert found.by_layer["near"] > found.by_layer["redis"] > 0
    assert sum(found.by_layer.values()) > 2 * found.requests
    assert computations < 1.5 * (6 * 10 * 2 + 4 * 10 * 2), "urgent ones wait for no other worker for long"
