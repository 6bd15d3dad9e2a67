"""Judges the castings in the plant's terms: where each left the belt, how often the gate moved for it, and what the sorted records say.

The belt is safe if each casting that stayed on it had the verdict `ok` before it reached photo-eye 2. All others belong into the reject
chute: DESIGN.md says that a part whose verdict has not come, or that arrives while a fault holds the gate, is diverted (`divert` is the
line's safe action). A gate without a working board is at rest, so a reset of the board is the only excuse of a casting on the belt.

A casting with the verdict `ok` may be in the chute if its verdict could not reach the board in time because of a fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.campaign_judge.findings import Findings, Kind
from tests.campaign_judge.recording import Casting, Recording
from tests.campaign_judge.topic_records import JsonRecord, Topics
from tests.campaign_judge.verdict_times import estimate_verdict_times

# A verdict that lies in Kafka this long before its casting reaches photo-eye 2 is in time, if no fault is near.
IN_TIME_S = 1.0
# A board without power or in its boot loader moves no gate. It needs 0.84 s for its boot loader and then sets the gate to the safe state.
_RESET_BEFORE_S, _RESET_AFTER_S = 0.5, 1.5
# A casting lies before its gate for this long after photo-eye 2. A board that is reset meanwhile sets the gate to the safe state.
_AT_GATE_S = 0.3
# A verdict is written at most this long before or after its casting reaches photo-eye 2.
_CLOCK_S = 10.0
# The board can forget a report that was not acknowledged in a reset this long after the casting was at the gate.
_UNACKNOWLEDGED_S = 120.0
# The code of the fault with which a board says that its memory for reports was full.
_EVENTS_LOST = 48
_ACTED = ("diverted", "passed", "stopped")
_CLUSTER = ("spacing", "touching")


def judge_castings(recording: Recording, topics: Topics, findings: Findings) -> None:
    """Compares what happened on the belts with the verdicts and the sorted records."""
    sortings: dict[tuple[str, int, int], list[JsonRecord]] = defaultdict(list)
    for sorting in topics.sortings:
        sortings[sorting.part].append(sorting)
    labels = _Labels(recording, topics)
    findings.counts["castings"] += len(recording.castings)
    _judge_log(recording, findings)
    for casting in recording.castings:
        if casting.gate_moves > 1:
            findings.add(Kind.MOVED_TWICE, f"the gate moved {casting.gate_moves} times for {casting.name}")
        if casting.run is None or casting.part is None:
            findings.counts["castings that the board did not count"] += 1
            records: list[JsonRecord] = []
        else:
            records = sortings.pop((casting.line, casting.run, casting.part), [])
            if records or not _is_lost_with_a_record(casting, sortings, recording):
                _judge_records(casting, records, recording, findings)
            else:
                findings.counts["castings whose number only the board knew, recorded under the numbers of their pictures"] += 1
        _judge_side(casting, records, labels, recording, findings)
    _judge_unknown(sortings, findings)


class _Labels:
    """The label of the first verdict of each part, and its time in Kafka."""

    def __init__(self, recording: Recording, topics: Topics) -> None:
        self._recording = recording
        self._first: dict[tuple[str, int, int], tuple[float, str]] = {}
        times = estimate_verdict_times(recording, topics)
        for verdict in topics.verdicts:
            self._first.setdefault(verdict.part, (times[verdict.record.place], str(verdict.fields.get("label"))))

    def before(self, casting: Casting, at: float) -> str:
        """Returns the label that the casting had at the time `at`, or "" if it had none."""
        if casting.run is None or casting.part is None:
            return ""
        judged_at, label = self._first.get((casting.line, casting.run, casting.part), (at + 1, ""))
        # While the clock of a machine is wrong, Kafka does not know when the verdict came.
        is_time_unknown = any("clock" in fault.kind for fault in self._recording.faults_between(at - _CLOCK_S, at + _CLOCK_S, 0.0))
        return label if judged_at <= at or is_time_unknown else ""


def _judge_log(recording: Recording, findings: Findings) -> None:
    for (line, number), times in Counter((casting.line, casting.casting) for casting in recording.castings).items():
        if times > 1:
            findings.add(Kind.LOG, f"casting {number} of {line} left the belt {times} times")
    for part, times in Counter((casting.line, casting.run, casting.part) for casting in recording.castings if casting.part).items():
        if times > 1:
            findings.add(Kind.LOG, f"{times} castings have the part number {part}")
    for line in recording.plan.lines:
        swings = len(recording.gate_moves[line])
        for_castings = sum(casting.gate_moves for casting in recording.castings if casting.line == line)
        findings.counts["swings of the gates"] += swings
        findings.counts["swings of the gates for no casting"] += max(0, swings - for_castings)
        findings.counts["resets of the boards"] += len(recording.resets[line])
        if swings < for_castings:
            findings.add(Kind.LOG, f"the castings of {line} had {for_castings} swings of the gate, but only {swings} swings were written")


# Sorted records


def _is_lost_with_a_record(casting: Casting, sortings: dict[tuple[str, int, int], list[JsonRecord]], recording: Recording) -> bool:
    """Returns whether a casting may have no sorted record of its own, because a reset has deleted its number before any sorter knew it.

    The gateway then gave the picture a number of its own. The untracked record of this number counts for the alert of lost castings.
    """
    numbers = {upload.judged_part for upload in recording.uploads if (upload.line, upload.casting) == (casting.line, casting.casting)}
    records = [record for part, found in sortings.items() if ":".join(map(str, part)) in numbers for record in found]
    return bool(records) and all(record.fields.get("action") == "untracked" for record in records) and _was_reset_after(casting, recording)


def _was_reset_after(casting: Casting, recording: Recording) -> bool:
    """Returns whether the board was reset before the sorter can have acknowledged its report about a casting."""
    since_at, until_at = (casting.eye1_at or 0.0) - 1.0, (casting.eye2_at or recording.stopped_at) + _UNACKNOWLEDGED_S
    return any(since_at <= reset_at <= until_at for reset_at in recording.resets[casting.line])


def _was_reset_at_gate(casting: Casting, recording: Recording) -> bool:
    """Returns whether the board was reset after it had sent its report about a casting, and before the casting was in the chute."""
    at = casting.eye2_at or 0.0
    return casting.left_by == "chute" and any(at <= reset_at <= at + _AT_GATE_S for reset_at in recording.resets[casting.line])


def _judge_records(casting: Casting, records: list[JsonRecord], recording: Recording, findings: Findings) -> None:
    if not records:
        findings.add(Kind.NOT_RECORDED, casting.name)
        return
    events = {record.fields.get("event") for record in records if record.fields.get("event")}
    acted = [record for record in records if record.fields.get("action") in _ACTED]
    findings.counts["sorted records repeated or completed"] += max(0, len(acted) - 1)
    findings.counts["castings first recorded as untracked"] += bool(acted) and len(acted) < len(records)
    if len(events) > 1 or len({record.fields.get("action") for record in acted}) > 1:
        findings.add(Kind.SORTED_TWICE, f"{casting.name}: {[_short(record) for record in records]}")
    if len({record.fields.get("event") for record in acted if record.fields.get("gate_moved")}) > 1:
        findings.add(Kind.MOVED_TWICE, f"the sorted records of {casting.name} have more than one movement of the gate")
    sides = {"chute" if record.fields["action"] == "diverted" else "belt" for record in acted if record.fields["action"] != "stopped"}
    if sides and sides != {casting.left_by} and _was_reset_at_gate(casting, recording):
        findings.counts["castings that lay before the gate when the board was reset"] += 1
    elif sides and sides != {casting.left_by}:
        findings.add(Kind.OTHER_RECORD, f"{casting.name} left by the {casting.left_by}: {[_short(record) for record in records]}")
    if not acted:
        _judge_untracked(casting, records, recording, findings)


def _judge_untracked(casting: Casting, records: list[JsonRecord], recording: Recording, findings: Findings) -> None:
    """Checks the records of a casting that no gate acted on, as its records say. Only a reset of the board, or reports that the board has
    lost because no sorter took them, explain this.
    """
    if {record.fields.get("code") for record in records} == {_EVENTS_LOST} and recording.faults_between(
        casting.eye2_at or 0.0, casting.eye2_at or 0.0
    ):
        findings.counts["castings whose report the board lost while no sorter ran"] += 1
        return
    findings.counts["castings whose board forgot them in a reset"] += 1
    if not _was_reset_after(casting, recording):
        findings.add(Kind.OTHER_RECORD, f"{casting.name} left by the {casting.left_by}: {[_short(record) for record in records]}")


def _judge_unknown(sortings: dict[tuple[str, int, int], list[JsonRecord]], findings: Findings) -> None:
    for part, records in sortings.items():
        if any(record.fields.get("action") in _ACTED for record in records):
            findings.add(Kind.UNKNOWN_CASTING, f"{part}: {[_short(record) for record in records]}")
        else:
            findings.counts["untracked records of numbers that no board gave"] += 1


# Sides


def _judge_side(casting: Casting, records: list[JsonRecord], labels: _Labels, recording: Recording, findings: Findings) -> None:
    if casting.eye2_at is None:
        findings.add(Kind.LOG, f"{casting.name} has left the belt without passing photo-eye 2")
        return
    label = labels.before(casting, casting.eye2_at)
    kept = ("ok", "review") if recording.plan.on_review == "pass" else ("ok",)
    findings.counts[f"castings judged {label} in time" if label else "castings without a verdict in time"] += 1
    if casting.left_by == "belt":
        findings.counts["defective castings that were judged ok"] += casting.is_defect and label in kept
        if label not in kept and not _may_stay(casting, label, recording):
            findings.add(
                Kind.WRONG_SIDE, f"{casting.name} stayed on the belt, {_describe(label)}: {[_short(record) for record in records]}"
            )
        return
    reasons = {record.fields.get("reason") for record in records if record.fields.get("action") == "diverted"}
    obeyed = "verdict" in reasons and label in kept
    ignored = labels.before(casting, casting.eye2_at - IN_TIME_S) in kept and not reasons & {*_CLUSTER}
    if obeyed or (ignored and not recording.faults_between(casting.eye1_at or casting.eye2_at, casting.eye2_at)):
        findings.add(Kind.WRONG_SIDE, f"{casting.name} went into the chute, {_describe(label)}: {[_short(record) for record in records]}")


def _may_stay(casting: Casting, label: str, recording: Recording) -> bool:
    assert casting.eye2_at is not None
    since_at, until_at = casting.eye2_at - _RESET_AFTER_S, casting.eye2_at + _RESET_BEFORE_S
    if any(since_at <= reset_at <= until_at for reset_at in recording.resets[casting.line]):
        return True
    # With the safe action `pass`, a casting without a verdict stays on the belt, and every casting does while a fault holds the gate.
    is_near_fault = bool(recording.faults_between(casting.eye1_at or casting.eye2_at, casting.eye2_at))
    return recording.plan.safe == "pass" and (not label or is_near_fault)


def _describe(label: str) -> str:
    return f"judged {label} in time" if label else "without a verdict in time"


def _short(record: JsonRecord) -> str:
    names = ("action", "reason", "code", "label", "event", "gate_moved", "told_at", "at_gate_at")
    return ", ".join(f"{name} {record.fields.get(name)}" for name in names)
