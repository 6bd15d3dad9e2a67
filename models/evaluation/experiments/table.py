"""A table of results: for a terminal, as CSV, as Markdown."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. `said` are sentences that belong under it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    said: tuple[str, ...] = ()

    def markdown(self) -> str:
        """With its title as a heading."""
        lines = [f"## {self.title}", "", _line(self.head), _line(["---"] * len(self.head)), *map(_line, self.rows)]
        return "\n".join([*lines, *([""] if self.said else []), *self.said]) + "\n"

    def write(self, folder: Path) -> None:
        """`table.csv` and `table.md` in `folder`."""
        with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([self.head, *self.rows])
        (folder / "table.md").write_text(self.markdown(), encoding="utf-8")


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation where there is more than one."""
    if not values:
        return "not finished"
    mean = statistics.fmean(values)
    return f"{mean:.4f} ± {statistics.stdev(values):.4f}" if len(values) > 1 else f"{mean:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
