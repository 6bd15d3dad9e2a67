"""Grouped cross-validation of a training's recipe: every picture judges once."""

from __future__ import annotations

from collections.abc import Sequence

from models.evaluation.experiments.comparison import ENSEMBLE, Judged, counted, mistakes, sources_of
from models.evaluation.experiments.table import Table


def folds_table(judged: Sequence[Judged]) -> Table:
    """A row for each fold, one for all pooled, one for each source, with exact 95 % intervals."""
    rows = [(each.part.name, *_row([each])) for each in judged]
    rows.append(("pooled", *_row(judged)))
    rows += [(f"of {source}", *_row(judged, source)) for source in sources_of(judged)]
    members = [name for name in judged[0].called if name != ENSEMBLE]
    head = ("part", "ensemble", "misses", "false alarms", *members)
    return Table(f"Cross-validation in {len(judged)} folds of groups", head, tuple(rows))


def _row(judged: Sequence[Judged], source: str | None = None) -> list[str]:
    members = [f"{counted(judged, name, source).value:.4f}" for name in judged[0].called if name != ENSEMBLE]
    return [str(counted(judged, ENSEMBLE, source)), *map(str, mistakes(judged, ENSEMBLE, source)), *members]
