"""The tables of many trainings: whole, resumable cell by cell, honest about what is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.experiments.comparison import Comparison, Judged, Part, counted, folds_parts, seeds_parts
from models.evaluation.experiments.folds import folds_table
from models.evaluation.experiments.layers import LayersExperiment
from models.evaluation.experiments.table import Table, spread
from models.evaluation.experiments.voters import voters_table
from models.synthetic.folder import write_series
from models.training.checkpoint import Epoch
from models.training.collection import Collection, read, scan
from models.training.options import Options
from streams.errors import ModelError

SMALL = Options(side_px=64, lenet_side_px=64, lenet_width=1, dense_width=16, dense_layers=1, maps=0.1, epochs=1, lenet_epochs=1, batch=8)


@dataclass
class Watch:
    """Hears an experiment; interrupts it, as Ctrl-C would, when a cell begins."""

    stop_at: str = ""
    taught: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def cell(self, name: str, done: float, total: int) -> None:
        self.shares.append(done / total)

    def learning(self, voter: str, done: int, total: int, epoch: Epoch | None) -> None:
        if voter == self.stop_at:
            raise KeyboardInterrupt
        if epoch:
            self.taught.append(voter)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    root = tmp_path_factory.mktemp("castings")
    write_series(root, 32, seed=5)
    return read(scan([root]), 64)


def test_a_table_of_layers_is_made_cell_by_cell_and_no_finished_cell_is_trained_again(pictures: Collection, tmp_path: Path) -> None:
    experiment = LayersExperiment(SMALL, (1, 2), (1,), tmp_path)
    stopped = Watch(stop_at="layers-2-seed-1")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(pictures, pictures, stopped)
    assert stopped.taught == ["layers-1-seed-1"]
    assert [row[1] == "not finished" for row in experiment.table(pictures.classes, True).rows] == [False, True]
    resumed = Watch()
    table = experiment.run(pictures, pictures, resumed)
    assert resumed.taught == ["layers-2-seed-1"]
    assert resumed.shares == sorted(resumed.shares)
    assert resumed.shares[-1] == 1
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert all(0 <= float(row[1]) <= 1 for row in table.rows)
    with pytest.raises(ModelError, match="holds another experiment"):
        LayersExperiment(SMALL.model_copy(update={"epochs": 2}), (1,), (1,), tmp_path).run(pictures, pictures, Watch())


def test_no_group_of_pictures_stands_on_two_of_the_three_sides(pictures: Collection) -> None:
    doubled = Collection(
        np.concatenate([pictures.pixels, pictures.pixels[:, ::-1]]),
        np.concatenate([pictures.labels] * 2),
        pictures.classes,
        pictures.entries * 2,
        tuple(f"{index}" for index in range(64)),
        (),
    )
    for part in (*seeds_parts(doubled, SMALL, (1, 2)), *folds_parts(doubled, SMALL, 4)):
        assert not (part.chooses & part.judges).any()
        for side in (part.chooses, part.judges):
            assert np.array_equal(side[:32], side[32:])  # a picture and its mirror image
    assert np.sum([part.judges for part in folds_parts(doubled, SMALL, 4)], axis=0).tolist() == [1] * 64


def test_classifiers_are_trained_on_a_split_and_judged_by_what_neither_taught_nor_chose(pictures: Collection, tmp_path: Path) -> None:
    parts = seeds_parts(pictures, SMALL, (1,))
    comparison = Comparison(SMALL, tmp_path, "voters", single=True)
    first, again = Watch(), Watch()
    (judged,) = comparison.run(pictures, parts, first)
    assert first.taught == ["seed-1-lenet", "seed-1-alexnet"]
    assert set(judged.called) == {"ensemble", "lenet", "alexnet", "svm"}
    assert len(judged.bad) == parts[0].judges.sum()
    comparison.run(pictures, parts, again)
    assert again.taught == []


def judged(*right: bool, source: str = "a") -> Judged:
    """A part of defective pictures, `lenet` right where told, the ensemble right always, `alexnet` never."""
    none, bad = np.zeros(len(right), np.bool_), np.ones(len(right), np.bool_)
    called = {"ensemble": bad, "lenet": np.array(right), "alexnet": none}
    return Judged(Part("p", 1, none, bad), called, bad, np.array([source] * len(right)))


def test_the_table_of_voters_says_whether_the_ensemble_is_better_than_its_best_member() -> None:
    table = voters_table([judged(True, False), judged(True, True)])
    (said,) = table.said
    assert "in the mean better than its best member, lenet" in said
    assert "better in 1 of 2, worse in 0" in said
    assert table.rows[-1][0] == "ensemble"


def test_the_table_of_voters_tells_the_ensemble_by_source() -> None:
    both = judged(True, True)
    both = replace(both, called=both.called | {"ensemble": np.array([True, False])}, sources=np.array(["a", "b"]))
    rows = voters_table([both]).rows
    assert [(row[0], row[1]) for row in rows[-2:]] == [("ensemble, of a", "1.0000"), ("ensemble, of b", "0.0000")]
    assert rows[-1][-2:] == ("1", "0"), "a miss, no false alarm"


def test_folds_are_pooled_and_told_by_source() -> None:
    found = [judged(True, True), judged(True, False, source="b")]
    assert counted(found, "lenet").count == 3
    assert [row[0] for row in folds_table(found).rows] == ["p", "p", "pooled", "of a", "of b"]


def test_a_table_is_written_as_csv_and_markdown(tmp_path: Path) -> None:
    Table("Rates", ("layers", "mean"), (("1", spread([0.5, 0.7])),), ("Said.",)).write(tmp_path)
    assert (tmp_path / "table.csv").read_text().splitlines() == ["layers,mean", "1,0.6000 ± 0.1414"]
    assert (tmp_path / "table.md").read_text() == "## Rates\n\n| layers | mean |\n| --- | --- |\n| 1 | 0.6000 ± 0.1414 |\n\nSaid.\n"
