"""A line that is not there: belt, castings, photo-eyes, encoder, and a gate with inertia. Drives any board; knows the truth.

Pure: `advance` takes time and the board's outputs and gives what the board's inputs see. Places are mm from photo-eye 1,
downstream positive; times are microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

FEED_MM = -60.0
EYE1, EYE2, STEPS = "eye1", "eye2", "steps"


@dataclass(frozen=True)
class Blade:
    """A further gate of the belt, moved by the servo of the board's lane `lane`."""

    lane: int
    blade_mm: float  # photo-eye 2 to this gate's blade
    servo_s: float = 0.08
    rest_us: int = 1000
    out_us: int = 2000


@dataclass(frozen=True)
class Belt:
    """What the line is built like. `encoder_um` 0: no encoder."""

    speed_mm_s: float = 500.0
    eye_gap_mm: float = 1000.0
    blade_mm: float = 60.0  # photo-eye 2 to the gate's blade
    part_mm: float = 20.0
    servo_s: float = 0.08  # a full swing
    rest_us: int = 1000
    out_us: int = 2000
    encoder_um: int = 0
    further: tuple[Blade, ...] = ()

    @cached_property
    def blades(self) -> tuple[Blade, ...]:
        """All gates, the belt's own (lane 0) first."""
        return (Blade(0, self.blade_mm, self.servo_s, self.rest_us, self.out_us), *self.further)


@dataclass(frozen=True)
class Feed:
    """How castings come. `jitter` is a share of the mean distance in time, `parts` None is without end."""

    rate_per_s: float = 2.0
    jitter: float = 0.2
    least_gap_mm: float = 65.0
    seed: int = 1
    parts: int | None = None


@dataclass(frozen=True)
class Signal:
    """A change at the board's inputs: an eye's level (1 blocked), or so many encoder edges."""

    at_us: int
    what: str
    value: int


@dataclass
class Casting:
    """A casting on the belt; `number` counts those fed. `lead_mm` is its leading edge."""

    number: int
    lead_mm: float
    length_mm: float
    struck: bool = False
    counted: int = 0
    past_mm: float = float("-inf")  # how far its end was past photo-eye 2 when last looked at


@dataclass(frozen=True)
class Fallen:
    """The truth about one casting: on which side it left, at which gate (the lane of a further one; 0: the belt's own, or none),
    and whether a swinging gate struck it."""

    number: int
    counted: int
    side: str
    struck: bool
    at_us: int
    gate: int = 0


@dataclass
class Plant:
    """Castings are fed while `feeding`; `fallen` grows by the truth about each that has passed the blade."""

    belt: Belt = field(default_factory=Belt)
    feed: Feed = field(default_factory=Feed)
    feeding: bool = False
    fed: int = 0
    fallen: list[Fallen] = field(default_factory=list)
    castings: list[Casting] = field(default_factory=list)
    now_us: int = 0
    angles: list[float] = field(default_factory=list)  # of each blade: 0 rest, 1 out
    _travelled_mm: float = 0.0
    _steps_said: int = 0
    _counted: int = 0
    _next_feed_mm: float = 0.0
    _taken_off: list[tuple[str, Casting]] = field(default_factory=list)
    _before: dict[str, int] = field(default_factory=lambda: {EYE1: 0, EYE2: 0})

    def __post_init__(self) -> None:
        self._random = random.Random(self.feed.seed)
        self.angles = [0.0] * len(self.belt.blades)
        least_s = self.feed.least_gap_mm / self.belt.speed_mm_s
        if self.feed.rate_per_s * least_s > 1:
            raise ValueError(
                f"expected at most {1 / least_s:.2f} parts a second on a belt of {self.belt.speed_mm_s:g} mm/s with "
                f"{self.feed.least_gap_mm:g} mm between leading edges, found {self.feed.rate_per_s:g}"
            )

    @property
    def angle(self) -> float:
        """Of the belt's own gate."""
        return self.angles[0]

    @property
    def done_feeding(self) -> bool:
        return self.feed.parts is not None and self.fed >= self.feed.parts

    def place_casting(self, lead_mm: float, length_mm: float | None = None) -> Casting:
        """Puts a casting on the belt by hand, leading edge at `lead_mm`."""
        self.fed += 1
        casting = Casting(self.fed, lead_mm, self.belt.part_mm if length_mm is None else length_mm)
        self.castings.append(casting)
        return casting

    def take_off(self, casting: Casting) -> None:
        """Somebody takes it from the belt. An eye that it blocked sees it go when time next passes."""
        self.castings.remove(casting)
        for what, eye_mm in self._eyes():
            if casting.lead_mm >= eye_mm > casting.lead_mm - casting.length_mm:
                self._taken_off.append((what, casting))

    def advance(self, to_us: int, pulse_us: int, belt_runs: bool, further_us: Sequence[int] = ()) -> list[Signal]:
        """Lets time pass with the board's present outputs, those of further gates in their order; the signals come in the order of time."""
        from_us, self.now_us = self.now_us, to_us
        self._swing((pulse_us, *further_us), (to_us - from_us) / 1e6)
        taken_off = [Signal(from_us, what, 0) for what, _ in self._taken_off]
        self._taken_off.clear()
        if not belt_runs:
            self._strike()
            return self._levels(taken_off)
        travel = self.belt.speed_mm_s * (to_us - from_us) / 1e6
        self._feed(travel)
        # Where one casting's end and the next one's beginning fall together, the eye stays blocked.
        signals = self._levels(sorted([*taken_off, *self._edges(from_us, travel)], key=lambda signal: (signal.at_us, -signal.value)))
        if self.belt.encoder_um:
            signals = list(self._with_steps(signals, from_us, to_us))
        self._travelled_mm += travel
        for casting in self.castings:
            casting.lead_mm += travel
        self._strike()
        self._fall(to_us)
        return signals

    def _swing(self, pulses_us: Sequence[int], passed_s: float) -> None:
        for index, (blade, pulse_us) in enumerate(zip(self.belt.blades, pulses_us, strict=True)):
            target = (pulse_us - blade.rest_us) / (blade.out_us - blade.rest_us)
            most = passed_s / blade.servo_s
            self.angles[index] += max(-most, min(most, target - self.angles[index]))

    def _feed(self, travel: float) -> None:
        if not self.feeding or self.done_feeding:
            return
        self._next_feed_mm -= travel
        if self._next_feed_mm <= 0:
            self.place_casting(FEED_MM)
            mean_mm = self.belt.speed_mm_s / self.feed.rate_per_s
            distance = mean_mm * (1 + self.feed.jitter * self._random.uniform(-1, 1))
            self._next_feed_mm = max(self.feed.least_gap_mm, distance)

    def _eyes(self) -> tuple[tuple[str, float], tuple[str, float]]:
        return (EYE1, 0.0), (EYE2, self.belt.eye_gap_mm)

    def _levels(self, signals: list[Signal]) -> list[Signal]:
        """The changes of each eye's level, out of the beginnings (1) and ends (0) of castings."""
        changes = []
        for signal in signals:
            before = self._before[signal.what]
            self._before[signal.what] = after = before + (1 if signal.value else -1)
            if (before > 0) != (after > 0):
                changes.append(signal)
        return changes

    def _edges(self, from_us: int, travel: float) -> Iterator[Signal]:
        for casting in self.castings:
            for what, eye_mm in self._eyes():
                for level, edge_mm in ((1, casting.lead_mm), (0, casting.lead_mm - casting.length_mm)):
                    if edge_mm < eye_mm <= edge_mm + travel:
                        at_us = from_us + round((eye_mm - edge_mm) / self.belt.speed_mm_s * 1e6)
                        if what == EYE1 and level:
                            self._counted += 1
                            casting.counted = self._counted
                        yield Signal(at_us, what, level)

    def _with_steps(self, signals: list[Signal], from_us: int, to_us: int) -> Iterator[Signal]:
        """Encoder edges before each eye's edge and at the end, so that the board knows the place of every edge."""
        for at_us in [*(signal.at_us for signal in signals), to_us]:
            place_mm = self._travelled_mm + self.belt.speed_mm_s * (at_us - from_us) / 1e6
            steps = int(place_mm * 1000 / self.belt.encoder_um) - self._steps_said
            if steps:
                self._steps_said += steps
                yield Signal(at_us, STEPS, steps)
            if signals and signals[0].at_us == at_us:
                yield signals.pop(0)

    def _strike(self) -> None:
        for blade, angle in zip(self.belt.blades, self.angles, strict=True):
            if 0.1 < angle < 0.9:
                at_mm = self.belt.eye_gap_mm + blade.blade_mm
                for casting in self.castings:
                    if casting.lead_mm >= at_mm > casting.lead_mm - casting.length_mm:
                        casting.struck = True

    def _fall(self, now_us: int) -> None:
        """A casting leaves at the first gate that is out when its end has passed the blade, else behind the last."""
        gates = list(zip(self.belt.blades, self.angles, strict=True))
        last_mm = max(blade.blade_mm for blade, _ in gates)
        for casting in list(self.castings):
            end_mm = casting.lead_mm - casting.length_mm - self.belt.eye_gap_mm
            taker = next((blade for blade, angle in gates if casting.past_mm <= blade.blade_mm < end_mm and angle > 0.5), None)
            casting.past_mm = end_mm
            if taker is not None:
                self._leave(casting, "diverted", now_us, taker.lane)
            elif end_mm > last_mm:
                self._leave(casting, "passed", now_us)

    def _leave(self, casting: Casting, side: str, now_us: int, gate: int = 0) -> None:
        self.castings.remove(casting)
        self.fallen.append(Fallen(casting.number, casting.counted, side, casting.struck, now_us, gate))
