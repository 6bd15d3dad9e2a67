"""A security problem of this machine, as the command `castline security check` reports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Weight = Literal["high", "medium", "low"]
# The three degrees of urgency of a security problem, the highest one first.
WEIGHTS: tuple[Weight, ...] = get_args(Weight)


@dataclass(frozen=True)
class SecurityFinding:
    """A security problem of this machine: what somebody could misuse (`problem`), and what to do about it (`remedy`), in sentences."""

    weight: Weight
    problem: str
    remedy: str
