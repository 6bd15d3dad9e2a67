"""Computes the state of each line from the metrics of its processes, for the terminal view."""

from __future__ import annotations

from collections.abc import Collection

from streams.plant_states import LineActivity, LineCondition, LineCounts, PlantState, compute_state
from streams.settings import Settings

# Values of the label `state` of the metric `castline_gate_state`.
_BOARD_STATES = frozenset({"running", "safe", "stopped"})
_HELD_STATES = frozenset({"safe", "stopped"})


class LineStates:
    """Computes the state of each line from the counts of its castings, pictures and verdicts. Times are monotonic seconds."""

    def __init__(self, settings: Settings) -> None:
        self._limits = settings.states
        self._activities = {line.name: LineActivity(line.gate.travel_s if line.gate else None) for line in settings.lines}

    def has_gate(self, line: str) -> bool:
        """Returns whether `line` has a gate, according to the settings or to its sorter."""
        return self._find_activity(line).travel_s is not None

    def compute(self, line: str, counts: LineCounts, gate_states: Collection[str], is_stop_planned: bool, now: float) -> PlantState:
        """Returns the state of `line` at the time `now`.

        `gate_states` holds the present state of the gate, from the metric `castline_gate_state`. It is empty while no sorter runs.
        """
        if gate_states and not self.has_gate(line):
            # The settings name no gate for this line, but a sorter reports a gate. On a line without a gate, `missed` counts overdue
            # verdicts. On a line with a gate, `missed` counts parts. So forget the earlier counts, because they cannot be compared with the
            # new ones.
            self._activities[line] = LineActivity(travel_s=0.0)
        activity = self._find_activity(line)
        activity.add_counts(counts, now)
        condition = LineCondition(
            is_connected=not self.has_gate(line) or not _BOARD_STATES.isdisjoint(gate_states),
            is_gate_held=not _HELD_STATES.isdisjoint(gate_states),
            is_stop_planned=is_stop_planned,
        )
        return compute_state(activity, condition, self._limits, now)

    def _find_activity(self, line: str) -> LineActivity:
        return self._activities.setdefault(line, LineActivity(travel_s=None))
