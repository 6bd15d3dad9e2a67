"""What a board reports, in the host's words and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class GateState(StrEnum):
    """The state of a line's gate as its sorter sees it; a metric label."""

    AWAY = "away"  # the port is closed or silent
    GREETING = "greeting"  # opened; waiting for the board, configuring it
    REFUSED = "refused"  # board and settings do not fit: a person must act
    RUNNING = "running"
    SAFE = "safe"  # a fault; the line's safe action is in force
    STOPPED = "stopped"  # the board stopped the belt


@dataclass(frozen=True)
class PartCounted:
    """Photo-eye 1 counted a part."""

    run: int
    part: int
    counted_at: datetime
    age_s: float  # when the host heard of it


@dataclass(frozen=True)
class PartSorted:
    """What the gate did with a part (`part` 0: one that had not been counted). Acknowledge it once it is recorded.

    `action` and `reason` are the protocol's words. `gate` is the lane of the further gate that took the part, 0: the line's own or none.
    """

    event: int
    run: int
    part: int
    action: str
    reason: str
    moved: bool
    moves: int
    counted_at: datetime | None
    at_gate_at: datetime
    gate: int = 0


@dataclass(frozen=True)
class FaultChanged:
    """A fault began or ended. Acknowledge it once it is recorded."""

    event: int
    run: int
    code: int
    raised: bool
    detail: int
    at: datetime


@dataclass(frozen=True)
class RunBegan:
    """The board answers with this run; what was told in another is gone."""

    run: int
    cause: str


GateEvent = PartCounted | PartSorted | FaultChanged | RunBegan
Listener = Callable[[GateEvent], None]


@dataclass(frozen=True)
class Told:
    """The board's answer to a verdict: `accepted`, or `same` when it knew already."""

    word: str
    told_at: datetime
    round_trip_s: float
