"""Counts what the gate of a line did. The sorter and the outage recorder call `count_sorted` for each new report of the board."""

from __future__ import annotations

import logging

from agents.gate.lane import PartSorted
from agents.sorter.decisions import ACTIONS
from streams import metrics
from streams.records import Sorting

log = logging.getLogger(__name__)


def count_sorted(line: str, event: PartSorted, sorting: Sorting | None) -> None:
    """Adds a report of the board to the metrics.

    `sorting` is the record of the part. It is None for a casting that photo-eye 1 has not counted. Such a casting has no part number, so it
    gets no record, and is only counted and logged.
    """
    metrics.gate_moves.labels(line).inc(event.moved)
    if sorting is None:
        metrics.parts_sorted.labels(line, ACTIONS[event.action], "unmatched").inc()
        log.warning("%s: a part that photo-eye 1 had not counted reached the gate. The gate's action was: %s", line, event.action)
        return
    metrics.parts_sorted.labels(line, sorting.action, sorting.reason).inc()
    if sorting.confirmed is not None and sorting.reason != "fault":
        metrics.moves_confirmed.labels(line, sorting.confirmed).inc()
