"""A local exchange that speaks Binance's protocol over real websockets and HTTP, and misbehaves on command.

Streams: `/stream?streams=a/b`, SUBSCRIBE messages, 1,024 streams a connection, 5 inbound messages a second (pings and
pongs are not counted). REST: `/api/v3/{time,exchangeInfo,klines,aggTrades,depth}`. Instants are ms, or µs for who asks
for these (`timeUnit`, `X-MBX-TIME-UNIT`). What is told and kept is the `Venue`'s.

In a test: `async with Exchange(["BTCUSDT"]) as exchange`, then `exchange.venue.trade(...)`, `exchange.drop()`, ….
As a process: `python tests/feeds/exchange.py --port 0 --rate 100` prints `{"port": …, "stream_url": …, "api_url": …}`
as one line, and trades a seeded walk until it is ended; `GET /control/drop`, `/control/skip?count=3`, … are the
commands, `GET /control/state` tells what it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import logging
import random
import re
import sys
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a process it finds its neighbours too

from tests.feeds.venue import MINUTE_MS, START_MS, Message, Venue

MOST_STREAMS, MOST_INBOUND = 1024, 5
COMMANDS = (
    "drop",
    "close",
    "stall",
    "resume",
    "repeat",
    "reorder",
    "skip",
    "garbage",
    "refuse",
    "answer",
    "forget",
    "calm",
    "mute",
    "shut_down",
)
_INSTANT = re.compile(r'"(E|T|t)":(\d{13})(?=[,}])')


@dataclass
class Exchange:
    """The server of one `Venue`. Commands act at once and on all connections.

    `lifetime` seconds after its start a connection is cut, as the exchange does after 24 h; one whose unsent messages
    pass `backlog` bytes is cut too. `connects`, `requests`, `sent` tell what happened.
    """

    symbols: Sequence[str] = ("BTCUSDT",)
    now: int = START_MS
    port: int = 0
    lifetime: float | None = None
    backlog: int = 1 << 26
    knows_microseconds: bool = True
    venue: Venue = field(init=False)
    connects: int = 0
    requests: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    _streams: dict[ServerConnection, set[str]] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: Server | None = None

    def __post_init__(self) -> None:
        self.venue = Venue(self.symbols, self.now, self._tell)
        self._recent: deque[tuple[str, str]] = deque(maxlen=1000)
        self._held: list[tuple[str, str]] = []
        self._stalled: dict[ServerConnection, list[str] | None] = {}
        self._in_microseconds: set[ServerConnection] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._to_skip = self._to_reorder = self._to_refuse = 0
        self._subscribing = self._muted = ""
        self._answers: deque[tuple[int, str | None]] = deque()
        self._forgotten = {"trades": 0, "candles": 0}

    async def __aenter__(self) -> Exchange:
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, process_request=self._request, ping_interval=None, compression=None,
            logger=_quiet(),
        )  # fmt: skip
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.drop()
        self._server.close()
        await self._server.wait_closed()

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def streams(self) -> list[set[str]]:
        """The streams of each connection."""
        return list(self._streams.values())

    async def connected(self, streams: int = 1, connects: int = 1, seconds: float = 10.0) -> None:
        """Wait until so many streams are followed, and so many connections were made since the start."""
        async with asyncio.timeout(seconds):
            while sum(map(len, self._streams.values())) < streams or self.connects < connects:
                self._changed.clear()
                await self._changed.wait()

    # Commands

    def shut_down(self) -> None:
        """Say on all connections that the server is about to go down; they are heard on until they are dropped."""
        data = {"e": "serverShutdown", "E": self.venue.now}
        broadcast(list(self._streams), json.dumps({"stream": "!serverShutdown", "data": data}))

    def drop(self) -> None:
        """Cut all connections, as a broken line does."""
        for connection in list(self._streams):
            self._streams.pop(connection)
            connection.transport.abort()

    def close(self) -> None:
        """End all connections in good order, as a server that goes down does."""
        for connection in list(self._streams):
            ending = asyncio.ensure_future(connection.close(1001, "going away"))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    def stall(self, lose: bool = False) -> None:
        """Say nothing more on the connections there are; with `lose` what is not said is never said."""
        self._stalled = {connection: None if lose else [] for connection in self._streams}

    def resume(self) -> None:
        """Go on, with what waited."""
        stalled, self._stalled = self._stalled, {}
        for connection, waiting in stalled.items():
            for text in waiting or ():
                broadcast([connection], text)

    def repeat(self, count: int = 1) -> None:
        """Send the last `count` messages again."""
        for stream, text in list(self._recent)[-count:]:
            self._send(stream, text)

    def reorder(self, count: int = 2) -> None:
        """Send the next `count` messages in reverse."""
        self._to_reorder = count

    def skip(self, count: int = 1) -> None:
        """Send the next `count` messages to nobody; REST knows of them."""
        self._to_skip += count

    def mute(self, kind: str = "") -> None:
        """Send nothing more of the streams of that kind, such as `aggTrade`, on whatever connection; REST tells it."""
        self._muted = kind

    def garbage(self, text: str = '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":') -> None:
        """Send something that is no message."""
        broadcast(list(self._streams), text)

    def refuse(self, count: int = 1) -> None:
        """Refuse the next `count` websocket connections."""
        self._to_refuse += count

    def deafen(self) -> None:
        """Hear nothing more on the connections there are, pings neither, as a dead line does."""
        for connection in self._streams:
            connection.transport.pause_reading()

    def subscribing(self, how: Literal["", "ignored", "refused"] = "") -> None:
        """Leave SUBSCRIBE messages without an answer, or refuse them, until this is called again."""
        self._subscribing = how

    def answer(self, status: int = 429, count: int = 1, retry_after: str | None = None) -> None:
        """Answer the next `count` questions of REST with that status."""
        self._answers.extend([(status, retry_after)] * count)

    def forget(self, before: int = 0, candles_before: int = 0) -> None:
        """Know by REST no trade with a lower id, and no candle that opens earlier (ms)."""
        self._forgotten = {"trades": before, "candles": candles_before}

    def calm(self) -> None:
        """Take back what was commanded and did not happen yet."""
        self.resume()
        held, self._held = self._held, []
        for each in held:
            self._send(*each)
        self._to_skip = self._to_reorder = self._to_refuse = 0
        self._muted = ""
        self._answers.clear()

    async def ping(self) -> int:
        """Ping all connections and wait for the answers; give how many there were."""
        waiters = [await connection.ping() for connection in list(self._streams)]
        async with asyncio.timeout(10):
            return len([await waiter for waiter in waiters])

    def play(self, path: Path) -> Iterator[Message]:
        """Go through a recording's messages, a step at a time; single trades are sent as aggregates of one.

        Trades and book changes enter the venue, so that REST knows them; other messages are left out.
        """
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        for line in text.splitlines():
            data = json.loads(line.partition(" ")[2])
            data = data.get("data", data)
            if data.get("e") in ("trade", "aggTrade"):
                if not self.venue.trades[data["s"]]:
                    self.venue.first_id = data["t"] if data["e"] == "trade" else data["a"]
                yield self.venue.trade(data["s"], data["p"], data["q"], data["T"], buyer_maker=data["m"])
            elif data.get("e") == "depthUpdate":
                self.venue.advance(data["E"])
                self.venue.change_book(data["s"], data["b"], data["a"])
                yield data

    # What is told

    def _tell(self, stream: str, data: Message) -> None:
        text = json.dumps({"stream": stream, "data": data}, separators=(",", ":"))
        if self._to_skip:
            self._to_skip -= 1
            return
        if self._to_reorder:
            self._held.append((stream, text))
            if len(self._held) >= self._to_reorder:
                held, self._held, self._to_reorder = self._held, [], 0
                for each in reversed(held):
                    self._send(*each)
            return
        self._send(stream, text)

    def _send(self, stream: str, text: str) -> None:
        if self._muted and self._muted in stream:
            return
        self._recent.append((stream, text))
        to = [connection for connection, streams in self._streams.items() if stream in streams]
        for connection in self._stalled.keys() & to:
            to.remove(connection)
            if (waiting := self._stalled[connection]) is not None:
                waiting.append(text)
        if to:
            self.sent[stream.partition("@")[2]] += 1
            if exact := self._in_microseconds.intersection(to):
                broadcast(exact, _INSTANT.sub(r'"\1":\g<2>000', text))
            broadcast(set(to) - exact, text)
        for connection in to:
            if connection.transport.get_write_buffer_size() > self.backlog:
                connection.transport.abort()

    # The protocol

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        streams = set(filter(None, query.get("streams", [""])[0].split("/")))
        if len(streams) > MOST_STREAMS:
            await connection.close(1008, "too many streams")
            return
        self.connects += 1
        self._streams[connection] = streams
        if query.get("timeUnit", [""])[0].upper() == "MICROSECOND" and self.knows_microseconds:
            self._in_microseconds.add(connection)
        self._changed.set()
        ending = asyncio.get_running_loop().call_later(self.lifetime or 1e6, connection.transport.abort)
        try:
            await self._hear(connection, streams)
        except ConnectionClosed:
            pass
        finally:
            ending.cancel()
            self._streams.pop(connection, None)
            self._in_microseconds.discard(connection)
            self._stalled.pop(connection, None)
            self._changed.set()

    async def _hear(self, connection: ServerConnection, streams: set[str]) -> None:
        inbound: deque[float] = deque(maxlen=MOST_INBOUND + 1)
        async for text in connection:
            inbound.append(time.monotonic())
            if len(inbound) > MOST_INBOUND and inbound[-1] - inbound[0] < 1.0:
                await connection.close(1008, "Too many requests")
                return
            message = json.loads(text)
            if self._subscribing == "refused":
                await connection.send(json.dumps({"error": {"code": 2, "msg": "refused"}, "id": message["id"]}))
            if self._subscribing:
                continue
            wanted = set(message["params"])
            streams |= wanted if message["method"] == "SUBSCRIBE" else set()
            if len(streams) > MOST_STREAMS:
                await connection.close(1008, "too many streams")
                return
            await connection.send(json.dumps({"result": None, "id": message["id"]}))
            self._changed.set()

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        if parts.path in ("/stream", "/ws"):
            if self._to_refuse:
                self._to_refuse -= 1
                return _json({"code": -1003}, 503)
            return None
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/control/"):
            return _json(*self._control(parts.path.rpartition("/")[2], query))
        self.requests.append(request.path)
        if self._answers:
            status, retry_after = self._answers.popleft()
            return _json({"code": -1003, "msg": "refused on command"}, status, retry_after)
        body, code = self._rest(parts.path.removeprefix("/api/v3/"), query)
        if request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND" and self.knows_microseconds:
            body = _exact(body)
        return _json(body, code)

    def _control(self, command: str, query: dict[str, str]) -> tuple[object, int]:
        if command == "state":
            last = {symbol: trades[-1]["a"] for symbol, trades in self.venue.trades.items() if trades}
            told = {"now": self.venue.now, "last": last, "sent": dict(self.sent), "connects": self.connects}
            return {**told, "connections": len(self._streams), "requests": len(self.requests)}, 200
        if command not in COMMANDS:
            return {"error": f"unknown command {command}", "known": COMMANDS}, 404
        given: dict[str, Any] = {name: int(text) if text.isdigit() else text for name, text in query.items()}
        getattr(self, command)(**given)
        return {"done": command}, 200

    def _rest(self, what: str, query: dict[str, str]) -> tuple[object, int]:
        if what == "time":
            return {"serverTime": self.venue.now}, 200
        if what == "exchangeInfo":
            asked = json.loads(query["symbols"])
            if set(asked) - set(self.symbols):
                return {"code": -1121, "msg": "Invalid symbol."}, 400
            return {"symbols": [{"symbol": each, "status": "TRADING"} for each in asked]}, 200
        symbol, limit = query.get("symbol", ""), int(query.get("limit", 500))
        if symbol not in self.symbols:
            return {"code": -1121, "msg": "Invalid symbol."}, 400
        if "timeZone" in query:
            return {"code": -1104, "msg": "never send timeZone"}, 400
        if what == "klines":
            first = max(int(query.get("startTime", 0)), self._forgotten["candles"])
            rows = [bar.row() for bar in self.venue.bars[symbol] if bar.open_ms >= first]
            return rows[: min(limit, 1000)], 200
        if what == "aggTrades":
            trades, limit = self.venue.trades[symbol], min(limit, 1000)
            first = len(trades) - limit
            if "fromId" in query and trades:
                first = int(query["fromId"]) - trades[0]["a"]
            elif "startTime" in query:
                first = bisect_left(trades, int(query["startTime"]), key=lambda each: each["T"])
            if trades:
                first = max(first, self._forgotten["trades"] - trades[0]["a"], 0)
            return [{key: each[key] for key in "apqflTmM"} for each in trades[first : first + limit]], 200
        if what == "depth":
            book = self.venue.books[symbol]
            bids = sorted(book.bids.items(), key=lambda level: -float(level[0]))
            asks = sorted(book.asks.items(), key=lambda level: float(level[0]))
            return {"lastUpdateId": book.last, "bids": bids[:limit], "asks": asks[:limit]}, 200
        return {"code": -1, "msg": f"no such endpoint {what}"}, 404


def _exact(body: Any) -> Any:
    """Give an answer of REST with its instants in µs."""
    if isinstance(body, list):
        return [_exact(each) for each in body] if not body or isinstance(body[0], list | dict) else _exact_row(body)
    return {key: each * 1000 if key in ("T", "serverTime") else each for key, each in body.items()}


def _exact_row(row: list[Any]) -> list[Any]:
    return [row[0] * 1000, *row[1:6], row[6] * 1000 + 999, *row[7:]]


def _json(body: object, status: int = 200, retry_after: str | None = None) -> Response:
    raw = json.dumps(body).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(raw)), "Connection": "close"})
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return Response(status, "OK" if status == 200 else "No", headers, raw)


def _quiet() -> logging.Logger:
    logger = logging.getLogger("tests.exchange")
    logger.setLevel(logging.CRITICAL)
    return logger


def walk(venue: Venue, seed: int, step_ms: float) -> Iterator[Message]:
    """Trade for ever: a seeded random walk, a trade each `step_ms` of the venue's clock on average, symbols in turn."""
    chance = random.Random(seed)
    prices = dict.fromkeys(venue.symbols, 1_000_000)
    at, told = float(venue.now), venue.now
    while True:
        for symbol in venue.symbols:
            at += chance.expovariate(1.0) * step_ms
            prices[symbol] = max(prices[symbol] + chance.randint(-200, 200), 1_000)
            price, quantity = f"{prices[symbol] / 100:.2f}", f"{chance.randint(1, 50_000) / 10_000:.4f}"
            yield venue.trade(symbol, price, quantity, int(at), buyer_maker=chance.random() < 0.5)
            if venue.now - told >= 2_000:
                told = venue.now
                venue.forming()


async def _run(given: argparse.Namespace) -> None:
    symbols = given.symbols.split(",")
    now = given.start or int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
    history = given.history * MINUTE_MS
    async with Exchange(symbols, now - history, given.port, given.lifetime) as exchange:
        step_ms = 1000.0 * given.speed / given.rate
        steps = exchange.play(given.recording) if given.recording else walk(exchange.venue, given.seed, step_ms)
        while exchange.venue.now < now and not given.recording:
            next(steps)
        told = {"port": exchange.port, "stream_url": exchange.stream_url, "api_url": exchange.api_url}
        print(json.dumps(told), flush=True)  # noqa: T201
        if given.wait:
            await exchange.connected(streams=given.wait, seconds=600)
        begin, done = time.monotonic(), 0
        while given.seconds is None or time.monotonic() - begin < given.seconds:
            due = int((time.monotonic() - begin) * given.rate)
            for _ in range(min(due - done, 5_000)):
                if next(steps, None) is None:
                    break
                done += 1
            await asyncio.sleep(0.005)
        print(json.dumps(exchange._control("state", {})[0]), flush=True)  # noqa: T201


def _main() -> None:
    parser = argparse.ArgumentParser(description="A local exchange; see the module's text.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--symbols", default="BTCUSDT,ETHUSDT")
    parser.add_argument("--rate", type=float, default=100.0, help="trades a second, over all symbols")
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of the venue's clock a second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=int, help="the venue's clock at the start, ms; this minute if not given")
    parser.add_argument("--history", type=int, default=0, help="minutes that were traded before the start")
    parser.add_argument("--seconds", type=float, help="how long to trade; for ever if not given")
    parser.add_argument("--lifetime", type=float, help="seconds after which a connection is cut")
    parser.add_argument("--wait", type=int, default=0, help="trade only once so many streams are followed")
    parser.add_argument("--recording", type=Path, help="messages to send instead of a walk")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    _main()
