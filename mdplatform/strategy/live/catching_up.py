"""Catching up: what was sent since a cursor, or what was let go before it was heard; and what was shown at a cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from mdplatform.messaging.broadcast import Listener, Missed, Post
from mdplatform.messaging.posting import BEGINNING, read_place
from mdplatform.strategy.live.lake_view import LakeView
from mdplatform.strategy.live.line import Line
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.cursor import Cursor

MOST_AT_ONCE = 8
"""Listeners that catch up at the same time."""
LONGEST_DELAY_US = 3_600_000_000
"""How late what is sent may be, for it to be found again."""
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
    """
    if any(topic not in cursor.places for topic in until):
        await refill(line)
    places = {topic: cursor.places.get(topic, BEGINNING) for topic in until}
    async for each in _between(listener, places, until):
        if isinstance(each, Missed):
            await refill(line)
        elif (packet := await readable(each)) is not None:
            await line.give_patiently(line.assembler.take(packet, line.held_since, each.place))


async def recall(
    line: Line,
    cursor: Cursor,
    stored: int,
    listener: Listener,
    readable: Callable[[Post], Awaitable[Packet | None]],
) -> None:
    """Let the line know what was sent before its cursor, and the lake, which ends at `stored` (microseconds), has not.

    Else a longer bar that closed there would be missing until the next one. Posts of that time are looked for
    `LONGEST_DELAY_US` further back, since what is sent may have been late. Raises `TransportUnavailable`.
    """
    back = cursor.time - stored + LONGEST_DELAY_US
    places = {topic: f"{max(0, read_place(place, topic)[0] - back)}-0" for topic, place in cursor.places.items()}
    async for each in _between(listener, places, cursor.places):
        if isinstance(each, Post) and _is_within(each, cursor.places) and (packet := await readable(each)) is not None:
            line.assembler.take(packet, line.held_since)


async def _between(
    listener: Listener, places: Mapping[str, str], until: Mapping[str, str]
) -> AsyncGenerator[Post | Missed, None]:
    """Give what a listener hears between places; of what is behind the last one, some may come too.

    Hearing nothing may mean that the server is away and the listener connects again. So it is asked for something,
    which fails where it is away; a second silence behind an answer means that it has no more, having forgotten.
    """
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
            yield each
            if not _is_within(each, until, is_last=False):
                open_topics.discard(each.topic)


def _is_within(each: Post | Missed, until: Mapping[str, str], is_last: bool = True) -> bool:
    """Whether it comes before a place, or, as `is_last`, at it."""
    place, end = read_place(each.place, each.topic), read_place(until[each.topic], each.topic)
    return place < end or (is_last and place == end)


async def refill(
    line: Line, lake: LakeView, until: int | None, layouts: dict[str, Layout], since: int | None = None
) -> None:
    """Give a line that is held what the lake has of the time since its last frame, up to `until` (microseconds).

    With `since` it is what the lake has behind that; it comes as if it were heard now, and corrects what was given.
    """
    is_late = since is not None
    since = line.assembler.over if since is None else since
    if since is None or until is None or until <= since or not lake.is_there:
        return
    past = lake.past(line.shape)
    layouts[past.layout.id] = past.layout
    pieces = past.packets(since + 1, until)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        for packet in piece:
            if is_late:
                line.hear(packet, "", time.monotonic())
                await asyncio.sleep(0)
            else:
                await line.give_patiently(line.assembler.take(packet, line.held_since))
