"""Reads the Markdown pages of the project and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(?P<language>[\w-]*)[ \t]*(?P<name>[^\n]*)\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block. `name` is the text after the language on the opening line."""

    page: Path
    language: str
    name: str
    text: str


def list_pages() -> list[Path]:
    """Returns the Markdown pages in the root folder, below `docs/`, and in `firmware/`."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "firmware").glob("*.md")])


def read_blocks(page: Path) -> list[CodeBlock]:
    """Returns the code blocks of a page in their order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [CodeBlock(page, match["language"], match["name"].strip(), match["text"]) for match in found]


def read_inline_code(page: Path) -> list[str]:
    """Returns the texts in single backticks outside the code blocks."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))


def read_program(page: Path, name: str) -> str:
    """Returns the text of the only code block with the name `name`."""
    (found,) = [block.text for block in read_blocks(page) if block.name == name]
    return found
