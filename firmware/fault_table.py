"""Reads `firmware/error_codes.csv`, the table of the gate protocol's error and fault codes.

All packages of Castline are allowed to import this module.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class ErrorCode:
    """One row of the table of codes.

    `kind` is `answer` (the board refuses a command with this code), `fault` (the board reports this fault) or `link` (the host detects this
    error).
    """

    code: int
    name: str
    kind: str
    meaning: str
    what_the_host_does: str
    retriable: bool


@cache
def error_codes() -> dict[int, ErrorCode]:
    """Returns all rows of the table by their code numbers."""
    text = (files("firmware") / "error_codes.csv").read_text(encoding="utf-8")
    return {
        int(row["code"]): ErrorCode(
            int(row["code"]), row["name"], row["kind"], row["meaning"], row["what_the_host_does"], row["retriable"] == "yes"
        )
        for row in csv.DictReader(text.splitlines())
    }


@cache
def code_of(name: str) -> int:
    """Returns the code with this name in error_codes.csv, for example 20 for `late`. Raises KeyError if no code has the name."""
    return {row.name: row.code for row in error_codes().values()}[name]


def describe_fault(code: int) -> str:
    """Returns a text that describes a fault, such as `fault 41: photo-eye 1 is blocked too long or never`.

    For an unknown code, the text is only `fault` and the number.
    """
    row = error_codes().get(code)
    return f"fault {code}: {row.meaning}" if row else f"fault {code}"
