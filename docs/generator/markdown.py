"""Writes the headings and tables of generated Markdown pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_NOTE = "<!-- Written by `python -m docs.generate` from the code; changes made here are lost. -->"


def make_page(title: str, *parts: str) -> str:
    """Returns a page with a title, a note that the page is generated, and its parts, separated by empty lines."""
    return "\n\n".join([f"# {title}", _NOTE, *parts]) + "\n"


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table. Pipes in the cells are escaped, and line breaks become spaces."""
    lines = [_make_row(head), _make_row(["---"] * len(head)), *(_make_row(row) for row in rows)]
    return "\n".join(lines)


def _make_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
