"""Whether two networks see more than one: each classifier on the same grouped splits, several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from models.evaluation.experiments.comparison import ENSEMBLE, Judged, counted, mistakes, sources_of
from models.evaluation.experiments.table import Table, spread


def voters_table(judged: Sequence[Judged]) -> Table:
    """A row for each classifier, of the ensemble one for each source too; a sentence says whether it is better than its best member."""
    names = [name for name in judged[0].called if name != ENSEMBLE]
    rows = [_row(judged, name) for name in (*sorted(names), ENSEMBLE)]
    rows += [_row(judged, ENSEMBLE, source) for source in sources_of(judged)]
    head = ("classifier", *(each.part.name for each in judged), "mean", "misses", "false alarms")
    return Table("Accuracy on pictures apart, equal costs", head, tuple(rows), (_sentence(judged, names),))


def _row(judged: Sequence[Judged], name: str, source: str | None = None) -> tuple[str, ...]:
    rates = [counted([each], name, source).value for each in judged]
    told = f"{name}, of {source}" if source else name
    return (told, *(f"{rate:.4f}" for rate in rates), spread(rates), *map(str, mistakes(judged, name, source)))


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
