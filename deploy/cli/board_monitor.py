"""Renders the live view of a lane for `castline board monitor`."""

from __future__ import annotations

from streams.records import CommandAnswer

# Titles of the board's status pages, in the order in which they are shown.
_TITLES = {"line": "Line", "eyes": "Eyes", "gate": "Gate", "count": "Parts", "link": "Link", "edge1": "Eye 1", "edge2": "Eye 2"}
_EYE_STATES = {0: "free", 1: "BLOCKED"}


def render_monitor(answer: CommandAnswer, columns: int, rows: int) -> list[str]:
    """Returns what the monitor shows: the state of the lane, then its newest faults and castings.

    The text has at most `rows` lines, each with at most `columns` characters.
    """
    lines = [answer.message]
    for page, title in _TITLES.items():
        if page in answer.values:
            lines += _wrap(title, [_describe(key, value) for key, value in answer.values[page].items()], columns)
    left = max(0, rows - len(lines) - 2)
    faults = answer.recent_faults[: max(1, left // 3)]
    lines += ["Last faults:", *(f"  {fault}" for fault in faults or ("none",))]
    castings = answer.recent_parts[: max(1, left - len(faults))]
    lines += ["Last castings at the gate:", *(f"  {casting}" for casting in castings or ("none",))]
    return [line[:columns] for line in lines[:rows]]


def _describe(key: str, value: int | str) -> str:
    if key in ("eye1", "eye2"):
        return f"{key.replace('eye', 'eye ')} {_EYE_STATES.get(value, value) if isinstance(value, int) else value}"
    return f"{key.replace('_', ' ')} {value}"


def _wrap(title: str, texts: list[str], columns: int) -> list[str]:
    """Joins the texts of a status page into lines of at most `columns` characters. Keeps each text on one line."""
    lines: list[str] = []
    line = f"{title:6}"
    for text in texts:
        if len(line) + 2 + len(text) > columns and line.strip() and line.strip() != title:
            lines.append(line)
            line = " " * 6
        line += f"  {text}"
    return [*lines, line]
