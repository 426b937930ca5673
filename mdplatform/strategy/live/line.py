"""A line: one shape's assembler, and all subscriptions of it.

Packets that are heard become frames, and each frame is given to every subscription before the next one is. A line can
be *held*: then packets wait in it, in order, until it is released. It is held while it is opened, while it catches up
with what it missed, and while a subscription with the policy `block` has no room; that for at most `BLOCK_SECONDS` or
`MOST_HELD` packets, after which the subscription drops its oldest frames until it has had room again.

What is caught up with, and what was held meanwhile (`drain`), waits for every callback, whatever its policy, within the
same bounds. Forming bars are never held: those that come later say as much.

Grace runs by when packets were heard, not by when a line that was held comes to take them; for what is caught up with
meanwhile, which was sent before, it stands still (`held_since`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable

from mdplatform.strategy.live.subscription import Subscription
from mdplatform.strategy.live.wanted import Policy
from mdplatform.streaming.assembler import Assembler
from mdplatform.streaming.cells import Layout, Packet
from mdplatform.streaming.frame import Frame
from mdplatform.streaming.shape import Shape

BLOCK_SECONDS = 10.0
MOST_HELD = 10_000
CATCHING_UP = "catching up with what was sent since its cursor"
_AT_ONCE = 64
_log = logging.getLogger(__name__)


class Line:
    """The frames of one shape, in one event loop."""

    def __init__(self, shape: Shape, layouts: dict[str, Layout]) -> None:
        self.shape = shape
        self.assembler = Assembler(shape, layouts)
        self.held_for = "opening"
        self.held_since = time.monotonic()
        self.lost = 0
        self.is_refill_wanted = False
        self.unfilled = ""
        self.is_closed = False
        self.successor: Line | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._is_listed = True
        self._all: tuple[Subscription, ...] = ()
        self._blockers: tuple[Subscription, ...] = ()
        self._excused: set[str] = set()
        self._frames: deque[Frame] = deque()
        self._held: deque[tuple[Packet, str, float]] = deque()
        self._waiter: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._subscriptions)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held and nothing waits to be given."""
        return not self.held_for and self._waiter is None and not self._frames

    @property
    def is_blocked(self) -> bool:
        """Whether a subscription is waited for."""
        return self._waiter is not None

    @property
    def newest(self) -> Line:
        """The line that serves its subscriptions now: itself, or the one that took over."""
        line = self
        while line.successor is not None:
            line = line.successor
        return line

    def add(self, subscription: Subscription) -> None:
        """Give frames to this one too, from the next one on."""
        self._subscriptions[subscription.id] = subscription
        self._is_listed = False

    def remove(self, subscription_id: str) -> None:
        """Give it none any more."""
        self._subscriptions.pop(subscription_id, None)
        self._excused.discard(subscription_id)
        self._is_listed = False

    def take_over(self, other: Line) -> None:
        """Serve the subscriptions of a line that has come as far as this one."""
        self._subscriptions.update(other._subscriptions)
        self._excused |= other._excused
        other._subscriptions.clear()
        other.successor = self
        self._is_listed = other._is_listed = False

    def hear(self, packet: Packet, place: str, now: float) -> None:
        """Take a packet that was heard at `now` (monotonic seconds), or hold it."""
        if self.held_for or self._waiter is not None:
            self._held.append((packet, place, now))
            if len(self._held) > MOST_HELD:
                self._overflow()
        elif frames := self.assembler.take(packet, now, place):
            self._frames.extend(frames)
            self._pump()

    def hear_forming(self, packet: Packet) -> None:
        """Take forming cells, unless the line is held."""
        if not self.held_for and self._waiter is None and (frames := self.assembler.form(packet)):
            self._frames.extend(frames)
            self._pump()

    def tick(self, now: float) -> None:
        """Make the frames that have waited for so long as they may."""
        if not self.held_for and self._waiter is None:
            due = self.assembler.due
            if due is not None and due <= now:
                self._frames.extend(self.assembler.tick(now))
                self._pump()

    @property
    def due(self) -> float | None:
        """When `tick` has something to do."""
        return None if self.held_for or self._waiter is not None else self.assembler.due

    def hold(self, reason: str) -> None:
        """Hold what is heard from now on."""
        if not self.held_for:
            self.held_since = self._held[0][2] if self._held else time.monotonic()
        self.held_for = reason

    def release(self) -> None:
        """Go on with what was held."""
        self.held_for = ""
        self._listed()
        self._excused.intersection_update(each.id for each in self._blockers)
        if self._waiter is None and (full := self._blocking()):  # by what it was given while the line was held
            self._wait_and_pump(full)
        else:
            self._pump()

    async def drain(self) -> None:
        """Give what was held as patiently, with what is heard meanwhile; stop where something is to be filled in first.

        The line stays held.
        """
        count = 0
        while self._held and not (self.is_closed or self.is_refill_wanted):
            packet, place, heard_at = self._held.popleft()
            await self.give_patiently(self.assembler.take(packet, heard_at, place))
            count += 1
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def give_patiently(self, frames: Iterable[Frame]) -> None:
        """Give frames to who has room for them; wait for the others, so that what is caught up with is not dropped."""
        self._frames.extend(frames)
        while self._frames:
            frame = self._frames.popleft()
            full = [each for each in self._listed() if each.is_full and each.id not in self._excused]
            if full:
                self._patience = asyncio.get_running_loop().create_task(self._wait_for(full))
                try:
                    await asyncio.wait([self._patience])
                finally:
                    self._patience.cancel()
                    self._patience = None
            for each in self._listed():
                each.offer(frame)

    async def close(self) -> None:
        """Stop; what is held is let go."""
        self.held_for = "closed"
        self.is_closed = True
        self._held.clear()
        self._frames.clear()
        if self._waiter is not None:
            self._waiter.cancel()
            await asyncio.gather(self._waiter, return_exceptions=True)

    def _listed(self) -> tuple[Subscription, ...]:
        """Give all subscriptions, as they are now: one may end while others are called."""
        if not self._is_listed:
            self._all = tuple(self._subscriptions.values())
            self._blockers = tuple(each for each in self._all if each.wanted.policy is Policy.BLOCK)
            self._is_listed = True
        return self._all

    def _pump(self) -> None:
        """Give what waits, then what is held, until somebody blocks."""
        while self._waiter is None and not self.held_for:
            if self._frames:
                frame, has_kept = self._frames.popleft(), False
                for each in self._listed():
                    if each.offer(frame):
                        has_kept = True
                # who has taken its frame has room: nobody is looked at where all have
                if (has_kept or self._excused) and (full := self._blocking()):
                    self._wait_and_pump(full)
            elif self._held:
                packet, place, heard_at = self._held.popleft()
                self._frames.extend(self.assembler.take(packet, heard_at, place))
            else:
                return

    def _blocking(self) -> list[Subscription]:
        for each in self._blockers:
            if not each.is_full:
                self._excused.discard(each.id)
        return [each for each in self._blockers if each.is_blocking and each.id not in self._excused]

    def _wait_and_pump(self, full: list[Subscription]) -> None:
        self._waiter = asyncio.get_running_loop().create_task(self._wait_and_go_on(full))

    async def _wait_and_go_on(self, full: list[Subscription]) -> None:
        await self._wait_for(full)
        self._waiter = None
        self._pump()

    async def _wait_for(self, full: list[Subscription]) -> None:
        """Wait until they have room; who has none in the end does not hold back the others until it has."""
        try:
            async with asyncio.timeout(BLOCK_SECONDS):
                for each in full:
                    await each.room()
        except TimeoutError:
            for each in full:
                if each.is_full and each.is_open:
                    _log.warning("Subscription %s held back its shape for too long: it drops frames", each.id)
                    self._excused.add(each.id)

    def _overflow(self) -> None:
        """Make room where too much is held: who is waited for is so no longer, and the oldest packet may be let go.

        Before the line is released, what is let go is to be filled in.
        """
        if self._patience is not None:
            self._excused.update(each.id for each in self._listed() if each.is_full)
            self._patience.cancel()
        if self._waiter is None:
            if not self.is_refill_wanted:
                _log.warning("More than %d posts came while a line was held: the oldest are let go", MOST_HELD)
            self._held.popleft()
            self.lost += 1
            self.is_refill_wanted = True
            return
        self._excused.update(each.id for each in self._blockers if each.is_full)
        self._waiter.cancel()
        self._waiter = None
        self._pump()
