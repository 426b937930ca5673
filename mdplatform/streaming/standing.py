"""What is standing: the features that a feed computes of each symbol and timeframe.

It is the standing catalogue's, in the catalogue's timeframes or those that were told, and beside them what consumers
wish for. What nobody wishes for any more stays for a while, so that a consumer that starts again finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mdplatform.errors import PlatformError
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.parse import parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.wishes import decode_wishes

Place = tuple[str, Timeframe]

MOST_FEATURES = 500
"""Features of one symbol and timeframe, above which further wishes are left out."""
LINGER_SECONDS = 60.0
"""How long what was wished for is computed after the wish was heard for the last time."""
_MOST_REFUSED = 10_000

log = logging.getLogger("mdplatform.feed")


@dataclass
class _Heard:
    """What one consumer wishes for: texts of features by place, and when it was heard last, in seconds."""

    texts: dict[Place, list[str]]
    forming: frozenset[Place]
    last: float


class Standing:
    """What is computed of `symbols`: `features` in `timeframes`, and what is wished for beside them."""

    def __init__(
        self,
        symbols: Sequence[str],
        timeframes: Sequence[Timeframe] | None = None,
        features: Sequence[FeatureSpec] | None = None,
    ) -> None:
        catalogue = standing_catalogue()
        given = catalogue.timeframes if timeframes is None else timeframes
        self.symbols = tuple(symbols)
        self.timeframes = tuple(each for each in Timeframe if each in given)
        self.features = tuple(catalogue.features if features is None else features)
        self.forming: frozenset[Place] = frozenset()
        """The places whose forming bars are wished for."""
        self.refused: dict[str | tuple[str, Timeframe], str] = {}
        """Wishes that cannot be fulfilled, and why: by the name of the consumer, a text that is no feature, or the
        feature's text and the timeframe that cannot have it."""
        self._heard: dict[bytes, _Heard] = {}
        self._specs: dict[str, FeatureSpec] = {}

    def wanted(self) -> dict[str, dict[Timeframe, tuple[FeatureSpec, ...]]]:
        """Give the features by symbol and timeframe, the standing ones first, shortest timeframe first."""
        beside: dict[Place, set[str]] = {}
        for heard in self._heard.values():
            for place, texts in heard.texts.items():
                beside.setdefault(place, set()).update(texts)
        found: dict[str, dict[Timeframe, tuple[FeatureSpec, ...]]] = {symbol: {} for symbol in self.symbols}
        for symbol in self.symbols:
            for timeframe in Timeframe:
                wished = beside.get((symbol, timeframe))
                if timeframe in self.timeframes or wished is not None:
                    standing = self.features if timeframe in self.timeframes else ()
                    more = (self._specs[text] for text in sorted(wished or ()))
                    found[symbol][timeframe] = tuple(dict.fromkeys((*standing, *more)))[: self._most]
        return found

    @property
    def _most(self) -> int:
        return max(MOST_FEATURES, len(self.features))

    def update(self, wishes: Mapping[str, bytes], now: float) -> bool:
        """Take in the wishes that are alive, by the name of who has them; tell whether others are wanted now.

        `now` is in seconds.
        """
        before = set(self._heard)
        for name, raw in wishes.items():
            if raw not in self._heard:
                try:
                    self._heard[raw] = self._read(raw, now)
                except msgspec.MsgspecError as broken:
                    self._note(name, f"its wishes cannot be read ({broken})")
                    continue
            self._heard[raw].last = now
        self._heard = {raw: heard for raw, heard in self._heard.items() if now - heard.last < LINGER_SECONDS}
        used = {text for heard in self._heard.values() for texts in heard.texts.values() for text in texts}
        self._specs = {text: spec for text, spec in self._specs.items() if text in used}
        alive = (heard.forming for heard in self._heard.values() if heard.last == now)
        self.forming = frozenset().union(*alive)
        return set(self._heard) != before

    def _read(self, raw: bytes, now: float) -> _Heard:
        known = {each.value: each for each in Timeframe}
        texts: dict[Place, list[str]] = {}
        forming: set[Place] = set()
        for wish in decode_wishes(raw):
            of_wish = self._texts(wish.features)
            for symbol in wish.symbols:
                for place in ((symbol, known[each]) for each in wish.timeframes if each in known):
                    if symbol in self.symbols:
                        can_be = [text for text in of_wish if (text, place[1]) not in self.refused]
                        texts.setdefault(place, []).extend(can_be)
                        forming.update({place} if wish.forming else ())
        return _Heard(texts, frozenset(forming), now)

    def _texts(self, features: Iterable[str]) -> list[str]:
        texts = []
        for given in features:
            if given in self.refused:
                continue
            try:
                spec = parse_feature(given)
            except PlatformError as refused:
                self._note(given, str(refused))
                continue
            text = f"{spec}{spec.place}"
            self._specs[text] = spec
            texts.append(text)
        return texts

    def wished(self) -> dict[Timeframe, list[FeatureSpec]]:
        """Give the features that consumers wish for, by timeframe."""
        found: dict[Timeframe, dict[str, FeatureSpec]] = {}
        for heard in self._heard.values():
            for (_, timeframe), texts in heard.texts.items():
                found.setdefault(timeframe, {}).update((text, self._specs[text]) for text in texts)
        return {timeframe: list(specs.values()) for timeframe, specs in found.items()}

    def refuse(self, text: str, timeframe: Timeframe, why: str) -> None:
        """Compute a feature no more in a timeframe for which it was wished."""
        self._note((text, timeframe), why)
        for heard in self._heard.values():
            for place, texts in heard.texts.items():
                if place[1] is timeframe:
                    heard.texts[place] = [each for each in texts if each != text]

    def _note(self, what: str | tuple[str, Timeframe], why: str) -> None:
        if what not in self.refused and len(self.refused) < _MOST_REFUSED:
            log.warning("Not computed live: %s: %s", what if isinstance(what, str) else " in ".join(what), why)
            self.refused[what] = why
