"""The autoencoder is compared with simpler ones on the same folds, and finished trainings are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from models.anomaly.memory_autoencoder import AutoencoderRecipe
from models.evaluation.experiments.autoencoder import VARIANTS, AutoencoderExperiment, RegisteredPictures, assign_folds, choose_good
from models.evaluation.experiments.experiment import ExperimentFolder, format_interval
from models.synthetic import write_castings
from models.training.labelled_pictures import find_pictures, read_pictures
from models.training.trainer import EpochResult
from streams.errors import ModelError

pytestmark = pytest.mark.real

TINY = AutoencoderRecipe(side_px=48, width=4, code_channels=4, prototypes=8, steps=1)


@dataclass
class CellLog:
    """Collects the cells of an experiment and its finished shares."""

    cells: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def on_cell_progress(self, cell: str, done: float, total: int) -> None:
        self.cells.append(cell)
        self.shares.append(done / total)

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        raise AssertionError(f"{network} reports no steps")


def test_the_table_has_every_variant_and_a_second_run_repeats_nothing(tmp_path: Path) -> None:
    write_castings(tmp_path / "castings", 32, seed=5)
    pictures = read_pictures(find_pictures([tmp_path / "castings"]), 96)
    experiment = AutoencoderExperiment(TINY, (1,), ExperimentFolder(tmp_path / "out"))
    log, again = CellLog(), CellLog()
    table = experiment.run(pictures, log)
    assert [row[0] for row in table.rows] == list(VARIANTS)
    assert log.shares[-1] == 1
    assert experiment.run(pictures, again).rows == table.rows
    assert again.shares == [0.25, 0.5, 0.75, 1]


def test_an_experiment_with_more_good_pictures_than_there_are_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    write_castings(tmp_path / "castings", 32, seed=5)
    pictures = read_pictures(find_pictures([tmp_path / "castings"]), 96)
    with pytest.raises(ModelError, match=r"Only \d+ good pictures are left"):
        AutoencoderExperiment(TINY, (1,), ExperimentFolder(tmp_path / "out"), good=30).run(pictures, CellLog())
    assert not (tmp_path / "out").exists()


def test_few_good_pictures_are_drawn_outside_the_tested_fold_and_are_the_same_for_all_variants() -> None:
    folds = np.arange(100, dtype=np.int32) % 5
    is_defect = np.arange(100) % 3 == 0
    pictures = RegisteredPictures(np.zeros((100, 8, 8), np.uint8), is_defect, folds)
    chosen = choose_good(pictures, fold=2, count=20, seed=1)
    assert len(set(chosen.tolist())) == 20
    assert not is_defect[chosen].any()
    assert not (folds[chosen] == 2).any()
    assert np.array_equal(chosen, choose_good(pictures, 2, 20, 1))
    assert not np.array_equal(chosen, choose_good(pictures, 2, 20, 2))


def test_near_duplicates_have_the_same_fold_and_dominant_groups_are_never_tested() -> None:
    groups = np.repeat(np.arange(61), [1] * 60 + [60]).astype(np.int32)
    groups[1] = groups[0]
    folds = assign_folds(np.arange(120) % 2 == 0, groups)
    assert folds[0] == folds[1]
    assert set(folds[:60]) == {0, 1, 2, 3, 4}
    assert (folds[60:] == -1).all()


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ModelError, match="groups of near-duplicates"):
        assign_folds(np.array([False, True] * 4), np.zeros(8, np.int32))


def test_an_interval_needs_two_values() -> None:
    assert format_interval([0.5]) == "0.500"
    assert format_interval([0.4, 0.6]) == "0.500 (-0.771 to 1.771)"
