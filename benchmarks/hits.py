"""Hits: from where a crowd of strategies is answered that asks as strategies do, a few symbols by far the most.

Symbols are drawn by Zipf's law: the `k`-th most popular is asked for in proportion to `1/k`. Each strategy asks for the
same two or three features again and again, of symbols drawn anew. After each round new bars of some symbols come in.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mdplatform.features import parse_feature
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests.answer import Status
from mdplatform.requests.request import DataRequest, RequestType
from mdplatform.worker.evaluator import Evaluator

FEATURES = tuple(
    str(parse_feature(each))
    for each in ("RSI", "MACD", "BBANDS", "ATR", "EMA(20)", "SMA(50)", "ADX", "OBV", "STOCH", "RSI - 50")
)
TIMEFRAMES = ("15m", "1h")
HITS = ("near", "redis")
_AT_ONCE = 100


@dataclass(frozen=True)
class Crowd:
    """What became of a crowd's requests: results by layer, requests that were not `ok`, and seconds that it took."""

    by_layer: Counter[str]
    failed: int
    requests: int
    seconds: float

    @property
    def hit_rate(self) -> float:
        """The share of results that were neither computed from memory nor from the lake."""
        return sum(self.by_layer[each] for each in HITS) / max(1, self.by_layer.total())


async def crowd(
    evaluators: Sequence[Evaluator],
    symbols: Sequence[str],
    strategies: int = 2_000,
    rounds: int = 5,
    seed: int = 7,
    between: Callable[[int], Awaitable[None]] | None = None,
) -> Crowd:
    """Have strategies ask, `rounds` times each, of `symbols` (the most popular first); `between` is called after each.

    Requests go to the evaluators in turn, a hundred at once, as a worker takes them.
    """
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(symbols) + 1)
    habits = [random.choice(len(FEATURES), random.integers(2, 4), replace=False) for _ in range(strategies)]
    priorities = list(DataPriority)
    before = _layers(evaluators)
    failed, began = 0, time.perf_counter()
    for number in range(rounds):
        drawn = random.choice(len(symbols), strategies, p=weights / weights.sum())
        asked = [
            DataRequest(
                request_id=f"crowd-{number}-{strategy}",
                strategy_id=f"strategy-{strategy}",
                type=RequestType.TECHNICAL_INDICATORS,
                symbols=(symbols[drawn[strategy]],),
                timeframes=(TIMEFRAMES[strategy % len(TIMEFRAMES)],),
                features=tuple(FEATURES[each] for each in habits[strategy]),
                priority=priorities[strategy % len(priorities)],
                deadline=time.time_ns() // 1000 + 60_000_000,
            )
            for strategy in range(strategies)
        ]
        for start in range(0, strategies, _AT_ONCE):
            batch = asked[start : start + _AT_ONCE]
            answers = await asyncio.gather(
                *(
                    evaluators[place // len(TIMEFRAMES) % len(evaluators)].evaluate([each])
                    for place, each in enumerate(batch)
                )
            )
            failed += sum(outcome.body.status != Status.OK for answer in answers for outcome in answer)
        if between is not None:
            await between(number)
    return Crowd(_layers(evaluators) - before, failed, strategies * rounds, time.perf_counter() - began)


def _layers(evaluators: Sequence[Evaluator]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for each in evaluators:
        counted.update(each.answered_by_layer)
    return counted
