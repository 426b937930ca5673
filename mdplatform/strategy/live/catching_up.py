"""Catching up: what was sent since a cursor, or what was let go before it was heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.messaging.posting import BEGINNING, read_place
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.cursor import Cursor

MOST_AT_ONCE = 8
"""Listeners that catch up at the same time."""
_QUIET_SECONDS = 0.5


async def catch_up(
    line: Line,
    cursor: Cursor,
    until: Mapping[str, str],
    listener: Listener,
    readable: Callable[[Post], Awaitable[Packet | None]],
    refill: Callable[[Line], Awaitable[None]],
) -> None:
    """Give the line what was sent between its cursor and the places `until`, from where on it is heard anyway.

    For a symbol of which the cursor has no place, as that of a replay, it is what the lake has, and all that is kept.
    What comes twice by that is nothing new to the assembler. Raises `TransportUnavailable`: then it can be tried again.

    Hearing nothing may mean that the server is away and the listener connects again. So it is asked for something,
    which fails where it is away; a second silence behind an answer means that it has no more, having forgotten.
    """
    if any(topic not in cursor.places for topic in until):
        await refill(line)
    places = {topic: cursor.places.get(topic, BEGINNING) for topic in until}
    open_topics = {topic for topic, place in places.items() if until[topic] != place}
    await listener.follow(sorted(open_topics), {each: places[each] for each in open_topics})
    has_answered = False
    while open_topics:
        heard = await listener.receive(_QUIET_SECONDS)
        if not heard:
            if has_answered:
                return
            await listener.facts([min(open_topics)])
        has_answered = not heard
        for each in heard:
            if isinstance(each, Missed):
                await refill(line)
            elif (packet := await readable(each)) is not None:
                await line.give_patiently(line.assembler.take(packet, line.held_since, each.place))
            if read_place(each.place, each.topic) >= read_place(until[each.topic], each.topic):
                open_topics.discard(each.topic)


async def refill(line: Line, lake: LakeView, until: int | None, layouts: dict[str, Layout]) -> None:
    """Give the line what the lake has of the time since its last frame, up to `until` (microseconds)."""
    since = line.assembler.over
    if since is None or until is None or until <= since or not lake.is_there:
        return
    past = lake.past(line.shape)
    layouts[past.layout.id] = past.layout
    pieces = past.packets(since + 1, until)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        for packet in piece:
            await line.give_patiently(line.assembler.take(packet, line.held_since))
