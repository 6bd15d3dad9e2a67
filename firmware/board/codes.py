"""The codes of `firmware/error_codes.csv`: one home for numbers, names and what is done about each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Code:
    """One row. `kind` is `answer`, `fault` or `link`."""

    code: int
    name: str
    kind: str
    meaning: str
    what_the_host_does: str
    retriable: bool


@cache
def codes() -> dict[int, Code]:
    """All codes by number."""
    text = (files("firmware") / "error_codes.csv").read_text(encoding="utf-8")
    return {
        int(row["code"]): Code(
            int(row["code"]), row["name"], row["kind"], row["meaning"], row["what_the_host_does"], row["retriable"] == "yes"
        )
        for row in csv.DictReader(text.splitlines())
    }


@cache
def number(name: str) -> int:
    """The number of the code called `name`. Raises KeyError: when there is none."""
    return {code.name: code.code for code in codes().values()}[name]
