"""The simulation of a line: what its errors cost for each part, and which pictures it uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.evaluation.line_simulation import PartCosts, estimate_cost_interval, find_validation_pictures, simulate_line
from models.inference.line_threshold import DecisionRule
from models.training.labelled_pictures import find_pictures, read_pictures
from models.training.split import save_split
from streams.errors import ModelError

COSTS = PartCosts(miss=10, false_alarm=1, review=1)
# 99 good parts of which one looks a little defective, and 100 defective parts of which one looks good.
PROBABILITY = np.array([0.1] * 98 + [0.7] + [0.95] * 99 + [0.05])
IS_DEFECT = np.arange(199) >= 99


def test_if_every_part_passes_the_misses_cost_the_share_of_defects() -> None:
    line = simulate_line(PROBABILITY, IS_DEFECT, None, 0.01, COSTS, 100_000, 1)
    assert line.cost_per_part == pytest.approx(0.1, abs=0.005)
    assert (line.misses, line.false_alarms, line.reviews) == (line.defects, 0, 0)


def test_a_higher_threshold_costs_less_if_defects_are_rare() -> None:
    low, high = (simulate_line(PROBABILITY, IS_DEFECT, DecisionRule(at, at, at), 0.01, COSTS, 100_000, 1) for at in (0.5, 0.9))
    assert low.false_alarms / low.parts == pytest.approx(0.99 / 99, rel=0.1)
    assert high.false_alarms == 0
    assert high.cost_per_part < low.cost_per_part
    assert low.misses == high.misses, "both rules see the same parts"


def test_a_review_has_its_own_cost() -> None:
    line = simulate_line(PROBABILITY, IS_DEFECT, DecisionRule(0.8, 0.6, 0.99), 0.5, PartCosts(0.001, 0.001, 7), 10_000, 1)
    assert line.reviews / line.parts == pytest.approx(0.5, abs=0.03)
    assert line.cost_per_part == pytest.approx(7 * line.reviews / line.parts, rel=0.01)


def test_pictures_of_one_class_only_are_refused() -> None:
    with pytest.raises(ModelError, match="Add pictures of the class that is missing"):
        simulate_line(PROBABILITY, np.zeros(199, np.bool_), None, 0.01, COSTS, 1000, 1)


def test_only_the_validation_pictures_of_a_split_are_used(tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("path,class,group,side,sha256\na.png,ok,0,training,0\nb.png,defect,1,validation,0\n")
    assert [(file.path.name, file.class_name) for file in find_validation_pictures(split)] == [("b.png", "defect")]


def test_the_pictures_of_a_training_with_a_relative_folder_are_found_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/ok").mkdir(parents=True)
    Image.linear_gradient("L").save(tmp_path / "data/ok/a.png")
    monkeypatch.chdir(tmp_path)
    pictures = read_pictures(find_pictures([Path("data")]), 64)
    split = tmp_path / "versions/mine.training/split.csv"
    save_split(split, pictures, np.zeros(1, np.int32), np.ones(1, np.bool_))
    older = split.with_name("older.csv")
    older.write_text(split.read_text().replace(f"{tmp_path}/", ""))
    assert "\ndata/ok/a.png," in older.read_text().replace("\r", "")
    for path in (split, older):
        assert len(read_pictures(find_validation_pictures(path), 64)) == 1
    monkeypatch.chdir("/")
    assert len(read_pictures(find_validation_pictures(split), 64)) == 1


@pytest.mark.parametrize("text", ["", "path,class,side\na.png,ok,training\n", "side\nvalidation\n"])
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, text: str) -> None:
    split = tmp_path / "split.csv"
    split.write_text(text)
    with pytest.raises(ModelError, match=r"Give the file split\.csv"):
        find_validation_pictures(split)


def test_the_interval_of_the_cost_does_not_trust_few_good_castings_too_much() -> None:
    """None of the good pictures is rejected. Rule of three: with 100 castings up to 3 % of the good parts may still be rejected."""
    rule, interval = DecisionRule(0.8, 0.8, 0.8), {}
    for castings in (20, 100, 500):
        probability, is_defect = np.array([0.1] * castings + [0.9] * 200), np.arange(castings + 200) >= castings
        groups = np.arange(castings + 200, dtype=np.int32)
        interval[castings] = estimate_cost_interval(probability, is_defect, groups, rule, 0.01, PartCosts(10, 1, 0), 1)
    assert interval[100].high == pytest.approx(0.025, abs=0.01)
    assert interval[20].high > 3 * interval[100].high > 6 * interval[500].high
    few = estimate_cost_interval(probability, is_defect, np.arange(700, dtype=np.int32) // 50, rule, 0.01, PartCosts(10, 1, 0), 1)
    assert few.high > 5 * interval[500].high, "pictures of one casting count as one"


def test_the_interval_contains_the_cost_and_is_narrow_if_there_are_many_castings() -> None:
    rule, groups = DecisionRule(0.5, 0.5, 0.5), np.arange(199, dtype=np.int32)
    line = simulate_line(PROBABILITY, IS_DEFECT, rule, 0.3, COSTS, 200_000, 1)
    interval = estimate_cost_interval(PROBABILITY, IS_DEFECT, groups, rule, 0.3, COSTS, 1)
    assert interval.low < line.cost_per_part < interval.high < 5 * line.cost_per_part
    passing = estimate_cost_interval(PROBABILITY, IS_DEFECT, groups, None, 0.3, COSTS, 1)
    assert passing.low == passing.high == pytest.approx(3)
