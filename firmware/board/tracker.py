"""Follows the parts of one lane from photo-eye 1 to photo-eye 2, and decides what the gate does with each part. See firmware/PROTOCOL.md.

    counted --VERDICT--> counted, with a verdict --leading edge at photo-eye 2--> decided --part at the gate--> reported
    counted --window_mm past photo-eye 2 without an edge, or a later part passed photo-eye 2--> missing

Places are in thousandths of a step, times in microseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from firmware.lane_settings import LaneSettings


@dataclass(frozen=True)
class Edge:
    """A change at a photo-eye that lasted for the debounce time.

    - `blocked`: True for a leading edge, which blocks the photo-eye. False for a trailing edge.
    - `place`, `at_us`: the position of the belt and the time at which the change began.
    - `steps`: the number of encoder edges up to this time.
    """

    blocked: bool
    place: int
    at_us: int
    steps: int = 0


@dataclass
class EdgeLog:
    """Counts the leading edges at a photo-eye since the reset, for the status pages `edge1` and `edge2`.

    Also stores the last leading edge and the length of the object that began there. The length is 0 while the object blocks the eye.
    """

    count: int = 0
    at_us: int = 0
    steps: int = 0
    length_us: int = 0
    length_steps: int = 0

    def add(self, edge: Edge) -> None:
        """Stores an edge."""
        if edge.blocked:
            self.count, self.at_us, self.steps = self.count + 1, edge.at_us, edge.steps
            self.length_us = self.length_steps = 0
        else:
            self.length_us, self.length_steps = edge.at_us - self.at_us, edge.steps - self.steps


class Eye:
    """A debounced photo-eye. `change` takes the level of the input, and `take_edges` returns the changes that have lasted long enough.

    `blocking_edge` is the leading edge of the part that blocks the eye now, or None.
    """

    def __init__(self) -> None:
        self.blocked = False
        self.blocking_edge: Edge | None = None
        self.log = EdgeLog()
        self._raw_level = False
        self._changing: Edge | None = None
        self._edges: list[Edge] = []

    def change(self, blocked: bool, place: int, at_us: int, debounce_us: int, steps: int = 0) -> None:
        """Stores a new level of the input. If the level changes back within the debounce time, both changes are ignored as bouncing."""
        self._accept_change(at_us, debounce_us)
        if blocked == self._raw_level:
            return
        self._raw_level = blocked
        self._changing = Edge(blocked, place, at_us, steps) if blocked != self.blocked else None

    def invert(self, place: int, at_us: int, debounce_us: int, steps: int) -> None:
        """Inverts the stored level of the input, because the setting `eye_light_on` has changed."""
        self.change(not self._raw_level, place, at_us, debounce_us, steps)

    def restart(self, place: int, now_us: int) -> None:
        """Stores `place` as the leading edge of the object that blocks the eye now. Does nothing if the eye is free."""
        if self.blocking_edge is not None:
            self.blocking_edge = Edge(True, place, now_us)

    def take_edges(self, now_us: int, debounce_us: int) -> list[Edge]:
        """Returns the edges that have lasted for the debounce time at `now_us`, oldest first. Each edge is returned once."""
        self._accept_change(now_us, debounce_us)
        edges, self._edges = self._edges, []
        return edges

    def _accept_change(self, at_us: int, debounce_us: int) -> None:
        edge = self._changing
        if edge is not None and at_us - edge.at_us >= debounce_us:
            self.blocked, self._changing = edge.blocked, None
            self.blocking_edge = edge if edge.blocked else None
            self.log.add(edge)
            self._edges.append(edge)


@dataclass(frozen=True)
class PartDecision:
    """The decision of the board about a part: its action and the reason.

    If the part is diverted, `gate` names the gate. 0 is the belt's own gate. For example, 2 is an additional gate that lane 2 moves.
    """

    action: str
    reason: str
    gate: int = 0

    def is_same_movement(self, other: PartDecision) -> bool:
        """Returns whether both decisions have the same action and the same gate."""
        return (self.action, self.gate) == (other.action, other.gate)


@dataclass
class TrackedPart:
    """A part on the belt.

    - `number`: 0 if photo-eye 1 did not count the part.
    - `edge`: the leading edge at photo-eye 1.
    - `gate`: 0, or the additional gate that must divert the part. A gate is named by the number of the lane that moves it.
    """

    number: int
    edge: Edge
    verdict: str | None = None
    gate: int = 0
    is_cancelled: bool = False
    is_touching: bool = False
    decision: PartDecision | None = None
    is_seen_by_host: bool = False
    announced_us: int | None = None


@dataclass(frozen=True)
class DecidedPart:
    """A part with its decision. `edge` is its leading edge at photo-eye 2.

    If the part did not reach photo-eye 2, `edge` contains the place and the time at which the board reported the part.
    """

    part: TrackedPart
    decision: PartDecision
    edge: Edge


class Tracker:
    """The parts of one lane that are counted and have not reached photo-eye 2.

    While `is_host_silent` is true, a part without a verdict gets the action of the setting `safe`.
    """

    def __init__(self, settings: LaneSettings, capacity: int) -> None:
        self.settings = settings
        self.capacity = capacity
        self.is_host_silent = False
        self.count = 0
        self.parts: deque[TrackedPart] = deque()
        self._last_at_eye2: tuple[int, PartDecision] | None = None

    def add(self, edge: Edge) -> TrackedPart | None:
        """Counts and returns a new part. Returns None if `capacity` parts are tracked already.

        `edge` contains the time and the position of the belt when the part reached photo-eye 1.
        """
        if len(self.parts) >= self.capacity:
            return None
        self.count += 1
        part = TrackedPart(self.count, edge)
        self.parts.append(part)
        return part

    def find(self, number: int) -> TrackedPart | None:
        """Returns the part with this number, or None if it is not between the photo-eyes."""
        return next((part for part in self.parts if part.number == number), None)

    def decide_at_eye2(self, edge: Edge) -> list[DecidedPart]:
        """Decides what happens to a part that reaches photo-eye 2. `edge` is the change at the eye when the part reaches it.

        Returns the decided parts: first the missing parts that should have come earlier, then the part itself.
        """
        gap, window = self.settings.travel("eye_gap_mm"), self.settings.travel("window_mm")
        distances = [(abs(edge.place - part.edge.place - gap), index) for index, part in enumerate(self.parts)]
        distance, index = min(distances, default=(window + 1, -1))
        if distance > window:
            unmatched = PartDecision(self.settings.word("no_verdict"), "unmatched")
            return [self._pass_eye2(TrackedPart(0, edge), unmatched, edge)]
        decided = [_missing(self.parts.popleft(), edge) for _ in range(index)]
        part = self.parts[0]
        if part.decision is None:
            self._decide_cluster()
        self.parts.popleft()
        assert part.decision is not None
        decided.append(self._pass_eye2(part, part.decision, edge))
        return decided

    def take_missing(self, place: int, now_us: int) -> list[DecidedPart]:
        """Removes and returns the missing parts, which should have reached photo-eye 2 by now. `place` is the belt's present position."""
        reach = self.settings.travel("eye_gap_mm") + self.settings.travel("window_mm")
        missing = []
        while self.parts and place - self.parts[0].edge.place > reach:
            missing.append(_missing(self.parts.popleft(), Edge(False, place, now_us)))
        return missing

    def remove_all(self) -> list[TrackedPart]:
        """Removes and returns all parts."""
        parts = list(self.parts)
        self.parts.clear()
        self.forget_last_part()
        return parts

    def forget_last_part(self) -> None:
        """Forgets the last part at photo-eye 2. So the next part gets its own decision, even if it is close behind the forgotten part."""
        self._last_at_eye2 = None

    def _own_decision(self, part: TrackedPart) -> PartDecision:
        """Returns the decision that a part gets if no other part is close to it."""
        default = self.settings.word("no_verdict")
        if part.is_touching:
            return PartDecision(default, "touching")
        if part.verdict is not None:
            return PartDecision("divert" if part.verdict == "divert" else "pass", "verdict", part.gate)
        if self.is_host_silent:
            return PartDecision(self.settings.word("safe"), "safe")
        return PartDecision(default, "cancelled" if part.is_cancelled else "no-verdict")

    def _decide_cluster(self) -> None:
        """Decides about the oldest part, and about the parts that follow it so closely that the gate cannot move between them.

        All these parts get the same action.
        """
        spacing = self.settings.travel("spacing_mm")
        cluster: list[TrackedPart] = []
        for part in self.parts:
            if cluster and part.edge.place - cluster[-1].edge.place >= spacing:
                break
            cluster.append(part)
        decisions = [self._own_decision(part) for part in cluster]
        is_united = all(decision.is_same_movement(decisions[0]) for decision in decisions)
        fallback = PartDecision(self.settings.word("no_verdict"), "spacing")
        for part, decision in zip(cluster, decisions, strict=True):
            part.decision = decision if is_united or decision.is_same_movement(fallback) else fallback

    def _pass_eye2(self, part: TrackedPart, decision: PartDecision, edge: Edge) -> DecidedPart:
        """Returns the decision for a part at photo-eye 2. A part less than `spacing_mm` behind another one gets the same decision."""
        if self._last_at_eye2 is not None:
            last_place, last = self._last_at_eye2
            if edge.place - last_place < self.settings.travel("spacing_mm") and not decision.is_same_movement(last):
                decision = PartDecision(last.action, "spacing", last.gate)
        self._last_at_eye2 = (edge.place, decision)
        return DecidedPart(part, decision, edge)


def _missing(part: TrackedPart, edge: Edge) -> DecidedPart:
    return DecidedPart(part, PartDecision("none", "missing"), edge)
