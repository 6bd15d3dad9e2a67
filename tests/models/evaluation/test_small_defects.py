"""The experiment with small defects counts alarms by kind and length, and gives the cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.evaluation.experiments.small_defects import SmallDefectExperiment, SmallDefectResult, make_small_defect_table
from models.synthetic.defects import DefectKind

pytestmark = pytest.mark.real


def test_the_table_has_a_row_for_good_castings_and_for_each_kind_of_each_length(tmp_path: Path) -> None:
    experiment = SmallDefectExperiment(8, 4, 1000, 300.0, (1.0, 2.0), 1, tmp_path)
    results = [
        SmallDefectResult(None, None, False, False, 0.1),
        SmallDefectResult(DefectKind.SCRATCH, 1.0, True, False, 0.1),
        SmallDefectResult(DefectKind.SCRATCH, 1.0, False, True, 0.1),
        SmallDefectResult(DefectKind.SCRATCH, 2.0, True, True, 0.1),
    ]
    table = make_small_defect_table(experiment, results, 30_000_000, 1.5)
    rows = {row[:2]: row[2:] for row in table.rows}
    assert rows["none", ""][:2] == ("1", "0.000")
    assert rows["scratch", "1 mm"] == ("2", "0.500", "0.013 to 0.987", "0.000")
    assert rows["all kinds", "2 mm"][3] == "1.000"
    assert "100 ms" in table.sentences[1]
    assert "30 MB" in table.sentences[1]


def test_an_experiment_continues_with_the_castings_that_are_missing(tmp_path: Path) -> None:
    """The pictures have 700 px. Castings that were measured before are read from their files."""
    seen: list[str] = []
    experiment = SmallDefectExperiment(8, 1, 700, 300.0, (4.0,), 1, tmp_path)
    table = experiment.run(lambda cell, done, total: seen.append(cell))
    assert [row[2] for row in table.rows] == ["1", "1", "1", "1", "1", "4"]
    (tmp_path / "tested-0.npz").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("good-*.npz")}
    again = experiment.run(lambda cell, done, total: None)
    assert again.rows == table.rows
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("good-*.npz")} == before
    assert seen[-1] == "tested castings"


def test_only_the_first_tested_castings_are_shown_with_defects(tmp_path: Path) -> None:
    table = SmallDefectExperiment(8, 2, 700, 300.0, (4.0,), 1, tmp_path, defective=1).run(lambda cell, done, total: None)
    assert [row[2] for row in table.rows] == ["2", "1", "1", "1", "1", "4"]
