"""A simulated belt with castings, photo-eyes, an encoder and gates. It records where each casting has really left the belt.

Places are in mm from photo-eye 1, in the direction of the belt. Times are in microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

# Castings are put on the belt at this position in mm. Photo-eye 1 is at 0 mm, so the position is 60 mm before photo-eye 1.
FEED_MM = -60.0
EYE1, EYE2, STEPS = "eye1", "eye2", "steps"
END_SWITCH, CHUTE_EYE = "end_switch", "chute_eye"


@dataclass(frozen=True)
class Blade:
    """The blade of a gate. It stands `blade_mm` behind photo-eye 2, and the servo of the lane `lane` moves it."""

    lane: int
    blade_mm: float
    servo_s: float = 0.08
    rest_us: int = 1000
    out_us: int = 2000


@dataclass(frozen=True)
class Belt:
    """Dimensions and speed of a belt, and the blades of its gates.

    - `blade_mm`: distance from photo-eye 2 to the blade of the belt's own gate.
    - `servo_s`: the time that the servo needs to swing the blade from rest to fully out.
    - `encoder_um`: the travel of the belt from one encoder edge to the next, in micrometres; 0 without an encoder.
    - `eye_light_on`: True if the output of each eye is on while the eye sees light. Then the board's input is low while the eye is free.
    - `further`: the blades of additional gates on this belt. The servo of an additional gate belongs to another lane.
    - `chute_s`: the time that a diverted casting needs from the belt to the eye in the reject chute.
    """

    speed_mm_s: float = 500.0
    eye_gap_mm: float = 1000.0
    blade_mm: float = 60.0
    part_mm: float = 20.0
    servo_s: float = 0.08
    rest_us: int = 1000
    out_us: int = 2000
    encoder_um: int = 0
    eye_light_on: bool = False
    further: tuple[Blade, ...] = ()
    chute_s: float = 0.1

    @cached_property
    def blades(self) -> tuple[Blade, ...]:
        """The blades of all gates on the belt. The belt's own gate comes first, with the lane 0. Then come the additional gates."""
        return (Blade(0, self.blade_mm, self.servo_s, self.rest_us, self.out_us), *self.further)


@dataclass(frozen=True)
class CastingFeed:
    """Says how castings are put on the belt: how often, at which distances, and how many. If `parts` is None, there is no limit.

    The distance between castings is random. `jitter` is its largest deviation from the mean distance: 0.2 means 20 % of the mean.
    """

    rate_per_s: float = 2.0
    jitter: float = 0.2
    least_gap_mm: float = 65.0
    seed: int = 1
    parts: int | None = None


@dataclass(frozen=True)
class InputChange:
    """A change at an input of the board. `value` is the level of a photo-eye (1 means blocked) or a number of encoder edges."""

    at_us: int
    what: str
    value: int


@dataclass(frozen=True)
class GateInputChange:
    """A change at an input of a gate: the end switch (1 means at an end) or the eye in its chute (1 means blocked).

    `gate` is 0 for the belt's own gate. For an additional gate on the belt, `gate` is the lane that moves it.
    """

    at_us: int
    gate: int
    what: str
    value: int


@dataclass
class BeltCasting:
    """A casting on the belt.

    - `number`: 1 for the first casting that was put on the belt, 2 for the second one.
    - `counted`: 1 for the first casting that reached photo-eye 1, 2 for the second one; 0 if the casting has not reached it.
    - `lead_mm`: position of the leading edge.
    - `past_mm`: distance of the rear end from photo-eye 2; negative before the photo-eye.
    """

    number: int
    lead_mm: float
    length_mm: float
    struck: bool = False
    counted: int = 0
    past_mm: float = float("-inf")


@dataclass(frozen=True)
class CastingExit:
    """Says how a casting left the belt.

    - `side`: `diverted` or `passed`.
    - `struck`: whether a moving gate hit the casting.
    - `gate`: the lane of the additional gate that diverted the casting, otherwise 0.
    """

    number: int
    counted: int
    side: str
    struck: bool
    at_us: int
    gate: int = 0


@dataclass
class Plant:
    """One belt. While `is_feeding` is true, castings are put on the belt.

    - `exits`: the castings that have left the belt, oldest first.
    - `angles`: the angle of each blade, from 0 (at rest) to 1 (out).
    - `jammed_gates`: the gates that cannot move. 0 is the belt's own gate. An additional gate has its lane's number, 1 to 4.
    - `to_lose`: how many of the next diverted castings fall beside the chute. The chute's eye does not see these castings.
    """

    belt: Belt = field(default_factory=Belt)
    feed: CastingFeed = field(default_factory=CastingFeed)
    is_feeding: bool = False
    fed: int = 0
    exits: list[CastingExit] = field(default_factory=list)
    castings: list[BeltCasting] = field(default_factory=list)
    now_us: int = 0
    angles: list[float] = field(default_factory=list)
    jammed_gates: set[int] = field(default_factory=set)
    to_lose: int = 0
    _travelled_mm: float = 0.0
    _reported_steps: int = 0
    _counted: int = 0
    _next_feed_mm: float = 0.0
    _removed: list[str] = field(default_factory=list)
    _gate_changes: list[GateInputChange] = field(default_factory=list)
    # The future changes at the eyes in the chutes. A diverted casting needs `chute_s` seconds from the belt to
    # the eye in its chute.
    _chute_changes: list[GateInputChange] = field(default_factory=list)
    _castings_at_eye: dict[str, int] = field(default_factory=lambda: {EYE1: 0, EYE2: 0})

    def __post_init__(self) -> None:
        self._random = random.Random(self.feed.seed)
        self.angles = [0.0] * len(self.belt.blades)
        self._are_at_end = [True] * len(self.belt.blades)
        least_s = self.feed.least_gap_mm / self.belt.speed_mm_s
        if self.feed.rate_per_s * least_s > 1:
            raise ValueError(
                f"{self.feed.rate_per_s:g} parts a second are too many for a belt of {self.belt.speed_mm_s:g} mm/s. With "
                f"{self.feed.least_gap_mm:g} mm from one leading edge to the next, at most {1 / least_s:.2f} parts a second are possible. "
                "Choose a lower rate."
            )

    @property
    def angle(self) -> float:
        """The position of the belt's own gate, from 0 (at rest) to 1 (fully out)."""
        return self.angles[0]

    @property
    def has_fed_all(self) -> bool:
        """True if all castings of the feed have been put on the belt. Always False if `feed.parts` is None."""
        return self.feed.parts is not None and self.fed >= self.feed.parts

    def place_casting(self, lead_mm: float, length_mm: float | None = None) -> BeltCasting:
        """Puts a casting on the belt with its leading edge at `lead_mm`, and returns the casting."""
        self.fed += 1
        casting = BeltCasting(self.fed, lead_mm, self.belt.part_mm if length_mm is None else length_mm)
        self.castings.append(casting)
        return casting

    def take_off(self, casting: BeltCasting) -> None:
        """Takes a casting off the belt. If it blocked a photo-eye, the next call of `advance` reports that the eye is free."""
        self.castings.remove(casting)
        for what, eye_mm in self._eyes():
            if casting.lead_mm >= eye_mm > casting.lead_mm - casting.length_mm:
                self._removed.append(what)

    def advance(self, to_us: int, pulse_us: int, belt_runs: bool, further_us: Sequence[int] = ()) -> list[InputChange]:
        """Moves the simulation forward to the time `to_us`. Returns the changes at the board's inputs, oldest first.

        `pulse_us` is the servo pulse of the belt's own gate. `further_us` has the servo pulse of each additional gate.
        """
        from_us, self.now_us = self.now_us, to_us
        self._swing((pulse_us, *further_us), (to_us - from_us) / 1e6)
        removed = [InputChange(from_us, what, 0) for what in self._removed]
        self._removed.clear()
        if not belt_runs:
            self._strike()
            return self._level_changes(removed)
        travel_mm = self.belt.speed_mm_s * (to_us - from_us) / 1e6
        self._feed(travel_mm)
        # If a casting arrives at a photo-eye at the moment when the previous casting leaves, the arrival (value 1) comes first in the list.
        # So the photo-eye stays blocked.
        edges = sorted([*removed, *self._edges(from_us, travel_mm)], key=lambda change: (change.at_us, -change.value))
        changes = self._level_changes(edges)
        if self.belt.encoder_um:
            changes = list(self._with_steps(changes, from_us, to_us))
        self._travelled_mm += travel_mm
        for casting in self.castings:
            casting.lead_mm += travel_mm
        self._strike()
        self._let_castings_leave(to_us)
        return changes

    def take_gate_changes(self) -> list[GateInputChange]:
        """Returns the changes at the inputs of the gates since the last call, in the order of time."""
        due = [change for change in self._chute_changes if change.at_us <= self.now_us]
        self._chute_changes = [change for change in self._chute_changes if change.at_us > self.now_us]
        changes, self._gate_changes = self._gate_changes + due, []
        return sorted(changes, key=lambda change: change.at_us)

    def _swing(self, pulses_us: Sequence[int], passed_s: float) -> None:
        for index, (blade, pulse_us) in enumerate(zip(self.belt.blades, pulses_us, strict=True)):
            if blade.lane in self.jammed_gates:
                continue
            target = (pulse_us - blade.rest_us) / (blade.out_us - blade.rest_us)
            max_change = passed_s / blade.servo_s
            self.angles[index] += max(-max_change, min(max_change, target - self.angles[index]))
            at_end = not 0.02 < self.angles[index] < 0.98
            if at_end != self._are_at_end[index]:
                self._are_at_end[index] = at_end
                self._gate_changes.append(GateInputChange(self.now_us, blade.lane, END_SWITCH, int(at_end)))

    def _feed(self, travel_mm: float) -> None:
        if not self.is_feeding or self.has_fed_all:
            return
        self._next_feed_mm -= travel_mm
        if self._next_feed_mm <= 0:
            self.place_casting(FEED_MM)
            mean_mm = self.belt.speed_mm_s / self.feed.rate_per_s
            distance_mm = mean_mm * (1 + self.feed.jitter * self._random.uniform(-1, 1))
            self._next_feed_mm = max(self.feed.least_gap_mm, distance_mm)

    def _eyes(self) -> tuple[tuple[str, float], tuple[str, float]]:
        return (EYE1, 0.0), (EYE2, self.belt.eye_gap_mm)

    def _level_changes(self, edges: list[InputChange]) -> list[InputChange]:
        """Returns the edges at which a photo-eye becomes blocked (value 1) or free (value 0).

        The edges of a casting are left out while another casting blocks the photo-eye, because the level does not change then.
        """
        changes = []
        for edge in edges:
            before = self._castings_at_eye[edge.what]
            self._castings_at_eye[edge.what] = after = before + (1 if edge.value else -1)
            if (before > 0) != (after > 0):
                changes.append(edge)
        return changes

    def _edges(self, from_us: int, travel_mm: float) -> Iterator[InputChange]:
        eyes = self._eyes()
        for casting in self.castings:
            for what, eye_mm in eyes:
                if casting.lead_mm + travel_mm < eye_mm or casting.lead_mm - casting.length_mm >= eye_mm:
                    continue  # The whole casting is before the photo-eye or behind it.
                for level, edge_mm in ((1, casting.lead_mm), (0, casting.lead_mm - casting.length_mm)):
                    if edge_mm < eye_mm <= edge_mm + travel_mm:
                        at_us = from_us + round((eye_mm - edge_mm) / self.belt.speed_mm_s * 1e6)
                        if what == EYE1 and level:
                            self._counted += 1
                            casting.counted = self._counted
                        yield InputChange(at_us, what, level)

    def _with_steps(self, changes: list[InputChange], from_us: int, to_us: int) -> Iterator[InputChange]:
        """Yields `changes` and the encoder steps up to `to_us`, all in the order of time."""
        for at_us in [*(change.at_us for change in changes), to_us]:
            place_mm = self._travelled_mm + self.belt.speed_mm_s * (at_us - from_us) / 1e6
            steps = int(place_mm * 1000 / self.belt.encoder_um) - self._reported_steps
            if steps:
                self._reported_steps += steps
                yield InputChange(at_us, STEPS, steps)
            if changes and changes[0].at_us == at_us:
                yield changes.pop(0)

    def _strike(self) -> None:
        """Marks the castings that a moving blade hits."""
        for blade, angle in zip(self.belt.blades, self.angles, strict=True):
            if 0.1 < angle < 0.9:
                at_mm = self.belt.eye_gap_mm + blade.blade_mm
                for casting in self.castings:
                    if casting.lead_mm >= at_mm > casting.lead_mm - casting.length_mm:
                        casting.struck = True

    def _let_castings_leave(self, now_us: int) -> None:
        """Removes the castings that have left the belt.

        A gate diverts a casting if the gate is out when the rear end of the casting passes the blade.
        """
        gates = list(zip(self.belt.blades, self.angles, strict=True))
        first_mm, last_mm = min(blade.blade_mm for blade, _ in gates), max(blade.blade_mm for blade, _ in gates)
        for casting in list(self.castings):
            end_mm = casting.lead_mm - casting.length_mm - self.belt.eye_gap_mm
            if end_mm <= first_mm:
                casting.past_mm = end_mm
                continue
            taker = next((blade for blade, angle in gates if casting.past_mm <= blade.blade_mm < end_mm and angle > 0.5), None)
            casting.past_mm = end_mm
            if taker is not None:
                self._leave(casting, "diverted", now_us, taker.lane)
            elif end_mm > last_mm:
                self._leave(casting, "passed", now_us)

    def _leave(self, casting: BeltCasting, side: str, now_us: int, gate: int = 0) -> None:
        self.castings.remove(casting)
        if side == "diverted":
            self._fall_into_chute(casting, now_us, gate)
        self.exits.append(CastingExit(casting.number, casting.counted, side, casting.struck, now_us, gate))

    def _fall_into_chute(self, casting: BeltCasting, now_us: int, gate: int) -> None:
        if self.to_lose > 0:
            self.to_lose -= 1
            return
        at_us = now_us + round(self.belt.chute_s * 1e6)
        free_us = at_us + round(casting.length_mm / self.belt.speed_mm_s * 1e6)
        self._chute_changes += [GateInputChange(at_us, gate, CHUTE_EYE, 1), GateInputChange(free_us, gate, CHUTE_EYE, 0)]
