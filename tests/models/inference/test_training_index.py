"""The index of the training pictures finds the casting again when it is turned or mirrored, and says when nothing looks similar."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.inference.training_index import TrainingIndex, load_training_index, make_training_index
from models.pictures.decoder import decode_picture
from models.synthetic import render_series
from streams.errors import ModelError

SIDE_PX = 160
COUNT = 24


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    return np.stack([decode_picture(casting.to_jpeg(), SIDE_PX).pixels for casting in render_series(COUNT, seed=11)])


@pytest.fixture(scope="module")
def index(pixels: npt.NDArray[np.uint8]) -> TrainingIndex:
    return make_training_index(pixels, np.arange(COUNT, dtype=np.int32), _classes(12), _paths())


def _classes(defective: int) -> tuple[str, ...]:
    return ("def_front",) * defective + ("ok_front",) * (COUNT - defective)


def _paths() -> tuple[str, ...]:
    return tuple(f"/data/{number}.jpeg" for number in range(COUNT))


@pytest.mark.parametrize("change", [np.rot90, np.fliplr, lambda picture: (picture * 0.8 + 20).astype(np.uint8)])
def test_a_casting_is_found_again_when_turned_mirrored_or_lit_otherwise(
    index: TrainingIndex, pixels: npt.NDArray[np.uint8], change: object
) -> None:
    assert callable(change)
    for number in range(0, COUNT, 4):
        (first, *_), is_unusual = index.find_nearest(np.ascontiguousarray(change(pixels[number])), 3)
        assert (first.path, is_unusual) == (f"/data/{number}.jpeg", False)


def test_a_picture_unlike_all_training_pictures_is_called_unusual(index: TrainingIndex) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (SIDE_PX, SIDE_PX)).astype(np.uint8)
    pictures, is_unusual = index.find_nearest(noise, 6)
    assert (len(pictures), is_unusual) == (6, True)


def test_a_file_gives_the_same_index_and_small_pictures(index: TrainingIndex, pixels: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    entry = index.save(tmp_path)
    content = (tmp_path / entry.file).read_bytes()
    loaded = load_training_index(content)
    assert (entry.pictures, loaded.pictures, loaded.usual_distance) == (COUNT, index.pictures, index.usual_distance)
    assert loaded.find_nearest(pixels[5], 4) == index.find_nearest(pixels[5], 4)
    with Image.open(io.BytesIO(loaded.pictures[0].thumbnail)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (64, 64))
    assert len(content) < 2000 * COUNT, "expected less than 2 kB a picture"
    for damaged in (b"", content[: len(content) // 2]):
        with pytest.raises(ModelError, match="Copy the version again"):
            load_training_index(damaged)


def test_near_duplicates_stand_for_one_casting_and_few_defects_stay(pixels: npt.NDArray[np.uint8]) -> None:
    groups = (np.arange(COUNT) // 2).astype(np.int32)  # 12 castings, two pictures of each
    whole = make_training_index(pixels, groups, _classes(4), _paths())
    assert len(whole.pictures) == 12
    small = make_training_index(pixels, groups, _classes(4), _paths(), most=6)
    assert [picture.class_name for picture in small.pictures].count("def_front") == 2, "expected every defective casting"
    assert len(small.pictures) == 6


@pytest.mark.parametrize(("path", "name"), [("/data/ok/a.jpeg", "a.jpeg"), ("D:\\bilder\\b.bmp", "b.bmp"), ("c.png", "c.png")])
def test_the_name_of_a_file_is_the_last_part_of_its_path(pixels: npt.NDArray[np.uint8], path: str, name: str) -> None:
    index = make_training_index(pixels[:1], np.zeros(1, np.int32), ("ok",), (path,))
    assert index.pictures[0].file_name == name
