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


class _Group:
    """The subscriptions of one shape: what is the same for all deliveries of a frame is worked out at the first."""

    __slots__ = ("_ears", "_symbols", "delivered", "due", "ended", "frame", "incomplete", "is_asked", "is_complete")

    def __init__(self, ears: Ears, symbols: tuple[str, ...]) -> None:
        self.frame: Frame | None = None
        self.due = self.ended = self.delivered = self.incomplete = 0
        self.is_asked = self.is_complete = False
        self._ears = ears
        self._symbols = symbols

    def turn_to(self, frame: Frame) -> None:
        """Go on with another frame; `due` is when the message was due by which it was complete (µs)."""
        asked = self._ears.asked
        self.frame = frame
        self.is_asked = asked.first <= frame.time_us <= asked.last
        if self.is_asked:
            self.due = self._ears.began + asked.beat.due(asked.beat.closing(frame.time_us, self._symbols))
            self.is_complete = frame.is_complete


class _Ear:
    """One subscription's callback; it is part of what is measured, so it does little."""

    __slots__ = ("_ears", "_group", "duplicated", "last")

    def __init__(self, ears: Ears, group: _Group) -> None:
        self._ears = ears
        self._group = group
        self.last = self.duplicated = 0

    def hear(self, frame: Frame) -> None:
        """Note how late a frame is, and whether it came twice."""
        now, group = time.time_ns() // 1000, self._group
        if frame is not group.frame:
            group.turn_to(frame)
        if not group.is_asked:
            return
        time_us = frame.time_us
        if time_us > self.last:
            self.last = time_us
        else:
            self.duplicated += 1
        group.delivered += 1
        group.ended = now
        if not group.is_complete:
            group.incomplete += 1
        self._ears.latencies.note(now - group.due, now - self._ears.began)


class Ears:
    """All subscriptions of the process."""

    def __init__(self, asked: Listening) -> None:
        self.asked = asked
        self.began = 0
        self.latencies = Latencies(asked.stretch_seconds)
        groups = self.groups = [_Group(self, symbols) for symbols in asked.shapes]
        self.ears = [_Ear(self, groups[number % len(groups)]) for number in range(asked.subscriptions)]

    @property
    def delivered(self) -> int:
        """How many frames came, of those that are listened to."""
        return sum(group.delivered for group in self.groups)

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
            while any(ear.last < asked.last for ear in self.ears):
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
            incomplete=sum(group.incomplete for group in self.groups),
            lost=asked.beat.minutes * len(self.ears) - (self.delivered - duplicated),
            latencies=self.latencies.count(),
            cpu_seconds=cpu,
            seconds=max(0, max(group.ended for group in self.groups) - self.began) / 1e6,
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
