"""Dating: whether an event may be dated as it is, so that a wrong date does not close what is open."""

from __future__ import annotations

from mdplatform.market.timeframe import DAY_US, MINUTE_US

AHEAD_US = MINUTE_US
"""How far an event may be dated ahead of the venue's time and of when it was received, whichever is later."""
AHEAD_UNRECEIVED_US = DAY_US
"""The same for what does not say when it was received, and while the venue's time is not known yet."""

_EARLIEST, _LATEST = 1_104_537_600_000_000, 4_102_444_800_000_000  # 2005 and 2100, as in the conventions


def is_possible(time: int) -> bool:
    """Tell whether an instant (µs) lies in the years that the conventions allow."""
    return _EARLIEST <= time < _LATEST


def is_believable(time: int, venue: int, received_at: int) -> bool:
    """Tell whether an event may be dated `time`, where the venue's time was `venue` before; 0 is what is not known.

    A machine whose clock was set back does not refuse what follows on the venue's time, nor does a venue that was
    silent for long refuse itself.
    """
    if not is_possible(time):
        return False
    if venue <= 0:
        return not received_at or time <= received_at + AHEAD_UNRECEIVED_US
    return time <= max(venue, received_at) + (AHEAD_US if received_at else AHEAD_UNRECEIVED_US)
