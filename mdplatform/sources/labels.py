"""Labels: the symbol and the timeframe that a file's name and folders say.

`BTCUSDT-1m-2025-02.csv`, `BTCUSDT_5m.csv` and `production_BTCUSDT_1m_20250628.parquet` say both; a name without them is
helped out by its folders: `…/BTCUSDT/15m/2025-01-06.json`, `…/spot_15m/BTCUSDT.parquet`.
"""

from __future__ import annotations

import re
from pathlib import PurePath

_TIMEFRAME = r"\d{1,3}(?:mo|[smhdwM])"
_SYMBOL = r"[A-Z0-9]+(?:[_\-][A-Z0-9]+)*"
_BOTH = re.compile(rf"^(?:[a-z]+_)*({_SYMBOL})[_\-]({_TIMEFRAME})(?=$|[_\-.])")
_SYMBOL_AND_DAY = re.compile(
    r"^(?:[a-z]+_)*([A-Z0-9]*[A-Z][A-Z0-9]*(?:[_\-][A-Z0-9]+)*?)(?:[_\-]\d{4}(?:[_\-Q]?\d+)*)?$"
)
_FOLDER = re.compile(r"^(?:.*[_\-])?(1s|[135]m|15m|30m|[12468]h|12h|[13]d|1w|1mo|1M)$")
_ENDINGS = re.compile(r"\.(csv|json|parquet|pq|feather|arrow|ipc|zip|gz|txt)$", re.IGNORECASE)
_OTHER_KINDS = {
    "fundingrate": "funding rates", "aggtrades": "aggregated trades", "bookticker": "best bids and asks",
    "bookdepth": "order book depth", "liquidationsnapshot": "liquidations", "markpriceklines": "mark prices",
    "indexpriceklines": "index prices", "premiumindexklines": "premium indexes", "trades": "trades",
    "mark": "mark prices", "metrics": "open interest",
}  # fmt: skip


def stem_of(name: str) -> str:
    """Give a file's name without its endings.

    >>> stem_of("BTCUSDT-1m-2025-01.csv.gz")
    'BTCUSDT-1m-2025-01'
    """
    while _ENDINGS.search(name):
        name = _ENDINGS.sub("", name)
    return name


def labels_of(path: PurePath) -> tuple[str | None, str | None]:
    """Give the symbol and the timeframe that `path` says, as written; None for what it does not say.

    >>> labels_of(PurePath("x/ETH_USDT-5m.feather"))
    ('ETH_USDT', '5m')
    >>> labels_of(PurePath("cache/BTCUSDT/15m/2025-01-06.json.gz"))
    ('BTCUSDT', '15m')
    >>> labels_of(PurePath("spot_1h/BTCUSDT-2025Q1.parquet"))
    ('BTCUSDT', '1h')
    >>> labels_of(PurePath("5minutes.csv"))
    (None, None)
    """
    stem = stem_of(path.name)
    if both := _BOTH.match(stem):
        return both[1], both[2]
    named = _SYMBOL_AND_DAY.match(stem)
    symbol = named[1] if named else None
    folder = _FOLDER.match(path.parent.name)
    timeframe = folder[1] if folder else None
    above = path.parent.parent.name
    if symbol is None and timeframe == path.parent.name and re.fullmatch(_SYMBOL, above):
        symbol = above
    return symbol, timeframe


def other_kind_of(path: PurePath) -> str:
    """Give what else than bars of trades a path says it holds, or an empty text.

    >>> other_kind_of(PurePath("XRP_USDT-8h-funding_rate.feather"))
    'funding rates'
    """
    stem = stem_of(path.name)
    words = [word.casefold() for word in re.split(r"[\-.]", stem)[1:]]
    words += [word.replace("_", "") for word in words]
    folders = [parent.name.casefold() for parent in list(path.parents)[:3]]
    words += [folder for folder in folders if folder.endswith("klines")]
    return next((_OTHER_KINDS[word] for word in words if word in _OTHER_KINDS), "")
