"""Bars as other programs write them to files, with nothing of the platform's own reading in it."""

from __future__ import annotations

import gzip
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

DUMP = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
HEADERS = {
    "none": None,
    "dump": DUMP,
    "title": "Open time,Open,High,Low,Close,Volume,Close time,Quote asset volume,Number of trades,"
    "Taker buy base asset volume,Taker buy quote asset volume,Ignore",
    "short": "timestamp,open,high,low,close,volume,close_time,quote_volume,trades,taker_buy_base,taker_buy_quote,x",
    "base": "ts,open,high,low,close,volume,close_time,quote_volume,trades,taker_base_volume,taker_quote_volume,x",
    "camel": "openTime,open,high,low,close,volume,closeTime,quoteAssetVolume,numberOfTrades,takerBuyBaseAssetVolume,"
    "takerBuyQuoteAssetVolume,ignore",
    "av": "Timestamp,Open,High,Low,Close,Volume,Close_time,Quote_av,Trades,Tb_base_av,Tb_quote_av,Ignore",
}
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
JANUARY_2025 = 1_735_689_600  # seconds


@dataclass(frozen=True)
class Bar:
    """A bar as text, except its times: seconds, `[open_time, close_time)`."""

    open_time: int
    close_time: int
    prices: tuple[str, str, str, str] = ("10.5", "11", "9.25", "10")
    volume: str = "3.5"
    quote_volume: str = "36.1"
    count: str = "7"
    taker: str = "1.5"
    taker_quote: str = "15.2"


def bars(count: int, length: int = 60, start: int = JANUARY_2025) -> list[Bar]:
    return [Bar(at, at + length) for at in range(start, start + count * length, length)]


def row(bar: Bar, unit: str = "ms") -> str:
    """Write a row as a dump has it: the end of a bar is its last instant, inclusive."""
    scale = PER_SECOND[unit]
    fields = [bar.open_time * scale, *bar.prices, bar.volume, bar.close_time * scale - 1, bar.quote_volume]
    return ",".join(map(str, [*fields, bar.count, bar.taker, bar.taker_quote, "0"]))


def dump(written: list[Bar], unit: str = "ms", header: str = "none", newline: str = "\n", last: bool = True) -> bytes:
    lines = [row(bar, unit) for bar in written]
    if HEADERS[header]:
        lines.insert(0, str(HEADERS[header]))
    return (newline.join(lines) + (newline if last else "")).encode()


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def save(folder: Path, stem: str, table: bytes, packing: str) -> Path:
    """Write a CSV plain, gzipped or zipped."""
    data = {"csv": table, "csv.gz": gzip.compress(table), "zip": zipped({f"{stem}.csv": table})}[packing]
    path = folder / f"{stem}.{packing}"
    path.write_bytes(data)
    return path
