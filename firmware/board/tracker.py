"""Follows the parts of one lane from photo-eye 1 to photo-eye 2 and decides each. See firmware/PROTOCOL.md, "What the board does".

    counted --told--> counted, with a verdict --leading edge at photo-eye 2--> decided --moment of the gate--> reported
    counted --window closed, or a later part came first--> missing
Pure: places (thousandths of a step) and times (board microseconds) are passed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from firmware.board.eye import Edge
from firmware.board.lane_settings import LaneSettings


@dataclass(frozen=True)
class Decision:
    """What is done with a part, and why. `gate`: the lane of the further gate that takes it, 0 for the lane's own or none."""

    action: str
    reason: str
    gate: int = 0

    def same_as(self, other: Decision) -> bool:
        """Whether both need the same of the gates."""
        return (self.action, self.gate) == (other.action, other.gate)


@dataclass
class Part:
    """A counted part on its way. `number` is 0 for one that came to photo-eye 2 without having been counted."""

    number: int
    edge: Edge
    verdict: str | None = None
    gate: int = 0  # of the verdict `divert`: as in Decision
    cancelled: bool = False
    touching: bool = False
    decision: Decision | None = None
    seen: bool = False
    announced_us: int | None = None


@dataclass(frozen=True)
class Decided:
    """A part that has come to photo-eye 2 (`edge`), or never will (reason `missing`)."""

    part: Part
    decision: Decision
    edge: Edge


class Tracker:
    """`deaf` says that the host is silent: what was told stays in force, the rest is treated as `safe` says."""

    def __init__(self, settings: LaneSettings, capacity: int) -> None:
        self.settings = settings
        self.capacity = capacity
        self.deaf = False
        self.count = 0
        self.parts: deque[Part] = deque()
        self._last: tuple[int, Decision] | None = None

    def add(self, edge: Edge) -> Part | None:
        """Counts the part with this leading edge at photo-eye 1; None when there is no room to follow it."""
        if len(self.parts) >= self.capacity:
            return None
        self.count += 1
        part = Part(self.count, edge)
        self.parts.append(part)
        return part

    def find(self, number: int) -> Part | None:
        """The part, while it is tracked."""
        return next((part for part in self.parts if part.number == number), None)

    def arrive(self, edge: Edge) -> list[Decided]:
        """A leading edge at photo-eye 2: the parts that it decides, missing ones before it first."""
        gap, window = self.settings.travel("eye_gap_mm"), self.settings.travel("window_mm")
        distances = [(abs(edge.place - part.edge.place - gap), index) for index, part in enumerate(self.parts)]
        distance, index = min(distances, default=(window + 1, -1))
        if distance > window:
            part = Part(0, edge)
            return [self._take(part, self._follow(edge.place, Decision(self.settings.word("no_verdict"), "unmatched")), edge)]
        decided = [self._miss(self.parts.popleft(), edge) for _ in range(index)]
        part = self.parts[0]
        if part.decision is None:
            self._decide_cluster()
        self.parts.popleft()
        assert part.decision is not None
        decided.append(self._take(part, self._follow(edge.place, part.decision), edge))
        return decided

    def close_windows(self, place: int, now_us: int) -> list[Decided]:
        """Parts that should have come to photo-eye 2 by `place` and did not."""
        reach = self.settings.travel("eye_gap_mm") + self.settings.travel("window_mm")
        missing = []
        while self.parts and place - self.parts[0].edge.place > reach:
            missing.append(self._miss(self.parts.popleft(), Edge(False, place, now_us)))
        return missing

    def flush(self) -> list[Part]:
        """Forgets all parts on the way, and returns them."""
        parts = list(self.parts)
        self.parts.clear()
        self._last = None
        return parts

    def _wanted(self, part: Part) -> Decision:
        default = self.settings.word("no_verdict")
        if part.touching:
            return Decision(default, "touching")
        if part.verdict is not None:
            return Decision("divert" if part.verdict == "divert" else "pass", "verdict", part.gate)
        if self.deaf:
            return Decision(self.settings.word("safe"), "safe")
        return Decision(default, "cancelled" if part.cancelled else "no-verdict")

    def _decide_cluster(self) -> None:
        # No gate can change between parts so close: all of them get one action at one gate, and it is fixed now.
        spacing = self.settings.travel("spacing_mm")
        cluster: list[Part] = []
        for part in self.parts:
            if cluster and part.edge.place - cluster[-1].edge.place >= spacing:
                break
            cluster.append(part)
        wanted = [self._wanted(part) for part in cluster]
        united = all(decision.same_as(wanted[0]) for decision in wanted)
        divided = Decision(self.settings.word("no_verdict"), "spacing")
        for part, decision in zip(cluster, wanted, strict=True):
            part.decision = decision if united or decision.same_as(divided) else divided

    def _follow(self, place: int, decision: Decision) -> Decision:
        if self._last is None or place - self._last[0] >= self.settings.travel("spacing_mm"):
            return decision
        last = self._last[1]
        return decision if decision.same_as(last) else Decision(last.action, "spacing", last.gate)

    def _take(self, part: Part, decision: Decision, edge: Edge) -> Decided:
        self._last = (edge.place, decision)
        return Decided(part, decision, edge)

    def _miss(self, part: Part, edge: Edge) -> Decided:
        return Decided(part, Decision("none", "missing"), edge)
