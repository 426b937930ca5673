"""Timeframes: the names of the conventions and their arithmetic on the UTC epoch.

Instants are integers, microseconds since 1970-01-01T00:00Z; weeks start on Monday 00:00.
"""

from __future__ import annotations

from enum import StrEnum

from mdplatform.errors import UnknownTimeframe

MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
_FIRST_MONDAY_US = 4 * DAY_US  # the epoch was a Thursday


class Timeframe(StrEnum):
    """The length of a bar, written as in `15m`; a bar covers `[open_time, open_time + timeframe)`."""

    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"
    W1 = "1w"

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        """Give the timeframe of that name.

        >>> Timeframe.parse("15m").microseconds
        900000000
        >>> Timeframe.parse("15M")
        Traceback (most recent call last):
        mdplatform.errors.UnknownTimeframe: Unknown timeframe: '15M'. Allowed: 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 1w
        """
        try:
            return cls(text)
        except ValueError:
            raise UnknownTimeframe(text, [each.value for each in cls]) from None

    @property
    def microseconds(self) -> int:
        """The length in microseconds."""
        return _LENGTH_US[self]

    def floor(self, instant: int) -> int:
        """Give the open time of the bar that holds `instant`.

        >>> Timeframe.H1.floor(3_600_000_001)
        3600000000
        """
        return instant - (instant - self._origin) % self.microseconds

    def ceil(self, instant: int) -> int:
        """Give the first open time at or after `instant`."""
        return instant + (self._origin - instant) % self.microseconds

    def is_aligned(self, instant: int) -> bool:
        """Tell whether `instant` is the open time of a bar."""
        return (instant - self._origin) % self.microseconds == 0

    def divides(self, other: Timeframe) -> bool:
        """Tell whether bars of `other` can be built from bars of this timeframe.

        >>> Timeframe.M15.divides(Timeframe.H1), Timeframe.H8.divides(Timeframe.H12)
        (True, False)
        """
        return other.microseconds > self.microseconds and other.microseconds % self.microseconds == 0

    @property
    def _origin(self) -> int:
        return _FIRST_MONDAY_US if self is Timeframe.W1 else 0


_UNIT_US = {"m": MINUTE_US, "h": 60 * MINUTE_US, "d": DAY_US, "w": 7 * DAY_US}
_LENGTH_US = {each: int(each.value[:-1]) * _UNIT_US[each.value[-1]] for each in Timeframe}
