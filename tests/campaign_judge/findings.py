"""The kinds of faults that the judge can find, and what it has found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """A kind of fault. The value is its name in the report."""

    LOST = "acknowledged and lost"
    UNJUDGED = "unjudged at the end"
    UNEXPECTED = "unexpected: a verdict for a picture that nobody sent"
    CONTRADICTING = "contradicting verdicts for one picture"
    OTHER_CASTING = "a casting judged by the picture of another one"
    VANISHED = "a record that another record names is missing"
    DEAD_LETTER = "a good record became a dead letter"
    UNREADABLE = "a role wrote a record that is not valid"
    MOVED_TWICE = "a gate moved twice for one casting"
    WRONG_SIDE = "a casting left on the wrong side"
    OTHER_RECORD = "a sorted record contradicts the belt"
    NOT_RECORDED = "castings without a sorted record"
    SORTED_TWICE = "castings sorted twice"
    UNKNOWN_CASTING = "a sorted record of a casting that was not on the belt"
    SILENT = "a silence above its limit"
    NO_ALARM = "no alarm before the disk was full"
    GROWING = "memory that grows"
    NOT_FLAT = "memory that was not shown to be flat"
    NOT_INJECTED = "faults that could not be injected"
    LOG = "the campaign's own files contradict each other"


@dataclass
class Findings:
    """Faults by kind, each with a sentence, and counts of what is no fault but is stated."""

    faults: dict[Kind, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, sentence: str) -> None:
        self.faults.setdefault(kind, []).append(sentence)
