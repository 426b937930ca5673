"""Composites: formulas that have a name and a version, so that strategies and other formulas use them by name.

A name's composites come from three places: this process (`register_composite`), the standing ones that come with the
package (`composites.yaml`), and those that the platform's home keeps. What a composite means is settled when it is
registered: its formula is written out in full, with whatever it uses by name put in. So no version ever changes, what
uses the newest version of another keeps the one that was newest then, and none can use itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mdplatform.errors import InvalidFeature, InvalidSetting, UnknownComposite

if TYPE_CHECKING:
    from mdplatform.features.spec import FeatureSpec

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_KEYS = ("name", "version", "formula", "input_indicators", "title")
_PROVIDERS = "mdplatform.data"


@dataclass(frozen=True)
class Composite:
    """A registered formula: as its author wrote it, and `resolved`, the canonical text of what it stands for.

    `uses` names the composites that it was made of, each with its version, theirs included.
    """

    name: str
    version: int
    formula: str
    input_indicators: tuple[Mapping[str, Any] | str, ...]
    resolved: str
    uses: tuple[str, ...] = ()
    title: str = ""

    @property
    def spec(self) -> FeatureSpec:
        """The feature that it stands for: its text read as a formula, whatever else it looks like."""
        from mdplatform.features.parse import canonical_formula  # which looks composites up here

        return canonical_formula(self.resolved)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


Register = dict[tuple[str, int], Composite]
_registered: Register = {}


def register_composite(
    name: str,
    formula: str,
    input_indicators: Sequence[Mapping[str, Any] | str] = (),
    version: int = 1,
    title: str = "",
) -> Composite:
    """Register a composite in this process, and give it. To register the same again changes nothing.

    Raises `InvalidFormula` for a formula that is refused, what `parse_feature` raises for inputs, and `InvalidFeature`
    for a name that is taken, a version that is another formula already, and a composite that would use itself.
    """
    made = check_composite(name, formula, input_indicators, version, title)
    _registered[made.name, made.version] = made
    return made


def register_all(declared: Iterable[Mapping[str, Any]]) -> list[Composite]:
    """Register many, which may use one another, in whatever order they are given: all of them, or none."""
    made = check_all(declared)
    _registered.update({(each.name, each.version): each for each in made})
    return made


def check_composite(
    name: str,
    formula: str,
    input_indicators: Sequence[Mapping[str, Any] | str] = (),
    version: int = 1,
    title: str = "",
) -> Composite:
    """Give the composite that would be registered, or raise why it would not."""
    declared = {"name": name, "formula": formula, "input_indicators": input_indicators}
    return check_all([{**declared, "version": version, "title": title}])[0]


def check_all(declared: Iterable[Mapping[str, Any]], kept: Iterable[Composite] = ()) -> list[Composite]:
    """Give the composites that would be registered of these, in their order, or raise why one would not.

    `kept` are others that are known, beside those that `composites` gives.
    """
    known = {(each.name, each.version): each for each in (*kept, *composites())}
    return _Batch([_declaration(each) for each in declared], list(known.values())).all()


def lookup(name: str, version: int | None) -> FeatureSpec | None:
    """Give the feature that a composite stands for, of the newest version for None; None where there is none."""
    found = find(name, version)
    return None if found is None else found.spec


def find(name: str, version: int | None = None) -> Composite | None:
    """Give a composite by its name in any case, and its version or the newest."""
    of_name = [each for each in composites() if each.name == name.upper() and version in (None, each.version)]
    return max(of_name, key=lambda each: each.version, default=None)


def get(name: str, version: int | None = None) -> Composite:
    """Give a composite; raises `UnknownComposite`."""
    found = find(name, version)
    if found is None:
        raise UnknownComposite(name if version is None else f"{name}:{version}", [str(each) for each in composites()])
    return found


def composites() -> list[Composite]:
    """Give every composite, by name and version; what this process registered goes before what the home keeps."""
    every: Register = {}
    for source in (_of_home, standing_composites, _registered.values):
        every.update({(each.name, each.version): each for each in source()})
    return [every[key] for key in sorted(every)]


def newest(of: Iterable[Composite]) -> list[Composite]:
    """Give the newest version of each name, by name."""
    return list({each.name: each for each in sorted(of, key=lambda each: (each.name, each.version))}.values())


def names() -> list[str]:
    """Give the name of every composite."""
    return sorted({each.name for each in composites()})


@cache
def standing_composites() -> tuple[Composite, ...]:
    """Give the composites that come with the package."""
    text = resources.files("mdplatform.features").joinpath("composites.yaml").read_text(encoding="utf-8")
    return tuple(_Batch([_declaration(each) for each in read_declarations(text, "composites.yaml")], []).all())


def read_file(path: Path | str) -> list[Mapping[str, Any]]:
    """Give the declarations in a YAML file: a list `composites`. Raises `InvalidSetting` for a file that is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidSetting("File of composites cannot be read", value=str(path), remedy=str(error)) from error
    return read_declarations(text, str(path))


def read_declarations(text: str, name: str) -> list[Mapping[str, Any]]:
    """Give the declarations in a YAML text."""
    remedy = "It holds a list `composites`; each has a name, a formula and, if wanted, a version and input_indicators"
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSetting(f"{name} is not YAML", value=" ".join(str(error).split()), remedy=remedy) from error
    declared = content.get("composites") if isinstance(content, dict) and set(content) == {"composites"} else None
    if not isinstance(declared, list) or not all(isinstance(each, dict) for each in declared):
        raise InvalidSetting(f"{name} is not a file of composites", remedy=remedy)
    return declared


class _Batch:
    """Composites being registered together: one that another uses comes first, and none may wait for itself."""

    def __init__(self, declared: Sequence[Mapping[str, Any]], known: Sequence[Composite]) -> None:
        self.keys = list(dict.fromkeys((each["name"], each["version"]) for each in declared))
        self._declared: dict[tuple[str, int], Mapping[str, Any]] = {}
        for each in declared:
            if self._declared.setdefault((each["name"], each["version"]), each) != each:
                raise InvalidFeature("A composite is given twice", value=f"{each['name']}:{each['version']}")
        self._known = known
        self._made: Register = {}
        self._path: list[tuple[str, int]] = []

    def all(self) -> list[Composite]:
        """Give all of them, in the order given."""
        return [self.composite(key) for key in self.keys]

    def composite(self, key: tuple[str, int]) -> Composite:
        """Give one, made with those that it uses."""
        if key in self._made:
            return self._made[key]
        self._path.append(key)
        declared = self._declared[key]
        resolved, uses = self._resolve(declared)
        made = Composite(
            *key, declared["formula"], tuple(declared["input_indicators"]), resolved, tuple(uses), declared["title"]
        )
        held = next((each for each in self._known if (each.name, each.version) == key), None)
        if held is not None and held.resolved != resolved:
            raise InvalidFeature(
                f"Composite {made} is registered already, as another formula",
                value=held.resolved,
                remedy=f"Register it as version {1 + max(each.version for each in self._known if each.name == key[0])}",
            )
        self._path.pop()
        self._made[key] = made
        return made

    def _resolve(self, declared: Mapping[str, Any]) -> tuple[str, list[str]]:
        from mdplatform.features.parse import parse_formula  # which looks composites up here

        uses: dict[str, None] = {}

        def lookup(name: str, version: int | None) -> FeatureSpec | None:
            found = self._find(name, version)
            if found is None:
                return None
            uses.update(dict.fromkeys((str(found), *found.uses)))
            self._refuse_cycle(found)
            return found.spec

        node, _ = parse_formula(declared["formula"], declared["input_indicators"], lookup)
        return node.text, list(uses)

    def _find(self, name: str, version: int | None) -> Composite | None:
        pending = [key for key in self.keys if key[0] == name and version in (None, key[1])]
        known = [each for each in self._known if each.name == name and version in (None, each.version)]
        newest = max([*pending, *((each.name, each.version) for each in known)], default=None, key=lambda key: key[1])
        if newest is None:
            return None
        if newest not in self._declared:
            return next(each for each in known if (each.name, each.version) == newest)
        if any(newest[0] == each[0] for each in self._path):
            self._refuse([*self._path, newest])
        return self.composite(newest)

    def _refuse_cycle(self, found: Composite) -> None:
        own = {key[0] for key in self._path}
        for each in (str(found), *found.uses):
            if each.partition(":")[0] in own:
                steps = [str(found)] if each == str(found) else [str(found), each]
                self._refuse([*self._path, *(tuple(step.split(":")) for step in steps)])

    def _refuse(self, path: Sequence[Sequence[Any]]) -> None:
        from mdplatform.features.formula.nodes import RefusedError

        told = " → ".join(f"{key[0]}:{key[1]}" for key in path)
        raise RefusedError(f"A composite that uses itself ({told})", "Nor may it use an older version")


def _declaration(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check one declaration but for its formula, and state all of it."""
    from mdplatform.features.formula.nodes import HIGHEST_VERSION
    from mdplatform.features.parse import refuse_nesting

    refuse_nesting(given)
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise InvalidFeature(f"Unknown key of a composite: {unknown[0]!r}", remedy=f"Allowed keys: {', '.join(_KEYS)}")
    name, version, formula = given.get("name"), given.get("version", 1), given.get("formula")
    inputs, title = given.get("input_indicators") or (), given.get("title") or ""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidFeature(
            "Not a name of a composite", value=name, remedy="1 to 64 letters, digits and _, beginning with a letter"
        )
    if _is_taken(name):
        raise InvalidFeature("A composite cannot have the name of a feature, column or function", value=name)
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= HIGHEST_VERSION:
        raise InvalidFeature(
            "Not a version of a composite", value=version, remedy=f"A whole number from 1 to {HIGHEST_VERSION:,}"
        )
    if not isinstance(formula, str):
        raise InvalidFeature(f"Composite {name} has no formula", value=formula, remedy="Give it as a text")
    if isinstance(inputs, str | Mapping) or not isinstance(inputs, Sequence):
        raise InvalidFeature("input_indicators is not a list of features", value=inputs)
    if not isinstance(title, str):
        raise InvalidFeature("The title of a composite is a text", value=title)
    return {
        "name": name.upper(),
        "version": version,
        "formula": formula,
        "input_indicators": tuple(inputs),
        "title": title,
    }


def _is_taken(name: str) -> bool:
    from mdplatform.features.formula.names import is_reserved

    return is_reserved(name)


def _of_home() -> list[Composite]:
    """Give those that the platform's home keeps, where it is installed (see `data.default_data`)."""
    provider = _provider()
    return [] if provider is None else provider(None).composites()


@cache
def _provider() -> Callable[[None], Any] | None:
    for found in entry_points(group=_PROVIDERS):
        provider: Callable[[None], Any] = found.load()
        return provider
    return None
