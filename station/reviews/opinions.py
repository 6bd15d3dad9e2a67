"""What several people's decisions on one part come to: who is still asked, and whose word stands. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["open", "second", "third", "settled"]
SKIP = "skip"


@dataclass(frozen=True)
class Opinion:
    """One person's decision: `ok`, `defect` or `skip`."""

    reviewer: str
    label: str


def state(model_label: str, opinions: Sequence[Opinion], second_opinions: bool = True) -> State:
    """Who is asked next about a part, given the opinions that were not taken back, oldest first.

    Who says otherwise than the model is seconded by another; where two people differ, a third decides. What the model left to a
    person it did not contradict.
    """
    labels = [opinion.label for opinion in opinions if opinion.label != SKIP]
    if not labels:
        return "open"
    if not second_opinions or len(labels) > 2:
        return "settled"
    if len(labels) == 1:
        return "settled" if model_label in ("", "review", labels[0]) else "second"
    return "settled" if labels[0] == labels[1] else "third"


def standing(opinions: Sequence[Opinion]) -> int | None:
    """Index of the opinion that stands: the last that says something. With three opinions and two labels it is the majority's,
    because a third is asked only where two differ. None where nobody said anything.
    """
    said = [index for index, opinion in enumerate(opinions) if opinion.label != SKIP]
    return said[-1] if said else None
