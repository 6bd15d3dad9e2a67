"""The split keeps each group of near-duplicates on one side, and lets no single group dominate the validation."""

from __future__ import annotations

import numpy as np
import pytest

from models.training.split import class_share_weights, expect_groups_of_each_class, list_folds, split_by_group
from streams.errors import ModelError


def test_a_group_that_is_most_of_its_class_only_teaches() -> None:
    labels = np.array([0] * 60 + [1] * 60, np.int32)
    # The first 40 good pictures show one casting.
    groups = np.concatenate([np.zeros(40), np.arange(1, 21), np.arange(21, 81)]).astype(np.int32)
    for seed in range(5):
        validates = split_by_group(labels, groups, 0.2, seed)
        assert not validates[:40].any()
        assert validates[40:60].sum() == 4, "a fifth of the other good ones"
        assert class_share_weights(labels, validates)[labels[validates] == 0].sum() == pytest.approx(validates.sum() / 2)


def test_pictures_that_the_start_version_has_learned_only_teach() -> None:
    labels, groups = np.tile([0, 1], 100).astype(np.int32), np.arange(200, dtype=np.int32) // 4 * 2 + np.tile([0, 1], 100).astype(np.int32)
    is_learned = groups < 40
    validates = split_by_group(labels, groups, 0.2, 1, is_learned)
    assert not (validates & is_learned).any()
    assert set(labels[validates]) == set(labels[~validates & ~is_learned]) == {0, 1}
    assert 0.15 < validates.mean() < 0.3
    few = split_by_group(labels, groups, 0.2, 1, groups < 92)
    assert few.sum() == (groups >= 92).sum() / 2, "at most half of the other pictures"


def test_too_few_pictures_that_the_start_version_has_not_learned_are_refused() -> None:
    labels, groups = np.tile([0, 1], 20).astype(np.int32), np.arange(40, dtype=np.int32)
    with pytest.raises(ModelError, match=r"has learned 37 of the 40 pictures .* one class has only 1\. .* train without --from"):
        split_by_group(labels, groups, 0.2, 1, groups < 37)


def test_where_all_groups_are_large_they_validate_too() -> None:
    labels, groups = np.repeat([0, 1], 150).astype(np.int32), np.repeat(np.arange(10), 30).astype(np.int32)
    assert split_by_group(labels, groups, 0.2, 1).sum() == 60


def test_no_group_stands_on_both_sides_of_a_split() -> None:
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 60, 400).astype(np.int32)
    labels = (groups % 2).astype(np.int32)
    validates = split_by_group(labels, groups, 0.2, seed=1)
    assert not set(groups[validates]) & set(groups[~validates])
    assert 0.1 < validates.mean() < 0.3
    assert (split_by_group(labels, groups, 0.2, seed=1) == validates).all()


def test_too_few_different_pictures_are_refused() -> None:
    with pytest.raises(ModelError, match="near-duplicates"):
        split_by_group(np.array([0, 1] * 20, np.int32), np.zeros(40, np.int32), 0.2, seed=1)


def test_too_few_pictures_of_each_class_are_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"At least 5 pictures of each class are needed .* but no class has more than 4"):
        split_by_group(np.array([0, 0, 0, 1, 1, 1, 1], np.int32), np.arange(7, dtype=np.int32), 0.2, seed=1)


@pytest.mark.parametrize("seed", range(6))
def test_five_defective_pictures_of_four_castings_stand_on_both_sides(seed: int) -> None:
    """scikit-learn may put no defective picture into the first fold. Then another fold is used."""
    labels, groups = np.array([0] * 20 + [1] * 5, np.int32), np.array([*range(20), 20, 20, 21, 22, 23], np.int32)
    validates = split_by_group(labels, groups, 0.2, seed)
    assert set(labels[validates]) == set(labels[~validates]) == {0, 1}
    assert not set(groups[validates]) & set(groups[~validates])


def test_there_are_as_many_folds_as_the_rarest_class_allows_and_none_divides_a_group() -> None:
    labels, groups = np.array([0] * 12 + [1] * 6, np.int32), np.array([*range(12), 20, 20, 21, 21, 22, 22], np.int32)
    folds = list_folds(labels, groups, 5)
    assert len(folds) == 3
    assert all(set(labels[fold]) == {0, 1} for fold in folds)
    assert (np.sum(folds, axis=0) == 1).all()
    assert all(len(set(fold[groups == group])) == 1 for fold in folds for group in (20, 21, 22))
    assert list_folds(labels, np.where(labels == 1, 20, groups), 5) == []


def test_folds_that_would_lack_a_class_are_refused_with_the_number_of_castings() -> None:
    labels, groups = np.array([0] * 10 + [1] * 8, np.int32), np.array([*range(10), *[20] * 4, *[21] * 4], np.int32)
    expect_groups_of_each_class(labels, groups, 2)
    with pytest.raises(ModelError, match="form only 2 groups of near-duplicates, but at least 5 are needed"):
        expect_groups_of_each_class(labels, groups, 5)
