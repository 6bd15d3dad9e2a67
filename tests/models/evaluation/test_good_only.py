"""The comparison of scorers that learn from good parts alone: which pictures they learn from, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from models.anomaly.scorer import AnomalyScores, PixelArray
from models.evaluation.experiments.good_only import (
    FoldScores,
    LearningCondition,
    choose_per_group,
    combine_scores,
    compare_good_only_scorers,
    make_good_only_table,
)
from models.pictures.part_finder import RememberingPartFinder
from models.training.labelled_pictures import LabelledFile, LabelledPictures
from streams.errors import ModelError

pytestmark = pytest.mark.real

SIDE_PX = 32


class DarknessScorer:
    """A scorer whose score is the darkest spot, as a difference from the mean of the good pictures. It notes what it learned from."""

    name: ClassVar[str] = "darkness"
    learned: ClassVar[list[PixelArray]] = []

    def __init__(self, pixels: PixelArray) -> None:
        self.mean = float(pixels.mean())
        self.learned.append(pixels)

    @property
    def side_px(self) -> int:
        return SIDE_PX

    def score(self, pixels: PixelArray) -> AnomalyScores:
        residuals = np.maximum(0, self.mean - pixels).astype(np.float32)
        return AnomalyScores(residuals.max(axis=(1, 2)), residuals)

    def save(self, folder: Path) -> tuple[str, ...]:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> DarknessScorer:
        raise NotImplementedError


@pytest.fixture
def pictures() -> LabelledPictures:
    """60 good pictures of grey noise, and 40 defective ones with a black spot."""
    rng = np.random.default_rng(3)
    pixels = np.clip(rng.normal(128, rng.uniform(5, 15, (100, 1, 1)), (100, SIDE_PX, SIDE_PX)), 1, 255).astype(np.uint8)
    labels = np.array([1] * 60 + [0] * 40, np.int32)
    pixels[60:, 10:13, 10:13] = 0
    classes = ("def_front", "ok_front")
    files = tuple(LabelledFile(Path(f"{index}.png"), classes[label], "all") for index, label in enumerate(labels))
    return LabelledPictures(pixels, labels, classes, files, tuple(str(index) for index in range(100)), ())


def is_defective(pixels: PixelArray) -> np.ndarray:
    found: np.ndarray = pixels.min(axis=(1, 2)) == 0
    return found


def test_a_scorer_that_sees_all_defects_has_an_area_of_one(pictures: LabelledPictures) -> None:
    (result,) = compare_good_only_scorers(pictures, {"darkness": DarknessScorer}, 9, conditions=[LearningCondition(with_cut_off=True)])
    assert result.auroc == [1.0] * 5
    assert result.recall == [1.0] * 5
    assert max(result.false_alarms) < 0.5
    assert result.learned == 48


def test_a_scorer_learns_from_as_many_pictures_as_the_condition_says(pictures: LabelledPictures) -> None:
    DarknessScorer.learned.clear()
    conditions = [LearningCondition(20), LearningCondition(4), LearningCondition(20, hidden_share=0.1)]
    compare_good_only_scorers(pictures, {"darkness": DarknessScorer}, 9, conditions=conditions)
    learned = DarknessScorer.learned
    assert [len(pixels) for pixels in learned] == [20] * 5 + [4] * 5 + [20] * 5
    assert [int(is_defective(pixels).sum()) for pixels in learned] == [0] * 10 + [2] * 5


def test_few_pictures_are_among_the_many(pictures: LabelledPictures) -> None:
    """Otherwise the difference between 4 and 20 pictures would also be one between different pictures."""
    DarknessScorer.learned.clear()
    compare_good_only_scorers(pictures, {"darkness": DarknessScorer}, 9, conditions=[LearningCondition(20), LearningCondition(4)])
    twenty, four = ({picture.tobytes() for picture in DarknessScorer.learned[index]} for index in (0, 5))
    assert four < twenty


def test_the_table_has_a_row_for_each_scorer_and_condition(pictures: LabelledPictures) -> None:
    conditions = [LearningCondition(with_cut_off=True), LearningCondition(hidden_share=0.1)]
    table = make_good_only_table(compare_good_only_scorers(pictures, {"darkness": DarknessScorer}, 9, conditions=conditions), pictures)
    assert [row[:3] for row in table.rows] == [("darkness", "all", "48"), ("darkness", "all, 10% of them defective", "48")]
    assert table.rows[0][4] != ""
    assert table.rows[1][4:] == ("", "")


def test_a_large_group_gives_only_a_few_pictures() -> None:
    groups = np.array([0] * 50 + [1] * 3 + [2], np.int32)
    chosen = choose_per_group(groups, 5, np.random.default_rng(0))
    assert np.bincount(groups[chosen]).tolist() == [5, 3, 1]


def test_a_remembered_part_is_the_found_part() -> None:
    find = RememberingPartFinder()
    black = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    assert find(black) is None
    assert find(black) is None


class RefusingScorer(DarknessScorer):
    """A scorer that refuses to learn from fewer than 10 pictures."""

    def __init__(self, pixels: PixelArray) -> None:
        if len(pixels) < 10:
            raise ModelError(f"There are {len(pixels)} good pictures. Add good pictures.")
        super().__init__(pixels)


def test_a_scorer_that_refuses_few_pictures_says_so_in_the_table(pictures: LabelledPictures) -> None:
    scorers = {"darkness": DarknessScorer, "refusing": RefusingScorer}
    table = make_good_only_table(compare_good_only_scorers(pictures, scorers, 9, conditions=[LearningCondition(4)]), pictures)
    assert [row[3] for row in table.rows] == ["1.000 (1.000 to 1.000)", "refused", "refused"]
    assert "Refused (refusing): There are 4 good pictures. Add good pictures." in table.sentences


def test_a_combination_finds_what_one_of_its_members_finds() -> None:
    """The scales of the members differ by a factor of 100. Without a scale for each, the second member would not count."""
    castings = np.arange(20, dtype=np.int32)
    first = FoldScores(np.array([500, 100, 100], np.float32), np.linspace(90, 110, 20, dtype=np.float32), castings)
    second = FoldScores(np.array([1, 5, 1], np.float32), np.linspace(0.9, 1.1, 20, dtype=np.float32), castings)
    defective, also_defective, good = combine_scores([first, second]).test
    assert defective == pytest.approx(also_defective, rel=0.01)
    assert good < 1.1 < defective
