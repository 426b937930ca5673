"""A RabbitMQ node for the tests that need one; they are skipped where it is not installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdplatform.settings import Settings
from tests.messaging.rabbitmq_node import BINARY, Node


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Node]:
    """The node that all processes of this test run share."""
    if not BINARY.exists():
        pytest.skip(f"RabbitMQ is not installed ({BINARY}); `apt-get install rabbitmq-server` brings it")
    base = tmp_path_factory.getbasetemp()
    node = Node(Path(base if worker_id == "master" else base.parent) / "rabbitmq")
    yield node
    node.close()


@pytest.fixture
def rabbitmq(shared_node: Node, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """The node, with no queue of an earlier test, undisturbed by others; its URL is in the environment."""
    monkeypatch.setenv("MDPLATFORM_RABBITMQ_URL", shared_node.url)
    with shared_node.calm():
        shared_node.wait()
        asyncio.run(shared_node.clear())
        yield shared_node


@pytest.fixture
def rabbitmq_alone(shared_node: Node, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """The same for a test that kills the node."""
    monkeypatch.setenv("MDPLATFORM_RABBITMQ_URL", shared_node.url)
    with shared_node.alone():
        asyncio.run(shared_node.clear())
        yield shared_node
        shared_node.wait()


@pytest.fixture
def rabbitmq_settings(rabbitmq: Node) -> Settings:
    """Settings with the node's URL."""
    return Settings.load(transport="rabbitmq")
