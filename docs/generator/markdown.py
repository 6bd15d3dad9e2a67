"""Writes the headings and tables of generated Markdown pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NOTE = "<!-- Written by `python -m docs.generate` from the code; changes made here are lost. -->"


def make_page(title: str, *parts: str) -> str:
    """Returns a page: the title, a note that the page is generated, and the parts, with empty lines between them."""
    return "\n\n".join([f"# {title}", _NOTE, *parts]) + "\n"


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table. Escapes the character "|" in cells, and replaces line breaks with spaces."""
    lines = [_make_row(head), _make_row(["---"] * len(head)), *(_make_row(row) for row in rows)]
    return "\n".join(lines)


def _make_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
