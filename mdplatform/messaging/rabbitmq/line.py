"""An asker's line to RabbitMQ: one channel with a reply address, made anew whenever it is cut.

The address is a direct reply, which ends with the channel; or, for a line that is `kept`, a queue of the asker's own,
in which replies wait for the asker, or for another of its name, until they are taken.

Whoever asked on a channel that was cut gets None instead of an answer, and asks again. Each time the line is there
(again), `back` is called, so that the asker can say where it is, and adopt what it has open.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from mdplatform.errors import TransportUnavailable
from mdplatform.messaging.rabbitmq.inbox import Taken
from mdplatform.messaging.rabbitmq.link import (
    CONNECT_SECONDS,
    DIRECT_REPLY,
    LINE,
    RABBIT_FAILURES,
    Channel,
    DeliveryError,
    IncomingMessage,
    Message,
    backoff_seconds,
    connected,
    declare,
    declare_replies,
    end,
    speaking,
    unavailable,
)
from mdplatform.messaging.rabbitmq.wire import Told, read_told
from mdplatform.settings import Settings

_PUBLISH_SECONDS = 10.0
_log = logging.getLogger(__name__)


class RabbitLine:
    """`told` gets replies, and what is to be done once they are taken.

    `failure` is why there is no connection, if there is none; `number` counts the connections that there were.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        told: Callable[[Told, Taken | None], None],
        back: Callable[[], Awaitable[None]],
        *,
        kept: bool = False,
    ) -> None:
        self.failure: TransportUnavailable | None = None
        self.number = 0
        self._settings = settings
        self._name = name
        self._told = told
        self._kept = kept
        self._reply_to = DIRECT_REPLY
        self._back = back
        self._channel: Channel | None = None
        self._cut = asyncio.Event()
        self._connected = asyncio.Event()
        self._numbers = itertools.count(1)
        self._words: dict[str, asyncio.Future[Any]] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    def keep(self) -> None:
        """Connect, and stay connected, in the background. Raises `TransportUnavailable` if the line was closed."""
        if self._closed:
            raise TransportUnavailable("This asker was closed", remedy="Make a new one")
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._stay())

    async def ask(self, queue: str, message: Message) -> Any:
        """Publish once there is a connection, and give the bridge's word on it; None if it was cut before that.

        Raises `DeliveryError` if the queue is full. Bound it: it waits for as long as it takes.
        """
        self.keep()
        await self._connected.wait()
        number = str(next(self._numbers))
        message.correlation_id, message.reply_to, message.app_id = number, self._reply_to, self._name
        message.headers = {LINE: self.number}
        word = self._words[number] = asyncio.get_running_loop().create_future()
        publishing = asyncio.create_task(self._publish(queue, message, word))
        self._publishing.add(publishing)
        publishing.add_done_callback(self._publishing.discard)
        try:
            return await word
        finally:
            del self._words[number]

    async def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        if self._keeper is not None:
            await end(self._keeper)

    async def _publish(self, queue: str, message: Message, word: asyncio.Future[Any]) -> None:
        channel, cut = self._channel, self._cut
        if channel is None:
            _say(word, None)
            return
        try:
            async with asyncio.timeout(_PUBLISH_SECONDS):
                await channel.default_exchange.publish(message, queue, mandatory=False)
        except DeliveryError as refused:
            if not word.done():
                word.set_exception(refused)
        except RABBIT_FAILURES as failure:
            self.failure = unavailable(self._settings, failure)
            cut.set()
            _say(word, None)

    async def _stay(self) -> None:
        attempts = 0
        while True:
            try:
                async with connected(self._settings, f"asker {self._name}") as connection:
                    async with speaking(self._settings, CONNECT_SECONDS):
                        channel = await connection.channel(on_return_raises=False)
                        await declare(channel)
                        if self._kept:
                            self._reply_to = await declare_replies(channel, self._name)
                        replies = await channel.get_queue(self._reply_to, ensure=False)
                        await replies.consume(self._take, no_ack=not self._kept, exclusive=self._kept)
                    self._cut = cut = asyncio.Event()
                    channel.close_callbacks.add(lambda *_, cut=cut: cut.set())
                    connection.close_callbacks.add(lambda *_, cut=cut: cut.set())
                    attempts = 0
                    await self._serve(channel, cut)
            except TransportUnavailable as failure:
                self.failure = failure
            if attempts == 0:
                _log.warning("The connection was cut, and is made again: %s", self.failure)
            await asyncio.sleep(backoff_seconds(attempts))
            attempts += 1

    async def _serve(self, channel: Channel, cut: asyncio.Event) -> None:
        self._channel, self.failure, self.number = channel, None, self.number + 1
        self._connected.set()
        back = asyncio.create_task(self._run_back())
        try:
            await cut.wait()
        finally:
            self._connected.clear()
            self._channel = None
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for word in list(self._words.values()):
                _say(word, None)
        raise self.failure or unavailable(self._settings, ConnectionResetError("the channel was closed"))

    async def _run_back(self) -> None:
        await self._back()

    async def _take(self, message: IncomingMessage) -> None:
        try:
            told = read_told(message.body)
        except msgspec.MsgspecError:
            _log.warning("A reply that cannot be read was dropped")
            return
        for words in (told.receipts, told.findings):
            for number, word in words.items():
                waiting = self._words.get(number)
                if waiting is not None:
                    _say(waiting, word)
        if not self._kept:
            self._told(told, None)
        elif told.replies:
            self._told(told, partial(self._acknowledge, message))
        else:
            await self._acknowledge(message)

    async def _acknowledge(self, message: IncomingMessage) -> None:
        try:
            async with speaking(self._settings, _PUBLISH_SECONDS):
                await message.ack()
        except TransportUnavailable:
            _log.info("A reply that was taken before the line was cut comes again, and is dropped")


def _say(word: asyncio.Future[Any], what: object) -> None:
    if not word.done():
        word.set_result(what)
