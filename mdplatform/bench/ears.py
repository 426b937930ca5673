"""The ears: a process of consumers that notes how late each of its frames is (`python -m mdplatform.bench.ears JSON`).

It subscribes, says that it is ready, and listens until it has the last frame of each subscription, or nothing came for
`silence_seconds`. What it found lies in a file then, written whole.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from mdplatform.bench import handover
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
    """What came: frames, those that came twice, those with something missing, latencies in ms, and processor time."""

    delivered: int
    duplicated: int
    incomplete: int
    lost: int
    latencies_ms: list[float]
    cpu_seconds: float
    seconds: float


class _Ear:
    """One subscription's callback: it counts its frames by T."""

    def __init__(self, ears: Ears, shape: int) -> None:
        self._ears = ears
        self._shape = shape
        self.seen: Counter[int] = Counter()

    def hear(self, frame: Frame) -> None:
        ears = self._ears
        if ears.first <= frame.time_us <= ears.last:
            self.seen[frame.time_us] += 1
            ears.note(self._shape, frame)


class Ears:
    """All subscriptions of the process."""

    def __init__(self, asked: Listening) -> None:
        self.asked = asked
        self.first, self.last = asked.first, asked.last
        self.incomplete = 0
        self.ears = [_Ear(self, number % len(asked.shapes)) for number in range(asked.subscriptions)]
        self._noted = array("q")
        self._shapes, self._times = array("l"), array("q")
        self._whole: dict[tuple[int, int], bool] = {}

    def note(self, shape: int, frame: Frame) -> None:
        """Note one delivery."""
        self._noted.append(time.time_ns() // 1000)
        self._shapes.append(shape)
        self._times.append(frame.time_us)
        whole = self._whole.get((shape, frame.time_us))
        if whole is None:
            whole = self._whole[shape, frame.time_us] = frame.is_complete
        self.incomplete += not whole

    def latencies_ms(self, began: int) -> list[float]:
        """Give the age of each delivery: since the message was due by which the frame was complete."""
        asked = self.asked
        due = {
            (shape, at): began + asked.beat.due(asked.beat.closing(at, asked.shapes[shape]))
            for shape, at in self._whole
        }
        heard = zip(self._noted, self._shapes, self._times, strict=True)
        return [(now - due[shape, at]) / 1000 for now, shape, at in heard]

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
            began = await began_at(asked.beat.go)
            cpu, since, count = time.process_time(), time.monotonic(), -1
            while not all(self.last in ear.seen for ear in self.ears):
                if len(self._noted) != count:
                    since, count = time.monotonic(), len(self._noted)
                elif time.monotonic() - since > asked.silence_seconds:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            cpu = time.process_time() - cpu
        return Heard(
            delivered=sum(ear.seen.total() for ear in self.ears),
            duplicated=sum(ear.seen.total() - len(ear.seen) for ear in self.ears),
            incomplete=self.incomplete,
            lost=sum(asked.beat.minutes - len(ear.seen) for ear in self.ears),
            latencies_ms=self.latencies_ms(began),
            cpu_seconds=cpu,
            seconds=(self._noted[-1] - began) / 1e6 if self._noted else 0.0,
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
