"""Unpacking: from a path to the bytes inside, bounded, verified, and with one clear error for what is damaged.

What a file is follows from its first bytes, not from its name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mdplatform.errors import (
    ChecksumMismatch,
    EmptyFile,
    OversizedFile,
    SourceUnavailable,
    TruncatedFile,
    UnknownFormat,
)

_CHUNK = 1 << 20
_ALLOWED = "Allowed: CSV, Binance's kline JSON, Parquet, Feather; CSV and JSON also as .gz or alone in a .zip"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of one table, what they are (`csv`, `json`, `parquet`, `feather`), and their name inside a zip."""

    kind: str
    data: bytes
    inner_name: str | None


def unpack(path: Path, max_bytes: int) -> Content:
    """Read, verify and unpack a file; nothing larger than `max_bytes` is ever held.

    Raises `SourceUnavailable` (cannot be read), `ChecksumMismatch`, `EmptyFile`, `TruncatedFile`, `OversizedFile` and
    `UnknownFormat`.
    """
    data = read_bytes(path, max_bytes)
    verify_checksum(path, data)
    if not data:
        raise EmptyFile(f"{path} is empty", value=0)
    inner_name = None
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        inner_name, data = _unzip(path, data, max_bytes)
    elif data.startswith(b"\x1f\x8b"):
        try:
            data = _bounded(gzip.GzipFile(fileobj=io.BytesIO(data)), path, max_bytes)
        except (EOFError, zlib.error, gzip.BadGzipFile) as broken:
            raise TruncatedFile(f"{path} is a damaged gzip file", value=str(broken), remedy="Fetch it again") from None
    if not data[:4096].strip() and not data.strip():
        raise EmptyFile(f"{path} has nothing in it", value=len(data))
    return Content(_kind(path, data), data, inner_name)


def verify_checksum(path: Path, data: bytes) -> None:
    """Compare with `NAME.CHECKSUM` (sha256, `hash  filename`) where that lies beside the file."""
    beside = path.with_name(path.name + ".CHECKSUM")
    if not beside.is_file():
        return
    expected = parse_checksum(read_bytes(beside, 1 << 16), path.name, str(beside))
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ChecksumMismatch(
            f"{path} differs from the checksum beside it ({expected})", value=found, remedy="Fetch the file again"
        )


def parse_checksum(text: bytes, name: str, where: str) -> str:
    """Give the sha256 that a `.CHECKSUM` file states for `name`.

    >>> parse_checksum(b"AB" * 32 + b"  x.zip", "x.zip", "x.zip.CHECKSUM")[:4]
    'abab'
    """
    lines = re.findall(rb"^\s*([0-9a-fA-F]{64})(?:[ \t]+\*?(\S.*?))?\s*$", text, re.MULTILINE)
    named = [found for found, said in lines if said.decode(errors="replace") == name]
    stated: list[bytes] = named or [found for found, _ in lines]
    if len(stated) != 1:
        raise ChecksumMismatch(f"{where} states no sha256 of {name}", value=text[:100].decode(errors="replace"))
    return stated[0].decode().lower()


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a file up to a bound. Raises `SourceUnavailable` (a pipe or device too) and `OversizedFile`."""
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise SourceUnavailable(f"{path} {what}", remedy="Give the path of a file or of a folder")
        with path.open("rb") as file:
            return _bounded(file, path, max_bytes)
    except OSError as refused:
        raise SourceUnavailable(f"{path} cannot be read", value=refused.strerror or str(refused)) from None


def _bounded(stream: IO[bytes] | gzip.GzipFile, path: Path, max_bytes: int) -> bytes:
    parts, size = [], 0
    while part := stream.read(_CHUNK):
        size += len(part)
        if size > max_bytes:
            raise OversizedFile(
                f"{path} is larger than allowed, unpacked",
                value=f"more than {max_bytes} bytes",
                remedy="Raise MDPLATFORM_MAX_FILE_MB if you trust it",
            )
        parts.append(part)
    return b"".join(parts)


def _unzip(path: Path, data: bytes, max_bytes: int) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            tables = [each for each in archive.infolist() if each.filename.lower().endswith((".csv", ".json"))]
            if len(tables) != 1:
                names = [each.filename for each in archive.infolist()]
                raise UnknownFormat(
                    f"{path} holds {len(tables)} CSV or JSON files",
                    value=names[:5],
                    remedy="A zip must hold exactly one",
                )
            if tables[0].flag_bits & 0x1:
                raise TruncatedFile(f"{path} is encrypted", value=tables[0].filename, remedy="Unpack it first")
            with archive.open(tables[0]) as member:
                return Path(tables[0].filename).name, _bounded(member, path, max_bytes)
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, OSError) as broken:
        raise TruncatedFile(f"{path} is a damaged zip file", value=str(broken), remedy="Fetch it again") from None
    except (NotImplementedError, RuntimeError) as unknown:
        raise UnknownFormat(f"{path} is a zip of an unknown kind", value=str(unknown)) from None


def refuse_packed(path: Path, data: bytes) -> None:
    """Raise `UnknownFormat` for data that are packed in a way that is not read."""
    for name, mark in (("zstd", b"\x28\xb5\x2f\xfd"), ("xz", b"\xfd7zXZ"), ("bzip2", b"BZh")):
        if data.startswith(mark):
            raise UnknownFormat(
                f"{path} is packed with {name}, which is not read", remedy=f"Unpack it first ({name} -d)"
            )


def _kind(path: Path, data: bytes) -> str:
    refuse_packed(path, data)
    if data.startswith(b"PAR1"):
        if not data.endswith(b"PAR1"):
            raise TruncatedFile(f"{path} is a Parquet file without its end", value=len(data), remedy="Fetch it again")
        return "parquet"
    if data.startswith(b"ARROW1"):
        if not data.endswith(b"ARROW1"):
            raise TruncatedFile(f"{path} is a Feather file without its end", value=len(data), remedy="Fetch it again")
        return "feather"
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith((b"[", b"{")):
        return "json"
    if b"\0" in data[:65536] or head.startswith(b"<"):
        shown = data[:16].decode(errors="replace")
        raise UnknownFormat(
            f"{path} is in none of the formats that are read",
            value=shown if shown.isprintable() else "no text",
            remedy=_ALLOWED,
        )
    return "csv"
