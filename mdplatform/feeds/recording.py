"""Recordings: raw messages of Binance's websocket, told again as the exchange sent them, read by the live decoder.

What a recording looks like is told in `sources/recording.py`. Messages go through the same `Session` as the live ones;
what it misses is not to be had: a hole is waited over for `PATIENCE` of the venue's time, and then said as `Lost`.
Single trades are given where the recording has some, else aggregated ones. Bars are to be built of its candles, if it
has any, else of its trades.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mdplatform.errors import NoData, ParameterOutOfRange, SourceUnavailable, UnknownFormat
from mdplatform.feeds.pausing import closed_within
from mdplatform.feeds.session import KINDS, Session, check_kinds, check_speed, check_symbols
from mdplatform.market.events import Candle, Clock, Event, Lost
from mdplatform.market.timeframe import Timeframe
from mdplatform.settings import Settings
from mdplatform.sources.recording import recorded_bytes

PATIENCE = 2_000_000
"""How long (µs, venue's time) a hole is waited over: what comes late may be behind it."""
_NOT_RECORDED = "the recording does not have them"
_LOOKED_EACH = 64
_AT_ONCE = 512
_SYMBOL = re.compile(rb'"s"\s*:\s*"([^"]+)"')

_log = logging.getLogger(__name__)


class RecordingFeed:
    """The recording at `path`, `speed` times as fast as it was received; with 0 as fast as it is taken.

    Without `symbols` all of the recording's are told. Raises errors of `SourceError`, `NoData`, `ParameterOutOfRange`.
    """

    name = "recording"

    def __init__(
        self,
        path: str | Path,
        symbols: Sequence[str] = (),
        *,
        streams: Sequence[str] = KINDS,
        speed: float = 0.0,
        max_bytes: int = 2_048_000_000,
    ) -> None:
        check_speed(speed)
        kinds = check_kinds(streams)
        of = Path(path).expanduser()
        if of.is_dir():
            raise SourceUnavailable(f"{path} is a folder", remedy="A recording is one file: name it recording:PATH")
        data, _ = recorded_bytes(of, max_bytes)
        self._lines = data.split(b"\n")
        found = sorted({each.decode(errors="replace").upper() for each in _SYMBOL.findall(data)})
        if not found:
            raise UnknownFormat(
                f"{path} is no recording: none of its lines is a message of a symbol",
                remedy='Its lines are such as: 1723161253937085 {"data": {"e": "trade", "s": "BTCUSDT", …}}',
            )
        self.symbols = check_symbols(symbols or found)
        if missing := [each for each in self.symbols if each not in found]:
            raise NoData(f"{path} has no messages of {missing[0]}", value=found[:20])
        self._only = found[0] if len(found) == 1 else ""
        self._speed = speed
        self._is_closed = asyncio.Event()
        self.bars_from: Literal["candles", "trades"] = (
            "candles" if "candles" in kinds and re.search(rb'"e"\s*:\s*"kline"', data) else "trades"
        )
        self._session = Session(self.symbols, kinds, single=re.search(rb'"e"\s*:\s*"trade"', data) is not None)
        if "book" in kinds:  # a snapshot does not say its symbol
            snapshots = self._only != "" and b'"lastUpdateId"' in data
            self._session.expect_books(_with_book(self._lines), has_snapshots=snapshots)
        self._blocked: dict[tuple[str, str], int] = {}
        self._looked_at = 0

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        symbols: Sequence[str],
        *,
        path: str | None = None,
        streams: Sequence[str] = KINDS,
        speed: float = 0.0,
    ) -> RecordingFeed:
        """Make the feed of a recording that is named as `recording:PATH`."""
        if not path:
            raise ParameterOutOfRange("A recording needs its file", value="recording", remedy="Name it recording:PATH")
        return cls(path, symbols, streams=streams, speed=speed, max_bytes=settings.max_file_bytes)

    @property
    def counts(self) -> Mapping[str, int]:
        """`messages`, `unreadable`, `other`, `repeated`, `skipped`, `dropped`."""
        return self._session.tallies()

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        """Give the recorded events, those before `since` left out; the feed ends with the recording."""
        self._tell_old(since)
        clock = asyncio.get_running_loop().time
        began, first = clock(), None
        waiting = 0
        for line in self._lines:
            received_at = self._take(line)
            if received_at is None:
                continue
            waiting += 1
            first = received_at if first is None else first
            ahead = 0.0 if not self._speed else (received_at - first) / 1e6 / self._speed - (clock() - began)
            if waiting < _AT_ONCE and ahead <= 0.01:
                continue
            waiting = 0
            yield self._given(since)
            if await closed_within(self._is_closed, ahead):
                return
        self._give_all_up()
        yield self._given(since)

    async def close(self) -> None:
        """End before the recording does."""
        self._is_closed.set()

    def _take(self, line: bytes) -> int | None:
        """Take a line in; give when it was received (µs), None where that cannot be told."""
        told, _, raw = line.strip().partition(b" ")
        if not told:
            return None
        try:
            received_at = _microseconds(int(told))
        except ValueError:
            self._session.counts["unreadable"] += 1
            return None
        self._session.take(raw, received_at, self._only)
        is_time = self._session.now >= self._looked_at + PATIENCE
        if is_time or self._session.counts["messages"] % _LOOKED_EACH == 0:
            self._look()
        return received_at

    def _look(self) -> None:
        """Give up what has been missing for longer than `PATIENCE`: what lies in a hole, and candles that are due."""
        missing = {}
        for sequence in self._session.sequences:
            if self._session.is_wanted(sequence):
                key = (sequence.kind, sequence.symbol)
                missing[key] = at = self._blocked.get(key, self._session.now)
                if self._session.now - at >= PATIENCE:
                    sequence.give_up(_NOT_RECORDED, self._session.events)
                    del missing[key]
        self._blocked, self._looked_at = missing, self._session.now
        self._session.hear(0)

    def _give_all_up(self) -> None:
        """Note that nothing more comes: the clock goes on to the recording's end."""
        for sequence in self._session.sequences:
            sequence.give_up(_NOT_RECORDED, self._session.events)
        self._session.hear(0)

    def _given(self, since: Mapping[str, int]) -> list[Event]:
        events = self._session.drain()
        return [event for event in events if _is_after(event, since)] if since else events

    def _tell_old(self, since: Mapping[str, int]) -> None:
        """Say of which symbols the recording has nothing that is not known: it gives no bars of them."""
        ended = next((at for at in map(_received, reversed(self._lines)) if at is not None and at > 0), None)
        for symbol in self.symbols:
            if ended is not None and since.get(symbol, 0) > ended:
                _log.warning(
                    "nothing of %s in this recording is new, and it gives no bars: it ends at %s, and what is known "
                    "goes up to %s; take it in with `mdplatform ingest`, or follow it for a home of its own",
                    symbol, _written(ended), _written(since[symbol]),
                )  # fmt: skip


def _is_after(event: Event, since: Mapping[str, int]) -> bool:
    if isinstance(event, Clock | Lost):
        return True
    begin = since.get(event.symbol, 0)
    return event.open_time >= Timeframe.M1.floor(begin) if isinstance(event, Candle) else event.time >= begin


def _received(line: bytes) -> int | None:
    """Give when a line was received (µs), None where that cannot be told."""
    try:
        return _microseconds(int(line.split(maxsplit=1)[0]))
    except (ValueError, IndexError):
        return None


def _written(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds")


def _with_book(lines: Sequence[bytes]) -> set[str]:
    """Give the symbols of which there are changes of a book."""
    found = (_SYMBOL.search(line) for line in lines if b'"depthUpdate"' in line)
    return {each[1].decode(errors="replace").upper() for each in found if each is not None}


def _microseconds(told: int) -> int:
    """Give an instant in s, ms, µs or ns as µs.

    >>> {_microseconds(1_723_161_253_937_085 * 1000 // unit) for unit in (1, 1000)}
    {1723161253937085}
    """
    if told < 10**11:
        return told * 1_000_000
    if told < 10**14:
        return told * 1_000
    return told if told < 10**17 else told // 1_000
