"""What the switchboard gives where a reply did not come, or the answer is no longer there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from websockets.sync.client import connect

from mdplatform.gateway import switchboard
from mdplatform.messaging.memory.transport import MemoryTransport
from mdplatform.messaging.transport import Reply
from mdplatform.requests.answer import AnswerBody, Status
from mdplatform.requests.wire import encode_reply
from mdplatform.settings import Settings

from .conftest import Gateway
from .market import rsi


class Forgetful:
    """A transport in memory whose replies are dropped on their way."""

    def __init__(self, kept: bool) -> None:
        self.kept = kept

    async def answer(self, id: str) -> None:
        """Settle a request without telling whoever sent it."""
        state = self.memory.states[id]
        state.addresses.clear()
        self.memory.settle(id, encode_reply(AnswerBody(request_id=id, status=Status.OK)))
        if not self.kept:
            state.answer = None

    def __call__(self, settings: Settings) -> Forgetful:
        self.memory = MemoryTransport(settings)
        return self

    async def __aenter__(self) -> object:
        return self.memory.asker

    async def __aexit__(self, *failure: object) -> None:
        pass


@pytest.mark.parametrize(("kept", "status"), [(True, "ok"), (False, "failed")])
def test_an_answer_whose_reply_was_dropped_is_looked_up(
    kept: bool, status: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "_LOOK_SECONDS", 0.1)
    forgetful = Forgetful(kept)
    running = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), forgetful)
    try:
        with connect(running.socket_url, proxy=None) as socket:
            socket.send(json.dumps({"op": "request", "request": rsi(request_id="dropped")}))
            assert json.loads(socket.recv(timeout=10))["event"] == "accepted"
            asyncio.run_coroutine_threadsafe(forgetful.answer("dropped"), running.loop).result(10)
            told = json.loads(socket.recv(timeout=10))
            assert (told["event"], told["final"], told["status"]) == ("answer", True, status)
            assert kept or told["problem"]["error"] == "AnswerLost"
    finally:
        running.stop()


def test_a_final_reply_without_its_answer_ends_the_wait(home: Path) -> None:
    forgetful = Forgetful(kept=True)
    running = Gateway(Settings.load(home=home, gateway_port=0, gateway_keys=False), forgetful)
    try:
        with connect(running.socket_url, proxy=None) as socket:
            socket.send(json.dumps({"op": "request", "request": rsi(request_id="empty")}))
            assert json.loads(socket.recv(timeout=10))["event"] == "accepted"
            board = running.app.state.parts.switchboard
            running.loop.call_soon_threadsafe(board._hear, Reply(id="empty", final=True, body=b""))
            told = json.loads(socket.recv(timeout=10))
            assert (told["status"], told["problem"]["error"]) == ("failed", "AnswerLost")
    finally:
        running.stop()
