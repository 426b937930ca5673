"""The fenced blocks of the documents, and where each stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(mdplatform [^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of `language` that begins in `line` of `page`."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Give all blocks of one language."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] == language:
                found.append(Block(page, text[: match.start()].count("\n") + 1, language, match[2]))
    return found


def shell_lines() -> list[Block]:
    """Give every line of the shell blocks, without its comment, as a block of its own."""
    lines = []
    for block in blocks("sh"):
        for offset, line in enumerate(block.text.splitlines(), 1):
            command = re.sub(r"\s+#.*", "", line).strip()
            if command:
                lines.append(Block(block.page, block.line + offset, "sh", command))
    return lines


def inline_commands() -> list[Block]:
    """Give the command lines that stand in the running text."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _INLINE.finditer(text):
            found.append(Block(page, text[: match.start()].count("\n") + 1, "sh", " ".join(match[1].split())))
    return found
