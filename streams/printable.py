"""Makes text from unknown sources safe to print on a terminal."""

from __future__ import annotations


def make_printable(text: str) -> str:
    """Returns one line of text in which each character that could control a terminal is replaced by U+FFFD."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
