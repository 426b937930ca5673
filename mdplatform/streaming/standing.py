"""What is standing: the features that a feed computes of each symbol and timeframe.

It is the standing catalogue's, in the catalogue's timeframes or those that were told, and beside them what consumers
wish for. What nobody wishes for any more stays for a while, so that a consumer that starts again finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mdplatform.errors import PlatformError
from mdplatform.features.catalogue import standing_catalogue
from mdplatform.features.parse import parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import Timeframe
from mdplatform.streaming.wishes import Wish, decode_wishes

Place = tuple[str, Timeframe]

MOST_FEATURES = 500
"""Features of one symbol and timeframe, above which further wishes are left out."""
LINGER_SECONDS = 60.0


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
        self.refused: dict[str, str] = {}
        """Wishes that cannot be fulfilled, and why: by the name of the consumer, or the feature's text."""
        self._wished: dict[tuple[Place, str], float] = {}  # when it was wished for last
        self._specs: dict[str, FeatureSpec] = {}

    def wanted(self) -> dict[str, dict[Timeframe, tuple[FeatureSpec, ...]]]:
        """Give the features by symbol and timeframe, the standing ones first, shortest timeframe first."""
        beside: dict[Place, list[FeatureSpec]] = {}
        for place, text in self._wished:
            beside.setdefault(place, []).extend([self._specs[text]] if text else [])
        found: dict[str, dict[Timeframe, tuple[FeatureSpec, ...]]] = {}
        for symbol in self.symbols:
            found[symbol] = {}
            for timeframe in Timeframe:
                wished = beside.get((symbol, timeframe))
                if timeframe in self.timeframes or wished is not None:
                    standing = self.features if timeframe in self.timeframes else ()
                    every = dict.fromkeys((*standing, *sorted(wished or (), key=str)))
                    found[symbol][timeframe] = tuple(every)[: max(MOST_FEATURES, len(standing))]
        return found

    def update(self, wishes: Mapping[str, bytes], now: float) -> None:
        """Take in the wishes that are alive, by the name of who has them; `now` is in seconds."""
        forming: set[Place] = set()
        for name, raw in wishes.items():
            try:
                every = decode_wishes(raw)
            except msgspec.MsgspecError as broken:
                self.refused[name] = f"its wishes cannot be read ({broken})"
                continue
            for wish in every:
                places = self._places(wish)
                texts = self._texts(wish.features)
                self._wished.update(((place, text), now) for place in places for text in ("", *texts))
                forming.update(places if wish.forming else ())
        self._wished = {key: last for key, last in self._wished.items() if now - last < LINGER_SECONDS}
        self.forming = frozenset(forming)

    def _places(self, wish: Wish) -> list[Place]:
        known = {each.value: each for each in Timeframe}
        return [
            (symbol, known[each]) for symbol in wish.symbols if symbol in self.symbols for each in wish.timeframes
            if each in known
        ]  # fmt: skip

    def _texts(self, features: Iterable[str]) -> list[str]:
        texts = []
        for given in features:
            if given in self.refused:
                continue
            try:
                spec = parse_feature(given)
            except PlatformError as refused:
                self.refuse(given, str(refused))
                continue
            text = f"{spec}{spec.place}"
            if text not in self.refused:
                self._specs[text] = spec
                texts.append(text)
        return texts

    def wished(self) -> dict[Timeframe, list[FeatureSpec]]:
        """Give the features that consumers wish for, by timeframe."""
        found: dict[Timeframe, dict[FeatureSpec, None]] = {}
        for (_, timeframe), text in self._wished:
            if text:
                found.setdefault(timeframe, {})[self._specs[text]] = None
        return {timeframe: list(specs) for timeframe, specs in found.items()}

    def refuse(self, text: str, why: str) -> None:
        """Compute a feature no more that was wished for."""
        if len(self.refused) < MOST_FEATURES:
            self.refused[text] = why
        self._wished = {key: last for key, last in self._wished.items() if key[1] != text}
