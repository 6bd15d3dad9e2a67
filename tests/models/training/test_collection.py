"""Reading labelled pictures, and keeping pictures of one casting on one side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.synthetic import series
from models.synthetic.folder import write_series
from models.training.collection import Collection, read, scan
from models.training.near_duplicates import groups
from models.training.split import class_shares, split
from streams.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("castings")
    write_series(root, 24, seed=11)
    return root


def collected(*roots: Path) -> Collection:
    return read(scan(roots), 64)


def test_the_class_is_the_folder_and_masks_are_no_class(folder: Path) -> None:
    found = collected(folder)
    assert found.classes == ("def_front", "ok_front")
    assert found.ok_class == 1
    assert len(found) == 24
    assert found.pixels.shape == (24, 64, 64)


def test_a_list_names_the_same_pictures_as_the_folders(folder: Path) -> None:
    assert collected(folder / "castings.csv").fingerprint() == collected(folder).fingerprint()


def test_unreadable_pictures_among_good_ones_are_listed_and_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, 6, seed=1)
    (tmp_path / "ok_front" / "empty.jpeg").write_bytes(b"")
    (tmp_path / "ok_front" / "poem.png").write_bytes(b"roses are red")
    found = collected(tmp_path)
    assert len(found) == 6
    assert {(bad.path.name, bad.reason) for bad in found.unreadable} == {("empty.jpeg", "empty"), ("poem.png", "not-an-image")}


def test_a_small_root_is_learned_from_more_often_the_largest_once(tmp_path: Path) -> None:
    write_series(tmp_path / "large", 18, seed=1)
    write_series(tmp_path / "small", 2, seed=2)
    found = collected(tmp_path / "large", tmp_path / "small")
    assert found.repeats(0).tolist() == [1] * 20
    assert found.repeats(0.5).tolist() == [1] * 18 + [3] * 2
    assert found.repeats(1).tolist() == [1] * 18 + [9] * 2


def test_no_picture_is_learned_from_more_than_sixteen_times_an_epoch(tmp_path: Path) -> None:
    write_series(tmp_path / "large", 40, seed=1)
    write_series(tmp_path / "corrections", 2, seed=2)
    found = collected(tmp_path / "large", tmp_path / "corrections")
    assert found.repeats(1).tolist() == [1] * 40 + [16] * 2


def test_a_group_that_is_most_of_its_class_only_teaches() -> None:
    labels = np.array([0] * 60 + [1] * 60, np.int32)
    groups = np.concatenate([np.zeros(40), np.arange(1, 21), np.arange(21, 81)]).astype(np.int32)  # 40 good ones of one casting
    for seed in range(5):
        validates = split(labels, groups, 0.2, seed)
        assert not validates[:40].any()
        assert validates[40:60].sum() == 4, "a fifth of the other good ones"
        assert class_shares(labels, validates)[labels[validates] == 0].sum() == pytest.approx(validates.sum() / 2)


def test_where_all_groups_are_large_they_validate_too() -> None:
    labels, groups = np.repeat([0, 1], 150).astype(np.int32), np.repeat(np.arange(10), 30).astype(np.int32)
    assert split(labels, groups, 0.2, 1).sum() == 60


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found none"):
        scan([tmp_path])
    with pytest.raises(ModelError, match="found no folder"):
        scan([tmp_path / "absent"])


def test_classes_that_are_not_the_versions_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="expected the classes good, bad"):
        read(scan([folder]), 64, ("good", "bad"))


def test_a_list_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,kind\na.png,ok\n")
    with pytest.raises(ModelError, match="columns path and class"):
        scan([tmp_path / "list.csv"])


def test_turned_and_mirrored_pictures_of_a_casting_are_one_group() -> None:
    castings = [casting.pixels for casting in series(6, 21)]
    turned = [np.rot90(pixels, quarter) for quarter, pixels in enumerate(castings)]
    mirrored = [pixels[:, ::-1] for pixels in castings]
    found = groups(np.stack([*castings, *turned, *mirrored]), tuple(str(index) for index in range(18)), near_bits=20)
    assert (found[:6] == found[6:12]).all()
    assert (found[:6] == found[12:]).all()
    assert len(set(found[:6])) == 6


def test_a_casting_turned_by_any_angle_is_one_group_and_others_stay_apart() -> None:
    castings = [casting.pixels for casting in series(8, 3)]
    turned = []
    for angle, pixels in zip(range(13, 77, 8), castings, strict=True):
        ground = int(np.median(pixels[0]))
        turned.append(np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=ground)))
    pixels = np.stack(castings + turned)
    names = tuple(str(index) for index in range(16))
    found = groups(pixels, names)
    assert np.array_equal(found[:8], found[8:])
    assert len(set(found)) == 8
    assert len(set(groups(pixels, names, near_rings=0))) > 8


def test_equal_files_are_one_group_whatever_they_show() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (3, 32, 32)).astype(np.uint8)
    first, other, equal = groups(noise, ("a", "b", "a"), near_bits=0)
    assert first == equal != other


def test_no_group_stands_on_both_sides_of_a_split() -> None:
    rng = np.random.default_rng(2)
    owner = rng.integers(0, 60, 400).astype(np.int32)
    labels = (owner % 2).astype(np.int32)
    validates = split(labels, owner, 0.2, seed=1)
    assert not set(owner[validates]) & set(owner[~validates])
    assert 0.1 < validates.mean() < 0.3
    assert (split(labels, owner, 0.2, seed=1) == validates).all()


def test_too_few_different_pictures_are_refused() -> None:
    with pytest.raises(ModelError, match="near-duplicates"):
        split(np.array([0, 1] * 20, np.int32), np.zeros(40, np.int32), 0.2, seed=1)
