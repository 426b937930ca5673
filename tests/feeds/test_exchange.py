"""The local exchange as a process of its own, and the limits that it holds its clients to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from mdplatform.feeds.binance import BinanceFeed
from tests.feeds import exchange as module
from tests.feeds.exchange import Exchange
from tests.feeds.following import following


@pytest.fixture
def process() -> Iterator[dict[str, Any]]:
    """An exchange that trades in a process; what it said of itself."""
    path = Path(module.__file__)
    started = subprocess.Popen(
        [sys.executable, str(path), "--symbols", "BTCUSDT", "--rate", "500", "--speed", "60", "--wait", "2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        yield json.loads(started.stdout.readline())
    finally:
        started.kill()
        started.communicate()


def test_a_feed_follows_an_exchange_in_another_process_and_survives_its_commands(process: dict[str, Any]) -> None:
    async def main() -> None:
        feed = BinanceFeed(
            ["BTCUSDT"], stream_url=process["stream_url"], api_url=process["api_url"], wait_seconds=0.05
        )  # fmt: skip
        async with following(feed, {}) as followed, httpx.AsyncClient(base_url=process["api_url"]) as control:
            for command in ("skip?count=20", "drop", "repeat?count=50", "reorder?count=5", "garbage"):
                before = len(followed.trades("BTCUSDT"))
                await followed.until(lambda before=before: len(followed.trades("BTCUSDT")) > before + 50)  # type: ignore[misc]
                assert (await control.get(f"/control/{command}")).status_code == 200
            last = (await control.get("/control/state")).json()["last"]["BTCUSDT"]
            await followed.until(lambda: followed.trades("BTCUSDT")[-1].trade_id > last)
            ids = [each.trade_id for each in followed.trades("BTCUSDT")]
            assert all(after == before + 1 for before, after in pairwise(ids))
            await followed.until(lambda: bool(followed.candles("BTCUSDT")))
            assert followed.lost == []
            assert (await control.get("/control/dance")).status_code == 404

    asyncio.run(main())


async def ask_often(client: ClientConnection, message: str) -> None:
    for _ in range(10):
        await client.send(message)
        await client.recv()


def test_who_sends_too_much_or_follows_too_much_is_cut() -> None:
    async def main() -> None:
        async with Exchange(["BTCUSDT"]) as exchange:
            ask = {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}
            async with connect(f"{exchange.stream_url}/stream") as client:
                with pytest.raises(ConnectionClosed, match="Too many requests"):
                    await ask_often(client, json.dumps(ask))
            async with connect(f"{exchange.stream_url}/stream") as client:
                await client.send(json.dumps({**ask, "params": [f"s{n}@aggTrade" for n in range(1025)]}))
                with pytest.raises(ConnectionClosed, match="too many streams"):
                    await client.recv()

    asyncio.run(main())
