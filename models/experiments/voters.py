"""Whether two networks see more than one: each classifier on the same grouped splits, several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from models.experiments.comparison import ENSEMBLE, Judged, counted
from models.experiments.table import Table, spread


def voters_table(judged: Sequence[Judged]) -> Table:
    """A row for each classifier, and a sentence on whether the ensemble is better than the best of its members."""
    names = [name for name in judged[0].called if name != ENSEMBLE]
    rows = []
    for name in (*sorted(names), ENSEMBLE):
        rates = [each.rate(name) for each in judged]
        misses = sum(int((each.bad & ~each.called[name]).sum()) for each in judged)
        alarms = sum(int((~each.bad & each.called[name]).sum()) for each in judged)
        rows.append((name, *(f"{rate:.4f}" for rate in rates), spread(rates), str(misses), str(alarms)))
    head = ("classifier", *(each.part.name for each in judged), "mean", "misses", "false alarms")
    return Table("Accuracy on pictures apart, equal costs", head, tuple(rows), (_sentence(judged, names),))


def _sentence(judged: Sequence[Judged], names: Sequence[str]) -> str:
    means = {name: statistics.fmean(each.rate(name) for each in judged) for name in (*names, ENSEMBLE)}
    best = max(names, key=lambda name: means[name])
    wins = sum(each.rate(ENSEMBLE) > each.rate(best) for each in judged)
    losses = sum(each.rate(ENSEMBLE) < each.rate(best) for each in judged)
    verdict = "better than" if means[ENSEMBLE] > means[best] else "as good as" if means[ENSEMBLE] == means[best] else "worse than"
    return (
        f"The ensemble ({counted(judged, ENSEMBLE)}) is in the mean {verdict} its best member, {best} ({counted(judged, best)}): "
        f"better in {wins} of {len(judged)}, worse in {losses}."
    )
