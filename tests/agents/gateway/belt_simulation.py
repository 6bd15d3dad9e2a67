"""A belt with a camera, simulated without waiting: parts, their reports and their pictures as an intake gets them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agents.gateway.camera_latency import CameraLatency
from agents.gateway.latency import LatencyEstimate, estimate_latency
from agents.gateway.matcher import MatchDecision, Matcher
from streams.identity import PartId

PARTS = 600
SPACING_S = 1.0
MISSING_SHARE = 0.2
JITTER_SHARE = 0.1
REPORT_DELAY_S = 0.02
_TICK_S = 0.05
_START_S = 1_800_000_000.0


@dataclass(frozen=True)
class Belt:
    """The times of the parts, and for each part that has a picture the distance of the picture from its expected time, in seconds."""

    part_times: list[float]
    jitters: dict[int, float]


def make_belt(seed: int, irregularity: float = 0.0, odd_gaps: tuple[int, ...] = (), count: int = PARTS) -> Belt:
    """Returns a belt whose gaps vary by the share `irregularity`. The gaps behind the parts `odd_gaps` are half a spacing longer."""
    draw = random.Random(seed)
    times = [_START_S]
    for number in range(1, count):
        gap_s = SPACING_S * (1 + draw.uniform(-irregularity, irregularity)) + (SPACING_S / 2 if number in odd_gaps else 0.0)
        times.append(times[-1] + gap_s)
    jitters = {}
    for number in range(count):
        gaps = [later - earlier for earlier, later in zip(times[max(0, number - 1) : number + 1], times[number : number + 2], strict=False)]
        spacing_s = min((gap for gap in gaps if gap), default=SPACING_S)
        if draw.random() >= MISSING_SHARE:
            jitters[number] = draw.uniform(-JITTER_SHARE, JITTER_SHARE) * spacing_s
    return Belt(times, jitters)


@dataclass
class BeltResult:
    """What became of the pictures. `alarm_at` is the number of the first part after whose picture the latency was no longer trusted."""

    right: int = 0
    wrong: int = 0
    unmatched: int = 0
    alarm_at: int | None = None
    # The numbers of the parts that got their picture.
    matched: set[int] = field(default_factory=set)
    # The largest distance of the median offset from 0, as a share of the spacing.
    largest_median_share: float = 0.0

    @property
    def matched_share(self) -> float:
        return self.right / (self.right + self.wrong + self.unmatched)


class SimulatedLine:
    """The matching of one line with a simulated clock: the matcher and the latency of the camera, wired as the intake wires them."""

    def __init__(self, latency: CameraLatency, window_s: float = 1.0) -> None:
        self.latency = latency
        self.matcher: Matcher[int] = Matcher(window_s, part_timeout_s=15.0)
        self.result = BeltResult()

    def run(
        self,
        belt: Belt,
        true_latency_s: Callable[[int], float],
        first_part: int = 1,
        clock_error_s: float = 0.0,
        delay_s: Callable[[int], float] = lambda index: 0.0,
        extra: tuple[int, float] | None = None,
        unreported: int | None = None,
    ) -> BeltResult:
        """Plays a belt. `true_latency_s` gives the latency of a picture by the index of its part.

        A picture arrives at the time that it bears, plus `clock_error_s` if the clock of the camera is slow by that, and `delay_s` later if
        its way takes longer. `extra` is a part that triggers the camera twice, and the time between its two pictures. The report of the
        part `unreported` is lost.
        """
        events: list[tuple[float, int, int, float]] = [
            (at_s + REPORT_DELAY_S, 0, index, at_s) for index, at_s in enumerate(belt.part_times) if index != unreported
        ]
        for index, jitter_s in belt.jitters.items():
            dated_s = belt.part_times[index] + true_latency_s(index) + jitter_s
            events.append((dated_s + clock_error_s + delay_s(index), 1, index, dated_s))
            if extra and index == extra[0]:
                events.append((events[-1][0] + extra[1], 1, index, dated_s + extra[1]))
        events.sort()
        now_s = events[0][0]
        for at_s, kind, index, dated_s in events:
            while now_s + _TICK_S < at_s and self.matcher.pending_pictures:
                now_s += _TICK_S
                self._count(self.matcher.decide_due(now_s))
                self._follow_doubt()
            now_s = at_s
            number = index + first_part
            if kind == 0:
                self.latency.add_part(dated_s)
                self._count(self.matcher.add_part(PartId("line-1", 7, number), dated_s, now_s))
                continue
            self.latency.add_picture(dated_s)
            if self.latency.usable_s is None:
                self._count([*self.matcher.release_pictures(), MatchDecision(number, None)])
            else:
                self._count(self.matcher.add_picture(number, dated_s - self.latency.usable_s, now_s))
            self._follow_doubt()
            if self.latency.suspension and self.result.alarm_at is None:
                self.result.alarm_at = number
        self._count(self.matcher.decide_due(now_s + 5, is_ending=True))
        return self.result

    def _follow_doubt(self) -> None:
        if self.latency.can_end_doubt(self.matcher.doubt):
            self.matcher.end_doubt()

    def _count(self, decisions: list[MatchDecision[int]]) -> None:
        for decision in decisions:
            if decision.offset_s is not None and decision.spacing_s is not None:
                self.latency.add_offset(decision.offset_s, decision.spacing_s)
                self.result.largest_median_share = max(self.result.largest_median_share, self.latency.median_share)
            if decision.picture is None:
                continue
            if decision.part is None:
                self.result.unmatched += 1
            elif decision.part.part == decision.picture:
                self.result.right += 1
                self.result.matched.add(decision.picture)
            else:
                self.result.wrong += 1


def make_line(folder: Path, set_s: float | None = None) -> SimulatedLine:
    return SimulatedLine(CameraLatency("line-1", set_s, folder / "line-1.latency.json"))


def measure(belt: Belt, latency_s: float) -> LatencyEstimate:
    """Returns what the command `castline gateway measure` finds on a belt."""
    pictures = [belt.part_times[index] + latency_s + jitter_s for index, jitter_s in belt.jitters.items()]
    return estimate_latency(belt.part_times, pictures)
