"""The gate's faults in words: the one table of codes is the firmware's."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).parents[2] / "firmware" / "error_codes.csv"


@cache
def faults() -> dict[int, str]:
    """What each code means; empty where this installation has no table."""
    try:
        with _TABLE.open(newline="", encoding="utf-8") as file:
            return {int(row["code"]): row["meaning"] for row in csv.DictReader(file)}
    except OSError:
        return {}


def fault_in_words(code: int) -> str:
    """`fault 41: photo-eye 1 is blocked too long or never`."""
    meaning = faults().get(code, "")
    return f"fault {code}: {meaning}" if meaning else f"fault {code}"
