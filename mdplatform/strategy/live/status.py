"""How a subscription is doing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mdplatform.strategy.live.subscription import Subscription


@dataclass(frozen=True)
class SubscriptionStatus:
    """Counts of one subscription since it began.

    `frames` were given to it, `dropped` were not, by its policy; `waiting` are in its queue. `failed` counts callbacks
    that raised, `error` is the last one's. `last_time` is T of the last frame, and `lag_ms` how long that took from
    being sent to the callback, None of history. `note` says why nothing comes; empty where nothing is wrong. `lost`
    counts the posts that were let go while its shape was held, and filled in from the lake as far as it had them.
    """

    subscription_id: str
    strategy_id: str
    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    real_time: bool
    frames: int
    dropped: int
    waiting: int
    failed: int
    error: str
    last_time: datetime | None
    lag_ms: float | None
    note: str
    lost: int = 0


def status_of(subscription: Subscription, note: str, lost: int = 0) -> SubscriptionStatus:
    """Give the status of a subscription."""
    wanted, last = subscription.wanted, subscription.last
    is_timed = last is not None and last.sent_at > 0
    return SubscriptionStatus(
        subscription.id,
        wanted.strategy_id,
        wanted.shape.symbols,
        tuple(each.value for each in wanted.shape.timeframes),
        wanted.real_time,
        subscription.frames,
        subscription.dropped,
        len(subscription.waiting),
        subscription.failed,
        subscription.error,
        None if last is None else last.time,
        None if last is None or not is_timed else subscription.last_at / 1e6 - last.sent_at / 1e3,
        note,
        lost,
    )
