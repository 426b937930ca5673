"""What holds before a request is read: whose bodies are taken in, and how much of them at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mdplatform.gateway import guard
from mdplatform.settings import Settings

from .conftest import Gateway, unanswered
from .market import rsi, until


@contextmanager
def begun(gateway: Gateway, key: str | None, declared: int, sent: int = 0) -> Iterator[socket.socket]:
    """A request of which the headers and a part of the body have been sent."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as line:
        shown = f"Authorization: Bearer {key}\r\n" if key else ""
        head = f"POST /v1/requests HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{shown}"
        line.sendall(f"{head}Content-Length: {declared}\r\n\r\n".encode() + b" " * sent)
        yield line


@pytest.mark.parametrize("key", [None, "mdp_000000000000_" + "A" * 43])
def test_a_body_is_not_waited_for_where_the_headers_show_no_key(key: str | None, gateway: Gateway) -> None:
    with begun(gateway, key, 900_000) as line:
        assert line.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_what_needs_no_key_has_its_body_left_unread(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.request("GET", "/healthz", content=b" " * 3_000_000).status_code == 200


def test_the_bodies_that_are_held_at_once_are_bounded_together(home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.Guard.__init__, "__defaults__", (1_000_000, 500_000, 4_000, 30.0))
        running = Gateway(Settings.load(home=home, gateway_port=0), unanswered)
    try:
        key = running.key("bodies")
        padded = json.dumps(rsi()).encode() + b" " * 200_000
        with running.client(key) as client:

            def status() -> int:
                return client.post(
                    "/v1/requests", content=padded, headers={"Content-Type": "application/json"}
                ).status_code

            def is_crowded_out() -> bool:
                with begun(running, key, 500_000, 400_000):  # which is itself refused if it comes beside a padded one
                    if not any(status() == 503 for _ in range(20)):
                        return False
                    assert client.post("/v1/requests", json=rsi()).status_code == 202
                    return True

            assert status() == 202
            until(is_crowded_out)
            until(lambda: status() == 202)
    finally:
        running.stop()
