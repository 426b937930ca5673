"""Where things lie in Redis.

    mdp:{BTCUSDT}:15m:<spec id>    the newest rows of one feature: one blob (see `codec`), with an expiry
    mdp:{BTCUSDT}:bars             the sequence number of the symbol's bars: a decimal integer, without an expiry
    mdp:{BTCUSDT}:trades           that of its trades; so `depth`
    mdp:{macro}:CPIAUCSL           that of a series
    mdp:{sentiment}:all            that of what is not told apart
    mdp:{lent:3f…}                 a result that workers share for some seconds, by a hash of the question

The braces make the symbol the hash tag, so that in a cluster all keys of a symbol lie in one slot, and one script or
one `MGET` can use them together. A symbol has no braces, colons or small letters in it, so no two of these keys can be
the same.
"""

from __future__ import annotations

import string

from mdplatform.market.timeframe import Timeframe

PREFIX = "mdp"
OF_A_SYMBOL = frozenset(["bars", "trades", "depth"])
"""The datasets that are a symbol's own."""
TRACKED = (
    *(f"{PREFIX}:{{{first}" for first in string.digits + string.ascii_uppercase),
    f"{PREFIX}:{{macro}}:",
    f"{PREFIX}:{{sentiment}}:",
)
"""How keys begin that readers keep near, and hear of (`tracking`).

These and not `mdp:`, because the busiest keys, those of requests and of the live feed, have other tags; and not one for
each symbol, because Redis looks through all of them at each write.
"""


def blob_key(symbol: str, timeframe: Timeframe, spec_id: str) -> str:
    """Give the key of a feature's blob.

    >>> blob_key("BTCUSDT", Timeframe.M15, "4f1c")
    'mdp:{BTCUSDT}:15m:4f1c'
    """
    return f"{PREFIX}:{{{symbol}}}:{timeframe.value}:{spec_id}"


def need_key(dataset: str, key: str) -> str:
    """Give the key of the sequence number of a dataset, or of that symbol or series of it.

    >>> need_key("bars", "BTCUSDT"), need_key("macro", "CPIAUCSL"), need_key("sentiment", "")
    ('mdp:{BTCUSDT}:bars', 'mdp:{macro}:CPIAUCSL', 'mdp:{sentiment}:all')
    """
    if dataset in OF_A_SYMBOL:
        return f"{PREFIX}:{{{key}}}:{dataset}"
    return f"{PREFIX}:{{{dataset}}}:{key or 'all'}"


def lent_key(question: str) -> str:
    """Give the key of what workers share of a question, known by its hash.

    >>> lent_key("3f9c")
    'mdp:{lent:3f9c}'
    """
    return f"{PREFIX}:{{lent:{question}}}"


def is_tracked(key: str) -> bool:
    """Tell whether a key is one that readers keep near.

    >>> is_tracked("mdp:{BTCUSDT}:bars"), is_tracked("mdp:{requests}:changes")
    (True, False)
    """
    return key.startswith(TRACKED)


def bars_key(symbol: str) -> str:
    """Give the key of the sequence number of a symbol's bars.

    >>> bars_key("BTCUSDT")
    'mdp:{BTCUSDT}:bars'
    """
    return need_key("bars", symbol)


def read_sequence(held: bytes | None) -> int:
    """Give the number that a sequence's key holds; 0 for none, or for what is no number."""
    return int(held) if held is not None and held.isdigit() else 0
