"""The ears: a process of consumers that notes how late each of its frames is (`python -m mdplatform.bench.ears JSON`).

It subscribes, says that it is ready, and listens until it has the last frame of each subscription, or nothing came for
`silence_seconds`. What it found lies in a file then, written whole. What it keeps does not grow with the frames: they
come in order of T, so that a frame whose T is not above that of the one before came twice.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from mdplatform.bench import handover
from mdplatform.bench.latencies import Counts, Latencies
from mdplatform.bench.metronome import Beat, began_at
from mdplatform.market.timeframe import MINUTE_US
from mdplatform.settings import Settings
from mdplatform.strategy import EnhancedMarketDataConsumer
from mdplatform.streaming.frame import Frame

_POLL_SECONDS = 0.05


class Listening(msgspec.Struct, frozen=True):
    """What to listen to: the groups of symbols that `beat` says, in these timeframes, by so many subscriptions."""

    beat: Beat
    shapes: tuple[tuple[str, ...], ...]
    timeframes: tuple[str, ...]
    subscriptions: int
    result: str
    stretch_seconds: float
    silence_seconds: float = 20.0

    @property
    def first(self) -> int:
        """T of the first frame (µs)."""
        return self.beat.start + MINUTE_US

    @property
    def last(self) -> int:
        """T of the last frame (µs)."""
        return self.beat.start + self.beat.minutes * MINUTE_US


class Heard(msgspec.Struct, frozen=True):
    """What came: frames, those that came twice, those with something missing, latencies by stretch, processor time."""

    delivered: int
    duplicated: int
    incomplete: int
    lost: int
    latencies: list[Counts]
    cpu_seconds: float
    seconds: float


class _Ear:
    """One subscription's callback: it counts its frames."""

    def __init__(self, ears: Ears, shape: int) -> None:
        self._ears = ears
        self._shape = shape
        self.last = self.delivered = self.duplicated = 0

    def hear(self, frame: Frame) -> None:
        time_us = frame.time_us
        if self._ears.first <= time_us <= self._ears.last:
            self.delivered += 1
            if time_us > self.last:
                self.last = time_us
            else:
                self.duplicated += 1
            self._ears.note(self._shape, frame)


class Ears:
    """All subscriptions of the process."""

    def __init__(self, asked: Listening) -> None:
        self.asked = asked
        self.first, self.last = asked.first, asked.last
        self.incomplete = self.delivered = 0
        self.ears = [_Ear(self, number % len(asked.shapes)) for number in range(asked.subscriptions)]
        self.began = self.ended = 0
        self._latencies = Latencies(asked.stretch_seconds)
        self._heard: dict[int, tuple[Frame, int, bool]] = {}

    def note(self, shape: int, frame: Frame) -> None:
        """Note one delivery: its age since the message was due by which the frame was complete."""
        self.ended = time.time_ns() // 1000
        heard = self._heard.get(shape)
        if heard is None or heard[0] is not frame:
            closing = self.asked.beat.closing(frame.time_us, self.asked.shapes[shape])
            heard = self._heard[shape] = frame, self.began + self.asked.beat.due(closing), frame.is_complete
        self._latencies.note(self.ended - heard[1], self.ended - self.began)
        self.delivered += 1
        self.incomplete += not heard[2]

    async def listen(self, ready: Callable[[], None]) -> Heard:
        """Subscribe, wait for the end, and say what came."""
        asked = self.asked
        async with EnhancedMarketDataConsumer(Settings.load()) as consumer:
            for number, ear in enumerate(self.ears):
                await consumer.subscribe_to_market_data(
                    strategy_id=f"bench_{number:04d}",
                    symbols=list(asked.shapes[number % len(asked.shapes)]),
                    data_types=["price", "volume", "indicators"],
                    timeframes=list(asked.timeframes),
                    callback=ear.hear,
                    policy="block",  # what is slow is to show as late, not as dropped
                )
            ready()
            self.began = await began_at(asked.beat.go)
            cpu, since, count = time.process_time(), time.monotonic(), -1
            while any(ear.last < self.last for ear in self.ears):
                if self.delivered != count:
                    since, count = time.monotonic(), self.delivered
                elif time.monotonic() - since > asked.silence_seconds:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            cpu = time.process_time() - cpu
        duplicated = sum(ear.duplicated for ear in self.ears)
        return Heard(
            delivered=self.delivered,
            duplicated=duplicated,
            incomplete=self.incomplete,
            lost=asked.beat.minutes * len(self.ears) - (self.delivered - duplicated),
            latencies=self._latencies.count(),
            cpu_seconds=cpu,
            seconds=max(0, self.ended - self.began) / 1e6,
        )


def main() -> None:
    """Listen as the first argument says."""
    asked = msgspec.json.decode(sys.argv[1], type=Listening)

    def ready() -> None:
        sys.stdout.write('{"ready": true}\n')
        sys.stdout.flush()

    heard = asyncio.run(Ears(asked).listen(ready))
    handover.write(Path(asked.result), msgspec.msgpack.encode(heard))


if __name__ == "__main__":
    main()
