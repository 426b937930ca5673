"""What a request wants from the run path, and the words by which partitions and changes are told."""

from __future__ import annotations

import msgspec

from mdplatform.messaging.priority import DataPriority


class RunWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Partitions that a request cannot be answered without, and that somebody may have: the body of a `Wanted`.

    `partitions` are keys of the lake by asset: `{"bars": ("BTCUSDT/2025-03",)}`. `deadline` is the request's.
    """

    request_id: str
    strategy_id: str
    priority: DataPriority
    partitions: dict[str, tuple[str, ...]]
    deadline: int


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a worker computed and published: an entry of the outbox of lineage.

    `asset` and `partition` (a key of the lake) are those that a run would have made it under.
    """

    asset: str
    partition: str
    feature: str
    timeframe: str
    version: str
    rows: int
    worker: str
    request_id: str
    strategy_id: str
    at: int
    took_ms: float


def need(dataset: str, key: str) -> str:
    """Give the text by which a request waits for a dataset of a symbol or series.

    >>> need("bars", "BTCUSDT"), need("sentiment", "")
    ('bars/BTCUSDT', 'sentiment/')
    """
    return f"{dataset}/{key}"


def needs(wanted: RunWanted) -> tuple[str, ...]:
    """Give the needs by which what is wanted comes.

    >>> bars = {"bars": ("BTCUSDT/2025-03", "BTCUSDT/2025-04"), "macro_series": ("CPIAUCSL",)}
    >>> needs(RunWanted(request_id="a", strategy_id="b", priority=DataPriority.LOW, partitions=bars, deadline=0))
    ('bars/BTCUSDT', 'macro/CPIAUCSL')
    """
    datasets = {"macro_series": "macro"}
    told = ((datasets.get(asset, asset), key) for asset, keys in wanted.partitions.items() for key in keys)
    return tuple(dict.fromkeys(need(dataset, key.partition("/")[0]) for dataset, key in told))


_encoder = msgspec.msgpack.Encoder()
_wanted = msgspec.msgpack.Decoder(RunWanted)
_made = msgspec.msgpack.Decoder(Made)


def encode(entry: RunWanted | Made) -> bytes:
    """Give the bytes of an entry."""
    return _encoder.encode(entry)


def decode_wanted(raw: bytes) -> RunWanted:
    """Read what is wanted. Raises `msgspec.DecodeError`."""
    return _wanted.decode(raw)


def decode_made(raw: bytes) -> Made:
    """Read what was made. Raises `msgspec.DecodeError`."""
    return _made.decode(raw)
