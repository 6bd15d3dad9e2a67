"""Grouped cross-validation of a training's recipe: every picture judges once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.experiments.comparison import ENSEMBLE, Judged, counted
from models.experiments.table import Table


def folds_table(judged: Sequence[Judged]) -> Table:
    """A row for each fold, one for all pooled, one for each source, with exact 95 % intervals."""
    rows = [(each.part.name, *_row([each])) for each in judged]
    rows.append(("pooled", *_row(judged)))
    sources = sorted(set(np.concatenate([each.sources for each in judged]).tolist()))
    rows += [(f"of {source}", *_row(judged, source)) for source in sources if len(sources) > 1]
    members = [name for name in judged[0].called if name != ENSEMBLE]
    head = ("part", "ensemble", "misses", "false alarms", *members)
    return Table(f"Cross-validation in {len(judged)} folds of groups", head, tuple(rows))


def _row(judged: Sequence[Judged], source: str | None = None) -> list[str]:
    misses = alarms = 0
    for each in judged:
        of = each.sources == source if source else np.ones(len(each.bad), np.bool_)
        misses += int((each.bad & ~each.called[ENSEMBLE] & of).sum())
        alarms += int((~each.bad & each.called[ENSEMBLE] & of).sum())
    members = [f"{counted(judged, name, source).value:.4f}" for name in judged[0].called if name != ENSEMBLE]
    return [str(counted(judged, ENSEMBLE, source)), str(misses), str(alarms), *members]
