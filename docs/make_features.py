"""Write the tables of functions in `features.md` from the registry: python docs/make_features.py."""

from __future__ import annotations

import re
from pathlib import Path

from mdplatform.features.definition import Definition
from mdplatform.features.kinds import INDICATORS, KINDS
from mdplatform.features.registry import definition, function_names

PAGE = Path(__file__).with_name("features.md")
TABULATED = tuple(kind for kind in KINDS if kind not in (INDICATORS, "composite"))
_TABLE = "(<!-- {kind}: begin -->\n).*?(<!-- {kind}: end -->)"
_RANGE = re.compile(r"^an? (?:integer|number) from (\S+) to (\S+)$")


def table(kind: str) -> str:
    """Give the table of a kind: a row for each function, with its parameters with defaults and limits, and outputs."""
    rows = ["| function | what it gives | parameters (default; allowed) | outputs |", "|---|---|---|---|"]
    for each in (definition(name) for name in function_names()):
        if each.kind == kind:
            told = "; ".join(_parameters(each)) or "–"
            outputs = ", ".join(f"`{output}`" for output in each.outputs)
            rows.append(f"| `{each.name}` | {each.title} | {told} | {outputs} |")
    return "\n".join(rows) + "\n"


def refreshed(page: str) -> str:
    """Give the page with the tables as the registry has them."""
    for kind in TABULATED:
        pattern = re.compile(_TABLE.format(kind=kind), re.DOTALL)
        assert pattern.search(page), f"features.md has no place for the table of {kind}"
        page = pattern.sub(lambda match, kind=kind: match[1] + table(kind) + match[2], page)
    return page


def _parameters(one: Definition) -> list[str]:
    told = []
    for each in one.parameters:
        if each.name in one.required:
            told.append(f"`{each.name}` (must be given)")
            continue
        bounds = _RANGE.match(each.allowed)
        allowed = f"{bounds[1]} … {bounds[2]}" if bounds else each.allowed.removeprefix("one of ")
        told.append(f"`{each.name}` ({each.default}; {allowed})")
    return told


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
