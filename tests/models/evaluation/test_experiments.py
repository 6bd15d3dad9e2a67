"""The tables of many trainings are complete, continue cell by cell, and show what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.experiments.comparison import (
    Comparison,
    ComparisonSplit,
    SplitResult,
    count_correct,
    make_classifier_table,
    make_fold_table,
    measure_difference,
    split_by_seeds,
    split_into_folds,
)
from models.evaluation.experiments.experiment import ResultTable, format_interval, format_spread
from models.evaluation.experiments.layers import LayersExperiment
from models.evaluation.experiments.light import NETWORKS, LightExperiment, make_light_table
from models.networks.light import light_network
from models.synthetic import write_castings
from models.training.labelled_pictures import LabelledPictures, find_pictures, read_pictures
from models.training.options import TrainingOptions
from models.training.trainer import EpochResult
from streams.errors import ModelError

pytestmark = pytest.mark.real

SMALL = TrainingOptions(
    side_px=64, lenet_side_px=64, lenet_width=1, dense_width=16, dense_layers=1, maps=0.1, epochs=1, lenet_epochs=1, batch=8, min_steps=0
)


@dataclass
class CallbackLog:
    """Collects the trained cells and the finished share. Interrupts the experiment, as Ctrl-C would, in the cell `stop_at`."""

    stop_at: str = ""
    trained: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def on_cell_progress(self, cell: str, done: float, total: int) -> None:
        self.shares.append(done / total)

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        if network == self.stop_at:
            raise KeyboardInterrupt
        if epoch:
            self.trained.append(network)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> LabelledPictures:
    root = tmp_path_factory.mktemp("castings")
    write_castings(root, 32, seed=5)
    return read_pictures(find_pictures([root]), 64)


@pytest.mark.usefixtures("without_graphs")
def test_a_table_of_layers_is_made_cell_by_cell_and_no_finished_cell_is_trained_again(pictures: LabelledPictures, tmp_path: Path) -> None:
    experiment = LayersExperiment(SMALL, (1, 2), (1,), tmp_path)
    stopped = CallbackLog(stop_at="layers-2-seed-1")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(pictures, pictures, stopped)
    assert stopped.trained == ["layers-1-seed-1"]
    assert [row[1] == "not finished" for row in experiment.make_table(pictures.classes, True).rows] == [False, True]
    resumed = CallbackLog()
    table = experiment.run(pictures, pictures, resumed)
    assert resumed.trained == ["layers-2-seed-1"]
    assert resumed.shares == sorted(resumed.shares)
    assert resumed.shares[-1] == 1
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert all(0 <= float(row[1]) <= 1 for row in table.rows)
    with pytest.raises(ModelError, match="contains an experiment with other options"):
        LayersExperiment(SMALL.model_copy(update={"epochs": 2}), (1,), (1,), tmp_path).run(pictures, pictures, CallbackLog())


def test_no_group_of_pictures_stands_on_two_of_the_three_sides(pictures: LabelledPictures) -> None:
    doubled = LabelledPictures(
        np.concatenate([pictures.pixels, pictures.pixels[:, ::-1]]),
        np.concatenate([pictures.labels] * 2),
        pictures.classes,
        pictures.files * 2,
        tuple(f"{index}" for index in range(64)),
        (),
    )
    for split in (*split_by_seeds(doubled, SMALL, (1, 2)), *split_into_folds(doubled, SMALL, 4)):
        assert not (split.is_validation & split.is_test).any()
        for mask in (split.is_validation, split.is_test):
            assert np.array_equal(mask[:32], mask[32:])
    assert np.sum([split.is_test for split in split_into_folds(doubled, SMALL, 4)], axis=0).tolist() == [1] * 64


def test_classifiers_are_tested_on_pictures_that_neither_taught_nor_validated(pictures: LabelledPictures, tmp_path: Path) -> None:
    splits = split_by_seeds(pictures, SMALL, (1,))
    comparison = Comparison(SMALL, tmp_path, "voters", with_svm=True)
    first, again = CallbackLog(), CallbackLog()
    (result,) = comparison.run(pictures, splits, first)
    assert first.trained == ["seed-1-lenet", "seed-1-alexnet"]
    assert set(result.called_defect) == {"ensemble", "lenet", "alexnet", "svm"}
    assert len(result.is_defect) == splits[0].is_test.sum()
    comparison.run(pictures, splits, again)
    assert again.trained == []


def make_result(*right: bool, source: str = "a") -> SplitResult:
    """Returns a split of defective pictures. `lenet` is right as given, the ensemble always, `alexnet` never."""
    none, all_defects = np.zeros(len(right), np.bool_), np.ones(len(right), np.bool_)
    called = {"ensemble": all_defects, "lenet": np.array(right), "alexnet": none}
    split = ComparisonSplit("p", 1, none, all_defects, np.arange(len(right), dtype=np.int32))
    cross_entropy = {"ensemble": np.full(len(right), 0.1), "lenet": np.where(right, 0.1, 2.0), "alexnet": np.full(len(right), 3.0)}
    sources = np.array([source] * len(right))
    return SplitResult(split, called, all_defects, sources, cross_entropy, {"lenet": 0.75, "alexnet": 0.25})


def test_the_table_of_classifiers_says_whether_the_ensemble_is_better_than_its_best_member() -> None:
    table = make_classifier_table([make_result(True, False), make_result(True, True)])
    (sentence,) = table.sentences
    assert "on average better than its best member, lenet" in sentence
    assert "better in 1 of 2, worse in 0" in sentence
    assert table.rows[-1][0] == "ensemble"


def test_the_table_of_classifiers_shows_the_ensemble_by_source() -> None:
    both = make_result(True, True)
    both = replace(both, called_defect=both.called_defect | {"ensemble": np.array([True, False])}, sources=np.array(["a", "b"]))
    rows = make_classifier_table([both]).rows
    assert [(row[0], row[1]) for row in rows[-2:]] == [("ensemble, of a", "1.0000"), ("ensemble, of b", "0.0000")]
    assert rows[-1][-2:] == ("1", "0"), "a miss, no false alarm"


def test_the_table_of_folds_pools_them_and_shows_each_source() -> None:
    found = [make_result(True, True), make_result(True, False, source="b")]
    assert count_correct(found, "lenet").count == 3
    assert [row[0] for row in make_fold_table(found).rows] == ["p", "p", "pooled", "of a", "of b"]


def test_the_table_of_folds_says_in_how_many_folds_the_ensemble_is_not_worse_than_its_best_member() -> None:
    worse = make_result(True, True)
    worse = replace(worse, cross_entropy=worse.cross_entropy | {"ensemble": np.array([0.2, 0.21])})
    first, second, third, last = make_fold_table([make_result(True, True), make_result(True, False), worse]).sentences
    assert first.startswith(
        "p: weights lenet 0.75, alexnet 0.25. The cross-entropy of the ensemble is 0.1000, that of its best member, lenet,"
    )
    assert "The difference is -0.9500 with a standard error of 0.9500." in second
    assert "The difference is +0.1050 with a standard error of 0.0050." in third
    assert last.startswith("In 2 of 3 folds, the ensemble is not worse")


def test_pictures_of_one_casting_do_not_make_a_difference_more_certain() -> None:
    first = np.random.default_rng(1).random(100)
    _, alone = measure_difference(first, np.zeros(100), np.arange(100, dtype=np.int32))
    mean, copied = measure_difference(np.repeat(first, 5), np.zeros(500), np.repeat(np.arange(100, dtype=np.int32), 5))
    assert copied == pytest.approx(alone)
    assert mean == pytest.approx(first.mean())
    assert measure_difference(first, np.zeros(100), np.zeros(100, np.int32))[1] == float("inf")


def test_a_table_is_written_as_csv_and_markdown(tmp_path: Path) -> None:
    ResultTable("Rates", ("layers", "mean"), (("1", format_spread([0.5, 0.7])),), ("Sentence.",)).save(tmp_path)
    assert (tmp_path / "table.csv").read_text().splitlines() == ["layers,mean", "1,0.6000 ± 0.1414"]
    assert (tmp_path / "table.md").read_text() == "## Rates\n\n| layers | mean |\n| --- | --- |\n| 1 | 0.6000 ± 0.1414 |\n\nSentence.\n"


def test_the_table_of_light_networks_compares_their_times_round_by_round() -> None:
    """In each round of this example, MobileNetV2 takes three times as long as AlexNet, although the load of the machine changes."""
    load = np.linspace(1, 4, 15)
    times_ms = {"lenet": load, "alexnet": 2 * load, "mobilenet-v2": 6 * load, "nasnet-mobile": 12 * load}
    table = make_light_table(SMALL, {name: [0.9, 0.8] for name in NETWORKS}, times_ms, dict.fromkeys(NETWORKS, 1000))
    assert [row[0] for row in table.rows] == ["LeNet", "AlexNet", "MobileNetV2", "NASNetMobile"]
    assert [row[3] for row in table.rows][2] == "3.00 (3.00 to 3.00)"
    assert table.rows[0][4] == format_interval([0.9, 0.8])


def test_the_experiment_with_light_networks_trains_all_of_them_at_the_same_side(tmp_path: Path) -> None:
    experiment = LightExperiment(SMALL, (1,), tmp_path)
    assert {experiment.build(name, 2).input_shape for name in NETWORKS if name != "nasnet-mobile"} == {(None, 64, 64, 1)}
    assert experiment.build("mobilenet-v2", 2).count_params() > 2e6
    with pytest.raises(ValueError, match="at least 32 px"):
        light_network("nasnet-mobile", 2, 16)
