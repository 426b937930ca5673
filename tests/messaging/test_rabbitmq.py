"""What RabbitMQ adds to the conformance suite: lines that are cut, servers and bridges that die, poison, urgency."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
import pytest
from pydantic import SecretStr

from mdplatform.errors import InvalidSetting, TransportUnavailable
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.rabbitmq.asker import RabbitAsker
from mdplatform.messaging.rabbitmq.bridge import Bridge
from mdplatform.messaging.rabbitmq.link import DEAD, QUEUES, declare
from mdplatform.messaging.rabbitmq.wire import encode
from mdplatform.messaging.redis.answerer import RedisAnswerer
from mdplatform.messaging.transport import Delivery, Reply
from mdplatform.settings import Settings
from tests.messaging.rabbitmq_node import PASSWORD, QUOTED, Node
from tests.messaging.transports import EVERY, envelope

CRITICAL, HIGH, NORMAL, LOW = DataPriority


@dataclass
class Ends:
    asker: RabbitAsker
    worker: RedisAnswerer

    async def taken(self, count: int) -> list[Delivery]:
        found: list[Delivery] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                found += [each for each in await self.worker.take(EVERY, 1.0) if isinstance(each, Delivery)]
        return found

    async def replies(self, count: int) -> list[Reply]:
        found: list[Reply] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                try:
                    found += await self.asker.receive(1.0)
                except TransportUnavailable:  # the line is being made again
                    await asyncio.sleep(0.05)
        return found + await self.asker.receive(0.2)

    async def answer(self, count: int) -> None:
        for each in await self.taken(count):
            assert await self.worker.settle(each.envelope.id, b"answer", each)


@asynccontextmanager
async def ends(settings: Settings, **given: Any) -> AsyncIterator[Ends]:
    """A strategy's side over RabbitMQ, and a worker's side over Redis."""
    both = Ends(RabbitAsker(settings, **given), RedisAnswerer(settings))
    try:
        yield both
    finally:
        await both.asker.close()
        await both.worker.close()


def run(test: Awaitable[None]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(whole())


def at(settings: Settings, port: int) -> Settings:
    """The same RabbitMQ over another port."""
    url = re.sub(r":\d+/", f":{port}/", settings.rabbitmq_url.get_secret_value())
    return settings.model_copy(update={"rabbitmq_url": SecretStr(url)})


class Road:
    """A way to the node that can be cut, and made passable again."""

    def __init__(self, settings: Settings) -> None:
        self._to = int(re.findall(r":(\d+)/", settings.rabbitmq_url.get_secret_value())[0])
        self._writers: list[asyncio.StreamWriter] = []
        self.passable = True

    async def __aenter__(self) -> Road:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        self.passable = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.passable:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()
        except OSError:
            writer.transport.abort()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.02)


def test_what_was_said_while_the_line_was_cut_comes_once_it_is_back(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with (
            Bridge(rabbitmq_settings),
            Road(rabbitmq_settings) as road,
            ends(at(rabbitmq_settings, road.port)) as both,
        ):
            asker, worker = both.asker, both.worker
            answered, told, open = envelope(), envelope(standing=True), envelope()
            await asker.send([answered, told, open])
            held = {each.envelope.id: each for each in await both.taken(3)}
            await worker.tell(told.id, b"before")
            assert [each.body for each in await both.replies(1)] == [b"before"]
            road.cut()
            await until(lambda: _is_cut(asker))
            await worker.tell(told.id, b"first meanwhile")
            await worker.settle(answered.id, b"settled meanwhile", held[answered.id])
            await worker.tell(told.id, b"second meanwhile")
            other = RabbitAsker(rabbitmq_settings)

            async def carried() -> bool:  # whatever comes now was carried after the others
                await other.adopt([open.id])
                await worker.tell(open.id, b"sign")
                return bool(await other.receive(0.5))

            await until(carried)
            await other.close()
            road.passable = True
            signs = [Reply(id=open.id, final=False, body=b"sign")]
            found = [each for each in await both.replies(4) if each not in signs]
            assert sorted((each.id, each.body) for each in found) == sorted(
                [
                    (told.id, b"first meanwhile"),
                    (told.id, b"second meanwhile"),
                    (answered.id, b"settled meanwhile"),
                ]
            )
            await worker.settle(open.id, b"afterwards", held[open.id])
            assert [each.body for each in await both.replies(1)] == [b"afterwards"]

    run(test())


def test_sending_goes_on_where_the_line_was_cut(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with (
            Bridge(rabbitmq_settings),
            Road(rabbitmq_settings) as road,
            ends(at(rabbitmq_settings, road.port)) as both,
        ):
            sending = [asyncio.create_task(both.asker.send([envelope() for _ in range(20)])) for _ in range(20)]
            await both.taken(1)
            road.cut()
            await asyncio.sleep(0)
            road.passable = True
            receipts = [receipt for each in await asyncio.gather(*sending) for receipt in each]
            assert len(receipts) == 400
            assert all(receipt.admitted for receipt in receipts)
            assert len(await both.worker.overdue(10)) == 0

    run(test())


def test_a_node_that_is_killed_loses_nothing(rabbitmq_alone: Node, settings: Settings) -> None:
    settings = settings.model_copy(update={"rabbitmq_url": SecretStr(rabbitmq_alone.url)})

    async def test() -> None:
        async with (
            ends(settings, patience_seconds=40) as both,
            ends(settings, address="momentum-1", patience_seconds=40) as kept,
        ):
            asker, worker = both.asker, both.worker
            queued = envelope(HIGH, deadline=time.time_ns() // 1000 + 60_000_000)
            waiting = asyncio.create_task(asker.send([queued]))

            async def is_queued() -> bool:
                async with await aio_pika.connect(rabbitmq_alone.url) as connection:
                    channel = await connection.channel()
                    await declare(channel)
                    found = await channel.declare_queue(QUEUES[HIGH], passive=True)
                    return found.declaration_result.message_count == 1

            await until(is_queued)  # confirmed by nobody but RabbitMQ, since there is no bridge yet
            before = [envelope(NORMAL), envelope(NORMAL)]
            async with Bridge(settings):
                assert (await waiting)[0].admitted
                await kept.asker.send(before)
                held = {each.envelope.id: each for each in await both.taken(3)}
                await worker.settle(before[0].id, b"before", held[before[0].id])
                await until(lambda: _has_come(kept.asker, before[0].id))
                await asyncio.to_thread(rabbitmq_alone.kill)
                await worker.settle(queued.id, b"meanwhile", held[queued.id])
                await worker.settle(before[1].id, b"meanwhile", held[before[1].id])
                after = envelope(CRITICAL, deadline=time.time_ns() // 1000 + 60_000_000)
                [receipt] = await asker.send([after])
                assert receipt.admitted
                await both.answer(1)
                assert {each.id: each.body for each in await both.replies(2)} == {
                    queued.id: b"meanwhile",
                    after.id: b"answer",
                }
                assert [(each.id, each.body) for each in await kept.replies(1)] == [(before[1].id, b"meanwhile")]

    run(test())


async def _is_cut(asker: RabbitAsker) -> bool:
    try:
        await asker.receive(0.05)
    except TransportUnavailable:
        return True
    return False


async def _has_come(asker: RabbitAsker, id: str) -> bool:
    return id in {each.id for each in await asker.receive(0.5)}


DYING = """
import asyncio, os, signal, sys
from mdplatform.messaging.rabbitmq import bridge as rabbitmq_bridge
from mdplatform.messaging.rabbitmq import replies as rabbitmq_replies
from mdplatform.settings import Settings

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    if "{where}" == "before it was admitted":
        rabbitmq_bridge.Bridge._send = die
    if "{where}" == "after it was admitted":
        rabbitmq_bridge._receipts = die
    if "{where}" == "after the reply was published":
        rabbitmq_replies.Replies._done_with = lambda self, read: die() if read else asyncio.sleep(0)
    if "{where}" == "after it was buried":
        rabbitmq_bridge.Bridge._send = die
    async with rabbitmq_bridge.Bridge(Settings.load()) as bridge:
        print("ready", flush=True)
        await bridge.run()

asyncio.run(main())
"""
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.mark.parametrize("where", ["before it was admitted", "after it was admitted", "after the reply was published"])
def test_a_bridge_that_is_killed_loses_and_doubles_nothing(
    where: str, rabbitmq_settings: Settings, python: Start
) -> None:
    dying = python(DYING.replace("{where}", where))
    assert dying.stdout is not None
    assert dying.stdout.readline() == "ready\n"

    async def test() -> None:
        async with ends(rabbitmq_settings) as both:
            sent = envelope()
            sending = asyncio.create_task(both.asker.send([sent]))
            if where == "after the reply was published":
                await both.answer(1)
            assert await asyncio.to_thread(dying.wait, 20) == -signal.SIGKILL
            async with Bridge(rabbitmq_settings):
                [receipt] = await sending
                assert receipt.admitted
                if where != "after the reply was published":
                    await both.answer(1)
                assert await both.worker.take(EVERY, 0.1) == []
                assert await both.replies(1) == [Reply(id=sent.id, final=True, body=b"answer")]

    run(test())


GOOD = encode(envelope(id="good"))
POISON = {
    "no msgpack": (b"\xc1 what is this?", {}),
    "empty": (b"", {}),
    "no envelope": (b"\x81\xa2id\xa1x", {}),
    "no id": (encode(envelope(id="x").__class__(id="", priority=LOW, deadline=1, sent_at=1, body=b"")), {}),
    "long id": (encode(envelope(id="x" * 300)), {}),
    "no time": (encode(envelope(deadline=-5)), {}),
    "late time": (encode(envelope(deadline=2**62)), {}),
    "no asker": (GOOD, {"app_id": None}),
    "strange asker": (GOOD, {"app_id": "../x\n"}),
    "no address": (GOOD, {"reply_to": None}),
    "another's queue": (GOOD, {"reply_to": QUEUES[CRITICAL]}),
    "no connection's number": (GOOD, {"headers": {"line": "x"}}),
    "large": (b"x" * 4_000_001, {}),
}


def test_poison_is_put_into_the_dead_letters_once_with_its_reason_and_harms_nobody(
    rabbitmq_settings: Settings, python: Start
) -> None:
    async def test() -> None:
        async with await aio_pika.connect(rabbitmq_settings.rabbitmq_url.get_secret_value()) as connection:
            channel = await connection.channel()
            await declare(channel)
            for body, given in POISON.values():
                fine: dict[str, Any] = {
                    "app_id": "asker-1",
                    "reply_to": "amq.rabbitmq.reply-to.nobody.there",
                    "correlation_id": "1",
                }
                fine["headers"] = {"line": 1}
                await channel.default_exchange.publish(aio_pika.Message(body, **(fine | given)), QUEUES[LOW])
            dying = python(DYING.replace("{where}", "after it was buried"))
            assert await asyncio.to_thread(dying.wait, 20) == -signal.SIGKILL
            async with Bridge(rabbitmq_settings), ends(rabbitmq_settings) as both:
                await both.asker.send([envelope(LOW)])
                await both.answer(1)
                assert len(await both.replies(1)) == 1
                dead = await channel.get_queue(DEAD)
                found = []
                while (message := await dead.get(fail=False)) is not None:
                    await message.ack()
                    found.append((message.body, str(message.headers["reason"]), message.headers["queue"]))
            assert [body for body, _, _ in found] == [body for body, _ in POISON.values()]
            assert all(queue == QUEUES[LOW] for _, _, queue in found)
            reasons = dict(zip(POISON, (reason for _, reason, _ in found), strict=True))
            assert "malformed" in reasons["no msgpack"]
            assert "priority" in reasons["no envelope"]
            assert "id" in reasons["no id"]
            assert "times" in reasons["late time"]
            assert "app_id" in reasons["no asker"]
            assert "reply_to" in reasons["another's queue"]
            assert "4000001" in reasons["large"]

    run(test())


def test_a_reply_to_an_address_that_is_none_harms_nobody(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with await aio_pika.connect(rabbitmq_settings.rabbitmq_url.get_secret_value()) as connection:
            channel = await connection.channel()
            async with Bridge(rabbitmq_settings), ends(rabbitmq_settings) as both:
                await both.asker.send([envelope()])
                message = aio_pika.Message(
                    encode(envelope()),
                    app_id="asker-1",
                    reply_to="amq.rabbitmq.reply-to.?/#",
                    correlation_id="1",
                    headers={"line": 1},
                )
                await channel.default_exchange.publish(message, QUEUES[NORMAL])
                await both.answer(2)
                assert len(await both.replies(1)) == 1

    run(test())


def test_what_nobody_takes_before_its_deadline_ends_in_the_dead_letters(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with ends(rabbitmq_settings) as both:
            sent = envelope(deadline=time.time_ns() // 1000 + 10)
            with pytest.raises(TransportUnavailable, match="mdplatform bridge"):
                await both.asker.send([sent])
            async with await aio_pika.connect(rabbitmq_settings.rabbitmq_url.get_secret_value()) as connection:
                dead = await (await connection.channel()).get_queue(DEAD)
                async with asyncio.timeout(10):
                    while (message := await dead.get(fail=False)) is None:
                        await asyncio.sleep(0.02)
                await message.ack()
                assert message.body == encode(sent)
                assert message.headers["x-first-death-reason"] == "expired"

    run(test())


def test_an_urgent_request_does_not_wait_behind_a_thousand_low_ones(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with ends(rabbitmq_settings) as both:
            flood = asyncio.gather(both.asker.send([envelope(LOW) for _ in range(999)]))  # the capacity is 1,000
            async with await aio_pika.connect(rabbitmq_settings.rabbitmq_url.get_secret_value()) as connection:
                channel = await connection.channel()

                async def is_flooded() -> bool:
                    await declare(channel)
                    found = await channel.declare_queue(QUEUES[LOW], passive=True)
                    return found.declaration_result.message_count == 999

                await until(is_flooded)
                urgent = asyncio.create_task(both.asker.send([envelope(CRITICAL)]))
                async with Bridge(rabbitmq_settings):
                    await urgent
                    low = await channel.declare_queue(QUEUES[LOW], passive=True)
                    assert low.declaration_result.message_count > 500
                    assert not flood.done()
                    assert all(receipt.admitted for receipt in (await flood)[0])

    run(test())


def test_two_bridges_share_the_work_and_one_carries_the_replies_after_the_other(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with ends(rabbitmq_settings) as both, Bridge(rabbitmq_settings):
            async with Bridge(rabbitmq_settings):
                await both.asker.send([envelope() for _ in range(200)])
                await both.answer(200)
                assert len({each.id for each in await both.replies(200)}) == 200
            await both.asker.send([envelope()])
            await both.answer(1)
            assert len(await both.replies(1)) == 1

    run(test())


def test_a_bridge_that_starts_later_takes_what_lies_in_the_queue(rabbitmq_settings: Settings) -> None:
    async def test() -> None:
        async with ends(rabbitmq_settings, patience_seconds=0.3) as both:
            sent = envelope(deadline=time.time_ns() // 1000 + 60_000_000)

            async def is_queued() -> bool:  # connecting may take longer than the asker's patience
                with pytest.raises(TransportUnavailable, match="No bridge took what was sent within"):
                    await both.asker.send([sent])
                async with await aio_pika.connect(rabbitmq_settings.rabbitmq_url.get_secret_value()) as connection:
                    channel = await connection.channel()
                    await declare(channel)
                    found = await channel.declare_queue(QUEUES[NORMAL], passive=True)
                    return bool(found.declaration_result.message_count)

            await until(is_queued)
            with pytest.raises(TransportUnavailable, match="No bridge answered"):
                await both.asker.look_up([sent.id])
            async with Bridge(rabbitmq_settings):
                await both.answer(1)
                assert [each.id for each in await both.replies(1)] == [sent.id]

    run(test())


def test_requests_wait_in_rabbitmq_while_redis_is_away(rabbitmq_settings: Settings, processes: Any) -> None:
    async def test() -> None:
        async with Bridge(rabbitmq_settings), ends(rabbitmq_settings) as both:
            await both.asker.send([envelope()])
            await both.answer(1)
            assert len(await both.replies(1)) == 1
            server = processes.server()
            subprocess.run(["kill", "-STOP", str(server)], check=True)
            sending = asyncio.create_task(both.asker.send([envelope()]))
            await asyncio.sleep(0.1)
            assert not sending.done()
            subprocess.run(["kill", "-CONT", str(server)], check=True)
            assert (await sending)[0].admitted
            await both.answer(1)
            assert len(await both.replies(1)) == 1

    run(test())


@pytest.mark.parametrize("how", ["wrong password", "nobody listens", "no virtual host"])
def test_errors_and_logs_say_no_password(
    how: str, rabbitmq_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    url = rabbitmq_settings.rabbitmq_url.get_secret_value()
    changed = {
        "wrong password": url.replace(QUOTED, QUOTED + "x"),
        "nobody listens": re.sub(r":\d+/", ":1/", url),
        "no virtual host": re.sub(r"/test\d$", "/nowhere", url),
    }[how]
    settings = rabbitmq_settings.model_copy(update={"rabbitmq_url": SecretStr(changed)})

    async def test() -> None:
        async with ends(settings, patience_seconds=0.5) as both:
            with pytest.raises(TransportUnavailable) as sent:
                await both.asker.send([envelope()])
            with pytest.raises(TransportUnavailable) as entered:
                async with Bridge(settings):
                    pass
            for text in (str(sent.value), str(entered.value), caplog.text):
                assert "127.0.0.1" in text
                assert PASSWORD not in text
                assert QUOTED not in text
            assert sent.value.__cause__ is None

    with caplog.at_level(logging.DEBUG):
        run(test())


@pytest.mark.parametrize("url", ["", "redis://localhost", "amqp://", "amqp://me:se/cret@host/", "amqp://h:99999/"])
def test_an_url_that_cannot_be_read_is_refused_without_being_shown(url: str, settings: Settings) -> None:
    settings = settings.model_copy(update={"rabbitmq_url": SecretStr(url)})
    for make in (RabbitAsker, Bridge):
        with pytest.raises(InvalidSetting, match=r"MDPLATFORM_RABBITMQ_URL.*amqp://user:password@host") as refused:
            make(settings)
        assert "cret" not in str(refused.value)


def test_the_command_carries_until_it_is_told_to_end(rabbitmq_settings: Settings) -> None:
    rabbitmq_settings.export()
    command = [sys.executable, "-m", "mdplatform", "bridge"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "Bridge to amqp://127.0.0.1" in process.stderr.readline()

            async def test() -> None:
                async with ends(rabbitmq_settings) as both:
                    await both.asker.send([envelope()])
                    await both.answer(1)
                    assert len(await both.replies(1)) == 1

            run(test())
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
