"""API keys: made once, shown once, kept as salted hashes in `<home>/keys.json`, which only its owner may read.

A key reads `mdp_<id>_<secret>`: the id (12 hexadecimal digits) finds it on the list, the secret is 256 random bits.
What is kept is blake2b of the secret with a salt of its own. A slow hash such as scrypt makes guessing dear where
people choose passwords; nobody guesses 256 random bits, and a slow hash would let anybody without a key burn 50 ms of
the gateway's time with each call.
"""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path

import msgspec

from mdplatform.errors import InvalidKey, InvalidSetting
from mdplatform.lake.lock import locked

FILE = "keys.json"
MOST_KEYS = 10_000
_SHAPE = re.compile(r"mdp_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
_PATTERN = re.compile(r"[A-Za-z0-9_.:*?-]{1,128}")
_FASTEST = 100_000.0


class Scope(StrEnum):
    """What a key may do: send requests and see their answers; read features and the catalogue; all of it."""

    REQUEST = "request"
    READ = "read"
    ADMIN = "admin"


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as it is kept; times are microseconds since the epoch, UTC, 0 for never."""

    id: str
    name: str
    salt: str
    hash: str
    scopes: tuple[Scope, ...]
    strategies: tuple[str, ...] = ("*",)
    per_second: float = 50.0
    created_at: int = 0
    revoked_at: int = 0

    def allows(self, scope: Scope) -> bool:
        """Tell whether the key has a scope; `admin` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def covers(self, strategy: str) -> bool:
        """Tell whether requests of that strategy are the key's to send and see; those of all are `admin`'s.

        >>> Key(id="", name="", salt="", hash="", scopes=(), strategies=("momentum_*",)).covers("momentum_001")
        True
        """
        return Scope.ADMIN in self.scopes or any(fnmatch.fnmatchcase(strategy, each) for each in self.strategies)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[Key] = []


class KeyStore:
    """The keys of one home. It reads the file again when it has changed, so that a revoked key ends at once."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self._lock = home / "keys.lock"
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def create(
        self,
        name: str,
        scopes: Iterable[str] = (Scope.REQUEST, Scope.READ),
        strategies: Sequence[str] = ("*",),
        per_second: float = 50.0,
    ) -> tuple[Key, str]:
        """Make a key and keep it; give it with its text, which nobody can give again. Raises `InvalidKey`."""
        key, text = make_key(name, scopes, strategies, per_second)
        with locked(self._lock):
            keys = self._read()
            active = [each for each in keys if not each.revoked_at]
            if any(each.name == key.name for each in active):
                raise _refused("A key of that name exists", "name", name, "Choose another name, or revoke it")
            if len(active) >= MOST_KEYS:
                raise _refused("There are too many keys", "name", name, f"At most {MOST_KEYS:,}: revoke some")
            self._write([*keys, key])
        return key, text

    def revoke(self, name: str) -> Key:
        """End a key, by its name or id; it stays on the list. Raises `InvalidKey`."""
        with locked(self._lock):
            keys = self._read()
            found = next((each for each in keys if name in (each.id, each.name) and not each.revoked_at), None)
            if found is None:
                known = ", ".join(each.name for each in keys if not each.revoked_at)[:200] or "none"
                raise _refused("No such key is in force", "name", name, f"In force: {known}")
            ended = msgspec.structs.replace(found, revoked_at=time.time_ns() // 1000)
            self._write([ended if each.id == found.id else each for each in keys])
        return ended

    def every(self) -> list[Key]:
        """Give all keys, revoked ones too, oldest first. Raises `InvalidSetting` for a file that cannot be used."""
        return self._read()

    def find(self, text: str) -> Key:
        """Give the key that a caller shows. Raises `InvalidKey`, which never repeats it; `InvalidSetting`."""
        shape = _SHAPE.fullmatch(text)
        known = self._current()
        key = known.get(shape[1]) if shape else None
        # An unknown id takes as long as a wrong secret.
        salt, expected = (key.salt, key.hash) if key else ("00" * 16, "00" * 32)
        right = compare_digest(_hash(shape[2] if shape else "", salt), expected)
        if key is None or not right:
            raise InvalidKey("The API key is unknown", remedy="`mdplatform keys create` makes one")
        if key.revoked_at:
            raise InvalidKey("The API key was revoked", remedy="`mdplatform keys create` makes another")
        return key

    def in_force(self, key: Key) -> bool:
        """Tell whether a key that was found before still is what it was."""
        return self._current().get(key.id) == key

    def _current(self) -> dict[str, Key]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return self._keys
        seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        if seen != self._seen:
            self._keys = {each.id: each for each in self._read()}
            self._seen = seen
        return self._keys

    def _read(self) -> list[Key]:
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as failure:
            raise InvalidSetting(
                f"The API keys cannot be read ({failure.strerror})",
                value=str(self.path),
                remedy="Let the user that runs the gateway own it",
            ) from None
        if os.name == "posix" and mode & 0o077:
            raise InvalidSetting(
                "The file of API keys is open to others", value=str(self.path), remedy=f"chmod 600 {self.path}"
            )
        try:
            return msgspec.json.decode(content, type=_File).keys
        except msgspec.MsgspecError as broken:
            raise InvalidSetting(
                f"The file of API keys cannot be read ({broken})",
                value=str(self.path),
                remedy="Mend it, or remove it and make new keys",
            ) from None

    def _write(self, keys: Sequence[Key]) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_File(list(keys)))))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def make_key(name: str, scopes: Iterable[str], strategies: Sequence[str], per_second: float) -> tuple[Key, str]:
    """Make a key from what its owner asks for, and its text. Raises `InvalidKey` with the `field`."""
    if not _NAME.fullmatch(name):
        raise _refused("Not a name of a key", "name", name, "1 to 64 letters, digits, blanks, _ . -; a letter first")
    unknown = [each for each in scopes if each not in list(Scope)]
    if unknown or not scopes:
        raise _refused("Unknown scope", "scope", ", ".join(unknown) or None, f"Allowed: {', '.join(Scope)}")
    for pattern in strategies or ("",):
        if not _PATTERN.fullmatch(pattern):
            raise _refused(
                "Not a pattern of strategy ids", "strategies", pattern, 'Such as "momentum_*"; * is any text'
            )
    if not 0.01 <= per_second <= _FASTEST:
        raise _refused("Not a rate", "per_second", per_second, f"Allowed: 0.01 to {_FASTEST:g} a second")
    id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_hex(16)
    key = Key(
        id=id,
        name=name,
        salt=salt,
        hash=_hash(secret, salt),
        scopes=tuple(dict.fromkeys(Scope(each) for each in scopes)),
        strategies=tuple(dict.fromkeys(strategies)),
        per_second=per_second,
        created_at=time.time_ns() // 1000,
    )
    return key, f"mdp_{id}_{secret}"


def _hash(secret: str, salt: str) -> str:
    return blake2b(secret.encode(), digest_size=32, salt=bytes.fromhex(salt)).hexdigest()


def _refused(cause: str, field: str, value: object, remedy: str) -> InvalidKey:
    error = InvalidKey(cause, value=value, remedy=remedy)
    error.field = field
    return error
