"""The baseline: a message of bare Redis streams to another process and back, with nothing asked and nothing computed.

The other process (`python -m mdplatform.bench.baseline`) reads by a consumer group, answers to a stream of the asker's,
and acknowledges, in one round trip. What a request costs beyond this is the platform's.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, cast

from mdplatform.bench.samples import percentile
from mdplatform.processes import platform_program, run_programs
from mdplatform.settings import Settings
from mdplatform.valkey.connection import async_connect, connect

_ASKED, _ANSWERED, _GROUP = "mdp:bench:{bare}:asked", "mdp:bench:{bare}:answered", "echoes"
_PAYLOAD = b"x" * 300
_LIFE_SECONDS = 300
_BLOCK_MS = 200


async def ping_pong(settings: Settings, turns: int = 300) -> dict[str, Any]:
    """Send a message and wait for its echo, so many times one after the other; give p50 and p99 in milliseconds."""
    program = platform_program(settings, "echo", module="mdplatform.bench.baseline")
    connection = async_connect(settings)
    try:
        with run_programs([program], settings.home / "logs"):
            taken, last = [], "0"
            for turn in range(turns + 20):
                began = time.perf_counter()
                await connection.xadd(_ASKED, {"body": _PAYLOAD})
                found: list[Any] = []
                while not found:
                    found = cast(list[Any], await connection.xread({_ANSWERED: last}, block=_BLOCK_MS))
                entries = found[0][1] if isinstance(found, list) else next(iter(found.values()))[0]
                last = entries[-1][0]
                if turn >= 20:  # the first ones find cold caches
                    taken.append((time.perf_counter() - began) * 1000)
        await connection.delete(_ASKED, _ANSWERED)
    finally:
        await connection.aclose()
    taken.sort()
    return {"p50_ms": round(percentile(taken, 0.5) or 0, 3), "p99_ms": round(percentile(taken, 0.99) or 0, 3)}


def echo(settings: Settings) -> None:
    """Answer messages until the process is ended, or nothing came for five minutes."""
    with connect(settings) as connection:
        connection.delete(_ASKED, _ANSWERED)
        connection.xgroup_create(_ASKED, _GROUP, id="0", mkstream=True)
        sys.stdout.write(json.dumps({"ready": True}) + "\n")
        sys.stdout.flush()
        last = time.monotonic()
        while time.monotonic() - last < _LIFE_SECONDS:
            found = cast(Any, connection.xreadgroup(_GROUP, "echo", {_ASKED: ">"}, block=_BLOCK_MS))
            for each in found.values() if isinstance(found, dict) else [[entries] for _, entries in found or []]:
                with connection.pipeline(transaction=False) as pipeline:
                    for place, fields in each[0]:
                        pipeline.xadd(_ANSWERED, fields, maxlen=1000)
                        pipeline.xack(_ASKED, _GROUP, place)
                    pipeline.execute()
                last = time.monotonic()


if __name__ == "__main__":
    echo(Settings.load())
