"""What all processes of the campaign agree on: lines, belts, files and the castings of a seed."""

from __future__ import annotations

import json
import random
from typing import IO

# Two belts with a gate and a camera at the same board. The names differ from those in the damaged records of `tests.record_mutations`, so
# that no damaged record is a valid one about a casting of the campaign.
GATED_LINES = ("north", "south")
# A line without camera and gate. Damaged settings, model choices and commands concern this line.
SPARE_LINE = "spare"
BOARD_PORT = "board"
SPEED_MM_S = 500.0
TRAVEL_MM = 2500.0
# The share of defective castings is higher than in a real foundry, so that the gates often move.
_DEFECT_SHARE = 0.3


def is_defect(seed: int, line: str, casting: int) -> bool:
    """Returns whether a casting of the world with this seed is defective."""
    return random.Random(f"{seed}:{line}:{casting}").random() < _DEFECT_SHARE


def write_line(file: IO[str], entry: dict[str, object]) -> None:
    """Appends `entry` to a file of JSON lines, and flushes it."""
    file.write(json.dumps(entry) + "\n")
    file.flush()
