"""The learning curve holds every picture out, keeps near-duplicates together, and names the pictures that others contradict."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deploy.cli.main import castline
from models.evaluation.experiments.experiment import ExperimentFolder
from models.evaluation.experiments.learning_curve import (
    FOLDS,
    SHARES,
    HeldOutResult,
    compute_learning_curve,
    make_learning_curve,
    select_share,
)
from models.registry import LocalRegistry
from models.registry.version_report import read_learning_curve, read_report_picture
from models.synthetic import write_castings
from models.training.labelled_pictures import LabelledFile, LabelledPictures, find_pictures, read_pictures
from models.training.near_duplicates import group_near_duplicates
from models.training.options import TrainingOptions
from models.training.split import list_folds
from models.training.trainer import EpochResult
from tests.encoded_pictures import make_png

pytestmark = pytest.mark.real

COUNT = 100


def make_results(labelled: LabelledPictures, wrong: dict[float, int]) -> list[HeldOutResult]:
    """Returns results in which the first `wrong[share]` pictures are judged wrongly, with certainty."""
    is_defect = labelled.labels != labelled.ok_class
    results = []
    for share in SHARES:
        probability = np.where(is_defect, 0.95, 0.05)
        probability[: wrong[share]] = 1 - probability[: wrong[share]]
        results.append(HeldOutResult(share, round(share * COUNT), probability))
    return results


@pytest.fixture
def labelled() -> LabelledPictures:
    """One hundred empty pictures, good and defective ones by turns."""
    classes = ("def_front", "ok_front")
    labels = (np.arange(COUNT) % 2).astype(np.int32)
    files = tuple(LabelledFile(Path(f"{index}.png"), classes[label], "all") for index, label in enumerate(labels))
    pixels = np.zeros((COUNT, 8, 8), np.uint8)
    return LabelledPictures(pixels, labels, classes, files, tuple(map(str, range(COUNT))), ())


def test_a_share_is_part_of_every_larger_one_and_divides_no_group() -> None:
    labels = np.repeat([0, 1], 60).astype(np.int32)
    groups = (np.arange(120) // 3).astype(np.int32)
    available = np.ones(120, np.bool_)
    available[:15] = False
    masks = [select_share(labels, groups, available, share, seed=4) for share in SHARES]
    for smaller, larger in pairwise(masks):
        assert not (smaller & ~larger).any()
        assert smaller.sum() < larger.sum()
    for mask, share in zip(masks, SHARES, strict=True):
        assert all(len(np.unique(mask[(groups == group) & available])) <= 1 for group in groups)
        assert {int(label) for label in labels[mask]} == {0, 1}
        assert mask.sum() == pytest.approx(share * 105, abs=6)
    assert (masks[-1] == available).all()


def test_more_pictures_help_only_where_the_interval_says_so(labelled: LabelledPictures) -> None:
    groups = np.arange(COUNT, dtype=np.int32)
    helped = make_learning_curve(labelled, groups, make_results(labelled, {0.125: 40, 0.25: 30, 0.5: 20, 1.0: 5}))
    assert [round(point.errors.value, 2) for point in helped.points] == [0.4, 0.3, 0.2, 0.05]
    assert helped.gain.value == pytest.approx(0.15)
    assert "More pictures will probably help." in helped.describe_gain()
    still = make_learning_curve(labelled, groups, make_results(labelled, {0.125: 40, 0.25: 7, 0.5: 6, 1.0: 5}))
    assert "will probably help little" in still.describe_gain()


def test_the_errors_of_one_group_count_like_one_error(labelled: LabelledPictures) -> None:
    """Twenty errors in one group of near-duplicates are less certain than twenty errors in as many groups."""
    results = make_results(labelled, dict.fromkeys(SHARES, 20))
    apart = make_learning_curve(labelled, np.arange(COUNT, dtype=np.int32), results).points[-1].errors
    together = make_learning_curve(labelled, (np.arange(COUNT) // 20).astype(np.int32), results).points[-1].errors
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_an_error_that_no_picture_shows_is_still_possible(labelled: LabelledPictures) -> None:
    curve = make_learning_curve(labelled, np.arange(COUNT, dtype=np.int32), make_results(labelled, dict.fromkeys(SHARES, 0)))
    errors = curve.points[-1].errors
    assert (errors.value, errors.low) == (0, 0)
    assert 0.02 < errors.high < 0.03, "Jeffreys' interval for 0 of 100"
    assert curve.gain.low < 0 < curve.gain.high


def test_the_interval_of_the_errors_holds_their_true_share(labelled: LabelledPictures) -> None:
    random, groups, held = np.random.default_rng(3), np.arange(COUNT, dtype=np.int32), 0
    for _ in range(100):
        wrong = dict.fromkeys(SHARES, int(random.binomial(COUNT, 0.01)))
        errors = make_learning_curve(labelled, groups, make_results(labelled, wrong)).points[-1].errors
        held += errors.low <= 0.01 <= errors.high
    assert held >= 90


def test_contradicted_pictures_are_named_with_their_held_out_probability(labelled: LabelledPictures) -> None:
    curve = make_learning_curve(labelled, np.arange(COUNT, dtype=np.int32), make_results(labelled, dict.fromkeys(SHARES, 3)))
    assert curve.contradicted_count == 3
    assert {one.path for one in curve.contradicted} == {str(file.path) for file in labelled.files[:3]}
    assert {one.class_name for one in curve.contradicted} == {file.class_name for file in labelled.files[:3]}


def test_the_curve_is_written_beside_the_report_and_only_missing_trainings_run(tmp_path: Path) -> None:
    write_castings(tmp_path / "castings", 40, seed=3)
    options = TrainingOptions(side_px=64, lenet_side_px=64, lenet_epochs=1, min_steps=1)
    pictures = read_pictures(find_pictures([tmp_path / "castings"]), 64)
    out = tmp_path / "demo.report"
    trainings = ExperimentFolder(out / "learning-curve")
    trainings.claim({"experiment": "learning curve", "options": options.model_dump(), "pictures": pictures.fingerprint()})
    groups = group_near_duplicates(pictures.pixels, pictures.checksums, options.near_bits, options.near_rings)
    folds = list_folds(pictures.labels, groups, FOLDS, options.seed)
    cells = [(f"{share:g}-{number}", fold) for share in SHARES for number, fold in enumerate(folds)]
    missing, *finished = cells
    for cell, fold in finished:
        trainings.save_result(cell, {"held_out": np.full((int(fold.sum()), 2), 0.5, np.float32)})
    trained: list[str] = []
    compute_learning_curve(pictures, options, out, RecordingCallback(trained))
    assert set(trained) == {missing[0]}
    registry = LocalRegistry(tmp_path)
    curve = read_learning_curve(registry, "demo")
    assert curve is not None
    assert (curve.pictures, curve.fingerprint) == (40, pictures.fingerprint())
    assert read_report_picture(registry, "demo", "learning-curve.png") is not None
    assert read_report_picture(registry, "demo", "contradicted.png") is None


class RecordingCallback:
    """Notes the names of the trainings that run."""

    def __init__(self, trained: list[str]) -> None:
        self._trained = trained

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        self._trained.append(network)

    def on_cell_progress(self, cell: str, done: float, total: int) -> None:
        assert done <= total


def test_the_command_refuses_pictures_of_one_class(tmp_path: Path) -> None:
    (tmp_path / "ok_front").mkdir()
    (tmp_path / "ok_front" / "a.png").write_bytes(make_png(np.arange(4096, dtype=np.uint8).reshape(64, 64)))
    refused = CliRunner().invoke(castline, ["experiment", "learning-curve", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "All pictures have the class ok_front" in str(refused.exception)
    assert not (tmp_path / "out").exists()
