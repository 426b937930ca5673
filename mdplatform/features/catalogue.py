"""The standing catalogue: features and timeframes that are materialized for everyone, from `catalogue.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from mdplatform.errors import InvalidFeature, InvalidSetting
from mdplatform.features.graph import extra_rows, load_from
from mdplatform.features.parse import parse_feature
from mdplatform.features.spec import FeatureSpec
from mdplatform.market.timeframe import Timeframe


@dataclass(frozen=True)
class Catalogue:
    """Features, in the order of the file, and the timeframes in which each of them is materialized."""

    timeframes: tuple[Timeframe, ...]
    features: tuple[FeatureSpec, ...]

    def history(self, timeframe: Timeframe | str) -> timedelta:
        """Give the longest time before an instant that bars must reach back for values from that instant on."""
        frame = Timeframe.parse(timeframe)
        return timedelta(microseconds=extra_rows(self.features, frame) * frame.microseconds)

    def load_from(self, timeframe: Timeframe | str, start: int) -> int:
        """Give the open time (microseconds) of the first bar to load for settled values from `start` on."""
        return load_from(self.features, timeframe, start)


def standing_catalogue(path: Path | str | None = None) -> Catalogue:
    """Give the catalogue of that file, or the one that comes with the package.

    Raises InvalidSetting for a file that is not a catalogue, and what `parse_feature` raises for a feature of it.

    >>> standing_catalogue().timeframes[0].value
    '5m'
    """
    if path is None:
        return _packaged()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSetting("Catalogue cannot be read", value=str(path), remedy=str(error.strerror)) from error
    return _parse(text, str(path))


@cache
def _packaged() -> Catalogue:
    text = resources.files("mdplatform.features").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return _parse(text, "catalogue.yaml")


def _parse(text: str, name: str) -> Catalogue:
    remedy = "It holds two lists, `timeframes` and `features`, neither empty"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSetting(
            f"Catalogue {name} is not YAML", value=" ".join(str(error).split()), remedy=remedy
        ) from error
    lists = content if isinstance(content, dict) else {}
    timeframes, features = lists.get("timeframes"), lists.get("features")
    if set(lists) != {"timeframes", "features"} or not (
        isinstance(timeframes, list) and timeframes and isinstance(features, list) and features
    ):
        raise InvalidSetting(f"{name} is not a catalogue", value=sorted(map(str, lists)), remedy=remedy)
    specs = tuple(parse_feature(each) for each in features)
    for spec in specs:
        if spec.timeframe is not None:
            raise InvalidFeature(
                "A feature of the catalogue has a timeframe of its own", value=str(spec), remedy=remedy
            )
    return Catalogue(
        tuple(dict.fromkeys(Timeframe.parse(str(each)) for each in timeframes)), tuple(dict.fromkeys(specs))
    )
