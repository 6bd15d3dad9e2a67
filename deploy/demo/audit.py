"""What became of every part, computed from the topics' records alone. Pure: evidence in, findings out.

It believes no worker's counter: a worker that lost a part does not know that it did.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deploy.demo.evidence import Evidence, Judged
from streams.identity import PartId
from streams.records import Sorting

# The gate acted before it knew: the verdict existed, and steered nothing.
_UNKNOWING = frozenset({"no-verdict", "late-verdict"})


@dataclass(frozen=True)
class Findings:
    """The audit's result. Counts are of distinct parts unless said otherwise; times are milliseconds."""

    parts: int  # known from any source: pictures, verdicts, sortings, the boards' own logs
    pictures: int
    verdicts: int
    sorted: int
    diverted: int
    lost: int  # without picture, without verdict or, on a line with a gate, without sorting
    repeated_moves: int  # movements of a gate for a part that it had already moved for
    late: int  # a verdict was decided, and the gate acted without it
    accuracy: float | None  # right ones of all `ok` and `defect` verdicts whose truth is known
    p50_ms: float | None  # capture to the verdict's append on the broker
    p99_ms: float | None
    lost_for: dict[str, int] = field(default_factory=dict)  # `picture`, `verdict`, `sorting`: what the lost ones lack
    lost_parts: tuple[str, ...] = ()  # the first few, for a look at the log
    labels: dict[str, int] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)  # truth -> label -> parts
    misses: int = 0  # truth defect, label ok
    false_alarms: int = 0  # truth ok, label defect
    actions: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    repeated_pictures: int = 0  # records beyond the first of a part
    repeated_verdicts: int = 0  # the same verdict again: harmless, recognisable
    contradicting_verdicts: int = 0  # parts with verdicts of different labels
    repeated_sortings: int = 0  # the same event of a board again: harmless, recognisable
    unexplained_moves: int = 0  # movements that the board counted and no part accounts for
    dead_letters: int = 0
    unreadable: int = 0


def audit(evidence: Evidence, gated: frozenset[str], counted: Iterable[PartId] = ()) -> Findings:
    """Follows every part of `evidence`; `gated` are the lines with a gate, `counted` the parts that the boards' logs name."""
    pictured = {picture.part for picture in evidence.pictures}
    first = _first_verdicts(evidence.judged)
    events = _distinct_events(evidence.sortings)
    by_part = _by_part(events)
    parts = pictured | first.keys() | by_part.keys() | set(counted)
    lacking = {
        "picture": {part for part in parts if part not in pictured},
        "verdict": {part for part in parts if part not in first},
        "sorting": {part for part in parts if part.line in gated and part not in by_part},
    }
    lost = set().union(*lacking.values())
    truth = {picture.part: picture.truth for picture in evidence.pictures if picture.truth}
    confusion = _confusion(truth, first)
    ages = [age for part in first if (age := _age_ms(first[part])) is not None]
    decided = sum(confusion[known][label] for known in confusion for label in ("ok", "defect"))
    right = sum(confusion[known][known] for known in confusion)
    return Findings(
        parts=len(parts),
        pictures=len(pictured),
        verdicts=len(first),
        sorted=len(by_part),
        diverted=sum(any(event.action == "diverted" for event in found) for found in by_part.values()),
        lost=len(lost),
        repeated_moves=sum(max(0, sum(event.gate_moved for event in found) - 1) for found in by_part.values()),
        late=len(_acted_unknowing(evidence.sortings) & first.keys()),
        accuracy=right / decided if decided else None,
        p50_ms=percentile(ages, 0.50),
        p99_ms=percentile(ages, 0.99),
        lost_for={what: len(those) for what, those in lacking.items()},
        lost_parts=tuple(str(part) for part in sorted(lost)[:20]),
        labels=dict(Counter(judged.verdict.label for judged in first.values())),
        confusion={known: dict(found) for known, found in confusion.items()},
        misses=confusion["defect"]["ok"],
        false_alarms=confusion["ok"]["defect"],
        actions=dict(Counter(event.action for event in events)),
        reasons=dict(Counter(event.reason for event in events)),
        repeated_pictures=len(evidence.pictures) - len(pictured),
        repeated_verdicts=len(evidence.judged) - len({judged.verdict.verdict_id for judged in evidence.judged}),
        contradicting_verdicts=_contradicted(evidence.judged),
        repeated_sortings=len(evidence.sortings) - len(events),
        unexplained_moves=_unexplained_moves(events),
        dead_letters=evidence.dead_letters,
        unreadable=evidence.unreadable,
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that at least `share` of them do not exceed (nearest rank); None without values."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


def _first_verdicts(judged: Iterable[Judged]) -> dict[PartId, Judged]:
    first: dict[PartId, Judged] = {}
    for one in judged:
        part = one.verdict.part_id
        if part not in first or one.appended_at < first[part].appended_at:
            first[part] = one
    return first


def _distinct_events(sortings: Iterable[Sorting]) -> list[Sorting]:
    # A redelivery repeats board, run, event and what the board said. One that says otherwise is kept: it is no repeat,
    # and so is a second record of the host alone (event 0), which no board event vouches for.
    distinct: dict[tuple[object, ...], Sorting] = {}
    for event in sortings:
        distinct.setdefault((event.board, event.run, event.event, event.part_id, event.action, event.gate_moved, event.move_count), event)
    return list(distinct.values())


def _by_part(events: Iterable[Sorting]) -> dict[PartId, list[Sorting]]:
    found: dict[PartId, list[Sorting]] = defaultdict(list)
    for event in events:
        # A piece on the belt that photo-eye 1 never counted has no part id of its own; a part that the board never
        # counted (`untracked`) has one.
        if event.reason != "unmatched" or event.action == "untracked":
            found[event.part_id].append(event)
    return dict(found)


def _acted_unknowing(sortings: Iterable[Sorting]) -> set[PartId]:
    # Of all records: that a verdict came too late is told by repeating the event.
    return {event.part_id for event in sortings if event.late or event.reason in _UNKNOWING}


def _age_ms(judged: Judged) -> float | None:
    # Kafka's time has milliseconds: decided_at is later where both fall into the same one.
    out = max(judged.appended_at, judged.verdict.decided_at)
    return (out - judged.verdict.captured_at).total_seconds() * 1000


def _confusion(truth: dict[PartId, str], first: dict[PartId, Judged]) -> dict[str, Counter[str]]:
    confusion: dict[str, Counter[str]] = {"ok": Counter(), "defect": Counter()}
    for part, known in truth.items():
        if part in first and known in confusion:
            confusion[known][first[part].verdict.label] += 1
    return confusion


def _contradicted(judged: Iterable[Judged]) -> int:
    labels: dict[PartId, set[str]] = defaultdict(set)
    for one in judged:
        labels[one.verdict.part_id].add(one.verdict.label)
    return sum(len(found) > 1 for found in labels.values())


def _unexplained_moves(events: Iterable[Sorting]) -> int:
    # The board counts its servo's departures from rest since the start of the run; every one should belong to a part.
    counted: dict[tuple[str, int], int] = defaultdict(int)
    told: Counter[tuple[str, int]] = Counter()
    for event in events:
        run = (event.board, event.run)
        counted[run] = max(counted[run], event.move_count)
        told[run] += event.gate_moved
    return sum(max(0, counted[run] - told[run]) for run in counted)
