"""The engine of a feed process: from what a venue says to what consumers hear and the lake holds.

1. It takes up each symbol where lake and consumers were left (`beginning`), and asks the feed for what came since.
2. Events become closed bars (`bars`); those of 1m are noted in the `journal`.
3. Each symbol's `track` makes cells of them, with the features that are `standing` or wished for, and posts, which go
   through `outgoing` to the broadcaster, many at once.
4. Beside that, about once a second, the journal is staged (`upkeep`) and wishes are read (`opening`), and every
   `seal_seconds` what was staged is merged into the lake; in threads, as is the opening of features.

The feed is the clock of all this: the engine takes as much as it gives and waits for nothing but a full `outgoing`, or
a symbol of which too many bars wait for features.
What goes wrong with Redis or the lake is logged once, and once more when it is over; the stream goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from mdplatform.errors import PlatformError, TransportUnavailable
from mdplatform.feeds.protocol import Feed
from mdplatform.lake import Lake
from mdplatform.market.events import Candle, Event, Trade
from mdplatform.market.timeframe import Timeframe
from mdplatform.messaging.broadcast import Broadcaster
from mdplatform.settings import Settings
from mdplatform.streaming.bars import KEPT_US, LiveBars
from mdplatform.streaming.beginning import begin
from mdplatform.streaming.cells import Cell
from mdplatform.streaming.journal import Journal
from mdplatform.streaming.live_bar import LiveBar
from mdplatform.streaming.opening import correct, fulfil, refused
from mdplatform.streaming.outgoing import Outgoing
from mdplatform.streaming.standing import Standing
from mdplatform.streaming.track import Track
from mdplatform.streaming.troubles import Troubles
from mdplatform.streaming.upkeep import Upkeep

log = logging.getLogger("mdplatform.feed")

STAGE_SECONDS = 0.5
"""How often the journal is staged."""
WISH_SECONDS = 1.0
"""How often the wishes of consumers are read."""
FORMING_SECONDS = 0.25
"""How often at most the forming bars of a symbol are sent."""
FINISH_SECONDS = 10.0
"""How long, at the end, corrections may take to be worked out and posts to be sent."""
TURN_SECONDS = 0.003
"""How long bars of many symbols are told before what is ready is sent: shorter turns cost more than they save."""
OPENING_SECONDS = 60.0
"""How long features may take to be opened behind a correction; then bars go on without them."""
MOST_HELD = 5_000
"""Bars of one symbol that wait for features to be opened, above which the feed waits too."""
_EVENTS_AT_ONCE = 2_000
_NOT_OPENED = "What is wished for cannot be opened"
_NOT_CORRECTED = "Features cannot be opened after a correction"


def now_us() -> int:
    """Give this machine's clock, microseconds."""
    return time.time_ns() // 1000


class Engine:
    """Runs one feed. `announce` says of a symbol that the lake has new bars, and raises `RedisUnavailable`.

    `start` (µs) is from where on symbols are asked for of which nothing is known. How far back a feed looks is its own
    bound.
    """

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        broadcaster: Broadcaster,
        standing: Standing,
        *,
        announce: Callable[[str], object] = lambda _: None,
        start: int | None = None,
    ) -> None:
        self.lake = Lake(settings.lake_dir)
        self.standing = standing
        self.journal = Journal(self.lake, standing.symbols, feed.name)
        self.outgoing = Outgoing(broadcaster, self.journal.is_safe, self._on_trouble)
        self.tracks: dict[str, Track] = {}
        self.ready = asyncio.Event()
        self.closed = 0
        """How many bars of 1m have closed."""
        self.latest = 0
        """The newest close of a bar, by the venue's clock (µs)."""
        self.lag = 0
        """How long after that close (µs, this machine's clock) the message came that closed it."""
        self._seal_seconds = settings.seal_seconds
        self._feed = feed
        self._broadcaster = broadcaster
        self._start = start
        self._name = f"{platform.node()}-{os.getpid()}-{now_us():x}"
        self._bars = LiveBars(
            standing.symbols, list(Timeframe), source=feed.name, grace_us=round(settings.close_grace_seconds * 1e6)
        )
        self._received = 0
        self._other = Candle if feed.bars_from == "trades" else Trade
        self._is_telling = self._is_crowded = self._is_stopped = False
        self._is_fulfilled = True
        self._openings: set[asyncio.Task[None]] = set()
        self._troubles = Troubles()
        self._upkeep = Upkeep(self.lake, self.journal, announce, self._troubles)
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Follow the feed until it ends, is stopped or this is cancelled; what was taken is in the lake then.

        Raises what the feed raises, and `TransportUnavailable` where nobody says what consumers were told.
        """
        since = await self._begin()
        if self._is_stopped:
            return
        try:
            async with self._group as group:
                beside = [
                    group.create_task(self.outgoing.run()),
                    group.create_task(self._troubles.every(STAGE_SECONDS, self._upkeep.stage, "Bars cannot be staged")),
                    group.create_task(self._troubles.every(self._seal_seconds, self._seal, "Bars cannot be sealed")),
                    group.create_task(self._troubles.every(WISH_SECONDS, self._fulfil, "Wishes cannot be fulfilled")),
                    group.create_task(
                        self._troubles.every(FORMING_SECONDS, self._tell_forming, "Forming bars cannot be told")
                    ),
                ]
                self.ready.set()
                try:
                    await self._follow(since)
                finally:
                    await self._finish()
                    for task in beside:
                        task.cancel()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def stop(self) -> None:
        """Let go of the feed; `run` ends when what was taken is sent and in the lake."""
        self._is_stopped = True
        await self._feed.close()

    # -- the beginning and the end ------------------------------------------------------------------------------------

    async def _begin(self) -> dict[str, int]:
        """Take up every symbol; give from where on the feed is asked for each."""
        self._received = now_us()
        await self._seal()
        facts = await self._broadcaster.facts(self.standing.symbols)
        wanted = self.standing.wanted()
        since: dict[str, int] = {}
        for symbol in self.standing.symbols:
            begun = await asyncio.to_thread(begin, self.lake, symbol, wanted[symbol], facts[symbol])
            track = self.tracks[symbol] = Track(symbol, self._name, begun.lanes, begun.at)
            track.sent = tuple(wanted[symbol])
            track.note_layouts(facts[symbol], now_us())
            self.journal.mark_safe(symbol, begun.at)
            self._post_again(track, track.take_recent(begun.recent, begun.at - KEPT_US, begun.corrected))
            self._bars.seed(begun.seeds)
            await self._tell(self._bars.take(begun.untold))  # the lake has these already
            first = begun.since if begun.since is not None else self._start
            if first is None:
                self._bars.join(symbol)
            else:
                since[symbol] = first
        return since

    async def _finish(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + FINISH_SECONDS
        while self._openings and (left := end - loop.time()) > 0:  # behind one correction others may be held
            await asyncio.wait(self._openings, timeout=left)
        draining = asyncio.create_task(self.outgoing.drained(end - loop.time()))
        await self._upkeep.stage()
        await self._seal()
        if not await draining:
            log.warning("%d posts could not be sent before the end", self.outgoing.waiting)

    # -- the stream ---------------------------------------------------------------------------------------------------

    async def _follow(self, since: Mapping[str, int]) -> None:
        async for events in self._feed.events(since):
            self._received = now_us()
            for first in range(0, len(events), _EVENTS_AT_ONCE):
                await self._take(events[first : first + _EVENTS_AT_ONCE])
                await self.outgoing.room()
                await self._less_held()
                await self.outgoing.turn()

    async def _take(self, events: Sequence[Event]) -> None:
        bars = self._bars.take([event for event in events if not isinstance(event, self._other)])
        for bar in bars:
            if bar.timeframe is Timeframe.M1:
                self.journal.add(bar)
                self.closed += 1
                if bar.close_time > self.latest:
                    self.latest, self.lag = bar.close_time, self._received - bar.close_time
        if bars:
            await self._tell(bars)

    async def _tell(self, bars: Sequence[LiveBar]) -> None:
        """Have bars told; what is ready is on its way while the features of other symbols are computed."""
        by_symbol: dict[str, list[LiveBar]] = {}
        for bar in bars:
            by_symbol.setdefault(bar.symbol, []).append(bar)
        waiting = deque(by_symbol.items())
        self._is_telling, turn = True, time.perf_counter()
        try:
            while waiting:
                symbol, closed = waiting.popleft()
                self._advance(self.tracks[symbol], closed)
                if waiting and time.perf_counter() - turn > TURN_SECONDS:
                    await self.outgoing.turn()
                    turn = time.perf_counter()
        finally:
            for symbol, closed in waiting:  # whoever cancels this loses nothing
                self._advance(self.tracks[symbol], closed)
            self._is_telling = False

    def _advance(self, track: Track, bars: Sequence[LiveBar]) -> None:
        """Have a symbol's bars told, up to the first correction for which features have to be opened anew."""
        if track.held is not None:
            track.held.extend(bars)
            self._is_crowded |= len(track.held) > MOST_HELD
            return
        place = 0
        while place < len(bars):
            found, first = track.take(bars, place)
            for close, cells in found:
                self._post(track, close, cells)
            if first == len(bars):
                return
            place = first
            while place < len(bars) and not track.is_next(bars[place]):
                place += 1
            if track.correct(bars[first:place]):
                track.held = list(bars[place:])
                task = self._group.create_task(self._correct(track, bars[first:place]))
                self._openings.add(task)
                task.add_done_callback(self._openings.discard)
                return

    def _post(self, track: Track, at: int, cells: Sequence[Cell]) -> None:
        self.outgoing.put([(track.post(at, cells, self._received, now_us()), at)])

    def _post_again(self, track: Track, cells: Sequence[Cell]) -> None:
        self.outgoing.put((post, track.at) for post in track.posts_again(cells, self._received, now_us()))

    # -- features that are opened anew --------------------------------------------------------------------------------

    async def _correct(self, track: Track, corrected: Sequence[LiveBar]) -> None:
        """Have corrected bars told, and what was held; without features where these cannot be opened for now."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                cells = await correct(self.lake, track, corrected)
        except Exception as failed:  # noqa: BLE001  # whatever it is, bars go on
            self._troubles.note(_NOT_CORRECTED, True, f"{track.symbol}: {failed!r}")
            cells = track.give_up(corrected)
            self._is_fulfilled = False
        else:
            self._troubles.note(_NOT_CORRECTED, False)
        self._post_again(track, cells)
        held, track.held = track.held, None
        self._advance(track, held or [])

    async def _less_held(self) -> None:
        """Wait until no symbol has too many bars held; each of the openings that they wait for has a deadline."""
        while self._is_crowded and self._openings:
            await asyncio.wait(self._openings, return_when=asyncio.FIRST_COMPLETED)
            self._is_crowded = any(len(track.held or ()) > MOST_HELD for track in self.tracks.values())

    async def _fulfil(self) -> None:
        """Read the wishes, and have what is new computed."""
        try:
            wishes = await self._broadcaster.wishes()
        except TransportUnavailable:
            return  # which `outgoing` says, should it last
        if not self.standing.update(wishes, time.monotonic()) and self._is_fulfilled:
            return
        self._is_fulfilled = True
        for symbol, wanted in self.standing.wanted().items():
            track = self.tracks[symbol]
            try:
                cells = await fulfil(self.lake, track, wanted)
            except Exception as failed:  # noqa: BLE001  # the other symbols' wishes are no worse for it
                self._is_fulfilled = False
                self._troubles.note(_NOT_OPENED, True, f"{symbol}: {failed!r}")
                if isinstance(failed, PlatformError):
                    await self._refuse()
                continue
            self._post_again(track, cells)
        if self._is_fulfilled:
            self._troubles.note(_NOT_OPENED, False)

    async def _refuse(self) -> None:
        """Wish no more for what cannot be computed live."""
        for timeframe, specs in self.standing.wished().items():
            for text, why in (await asyncio.to_thread(refused, specs, timeframe)).items():
                self.standing.refuse(text, timeframe, why)

    async def _tell_forming(self) -> None:
        """Tell of the forming bars that are wished for; not while nobody hears it, for they are soon worth nothing."""
        if self.outgoing.is_away or self._is_telling:  # a bar that has closed and was not told is still in the way
            return
        wished: dict[str, set[Timeframe]] = {}
        for symbol, timeframe in self.standing.forming:
            wished.setdefault(symbol, set()).add(timeframe)
        for symbol, timeframes in wished.items():
            track = self.tracks[symbol]
            if track.held is None and track.at:
                bars = [bar for bar in self._bars.changed(symbol) if bar.timeframe in timeframes & set(track.sent)]
                cells = [cell for bar in bars if (cell := track.lanes[bar.timeframe].peek(bar)) is not None]
                if cells:
                    posts = track.posts_of_forming(cells, self._received, now_us())
                    self.outgoing.put((post, 0) for post in posts)

    # -- the lake, and what goes wrong --------------------------------------------------------------------------------

    async def _seal(self) -> None:
        await self._upkeep.seal()
        for symbol, track in self.tracks.items():
            track.mark_sealed(self.journal.sealed(symbol))

    def _on_trouble(self, away: TransportUnavailable | None) -> None:
        self._troubles.note("Posts cannot be sent", away is not None, str(away or ""))
        if away is None:
            for track in self.tracks.values():
                track.forget_layouts()
