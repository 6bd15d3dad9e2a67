"""Changes settings of a line's gate in the text of a settings file. Keeps the comments and the order of the file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

Number = int | float
Value = Number | str
_HEADER = re.compile(r"\s*\[{1,2}\s*([\w.\-]+)\s*\]{1,2}\s*(#.*)?$")


def edit_gate(text: str, line: str, changes: Mapping[str, Value]) -> str:
    """Returns the text with changed settings, such as `travel_mm` or `board.window_mm`, in the section [lines.gate] of `line`.

    Raises ValueError if this function does not understand how the text is written. A person must then change the file.
    """
    before = tomllib.loads(text)
    index = [each.get("name") for each in before.get("lines", [])].index(line)
    expected = deepcopy(before)
    gate: dict[str, Any] = expected["lines"][index]["gate"]
    rows = text.split("\n")
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        (gate.setdefault(section, {}) if section else gate)[key] = value
        if section:
            _set_in_board(rows, index, key, value, gate[section])
        else:
            _set_value(rows, _find_section(rows, index, "lines.gate"), key, json.dumps(value))
    edited = "\n".join(rows)
    if tomllib.loads(edited) != expected:
        raise ValueError("this command cannot change the section [lines.gate], because it does not understand how the section is written")
    return edited


def describe_changes(line: str, changes: Mapping[str, Value]) -> str:
    """Returns the lines of TOML that a person must put into the section of the gate."""
    own = [f"{name} = {json.dumps(value)}" for name, value in changes.items() if "." not in name]
    board = [f"{name.removeprefix('board.')} = {json.dumps(value)}" for name, value in changes.items() if "." in name]
    return "\n".join([f"# line {line}", "[lines.gate]", *own, *(["[lines.gate.board]", *board] if board else [])])


def _find_section(rows: list[str], index: int, name: str) -> range:
    """Returns the row numbers of the section `name`, without the section's header. If there is no such section, the range is empty.

    `index` is the number of the production line in the settings file, counted from 0.
    """
    lines_seen, begin = -1, None
    for number, row in enumerate(rows):
        header = _HEADER.match(row)
        if header is None:
            continue
        if begin is not None:
            return range(begin, number)
        lines_seen += header[1] == "lines"
        if lines_seen == index and header[1] == name:
            begin = number + 1
    return range(begin, len(rows)) if begin is not None else range(0)


def _set_value(rows: list[str], section: range, key: str, text: str) -> None:
    """Writes the TOML value `text` for a key, and keeps the comment behind it. Adds a missing key at the beginning of the section."""
    if not section:
        raise ValueError("the section [lines.gate] was not found")
    pattern = re.compile(rf"(\s*{re.escape(key)}\s*=\s*)[^#]*?(\s*#.*)?$")
    for number in section:
        if match := pattern.match(rows[number]):
            rows[number] = f"{match[1]}{text}{match[2] or ''}"
            return
    rows.insert(section.start, f"{key} = {text}")


def _set_in_board(rows: list[str], index: int, key: str, value: Value, board: Mapping[str, object]) -> None:
    if own_section := _find_section(rows, index, "lines.gate.board"):
        _set_value(rows, own_section, key, json.dumps(value))
        return
    section = _find_section(rows, index, "lines.gate")
    if any(re.match(r"\s*board\.", rows[number]) for number in section):
        _set_value(rows, section, f"board.{key}", json.dumps(value))
        return
    _set_value(rows, section, "board", "{ " + ", ".join(f"{name} = {json.dumps(each)}" for name, each in board.items()) + " }")
