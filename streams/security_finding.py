"""A finding of `castline security check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Weight = Literal["high", "medium", "low"]
# From the weight that is mended first to the one that is mended last.
WEIGHTS: tuple[Weight, ...] = get_args(Weight)


@dataclass(frozen=True)
class SecurityFinding:
    """What somebody could misuse on this machine, and what to do about it. Both are sentences."""

    weight: Weight
    problem: str
    remedy: str
