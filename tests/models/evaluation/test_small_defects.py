"""The experiment with small defects counts alarms by kind and length, and gives the cost."""

from __future__ import annotations

from models.evaluation.experiments.small_defects import SmallDefectExperiment, SmallDefectResult, make_small_defect_table
from models.synthetic.defects import DefectKind


def test_the_table_has_a_row_for_good_castings_and_for_each_kind_of_each_length() -> None:
    experiment = SmallDefectExperiment(8, 4, 1000, 300.0, (1.0, 2.0), 1)
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
