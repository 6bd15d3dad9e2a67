"""Computes what the card of a line shows at one moment, from the state of the line: figures, trend bars and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from firmware.fault_table import describe_fault
from station.live.line_state import LABELS, LineState, LivePart, VerdictLatency, describe_reason
from streams.plant_states import STATE_ALARMS, PlantState
from streams.records import Sorting

_CHART_HEIGHT = 100
_ACTIONS = {"diverted": "diverted", "passed": "passed", "stopped": "line stopped", "untracked": "not followed"}
_SORTING_REASONS = {
    "verdict": "by the verdict",
    "no-verdict": "no verdict had come",
    "late-verdict": "the verdict came too late",
    "board-restarted": "the board had restarted",
    "taken-off": "the part never came to the gate",
    "unmatched": "the board never counted the part",
    "spacing": "too close to the next part",
    "touching": "several parts were counted as one",
}


@dataclass(frozen=True)
class LineAlarm:
    """A problem of a line that a person should look at. `level` decides the colour: `defect` is more serious than `review`."""

    level: Literal["defect", "review"]
    text: str


@dataclass(frozen=True)
class TrendBar:
    """The bar for one minute in the trend chart of a line. From bottom to top, it shows the parts with the label ok, review and defect.

    The chart has room for 60 bars, which are one unit wide. The highest bar is 100 units high.
    """

    x: int
    ok_y: float
    ok_height: float
    review_y: float
    review_height: float
    defect_y: float
    defect_height: float
    title: str


@dataclass(frozen=True)
class LineCard:
    """What the live pages show about a line: its state, its last parts, the numbers of this shift, the gate and the alarms.

    `plant_state` says whether the line runs, or why it does not. It is None for the line of the uploads, which is not in the plant.

    Only the page of one line shows `faulty_parts`, `bars` and `max_per_minute`. For the page of all lines, they are empty or 0.
    """

    name: str
    plant_state: PlantState | None
    has_gate: bool
    parts: list[LivePart]
    faulty_parts: list[LivePart]
    ok: int
    defect: int
    review: int
    diverted: int
    shift_since: datetime | None
    latency: VerdictLatency
    gate: str
    gate_at: datetime | None
    model: str
    last_at: datetime | None
    alarms: list[LineAlarm]
    bars: list[TrendBar]
    max_per_minute: int

    @property
    def judged(self) -> int:
        """Number of parts with a verdict in this shift."""
        return self.ok + self.defect + self.review

    @property
    def good_percent(self) -> float | None:
        """The share of judged parts with the label ok, in per cent. None if no part was judged in this shift."""
        return 100 * self.ok / self.judged if self.judged else None


def make_card(
    state: LineState, plant_state: PlantState | None, now: datetime, parts: Sequence[LivePart], with_trend: bool = False
) -> LineCard:
    """Returns the card of a line. `parts` are the parts whose pictures the card shows.

    If `with_trend` is True, the card also contains the trend of the last hour and the last faulty parts.
    """
    sorting, verdict = state.last_sorting, state.last_verdict
    trend = state.trend(now) if with_trend else []
    return LineCard(
        name=state.name,
        plant_state=plant_state,
        has_gate=state.settings.gate is not None,
        parts=list(parts),
        faulty_parts=list(reversed(state.faulty_parts)) if with_trend else [],
        ok=state.counts["ok"],
        defect=state.counts["defect"],
        review=state.counts["review"],
        diverted=state.diverted,
        shift_since=state.shift_since,
        latency=state.latency(now),
        gate=_describe_gate(sorting),
        gate_at=sorting.sorted_at if sorting else None,
        model=verdict.model if verdict else "",
        last_at=verdict.captured_at if verdict else None,
        alarms=find_alarms(state, plant_state, now),
        bars=_make_bars(trend),
        max_per_minute=max((counts.total() for _, counts in trend), default=0),
    )


def find_alarms(state: LineState, plant_state: PlantState | None, now: datetime) -> list[LineAlarm]:
    """Returns the alarms of a line. The alarm about its plant state comes first."""
    alarms = [_make_state_alarm(state, plant_state)] if plant_state is not None and plant_state in STATE_ALARMS else []
    missed = state.count_missed_verdicts(now)
    if missed["late"]:
        alarms.append(LineAlarm("review", f"{_count(missed['late'], 'verdict')} too late for the gate in the last 10 minutes"))
    if missed["none"]:
        alarms.append(LineAlarm("review", f"{_count(missed['none'], 'part')} at the gate without a verdict in the last 10 minutes"))
    if dead_letters := state.count_dead_letters(now):
        reasons = ", ".join(f"{describe_reason(reason)}: {count}" for reason, count in dead_letters.most_common(3))
        alarms.append(LineAlarm("review", f"{_count(dead_letters.total(), 'picture')} could not be judged in the last hour ({reasons})"))
    return alarms


def _make_state_alarm(state: LineState, plant_state: PlantState) -> LineAlarm:
    alarm, sorting = STATE_ALARMS[plant_state], state.last_sorting
    meaning = alarm.meaning
    if plant_state is PlantState.GATE_HELD and sorting is not None and sorting.reason == "fault":
        meaning = f"{meaning.removesuffix('.')}, {describe_fault(sorting.code)}."
    return LineAlarm("defect" if alarm.severity == "critical" else "review", f"{meaning} {alarm.first_step}")


def _describe_gate(sorting: Sorting | None) -> str:
    if sorting is None:
        return ""
    action = _ACTIONS.get(sorting.action, sorting.action)
    if sorting.reason == "fault":
        return f"{action}, {describe_fault(sorting.code)}"
    return f"{action}, {_SORTING_REASONS.get(sorting.reason, sorting.reason)}"


def _make_bars(trend: Sequence[tuple[datetime, dict[str, int]]]) -> list[TrendBar]:
    most = max((sum(counts.values()) for _, counts in trend), default=0)
    bars = []
    for x, (minute, counts) in enumerate(trend):
        if not sum(counts.values()):
            continue
        ok, defect, review = (round(_CHART_HEIGHT * counts[label] / most, 1) for label in LABELS)
        numbers = ", ".join(f"{counts[label]} {label}" for label in LABELS)
        bars.append(
            TrendBar(
                x=x,
                ok_y=round(_CHART_HEIGHT - ok, 1),
                ok_height=ok,
                review_y=round(_CHART_HEIGHT - ok - review, 1),
                review_height=review,
                defect_y=round(_CHART_HEIGHT - ok - review - defect, 1),
                defect_height=defect,
                title=f"{minute.astimezone(UTC):%H:%M} UTC: {numbers}",
            )
        )
    return bars


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
