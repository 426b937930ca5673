"""Access: who asks, and whether it may.

A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`; a browser's WebSocket, which cannot set headers, offers
it as a subprotocol `mdplatform.key.KEY`, or sends it in its first message. It never comes in the address, which ends up
in logs.

Without keys (`MDPLATFORM_GATEWAY_KEYS=false`) whoever reaches the gateway may do all. So it then listens on loopback
alone, and does not answer what a page of another site makes a browser on this machine ask.
"""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from mdplatform.errors import InvalidKey, InvalidSetting
from mdplatform.gateway.keys import Key, KeyStore, Scope
from mdplatform.gateway.limits import Limits
from mdplatform.gateway.problems import Refusal
from mdplatform.settings import Settings

KEY_SUBPROTOCOL = "mdplatform.key."
_log = logging.getLogger("mdplatform.gateway")


@dataclass(frozen=True)
class Caller:
    """Who asks: a key, or None for anybody where no keys are wanted."""

    key: Key | None

    @property
    def name(self) -> str:
        """The key's id; empty for anybody."""
        return self.key.id if self.key else ""

    def covers(self, strategy: str) -> bool:
        """Tell whether requests of that strategy are the caller's to send and see."""
        return self.key is None or self.key.covers(strategy)

    def require(self, scope: Scope) -> None:
        """Raise a refusal (403) unless the caller has the scope."""
        if self.key is not None and not self.key.allows(scope):
            raise Refusal(
                403,
                f"The API key lacks the scope {scope}",
                kind="scope-missing",
                value=", ".join(self.key.scopes),
                remedy=f"mdplatform keys create --name NAME --scope {scope}",
            )

    def require_strategy(self, strategy: str, field: str = "strategy_id") -> None:
        """Raise a refusal (403) unless the strategy is the caller's."""
        if not self.covers(strategy):
            assert self.key is not None
            raise Refusal(
                403,
                "The API key is for other strategies",
                kind="strategy-not-allowed",
                field=field,
                value=strategy,
                remedy=f"This key is for: {', '.join(self.key.strategies)}",
            )


class Access:
    """Tells callers by their keys, and holds them to their limits."""

    def __init__(self, settings: Settings) -> None:
        self.wants_keys = settings.gateway_keys
        self.store = KeyStore(settings.home)
        self._limits = Limits()
        if not self.wants_keys and not is_loopback(settings.gateway_host):
            raise InvalidSetting(
                "Without API keys the gateway listens on loopback alone",
                value=settings.gateway_host,
                remedy="Set MDPLATFORM_GATEWAY_HOST=127.0.0.1, or MDPLATFORM_GATEWAY_KEYS=true",
            )
        if self.wants_keys:
            self.store.every()

    def caller(self, connection: HTTPConnection, shown: str | None = None) -> Caller:
        """Give who asks, by the key in its headers or the one `shown` otherwise. Raises `InvalidKey`, `Refusal`."""
        if not self.wants_keys:
            _refuse_other_sites(connection)
            return Caller(None)
        text = shown or key_in_headers(connection)
        if text is None:
            raise InvalidKey(
                "An API key is missing", remedy="Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        try:
            return Caller(self.store.find(text))
        except InvalidSetting as broken:
            raise _unusable(broken) from None

    def still(self, caller: Caller) -> bool:
        """Tell whether a caller's key is still in force. Raises `Refusal` where that cannot be told."""
        try:
            return caller.key is None or self.store.in_force(caller.key)
        except InvalidSetting as broken:
            raise _unusable(broken) from None

    def spend(self, caller: Caller, count: int = 1) -> None:
        """Count what a caller asks. Raises a refusal (429) with `Retry-After` when it was too much."""
        if caller.key is None:
            return
        seconds = self._limits.take(caller.key.id, caller.key.per_second, count)
        if seconds:
            raise Refusal(
                429,
                f"This key may ask {caller.key.per_second:g} times a second",
                kind="rate-limit",
                remedy=f"Try again in {seconds:.2f} s; `mdplatform keys create --per-second …` makes a faster key",
                headers={"Retry-After": str(int(seconds) + 1)},
            )


def _unusable(broken: InvalidSetting) -> Refusal:
    """Give what callers are told while the keys cannot be used; where they lie, and why, is for the log."""
    _log.error("%s", broken)
    return Refusal(
        503, "The gateway cannot use its API keys now", kind="keys-unavailable",
        remedy="Its log says why, to whoever runs it", headers={"Retry-After": "10"},
    )  # fmt: skip


def key_in_headers(connection: HTTPConnection) -> str | None:
    """Give the key that a caller's headers show, None without one. Raises `InvalidKey`."""
    given = connection.headers.get("authorization")
    if given is not None:
        scheme, _, text = given.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise InvalidKey("The Authorization header is not understood", remedy="Send `Authorization: Bearer KEY`")
        return text.strip()
    return connection.headers.get("x-api-key")


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _refuse_other_sites(connection: HTTPConnection) -> None:
    """Refuse what a page of another site makes a browser send: by its origin, or under a name that leads here."""
    host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    origin = connection.headers.get("origin")
    strange = origin is not None and not is_loopback(urlsplit(origin).hostname or "")
    if strange or not is_loopback(host):
        raise Refusal(
            403,
            "Without API keys the gateway answers programs on this machine alone",
            kind="other-site",
            field="Origin" if strange else "Host",
            value=origin if strange else host,
            remedy="Ask for http://127.0.0.1, or run the gateway with keys (MDPLATFORM_GATEWAY_KEYS=true)",
        )
