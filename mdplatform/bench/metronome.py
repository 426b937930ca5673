"""The metronome: a feed that says candles at an exact rate, in an accelerated time of the venue's own.

1. A minute of the venue has `per_bar` messages of each symbol: forming candles first, then the closed one.
2. Messages are due at equal steps of real time, whether anybody keeps up or not; those that are due are given together.
   When each was due follows from its number: so whatever is held up anywhere shows as latency.
3. The first message is due at the instant that the file `go` names, and the feed ends after its last one.

`python -m mdplatform.bench.metronome JSON` runs the platform's engine on it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mdplatform.bench import handover
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.market.events import Candle, Event
from mdplatform.market.timeframe import MINUTE_US, Timeframe
from mdplatform.messaging import registry
from mdplatform.messaging.broadcast import Broadcaster, Post
from mdplatform.settings import Settings
from mdplatform.streaming.engine import Engine
from mdplatform.streaming.sealing import SealingProcess
from mdplatform.streaming.standing import Standing
from mdplatform.tuning import settle

_STEP_SECONDS = 0.001
_GO_SECONDS = 300.0


class Beat(msgspec.Struct, frozen=True):
    """What is said: candles of `symbols` from `start` (µs, a whole minute) on, `rate` a second, for `seconds`.

    `go` is the file in which the beginning will stand (µs). The engine computes the first so many features of the
    standing catalogue in each timeframe.
    """

    symbols: tuple[str, ...]
    start: int
    rate: float
    seconds: float
    per_bar: int
    go: str
    timeframes: tuple[str, ...] = ("1m", "5m", "15m", "1h")
    features: int = 20

    @property
    def minutes(self) -> int:
        """How many whole minutes of the venue so many messages make."""
        return minutes_of(len(self.symbols), self.rate, self.seconds, self.per_bar)

    def due(self, number: int) -> int:
        """When a message is due, in microseconds after the beginning."""
        return round(number * 1e6 / self.rate)

    def closing(self, time: int, symbols: Sequence[str]) -> int:
        """Give the number of the message by which all bars of these symbols that close at `time` (µs) are closed."""
        minute = (time - self.start) // MINUTE_US - 1
        count = len(self.symbols)
        return minute * count * self.per_bar + (self.per_bar - 1) * count + max(map(self.symbols.index, symbols))


class Metronome:
    """The feed of a beat."""

    name = "metronome"
    bars_from: Literal["candles", "trades"] = "candles"

    def __init__(self, beat: Beat) -> None:
        self.counts = {"messages": 0}
        self.finished = asyncio.Event()
        self._beat = beat
        self._is_closed = False

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        """Give the messages that are due, until all were given."""
        began = await began_at(self._beat.go)
        total, sent = self._beat.minutes * len(self._beat.symbols) * self._beat.per_bar, 0
        while sent < total and not self._is_closed:
            due = min(total, int((time.time_ns() // 1000 - began) * self._beat.rate / 1e6) + 1)
            if due > sent:
                yield [self._message(each) for each in range(sent, due)]
                self.counts["messages"] += due - sent
                sent = due
            await asyncio.sleep(_STEP_SECONDS)
        self.finished.set()

    async def close(self) -> None:
        """End."""
        self._is_closed = True

    def _message(self, number: int) -> Candle:
        symbols, per_bar = self._beat.symbols, self._beat.per_bar
        minute, place = divmod(number, len(symbols) * per_bar)
        turn, symbol = divmod(place, len(symbols))
        open_time = self._beat.start + minute * MINUTE_US
        price = 100.0 + symbol + (minute % 17) * 0.25 + (minute % 5) * 0.5
        is_closed = turn == per_bar - 1
        said = open_time + (MINUTE_US if is_closed else MINUTE_US * (turn + 1) // (per_bar + 1))
        return Candle(
            symbols[symbol], Timeframe.M1, open_time, price, price + 1.0, price - 1.0, price + (minute % 3) * 0.25,
            10.0 + turn, 1000.0 + turn, 20 + turn, 5.0, 500.0, is_closed, said,
        )  # fmt: skip


def minutes_of(symbols: int, rate: float, seconds: float, per_bar: int) -> int:
    """Give how many whole minutes of the venue so many messages make.

    >>> minutes_of(symbols=50, rate=10_000, seconds=10, per_bar=10)
    200
    """
    return int(rate * seconds) // (symbols * per_bar)


async def began_at(go: str) -> int:
    """Wait for the file, and give the instant that it names (µs)."""
    return int(await handover.read(Path(go), _GO_SECONDS))


async def run(beat: Beat) -> None:
    """Run the engine on a beat; what it did lies in the file `<go>.done` then."""
    settings = Settings.load()
    broadcaster = _Counting(registry.broadcaster(settings))
    timeframes = [Timeframe.parse(each) for each in beat.timeframes]
    standing = Standing(beat.symbols, timeframes, standing_catalogue().features[: beat.features])
    feed = Metronome(beat)
    engine = Engine(settings, feed, broadcaster, standing)
    sealing = engine.journal.sealer = SealingProcess(settings.lake_dir)
    running = asyncio.create_task(engine.run())
    ready = asyncio.create_task(engine.ready.wait())
    await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    began = await began_at(beat.go)
    cpu = time.process_time()
    saying = asyncio.create_task(feed.finished.wait())
    await asyncio.wait([running, saying], return_when=asyncio.FIRST_COMPLETED)
    cpu = time.process_time() - cpu  # the last round of merges is not of the stream
    await running
    done = {
        "messages": beat.minutes * len(beat.symbols) * beat.per_bar,
        "seconds": (broadcaster.last - began) / 1e6,
        "packets": broadcaster.posts,
        "bytes": broadcaster.bytes,
        "cpu_seconds": cpu,
    }
    await broadcaster.close()
    sealing.close()
    handover.write(Path(f"{beat.go}.done"), msgspec.json.encode(done))


class _Counting:
    """A broadcaster that counts what goes through it."""

    def __init__(self, inner: Broadcaster) -> None:
        self._inner = inner
        self.posts = self.bytes = self.last = 0

    async def send(self, posts: Sequence[Post]) -> None:
        await self._inner.send(posts)
        self.posts += len(posts)
        self.bytes += sum(len(each.body) for each in posts)
        self.last = time.time_ns() // 1000

    async def facts(self, topics: Sequence[str]) -> dict[str, dict[str, bytes]]:
        return await self._inner.facts(topics)

    async def wishes(self) -> dict[str, bytes]:
        return await self._inner.wishes()

    async def close(self) -> None:
        await self._inner.close()


if __name__ == "__main__":
    settle()
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Beat)))
