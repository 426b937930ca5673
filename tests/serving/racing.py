"""The processes of the near cache's race: writers that log what they wrote when, readers that log what they got when.

    python -m tests.serving.racing writer HOME LOG SEED       writes until its input ends
    python -m tests.serving.racing reader HOME LOG SEED       reads until its input ends, then looks at all that is near

A log has rows of `time, key, number`: of a writer when a write of the number was known to be done, of a reader when it
asked and which number it got. Numbers only grow (`INCR`), and the clock is one for all processes (`CLOCK_MONOTONIC`).
"""

from __future__ import annotations

import random
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import redis

from mdplatform.serving.near import Near
from mdplatform.settings import Settings
from mdplatform.valkey.connection import connect
from tests.serving.tracked import held

KEYS = [f"mdp:{{S{number}USDT}}:bars" for number in range(4000)]
AT_ONCE = 40
MANY = 200
LATE_SECONDS = 0.001
SWEEPS = 2
Row = tuple[float, int, int]


def goes_on() -> bool:
    """Tell whether whoever started this still wants it to."""
    return not select.select([sys.stdin], [], [], 0)[0]


def draw(chosen: random.Random) -> int:
    """Give a key's number: half of them from a hundred that are popular."""
    return chosen.randrange(100 if chosen.random() < 0.5 else len(KEYS))


def write(client: redis.Redis, chosen: random.Random) -> list[Row]:
    """Write, some keys at a time and now and then many; at last each key, so that each last write has its readers."""
    log: list[Row] = []
    while goes_on():
        log += write_some(client, [draw(chosen) for _ in range(MANY if chosen.random() < 0.02 else 5)])
    for _ in range(SWEEPS):
        for start in range(0, len(KEYS), AT_ONCE):
            log += write_some(client, range(start, start + AT_ONCE))
    return log


def write_some(client: redis.Redis, places: Sequence[int]) -> list[Row]:
    """Write these keys at once."""
    with client.pipeline(transaction=False) as pipe:
        for place in places:
            pipe.incr(KEYS[place])
        numbers = pipe.execute()
    known = time.monotonic()
    return [(known, place, number) for place, number in zip(places, numbers, strict=True)]


def read(near: Near, client: redis.Redis, chosen: random.Random) -> list[Row]:
    """Read, from near what is there and the rest from Redis, many at once."""
    log: list[Row] = []
    while goes_on():
        missed = []
        for place in {draw(chosen) for _ in range(AT_ONCE)}:
            asked = time.monotonic()
            held = near.get([KEYS[place]])
            if held is None:
                missed.append(place)
            else:
                log.append((asked, place, int(held[0] or 0)))
        keys = [KEYS[place] for place in missed]
        with near.filling(keys) as kept:
            kept.update(zip(keys, client.mget(keys), strict=True))  # type: ignore[arg-type]
            time.sleep(chosen.random() * LATE_SECONDS)  # as an answer lies unread while a loop is busy
    return log


def look(near: Near, client: redis.Redis) -> list[Row]:
    """Give all that is near, once it is proven that all has been heard of."""
    held(near, client, KEYS[0])
    log: list[Row] = []
    for place, key in enumerate(KEYS):
        found = near.get([key])
        if found is not None:
            log.append((time.monotonic(), place, int(found[0] or 0)))
    return log


def say(word: str) -> None:
    """Tell whoever started this how far it is."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(role: str, home: str, log: str, seed: str) -> None:
    """Play one role."""
    settings, chosen = Settings(home=Path(home)), random.Random(int(seed))
    with connect(settings) as client:
        near = Near(settings)
        say("ready")
        np.save(f"{log}.npy", np.array(write(client, chosen) if role == "writer" else read(near, client, chosen)))
        if role == "reader":
            sys.stdin.readline()
            say("read")
            sys.stdin.readline()
            np.save(f"{log}-after.npy", np.array(look(near, client)).reshape(-1, 3))
        say("done")
        near.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
