"""firmware/PROTOCOL.md as tests read it: tables by heading, and the example session."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[3] / "firmware" / "PROTOCOL.md"
Row = dict[str, str]


@cache
def tables(heading: str) -> tuple[tuple[Row, ...], ...]:
    """The tables under the heading of that text (any level), each as rows by column name."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PAGE.read_text(), re.M | re.S)
    assert section, f"PROTOCOL.md has no heading {heading!r}"
    blocks = re.findall(r"(?:^\|.*\n)+", section[1], re.M)
    return tuple(_rows(block) for block in blocks)


def _rows(block: str) -> tuple[Row, ...]:
    head, _, *lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().splitlines()]
    return tuple(dict(zip(head, cells, strict=True)) for cells in lines)


def session() -> list[str]:
    """The lines of the example session."""
    block = re.search(r"```session\n(.*?)```", PAGE.read_text(), re.S)
    assert block
    return block[1].splitlines()


def frames_shown() -> list[str]:
    """Every frame that the page shows, wherever."""
    return re.findall(r"[><!][0-9a-f]{2} [A-Z]+[^*`\n]*\*[0-9A-F]{4}", PAGE.read_text())
