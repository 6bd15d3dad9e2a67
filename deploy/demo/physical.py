"""What really fell where: the simulated plants' own logs against what `castings.sorted` says. Pure but for reading the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streams.identity import PartId
from streams.records import Sorting


@dataclass(frozen=True)
class Fall:
    """One casting that left its belt. `part` is None for one that photo-eye 1 never saw; `side` is `diverted` or `passed`."""

    part: PartId | None
    side: str
    struck: bool  # the blade hit it while swinging


@dataclass(frozen=True)
class Comparison:
    """Castings whose side and record disagree, those that have no record, and those that the swinging blade struck."""

    fallen: int
    mismatches: int
    unrecorded: int
    struck: int
    examples: tuple[str, ...]


def read_falls(file: Path, line: str) -> list[Fall]:
    """The castings that fell on `line`, in the order of their falling; none where the file is absent."""
    if not file.exists():
        return []
    falls = []
    for text in file.read_text().splitlines():
        fact = json.loads(text)
        if fact["what"] == "fell":
            part = PartId(line, fact["run"], fact["counted"]) if fact["counted"] else None
            falls.append(Fall(part, fact["side"], fact["struck"]))
    return falls


def compare(falls: Iterable[Fall], sortings: Iterable[Sorting]) -> Comparison:
    """Which side each casting fell to, against what was recorded of it.

    A record of a part that is `stopped` or `untracked` claims no side.
    """
    recorded: dict[PartId, set[str]] = {}
    for event in sortings:
        recorded.setdefault(event.part_id, set()).add(event.action)
    fallen = mismatches = unrecorded = struck = 0
    examples: list[str] = []
    for fall in falls:
        fallen += 1
        struck += fall.struck
        actions = recorded.get(fall.part, set()) if fall.part else set()
        claimed = actions & {"diverted", "passed"}
        if not actions:
            unrecorded += 1
        elif claimed and claimed != {fall.side}:
            mismatches += 1
            examples.append(f"{fall.part}: fell to the side of the {fall.side}, recorded {' and '.join(sorted(claimed))}")
    return Comparison(fallen, mismatches, unrecorded, struck, tuple(examples[:20]))
