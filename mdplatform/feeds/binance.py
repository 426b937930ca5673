"""Binance's spot market while it is open: websocket streams, and REST for what they missed.

1. The symbols are checked before anything else: their shape, then that the venue has them (if its API answers).
2. The streams are spread over connections (`binance_lines`), at most 1,024 on each; a symbol's are on one. What they
   bring goes into one `Session`, which puts it in order.
3. What was said since `since`, and while a connection was down, is asked of REST (`binance_filler`) once the streams
   are live; what they bring meanwhile is held, so that there is neither a hole nor a repetition at the seam.
4. At most about `most_waiting` events wait for whoever takes them: then nothing more is read, and what the venue does
   not say again is fetched afterwards.

By default a feed follows `candles` (of 1m, closed and forming) and `trades` (aggregated). **Bars are to be built of
what `bars_from` says**: of candles where the feed follows them, and then of candles alone; its trades are for order
flow. The `book` (diffs each 100 ms, behind a snapshot) is followed if asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from mdplatform.errors import InvalidSetting, ParameterOutOfRange
from mdplatform.feeds.backoff import Pace
from mdplatform.feeds.binance_filler import Filler
from mdplatform.feeds.binance_lines import MOST_STREAMS, Line, Manner
from mdplatform.feeds.binance_messages import Farewell, Reply
from mdplatform.feeds.binance_rest import BinanceRest, NotToBeHad
from mdplatform.feeds.session import DEFAULT_KINDS, Session, check_kinds, check_symbols
from mdplatform.market.events import Event
from mdplatform.market.timeframe import DAY_US, MINUTE_US
from mdplatform.settings import Settings

_STREAMS = {"candles": "kline_1m", "trades": "aggTrade", "book": "depth@100ms"}
_COUNTED = ("filled", "given_up", "connects", "reconnects", "renewals", "refused")
_CONNECTS, _CONNECTS_SECONDS = 250, 300.0  # the venue allows 300
_QUIET_CANDLES, _QUIET_MARKET = 60.0, 600.0
"""How long streams are silent at most where nothing is traded: each minute's close is told; of trades none is."""

_log = logging.getLogger(__name__)


class BinanceFeed:
    """Events of `symbols`; `streams` are what is followed: `candles`, `trades`, `book`.

    Seconds: after `silence` of a connection a new one is made (later where its market was quiet lately, and it answers
    to pings), and before one is `renew` old; `fill` is how long what was missed is waited for when the API does not
    answer. Trades are fetched back for `trades_back`, candles for `candles_back` at most. Raises `InvalidSymbol`,
    `InvalidSetting` and `ParameterOutOfRange`.
    """

    name = "binance"

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        stream_url: str,
        api_url: str,
        streams: Sequence[str] = DEFAULT_KINDS,
        silence_seconds: float = 10.0,
        renew_seconds: float = 23 * 3600.0,
        overlap_seconds: float = 2.0,
        wait_seconds: float = 30.0,
        fill_seconds: float = 30.0,
        trades_back_seconds: float = 3600.0,
        candles_back_days: float = 7.0,
        most_waiting: int = 100_000,
    ) -> None:
        _check_url("binance_stream_url", stream_url, ("ws://", "wss://"))
        _check_url("binance_api_url", api_url, ("http://", "https://"))
        bounds = (silence_seconds, renew_seconds, wait_seconds, fill_seconds, most_waiting)
        if not all(each > 0 for each in bounds):
            raise ParameterOutOfRange("A feed's seconds and bounds must be above 0")
        self.symbols, self.streams = check_symbols(symbols), check_kinds(streams)
        self.bars_from: Literal["candles", "trades"] = "candles" if "candles" in self.streams else "trades"
        self._stream_url, self._api_url = stream_url, api_url
        quiet = _QUIET_CANDLES if "candles" in self.streams else _QUIET_MARKET
        self._manner = Manner(
            silence_seconds, quiet + silence_seconds, renew_seconds, overlap_seconds, wait_seconds
        )  # fmt: skip
        self._fill_seconds, self._most_waiting = fill_seconds, most_waiting
        self._back = {
            "trades": int(trades_back_seconds * 1e6),
            "candles": max(int(candles_back_days * DAY_US), MINUTE_US),
        }
        self._counts: Counter[str] = Counter()
        self._session = Session(self.symbols, self.streams)
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._is_closed = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def from_settings(
        cls, settings: Settings, symbols: Sequence[str], *, streams: Sequence[str] = DEFAULT_KINDS
    ) -> BinanceFeed:
        """Make the feed of the settings."""
        return cls(
            symbols,
            stream_url=settings.binance_stream_url,
            api_url=settings.binance_api_url,
            streams=streams,
            silence_seconds=settings.feed_silence_seconds,
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """`messages`, `unreadable`, `other`, `repeated`, `skipped`, `dropped`, `filled`, `given_up`, `connects`,
        `reconnects`, `renewals`, `refused`."""
        return {**self._session.tallies(), **{name: self._counts[name] for name in _COUNTED}}

    async def events(self, since: Mapping[str, int]) -> AsyncIterator[Sequence[Event]]:
        """Give the events as in `Feed.events`; a symbol of which `since` says nothing begins with what comes."""
        rest = BinanceRest(self._api_url)
        try:
            beginning = asyncio.create_task(self._begin(rest, since))
            self._tasks.append(beginning)
            beginning.add_done_callback(lambda _: self._news.set())
            while not self._is_closed:
                await self._news.wait()
                self._news.clear()
                if self._is_closed:
                    return
                for task in self._tasks:
                    if task.done():
                        task.result()
                batch = self._session.drain()
                self._room.set()
                if batch:
                    yield batch
        finally:
            await self._end()
            await rest.close()

    async def close(self) -> None:
        """Let go of the venue at once, of what is being asked of it too; `events` ends."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        self._news.set()

    async def _begin(self, rest: BinanceRest, since: Mapping[str, int]) -> None:
        try:
            await rest.check_symbols(self.symbols)
        except NotToBeHad as failed:
            _log.warning("the venue's API does not answer yet: %s", failed)
        self._session = session = Session(self.symbols, self.streams, since)
        filler = Filler(
            session, rest, seconds=self._fill_seconds, back=self._back, counts=self._counts, room=self._wait_for_room,
            told=self._news.set,
        )  # fmt: skip
        connects = Pace(_CONNECTS, _CONNECTS_SECONDS)
        each = MOST_STREAMS // len(self.streams)
        lines = [self._line(session, self.symbols[i : i + each], connects) for i in range(0, len(self.symbols), each)]
        for work in (*(line.keep() for line in lines), filler.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(lambda _: self._news.set())
            self._tasks.append(task)

    def _line(self, session: Session, symbols: Sequence[str], connects: Pace) -> Line:
        streams = [f"{symbol.lower()}@{_STREAMS[kind]}" for symbol in symbols for kind in self.streams]
        mine = set(symbols)

        def heard(raw: bytes) -> Reply | Farewell | None:
            reply = session.take(raw, time.time_ns() // 1000)
            self._news.set()
            return reply

        def cut() -> None:
            for sequence in session.sequences:
                if sequence.symbol in mine:
                    sequence.cut()

        return Line(
            self._stream_url, streams, self._manner, connects, self._counts, heard=heard, room=self._wait_for_room,
            cut=cut,
        )  # fmt: skip

    def _wait_for_room(self) -> Awaitable[None] | None:
        """Give what to wait for, where too many events wait already."""
        return None if len(self._session.events) < self._most_waiting else self._until_room()

    async def _until_room(self) -> None:
        while len(self._session.events) >= self._most_waiting:
            self._room.clear()
            await self._room.wait()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()


def _check_url(name: str, url: str, beginnings: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        is_good = url.startswith(beginnings) and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        is_good = False
    if not is_good:
        raise InvalidSetting(
            f"MDPLATFORM_{name.upper()} is refused", value=url, remedy=f"It begins with {' or '.join(beginnings)}"
        )
