"""The baseline of a fan-out: messages of bare Redis pub/sub, as many and as large, to as many processes.

Nothing is kept, computed or put in step: `python -m mdplatform.bench.bare_fanout JSON` subscribes to all channels and
notes how old each message is. What a frame costs beyond this is the platform's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import msgspec

from mdplatform.bench import handover
from mdplatform.bench.samples import percentile
from mdplatform.processes import platform_program, run_programs
from mdplatform.settings import Settings
from mdplatform.valkey.connection import async_connect

_CHANNEL = "mdp:bench:{bare}:fanout"
_SILENCE_SECONDS = 10.0
_STEP_SECONDS = 0.001


class Bare(msgspec.Struct, frozen=True):
    """How many messages to wait for, and where to put what came."""

    messages: int
    result: str


async def bare_fanout(
    settings: Settings, folder: Path, *, processes: int, rate: float, seconds: float, size: int
) -> dict[str, Any]:
    """Publish `rate` messages of `size` bytes a second to so many processes; give p50 and p99 in milliseconds."""
    messages = max(1, int(rate * seconds))
    results = [folder / f"bare-{number}.msgpack" for number in range(processes)]
    programs = [
        platform_program(
            settings, f"bare-{number}", msgspec.json.encode(Bare(messages, str(path))).decode(),
            module="mdplatform.bench.bare_fanout",
        )
        for number, path in enumerate(results)
    ]  # fmt: skip
    connection = async_connect(settings)
    with run_programs(programs, settings.home / "logs"):
        filling = b"x" * max(0, size - 8)
        sent, began = 0, time.time_ns() // 1000
        while sent < messages:
            due = min(messages, int((time.time_ns() // 1000 - began) * rate / 1e6) + 1)
            async with connection.pipeline(transaction=False) as pipe:
                for number in range(sent, due):
                    pipe.publish(_CHANNEL, (began + round(number * 1e6 / rate)).to_bytes(8, "big") + filling)
                if due > sent:
                    await pipe.execute()
            sent = due
            await asyncio.sleep(_STEP_SECONDS)
        came = [await handover.read(path, 2 * _SILENCE_SECONDS) for path in results]
    taken = sorted(each for raw in came for each in msgspec.msgpack.decode(raw))
    await connection.aclose()
    return {"p50_ms": round(percentile(taken, 0.5) or 0, 3), "p99_ms": round(percentile(taken, 0.99) or 0, 3)}


async def _listen(asked: Bare) -> None:
    connection = async_connect(Settings.load())
    taken = array("d")
    async with connection.pubsub() as channel:
        await channel.subscribe(_CHANNEL)
        await channel.get_message(timeout=_SILENCE_SECONDS)
        sys.stdout.write('{"ready": true}\n')
        sys.stdout.flush()
        while len(taken) < asked.messages:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=_SILENCE_SECONDS)
            if message is None:
                break
            taken.append((time.time_ns() // 1000 - int.from_bytes(message["data"][:8], "big")) / 1000)
    await connection.aclose()
    handover.write(Path(asked.result), msgspec.msgpack.encode(list(taken)))


if __name__ == "__main__":
    asyncio.run(_listen(msgspec.json.decode(sys.argv[1], type=Bare)))
