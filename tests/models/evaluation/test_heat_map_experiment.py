"""The table of the experiment that compares heat maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.evaluation.experiments.heat_maps import make_heat_map_table
from models.evaluation.localisation import measure_localisation
from models.evaluation.segmentation_figures import measure_kinds
from models.inference.heat_map import UNKNOWN_KIND
from models.training.marked_pictures import MarkedPictures
from tests.models.evaluation.test_segmentation_figures import SIDE_PX, make_marks

pytestmark = pytest.mark.real


def test_the_table_shows_the_figures_of_each_map_and_the_confused_kinds() -> None:
    marks = np.stack([make_marks((slice(1, 4), 1)), make_marks((slice(1, 4), 2)), make_marks()])
    kinds = measure_kinds(["hole", UNKNOWN_KIND, "flash"], MarkedPictures(marks, marks, ("hole", "flash"), (Path("a"),) * 3, ("", "", "")))
    heat = [(marks[0] > 0).astype(np.float32), np.zeros((SIDE_PX, SIDE_PX), np.float32)]
    table = make_heat_map_table({"segmentation": measure_localisation(heat, [marks[0] > 0, marks[2] > 0])}, kinds)
    assert table.rows[0][:2] == ("segmentation", "1.000")
    assert "flash as unknown: 1" in table.sentences[1]
