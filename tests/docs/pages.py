"""The pages that people read, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(?P<language>[\w-]*)[ \t]*(?P<name>[^\n]*)\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced code block; `name` is what stands behind its language."""

    page: Path
    language: str
    name: str
    text: str


def pages() -> list[Path]:
    """The project's pages: those at the root, all below docs/, and the protocol."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "firmware").glob("*.md")])


def blocks(page: Path) -> list[Block]:
    """The page's code blocks, in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, match["language"], match["name"].strip(), match["text"]) for match in found]


def inline(page: Path) -> list[str]:
    """What stands in single backticks outside the code blocks."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def program(page: Path, name: str) -> str:
    """The one code block called `name`."""
    (found,) = [block.text for block in blocks(page) if block.name == name]
    return found
