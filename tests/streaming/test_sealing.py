"""The process that merges beside the stream: it does what the feed would, may die at any time, and outlives nobody."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest

from mdplatform.errors import PlatformError, ProcessFailed
from mdplatform.lake import Lake
from mdplatform.lake.lock import locked
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.journal import Journal
from mdplatform.streaming.sealing import SealingProcess

from .test_journal import NOW, bars, told

FEED = """
    import sys
    from pathlib import Path
    from mdplatform.lake import Lake
    from mdplatform.streaming.sealing import SealingProcess

    folder = Path({folder!r})
    sealing = SealingProcess(folder)
    list(sealing(["BTCUSDT"]))
    print(sealing.pid, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def sealing(tmp_path: Path) -> Iterator[SealingProcess]:
    process = SealingProcess(tmp_path)
    yield process
    process.close()


def noted(lake: Lake, sealing: SealingProcess, *symbols: str) -> Journal:
    """A journal that has staged three bars of each."""
    noting = Journal(lake, symbols, "venue", lambda: NOW)
    noting.sealer = sealing
    for symbol in symbols:
        for bar in bars(3, symbol):
            noting.add(bar)
    noting.stage()
    return noting


def test_a_child_that_is_killed_in_a_merge_is_replaced_and_the_round_is_whole(
    tmp_path: Path, sealing: SealingProcess
) -> None:
    lake = Lake(tmp_path)
    noting = noted(lake, sealing, "ADAUSDT", "BTCUSDT")
    announced: list[str] = []
    first = threading.Event()

    def announce(symbol: str) -> None:
        announced.append(symbol)
        first.set()

    sealed: list[int] = []
    with locked(tmp_path / "locks" / "bars-BTCUSDT-2025-01.lock"):
        round_ = threading.Thread(target=lambda: sealed.append(noting.seal(announce)))
        round_.start()
        assert first.wait(30)
        assert sealing.pid is not None
        killed = sealing.pid
        os.kill(killed, signal.SIGKILL)
    round_.join(30)
    assert sealed == [2]
    assert announced == ["ADAUSDT", "BTCUSDT"]
    assert sealing.pid not in (None, killed)
    assert lake.inbox.symbols() == []
    assert noting.sealed("BTCUSDT") == bars(3)[-1].close_time
    assert lake.bars.read("BTCUSDT", Timeframe.M1).height == 3


def test_what_goes_wrong_in_the_child_is_said_here_and_other_symbols_go_on(
    tmp_path: Path, sealing: SealingProcess
) -> None:
    lake = Lake(tmp_path)
    broken = lake.bars.path("ADAUSDT", "2025-01")
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a partition")
    noting = noted(lake, sealing, "ADAUSDT", "BTCUSDT")
    with pytest.raises(PlatformError, match="Move it away"):
        noting.seal(told)
    assert (noting.sealed("ADAUSDT"), noting.sealed("BTCUSDT")) == (0, bars(3)[-1].close_time)
    assert lake.inbox.symbols() == ["ADAUSDT"]
    broken.unlink()
    (segment,) = (tmp_path / "inbox" / "_live").glob("*.log")
    assert noting.seal(told) == 1
    segment.write_bytes(b"not a log")
    with pytest.raises(PlatformError, match="set aside"):
        noting.seal(told)
    sealing.close()
    with pytest.raises(ProcessFailed):
        list(sealing(["BTCUSDT"]))


def test_a_child_ends_with_a_feed_that_is_killed(tmp_path: Path, python: Callable[[str], Popen[str]]) -> None:
    feed = python(FEED.format(folder=str(tmp_path)))
    assert feed.stdout is not None
    child = os.pidfd_open(int(feed.stdout.readline()))
    try:
        feed.kill()
        ended, _, _ = select.select([child], [], [], 30)
        assert ended
    finally:
        os.close(child)


def test_a_round_that_nobody_hears_to_its_end_does_not_answer_the_next_one(
    tmp_path: Path, sealing: SealingProcess
) -> None:
    noted(Lake(tmp_path), sealing, "BTCUSDT")._log.rotate()
    held = locked(tmp_path / "locks" / "bars-BTCUSDT-2025-01.lock")
    with held, closing(sealing(["ADAUSDT", "BTCUSDT"])) as answers:
        assert next(answers).symbol == "ADAUSDT"
    assert [sealed.symbol for sealed in sealing(["ETHUSDT"])] == ["ETHUSDT", "BTCUSDT"]
