"""What the wall says of a line at one moment: figures, bars and alarms, ready for a template. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from firmware.fault_table import describe_fault
from station.live.line import LABELS, Ages, LineState
from station.live.seen import SeenPart, reason_in_words
from streams.records import Sorting

_QUIET = timedelta(seconds=30)
_LONG_QUIET = timedelta(hours=1)  # after it a line counts as stopped, not as broken
_BAR_HEIGHT = 100
_ACTIONS = {"diverted": "diverted", "passed": "passed", "stopped": "line stopped", "untracked": "not followed"}
_REASONS = {
    "verdict": "by the verdict",
    "no-verdict": "no verdict had come",
    "late-verdict": "the verdict came too late",
    "board-restarted": "the board had restarted",
    "taken-off": "it never came to the gate",
    "unmatched": "the board never counted it",
    "spacing": "too close to its neighbour",
    "touching": "more than one part under one number",
}


@dataclass(frozen=True)
class Alarm:
    """Something that somebody should look at; `level` is the colour."""

    level: Literal["defect", "review"]
    text: str


@dataclass(frozen=True)
class Bar:
    """One minute of the trend in a drawing of 60 by 100: heights of the three labels, from the bottom up."""

    x: int
    ok_y: float
    ok_height: float
    review_y: float
    review_height: float
    defect_y: float
    defect_height: float
    title: str


@dataclass(frozen=True)
class LineBoard:
    """A line's card."""

    name: str
    gated: bool
    parts: list[SeenPart]
    faulty: list[SeenPart]
    ok: int
    defect: int
    review: int
    diverted: int
    shift_since: datetime | None
    ages: Ages
    gate: str
    gate_at: datetime | None
    model: str
    last_at: datetime | None
    alarms: list[Alarm]
    bars: list[Bar]
    most_per_minute: int

    @property
    def judged(self) -> int:
        return self.ok + self.defect + self.review

    @property
    def yield_per_cent(self) -> float | None:
        """Share of the parts that were good; None before the first."""
        return 100 * self.ok / self.judged if self.judged else None


def board(state: LineState, now: datetime, parts: Sequence[SeenPart], trend: bool = False) -> LineBoard:
    """The card of `state` that shows `parts`; `trend` adds the last hour and the last faulty parts."""
    sorting, verdict = state.last_sorting, state.last_verdict
    bars = _bars(state, now) if trend else []
    return LineBoard(
        name=state.name,
        gated=state.settings.gate is not None,
        parts=list(parts),
        faulty=list(reversed(state.faulty)) if trend else [],
        ok=state.counts["ok"],
        defect=state.counts["defect"],
        review=state.counts["review"],
        diverted=state.diverted,
        shift_since=state.shift_since,
        ages=state.ages(now),
        gate=_gate(sorting),
        gate_at=sorting.sorted_at if sorting else None,
        model=verdict.model if verdict else "",
        last_at=verdict.captured_at if verdict else None,
        alarms=alarms(state, now),
        bars=bars,
        most_per_minute=max((counts.total() for _, counts in state.trend(now)), default=0) if trend else 0,
    )


def alarms(state: LineState, now: datetime) -> list[Alarm]:
    """What is wrong on the line, the worst first."""
    found = []
    sorting, verdict, gate = state.last_sorting, state.last_verdict, state.settings.gate
    if sorting is not None and sorting.reason == "fault":
        found.append(Alarm("defect", f"Gate in its safe state, {describe_fault(sorting.code)}"))
    quiet = now - max(verdict.captured_at, verdict.decided_at) if verdict else None
    if quiet is not None and _QUIET < quiet < _LONG_QUIET and (state.settings.camera or gate):
        found.append(Alarm("review", f"No casting for {_duration(quiet)}"))
    if gate is not None and verdict is not None and quiet is not None and quiet < _QUIET:
        silent = now - sorting.sorted_at if sorting else None
        if silent is not None and silent > _QUIET + timedelta(seconds=gate.travel_s):
            found.append(Alarm("defect", f"Castings are judged, but the gate has been silent for {_duration(silent)}"))
    missed = state.missed(now)
    if missed["late"]:
        found.append(Alarm("review", f"{_count(missed['late'], 'verdict')} too late for the gate in the last 10 minutes"))
    if missed["none"]:
        found.append(Alarm("review", f"{_count(missed['none'], 'casting')} at the gate without a verdict in the last 10 minutes"))
    if letters := state.letters(now):
        reasons = ", ".join(f"{reason_in_words(reason)}: {count}" for reason, count in letters.most_common(3))
        found.append(Alarm("review", f"{_count(letters.total(), 'picture')} could not be judged in the last hour ({reasons})"))
    return found


def _gate(sorting: Sorting | None) -> str:
    if sorting is None:
        return ""
    why = describe_fault(sorting.code) if sorting.reason == "fault" else _REASONS.get(sorting.reason, sorting.reason)
    return f"{_ACTIONS.get(sorting.action, sorting.action)}, {why}"


def _bars(state: LineState, now: datetime) -> list[Bar]:
    trend = state.trend(now)
    most = max((counts.total() for _, counts in trend), default=0)
    bars = []
    for x, (minute, counts) in enumerate(trend):
        if not counts.total():
            continue
        ok, defect, review = (round(_BAR_HEIGHT * counts[label] / most, 1) for label in LABELS)
        said = ", ".join(f"{counts[label]} {label}" for label in LABELS)
        local = minute.astimezone(UTC)
        bars.append(
            Bar(
                x=x,
                ok_y=round(_BAR_HEIGHT - ok, 1),
                ok_height=ok,
                review_y=round(_BAR_HEIGHT - ok - review, 1),
                review_height=review,
                defect_y=round(_BAR_HEIGHT - ok - review - defect, 1),
                defect_height=defect,
                title=f"{local:%H:%M} UTC: {said}",
            )
        )
    return bars


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _duration(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
