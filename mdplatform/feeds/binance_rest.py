"""REST: what Binance's API tells of the time that a websocket missed; paced, and quiet while the venue says so.

`/api/v3/klines` gives twelve elements a row, numbers as text, at most 1,000 rows, the forming bar last without a flag:
a bar is closed if it ends by the venue's time. `/api/v3/aggTrades` gives at most 1,000 from an id or an instant on.
Instants are asked for in µs, as streams and dumps have them; who tells ms is understood. 429 and 418 say by
`Retry-After` how long nothing more may be asked; 403, by which its firewall refuses who asks too much, does not say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec

from mdplatform.errors import InvalidSymbol
from mdplatform.feeds.backoff import Pace
from mdplatform.feeds.binance_messages import UNREADABLE, Levels, Unreadable, candle, instant, snapshot, trade
from mdplatform.market.events import BookChange, Candle, Trade
from mdplatform.market.timeframe import MINUTE_US
from mdplatform.sources.download import retry_after, why

PAGE = 1000
_WEIGHT_A_MINUTE = 4_800  # the venue allows 6,000
_TIMEOUT_SECONDS = 10.0
_QUIET_SECONDS = {429: 10.0, 418: 120.0, 403: 60.0}
_MICROSECONDS = {"X-MBX-TIME-UNIT": "MICROSECOND"}
_BOOK_LEVELS = 1000
_SYMBOLS_AT_ONCE = 100


class NotToBeHad(Exception):
    """A question that was not answered; after `wait` seconds it may be asked again."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Trade(msgspec.Struct, gc=False):
    a: int
    p: float
    q: float
    T: int
    m: bool


class _Book(msgspec.Struct):
    lastUpdateId: int  # noqa: N815
    bids: Levels
    asks: Levels


_Row = tuple[int, float, float, float, float, float, int, float, int, float, float, Any]
_trades = msgspec.json.Decoder(list[_Trade], strict=False)
_rows = msgspec.json.Decoder(list[_Row], strict=False)
_book = msgspec.json.Decoder(_Book, strict=False)


class BinanceRest:
    """The API at `url`. Methods raise `NotToBeHad`."""

    def __init__(self, url: str) -> None:
        self.requests = 0
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS, headers=_MICROSECONDS)
        self._pace = Pace(_WEIGHT_A_MINUTE / 60, 1.0)
        self._quiet_until = 0.0

    @property
    def quiet(self) -> float:
        """How many seconds nothing may be asked, because the venue said so."""
        return max(self._quiet_until - asyncio.get_running_loop().time(), 0.0)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def time(self) -> int:
        """Give the venue's time, µs."""
        try:
            return instant(int(json.loads(await self._get("time", 1))["serverTime"]))
        except (ValueError, KeyError, TypeError) as refused:
            raise NotToBeHad(f"an answer without a time ({refused})") from None

    async def check_symbols(self, symbols: Sequence[str]) -> None:
        """Ask whether the venue has these symbols. Raises `InvalidSymbol` with the first that it does not have."""
        for first in range(0, len(symbols), _SYMBOLS_AT_ONCE):
            await self._check_some(symbols[first : first + _SYMBOLS_AT_ONCE])

    async def _check_some(self, symbols: Sequence[str]) -> None:
        told = json.dumps(list(symbols), separators=(",", ":"))
        try:
            await self._get("exchangeInfo", 20, symbols=told)
        except _Refused as refused:
            if len(symbols) == 1:
                raise InvalidSymbol("Binance has no such symbol", value=symbols[0], remedy=str(refused)) from None
            for half in (symbols[: len(symbols) // 2], symbols[len(symbols) // 2 :]):
                await self._check_some(half)

    async def candles(self, symbol: str, since: int, now: int, received_at: int) -> tuple[list[Candle], bool]:
        """Give the closed candles of 1m that open at or after `since`, and whether there are no more by `now` (µs)."""
        raw = await self._get("klines", 2, symbol=symbol, interval="1m", startTime=since // 1000, limit=PAGE)
        try:
            rows = _rows.decode(raw)
            made = [
                candle(symbol, "1m", row[0], (*row[1:6], *row[7:11]), True, _end(row), received_at)
                for row in rows
                if _end(row) <= now
            ]
        except (*UNREADABLE, Unreadable) as refused:
            raise NotToBeHad(f"candles that cannot be read ({refused})") from None
        return made, len(rows) < PAGE or len(made) < len(rows)

    async def trades_since(self, symbol: str, since: int, received_at: int) -> list[Trade]:
        """Give the first trades at or after an instant (µs)."""
        return await self._some_trades(symbol, received_at, startTime=-(-since // 1000))

    async def trades_from(self, symbol: str, number: int, received_at: int) -> list[Trade]:
        """Give the first trades with that id or a higher one."""
        return await self._some_trades(symbol, received_at, fromId=number)

    async def last_trades(self, symbol: str, received_at: int) -> list[Trade]:
        """Give the newest trades."""
        return await self._some_trades(symbol, received_at)

    async def book(self, symbol: str, now: int, received_at: int) -> BookChange:
        """Give a snapshot of the book."""
        try:
            told = _book.decode(await self._get("depth", 50, symbol=symbol, limit=_BOOK_LEVELS))
            return snapshot(symbol, told.lastUpdateId, told.bids, told.asks, now, received_at)
        except (*UNREADABLE, Unreadable) as refused:
            raise NotToBeHad(f"a book that cannot be read ({refused})") from None

    async def _some_trades(self, symbol: str, received_at: int, **which: int) -> list[Trade]:
        raw = await self._get("aggTrades", 4, symbol=symbol, limit=PAGE, **which)
        try:
            told = _trades.decode(raw)
            return [trade(symbol, each.a, each.p, each.q, each.T, each.m, received_at) for each in told]
        except (*UNREADABLE, Unreadable) as refused:
            raise NotToBeHad(f"trades that cannot be read ({refused})") from None

    async def _get(self, what: str, weight: int, **query: str | int) -> bytes:
        if (quiet := self.quiet) > 0:
            raise NotToBeHad("the venue asks for quiet", quiet)
        await self._pace.wait(weight)
        self.requests += 1
        try:
            answer = await self._client.get(f"/api/v3/{what}", params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as failed:
            raise NotToBeHad(why(failed)) from None
        status = answer.status_code
        if status in _QUIET_SECONDS:
            said = retry_after(answer.headers.get("Retry-After"))
            wait = _QUIET_SECONDS[status] if said is None else said
            self._quiet_until = asyncio.get_running_loop().time() + wait
            raise NotToBeHad(f"HTTP {status}", wait)
        if status == 400:
            raise _Refused(answer.text[:200])
        if status != 200:
            raise NotToBeHad(f"HTTP {status}")
        return answer.content


class _Refused(NotToBeHad):
    """A question that is wrong."""


def _end(row: _Row) -> int:
    return instant(row[0]) + MINUTE_US
