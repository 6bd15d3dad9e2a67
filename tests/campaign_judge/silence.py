"""Measures how long the verdicts of each line stay away, and which fault was the cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.campaign_judge.findings import Findings, Kind
from tests.campaign_judge.recording import InjectedFault, Recording
from tests.campaign_judge.topic_records import Topics
from tests.campaign_judge.verdict_times import estimate_verdict_times, verdicts_of

# A silence belongs to a fault that began before the silence ended, and that ended at most this long before the silence began. The plant may
# recover in several steps.
_TAIL_S = 60.0
# A picture waits for its verdict at most this long without any fault.
_SHORT_S = 3.0
# Without any fault, the verdicts of a line must not stay away longer than after the fault with the shortest limit.
NO_FAULT, NO_FAULT_LIMIT_S = "no fault", 5.0


@dataclass(frozen=True)
class Limit:
    """The longest silence that a kind of fault may cause, counted from the begin of the fault, or from its end."""

    seconds: float
    is_after_end: bool = False


# Words of the kinds of faults, each with its limit. All words of a key must be in the name of the kind.
LIMITS: Mapping[tuple[str, ...], Limit] = {
    ("kill", "inspector"): Limit(5),
    ("out-of-memory-kill", "inspector"): Limit(5),
    ("out-of-memory-kill", "gateway"): Limit(5),
    ("freeze", "inspector"): Limit(15),
    ("kill", "broker"): Limit(10),
    ("kill", "gateway"): Limit(5),
    ("network",): Limit(15, is_after_end=True),
    ("disk", "full"): Limit(10, is_after_end=True),
}


@dataclass(frozen=True)
class Silence:
    """A time in which pictures of a line came and no verdict did. `faults` may have caused it."""

    line: str
    begin_at: float
    end_at: float
    faults: tuple[InjectedFault, ...]

    @property
    def cause(self) -> str:
        """The kind of the fault, or of both faults if two were active at once."""
        return " + ".join(sorted(f"{fault.kind}{' (in part)' if fault.error else ''}" for fault in self.faults)) or NO_FAULT

    def length_s(self, limit: Limit | None) -> float:
        """Returns the length as `limit` counts it: without the time before the fault began, or before the fault ended."""
        since_at = self.begin_at
        if self.faults:
            since_at = max(since_at, min(fault.began_at for fault in self.faults))
        if limit is not None and limit.is_after_end and self.faults:
            since_at = max(since_at, max(fault.ended_at for fault in self.faults))
        return max(0.0, self.end_at - since_at)


def find_limit(kind: str, target: str, stated: Mapping[str, Any]) -> Limit | None:
    """Returns the limit of a kind of fault: the judge's own one, or else the one that the campaign states."""
    words = f"{kind} {target}".lower()
    for key, limit in LIMITS.items():
        if all(word in words for word in key):
            return limit
    found = stated.get(kind)
    if isinstance(found, Mapping):
        return Limit(float(found["seconds"]), found.get("after") == "end")
    return None if found is None else Limit(float(found))


def find_silences(recording: Recording, topics: Topics) -> list[Silence]:
    """Returns the silences of all lines. A silence begins when the first picture after the last verdict is sent, so that a time without
    castings is none.
    """
    silences = []
    times = estimate_verdict_times(recording, topics)
    for line in recording.plan.lines:
        sent = sorted(upload.sent_at for upload in recording.uploads if upload.line == line and upload.casting is not None)
        verdicts = [times[verdict.record.place] for verdict in verdicts_of(line, topics)]
        if not sent or not verdicts:
            continue
        # The plant starts before the first verdict. At the end the cameras stop, and what is unjudged then is counted elsewhere.
        previous_at, index = verdicts[0], 0
        for verdict_at in [*verdicts[1:], max(verdicts[-1], sent[-1])]:
            while index < len(sent) and sent[index] <= previous_at:
                index += 1
            if index < len(sent) and sent[index] < verdict_at:
                begin_at = sent[index]
                silences.append(Silence(line, begin_at, verdict_at, _causes(recording, begin_at, verdict_at)))
            previous_at = verdict_at
    return silences


def _causes(recording: Recording, begin_at: float, end_at: float) -> tuple[InjectedFault, ...]:
    """Returns the fault during which the silence began, together with the other fault of a pair. Short waits before a fault are usual."""
    near = recording.faults_between(begin_at, end_at, _TAIL_S)
    if not near:
        return ()
    before = [fault for fault in near if fault.began_at <= begin_at]
    within = [fault for fault in near if fault.began_at > begin_at]
    is_usual_wait = bool(within) and within[0].began_at - begin_at < _SHORT_S
    return recording.pair_of(within[0] if within and (is_usual_wait or not before) else before[-1])


@dataclass(frozen=True)
class SilenceRow:
    """A row of the report: the silences after the faults of one kind."""

    cause: str
    faults: int
    longest_s: float
    limit: Limit | None


def judge_silences(recording: Recording, silences: Sequence[Silence], findings: Findings) -> list[SilenceRow]:
    """Compares the longest silence after each kind of fault with its limit. Two faults at once have no limit, and are stated."""
    longest: dict[str, tuple[float, Limit | None]] = {}
    for silence in silences:
        limit = _limit_of(silence, recording)
        length_s = silence.length_s(limit)
        if length_s >= longest.get(silence.cause, (-1.0, None))[0]:
            longest[silence.cause] = length_s, limit
        if limit is not None and length_s > limit.seconds:
            names = " and ".join(fault.name for fault in silence.faults) or NO_FAULT
            after = " after its end" if limit.is_after_end else ""
            findings.add(
                Kind.SILENT,
                f"{silence.line} had no verdict for {length_s:.1f} s{after}, from {silence.begin_at:.3f} on, at {names}; "
                f"the limit is {limit.seconds:g} s",
            )
    counts: dict[str, int] = defaultdict(int)
    for fault in recording.faults:
        if fault.alone:
            counts[fault.kind] += 1
    for fault in recording.faults:
        if fault.alone:
            longest.setdefault(fault.kind, (0.0, find_limit(fault.kind, fault.target, recording.plan.silence_limits)))
    return [SilenceRow(cause, counts.get(cause, 0), length_s, limit) for cause, (length_s, limit) in sorted(longest.items())]


def _limit_of(silence: Silence, recording: Recording) -> Limit | None:
    if not silence.faults:
        return Limit(NO_FAULT_LIMIT_S)
    if len(silence.faults) > 1 or not silence.faults[0].alone or silence.faults[0].error:
        return None
    return find_limit(silence.faults[0].kind, silence.faults[0].target, recording.plan.silence_limits)
