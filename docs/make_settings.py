"""Write the table of `docs/settings.md` anew from the code: `python docs/make_settings.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdplatform.settings import Settings

PAGE = Path(__file__).with_name("settings.md")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def table() -> str:
    """Give the table of all settings: variable, default, meaning with unit, limits."""
    rows = ["| variable | default | meaning | limits |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        rows.append(f"| `MDPLATFORM_{name.upper()}` | {default} | {field.description} | {limits(field.metadata)} |")
    return "\n".join(rows)


def limits(metadata: list[Any]) -> str:
    """Say what a field's metadata allow."""
    said = [
        f"{word} {getattr(each, bound):,}"
        for each in metadata
        for bound, word in _BOUNDS.items()
        if hasattr(each, bound)
    ]
    patterns = [each.pattern for each in metadata if getattr(each, "pattern", None)]
    said += ["`" + pattern.replace("|", "\\|") + "`" for pattern in patterns]
    return ", ".join(said) or "–"


def refreshed(page: str) -> str:
    """Give the page with the table that the code says."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
