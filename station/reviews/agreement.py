"""How often people and model, and people among themselves, say the same. Pure: counts in, figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

LABELS = ("ok", "defect")


@dataclass(frozen=True)
class Agreement:
    """`counts[(first, second)]`: parts that the first side called so and the second so. Figures are None where nothing was counted."""

    counts: Counter[tuple[str, str]]

    @property
    def parts(self) -> int:
        return sum(self.counts.values())

    @property
    def same(self) -> int:
        return sum(self.counts[label, label] for label in LABELS)

    @property
    def accuracy(self) -> float | None:
        """Share of parts that both sides call the same."""
        return self.same / self.parts if self.parts else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond what the two sides' shares of labels would give by chance; 1 is full, 0 is chance.

        None where both sides used one and the same label only: there was nothing to agree on.
        Source: Cohen, Educational and Psychological Measurement 20(1), 1960.
        """
        if not self.parts:
            return None
        first, second = Counter[str](), Counter[str]()
        for (one, other), count in self.counts.items():
            first[one] += count
            second[other] += count
        chance = sum(first[label] * second[label] for label in LABELS) / self.parts**2
        return None if chance == 1 else (self.same / self.parts - chance) / (1 - chance)

    def rows(self) -> list[tuple[str, list[int]]]:
        """The confusion matrix: a row of counts for each label of the first side."""
        return [(one, [self.counts[one, other] for other in LABELS]) for one in LABELS]


def agreement(pairs: Iterable[tuple[str, str, int]]) -> Agreement:
    """From (label of one side, label of the other, how many); pairs with another label than `ok` and `defect` are left out."""
    counts: Counter[tuple[str, str]] = Counter()
    for one, other, many in pairs:
        if one in LABELS and other in LABELS:
            counts[one, other] += many
    return Agreement(counts)
