"""Plans of load: which strategy asks what, how urgently, and when. The same seed gives the same plan.

- A *burst*: every strategy asks once, all at the same instant.
- *Steady* load: an open loop. Instants are drawn ahead at a stated rate (exponential gaps); no answer, however late,
  delays the next request. So a stall shows in all the requests that were due in it.
- A *flood*: LOW requests far over what can be answered, beside steady load; every hundredth is a long computation.

What is asked for follows Zipf's law over symbols and over features: the second most popular half as often as the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mdplatform.messaging.priority import DataPriority

MIX: Mapping[DataPriority, float] = {
    DataPriority.CRITICAL: 0.1,
    DataPriority.HIGH: 0.2,
    DataPriority.NORMAL: 0.4,
    DataPriority.LOW: 0.3,
}
"""Which share of the requests is of which class."""
_ZIPF = 1.0
_LONG_EVERY, _LONG = 100, "method=spearman"


@dataclass(frozen=True, slots=True)
class Question:
    """One feature of one symbol in one timeframe."""

    symbol: str
    feature: str
    timeframe: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A request to be sent `due` seconds after the beginning."""

    due: float
    strategy: int
    question: Question
    priority: DataPriority


def questions(symbols: Sequence[str], features: Sequence[str], timeframes: Sequence[str]) -> list[Question]:
    """Give every question that can be asked, by symbol, feature and timeframe.

    >>> questions(["A"], ["RSI", "ATR"], ["1h"])[1]
    Question(symbol='A', feature='ATR', timeframe='1h')
    """
    return [Question(symbol, feature, frame) for symbol in symbols for feature in features for frame in timeframes]


def burst(strategies: int, asked: Sequence[Question], seed: int = 1) -> list[Planned]:
    """Plan one request of each strategy, all due at the beginning, in an order drawn by lot."""
    random = np.random.default_rng(seed)
    return _plan(np.zeros(strategies), random.permutation(strategies), asked, MIX, random)


def steady(strategies: int, rate: float, seconds: float, asked: Sequence[Question], seed: int = 2) -> list[Planned]:
    """Plan requests of strategies drawn by lot, `rate` of them a second on average."""
    random = np.random.default_rng(seed)
    dues = _instants(rate, seconds, random)
    return _plan(dues, random.integers(0, strategies, len(dues)), asked, MIX, random)


def flood(
    strategies: int, rate: float, low_rate: float, seconds: float, asked: Sequence[Question], seed: int = 3
) -> list[Planned]:
    """Plan steady load of all classes beside a flood of LOW requests at a rate of its own."""
    random = np.random.default_rng(seed)
    dues = _instants(low_rate, seconds, random)
    low = _plan(dues, random.integers(0, strategies, len(dues)), asked, {DataPriority.LOW: 1.0}, random)
    for number in range(0, len(low), _LONG_EVERY):
        question = low[number].question
        long = replace(
            question, feature=f"CORRELATION(reference={asked[0].symbol},window={2_000 + number % 500},{_LONG})"
        )
        low[number] = replace(low[number], question=long)
    return sorted(low + steady(strategies, rate, seconds, asked, seed + 1), key=lambda each: each.due)


def equal(strategies: int, question: Question, priority: DataPriority = DataPriority.NORMAL) -> list[Planned]:
    """Plan the same question of every strategy, all at once."""
    return [Planned(0.0, number, question, priority) for number in range(strategies)]


def once_each(asked: Sequence[Question]) -> list[Planned]:
    """Plan every question once, all at once, by which data gets warm."""
    return [Planned(0.0, number, each, DataPriority.NORMAL) for number, each in enumerate(asked)]


def _instants(rate: float, seconds: float, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    gaps = random.exponential(1 / rate, int(rate * seconds * 1.5) + 100)
    dues = np.cumsum(gaps)
    return dues[dues < seconds]


def _plan(
    dues: np.ndarray[Any, np.dtype[np.float64]],
    who: np.ndarray[Any, np.dtype[np.int64]],
    asked: Sequence[Question],
    mix: Mapping[DataPriority, float],
    random: np.random.Generator,
) -> list[Planned]:
    symbols = list(dict.fromkeys(each.symbol for each in asked))
    of_symbol = {symbol: [each for each in asked if each.symbol == symbol] for symbol in symbols}
    drawn = _zipf(len(symbols), len(dues), random)
    spread = {len(each): _zipf(len(each), len(dues), random) for each in of_symbol.values()}
    classes = list(mix)
    lots = random.choice(len(classes), len(dues), p=[mix[each] for each in classes])
    planned = []
    for row, due in enumerate(dues):
        own = of_symbol[symbols[drawn[row]]]
        question = own[spread[len(own)][row]]
        planned.append(Planned(float(due), int(who[row]), question, classes[lots[row]]))
    return planned


def _zipf(kinds: int, count: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw numbers below `kinds`, number k with a weight of 1 / (k + 1)."""
    weights = 1.0 / np.arange(1, kinds + 1) ** _ZIPF
    return random.choice(kinds, count, p=weights / weights.sum())
