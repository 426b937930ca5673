"""A real RabbitMQ node for the tests that need one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from mdplatform.settings import Settings
from tests.messaging.rabbitmq_node import BINARY, Node


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node, started once for all processes of a test run."""
    if not BINARY.exists():
        pytest.skip("rabbitmq-server is not installed")
    base = tmp_path_factory.getbasetemp()
    node = Node((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "rabbitmq")
    yield node
    node.close()


@pytest.fixture
def rabbitmq_settings(settings: Settings, rabbitmq: Node) -> Iterator[Settings]:
    """Settings for the transport rabbitmq, with queues that hold nothing yet."""
    with rabbitmq.calm():
        rabbitmq.wait()
        asyncio.run(rabbitmq.clear())
        yield settings.model_copy(update={"transport": "rabbitmq", "rabbitmq_url": SecretStr(rabbitmq.url)})
