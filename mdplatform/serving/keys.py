"""Where things lie in Redis.

    mdp:{BTCUSDT}:15m:<spec id>    the newest rows of one feature: one blob (see `codec`), with an expiry
    mdp:{BTCUSDT}:bars             the sequence number of the symbol's bars: a decimal integer, without an expiry

The braces make the symbol the hash tag, so that in a cluster all keys of a symbol lie in one slot, and one script or
one `MGET` can use them together. A symbol has no braces or colons in it, so no two of these keys can be the same.
"""

from __future__ import annotations

from mdplatform.market.timeframe import Timeframe

PREFIX = "mdp"


def blob_key(symbol: str, timeframe: Timeframe, spec_id: str) -> str:
    """Give the key of a feature's blob.

    >>> blob_key("BTCUSDT", Timeframe.M15, "4f1c")
    'mdp:{BTCUSDT}:15m:4f1c'
    """
    return f"{PREFIX}:{{{symbol}}}:{timeframe.value}:{spec_id}"


def bars_key(symbol: str) -> str:
    """Give the key of the sequence number of a symbol's bars.

    >>> bars_key("BTCUSDT")
    'mdp:{BTCUSDT}:bars'
    """
    return f"{PREFIX}:{{{symbol}}}:bars"
