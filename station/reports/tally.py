"""What a report counts. Pure: counted groups of parts in, figures out; the database has done the counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from station.reviews.agreement import LabelAgreement, count_agreement

# Fewer parts make no hour bad.
_LEAST_PARTS = 20
NO_TYPE = "no type named"


@dataclass(frozen=True)
class Group:
    """`many` parts that are alike in all that a report tells apart."""

    line: str
    label: str
    action: str
    sorted_reason: str
    late: bool
    kind: str
    review_label: str
    many: int


@dataclass
class Tally:
    """Counts of parts."""

    parts: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    reviews: Counter[tuple[str, str]] = field(default_factory=Counter)  # (verdict, what a person said)
    unjudged: int = 0  # no verdict is known of them
    without_verdict: int = 0  # the gate acted before it knew
    late: int = 0  # a verdict came, after the part had passed

    def add(self, group: Group) -> None:
        many = group.many
        self.parts += many
        self.labels[group.label or "none"] += many
        if group.action:
            self.actions[group.action] += many
        if not group.label:
            self.unjudged += many
        if group.sorted_reason in ("no-verdict", "late-verdict"):
            self.without_verdict += many
        if group.late or group.sorted_reason == "late-verdict":
            self.late += many
        # What a person said is the truth; until then the model's word is.
        if (group.review_label or group.label) == "defect":
            self.kinds[group.kind or NO_TYPE] += many
        if group.review_label:
            self.reviews[group.label or "none", group.review_label] += many

    @property
    def judged(self) -> int:
        return self.parts - self.unjudged

    @property
    def good_share(self) -> float | None:
        """Share of good parts among the judged ones; what the model left to people counts as they said, else as not good."""
        return self.good / self.judged if self.judged else None

    @property
    def good_percent(self) -> float | None:
        return None if self.good_share is None else 100 * self.good_share

    @property
    def good(self) -> int:
        turned = sum(many for (label, said), many in self.reviews.items() if label in ("defect", "review") and said == "ok")
        fallen = sum(many for (label, said), many in self.reviews.items() if label == "ok" and said == "defect")
        return self.labels["ok"] + turned - fallen

    @property
    def defect_share(self) -> float | None:
        return self.labels["defect"] / self.judged if self.judged else None

    @property
    def review_rows(self) -> list[tuple[str, str, int]]:
        """Verdict, what a person said, how many."""
        return [(label, said, many) for (label, said), many in sorted(self.reviews.items())]

    @property
    def reviewed(self) -> int:
        return sum(self.reviews.values())

    @property
    def agreement(self) -> LabelAgreement:
        return count_agreement((label, said, many) for (label, said), many in self.reviews.items())

    @property
    def pareto(self) -> list[tuple[str, int, float]]:
        """Types of defect, most first: how many, and the share of all defects up to there."""
        found, total, so_far = [], sum(self.kinds.values()), 0
        for kind, many in sorted(self.kinds.items(), key=lambda pair: (-pair[1], pair[0])):
            so_far += many
            found.append((kind, many, so_far / total))
        return found

    @property
    def diverted(self) -> int:
        return self.actions["diverted"]


def tally(groups: Iterable[Group]) -> Tally:
    found = Tally()
    for group in groups:
        found.add(group)
    return found


def worst(hours: Iterable[tuple[object, Tally]], most: int = 3) -> list[tuple[object, Tally]]:
    """The hours with the largest share of defects, worst first."""
    told = [(hour, one) for hour, one in hours if one.judged >= _LEAST_PARTS and one.labels["defect"]]
    return sorted(told, key=lambda pair: -(pair[1].defect_share or 0))[:most]
