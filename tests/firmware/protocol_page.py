"""Reads firmware/PROTOCOL.md for tests: its tables by their headings, and its example session."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "firmware" / "PROTOCOL.md"
Row = dict[str, str]


@cache
def tables(heading: str) -> tuple[tuple[Row, ...], ...]:
    """Returns the tables under a heading, each as rows by column name."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PAGE.read_text(), re.M | re.S)
    assert section, f"PROTOCOL.md has no heading {heading!r}"
    blocks = re.findall(r"(?:^\|.*\n)+", section[1], re.M)
    return tuple(_rows(block) for block in blocks)


def _rows(block: str) -> tuple[Row, ...]:
    head, _, *lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.strip().splitlines()]
    return tuple(dict(zip(head, cells, strict=True)) for cells in lines)


def example_session() -> list[str]:
    """Returns the lines of the example session."""
    block = re.search(r"```session\n(.*?)```", PAGE.read_text(), re.S)
    assert block
    return block[1].splitlines()


def shown_frames() -> list[str]:
    """Returns all frames that the page shows."""
    return re.findall(r"[><!][0-9a-f]{2} [A-Z]+[^*`\n]*\*[0-9A-F]{4}", PAGE.read_text())
