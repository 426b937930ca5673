"""`mdplatform bridge`: carries requests and replies between RabbitMQ and Redis."""

from __future__ import annotations

import asyncio
import signal

from mdplatform.cli.frame import err


def bridge() -> None:
    """Carry requests and replies between RabbitMQ (MDPLATFORM_RABBITMQ_URL) and Redis, until Ctrl-C.

    Any number may run. With MDPLATFORM_TRANSPORT=rabbitmq each `mdplatform worker` has one inside.

    Example:

        MDPLATFORM_RABBITMQ_URL=amqp://me:secret@queue.local/ mdplatform bridge
    """
    from mdplatform.messaging.rabbitmq.bridge import Bridge
    from mdplatform.messaging.rabbitmq.link import shown_url
    from mdplatform.settings import Settings

    settings = Settings.load()

    async def carry() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with Bridge(settings) as carrying:
            err.print(f"Bridge to {shown_url(settings)}   (Ctrl-C ends it)", highlight=False, soft_wrap=True)
            running = asyncio.create_task(carrying.run())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done():
                running.result()  # only what nobody thought of ends it
            running.cancel()

    asyncio.run(carry())
