"""Marks of defects: read from masks that name kinds, from lists of boxes, and from data sets that the station made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.training.labelled_pictures import find_pictures
from models.training.marked_pictures import BOX_MARK, list_boxed_files, list_masked_files, read_marked_pictures
from streams.errors import ModelError

SIDE_PX = 64


def write_picture(path: Path, width_px: int = 128, height_px: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (height_px, width_px), dtype=np.uint8)).save(path)


def write_mask(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One good and one defective picture of 128 x 96 px. The mask shows a hole (3), a speck of flash (2) and the casting (4)."""
    write_picture(tmp_path / "data/ok/good.png", 128, 96)
    write_picture(tmp_path / "data/def/bad.png", 128, 96)
    mask = np.full((96, 128), 4, np.uint8)
    mask[32:48, 64:80], mask[80:82, 10:12] = 3, 2
    write_mask(tmp_path / "masks/def/bad.png", mask)
    return tmp_path


def test_a_mask_gives_each_pixel_its_kind_on_the_padded_square(data: Path) -> None:
    files = list_masked_files(find_pictures([data / "data"]), data / "masks", "ok")
    pictures = read_marked_pictures(files, SIDE_PX, {2: "flash", 3: "hole"}, part_values=(4,))
    assert pictures.kinds == ("flash", "hole")
    assert pictures.is_good.tolist() == [path.parent.name == "ok" for path in pictures.paths]
    marks = pictures.marks[int(np.flatnonzero(~pictures.is_good)[0])]
    # 128 x 96 px become 64 x 48 px in the middle of 64 x 64 px, so 8 rows are added above.
    expected = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    expected[24:32, 32:40], expected[48, 5] = 2, 1
    assert np.array_equal(marks, expected)


def test_a_mask_value_without_a_name_is_refused_with_the_option_to_give(data: Path) -> None:
    files = list_masked_files(find_pictures([data / "data"]), data / "masks", "ok")
    with pytest.raises(ModelError, match="--part-value 4"):
        read_marked_pictures(files, SIDE_PX, {2: "flash", 3: "hole"})


def test_a_box_is_marked_with_its_kind_and_a_picture_without_marks_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"def/{name}.png")
    listed = tmp_path / "boxes.csv"
    listed.write_text("image,x,y,w,h,kind\ndef/a.png,32,64,16,32,crack\ndef/b.png,0,0,8,8,\n")
    pictures = read_marked_pictures(list_boxed_files(listed, "ok"), SIDE_PX, {})
    assert pictures.kinds == ("crack",)
    assert not pictures.has_mask.any()
    assert [sorted(set(marks.ravel().tolist())) for marks in pictures.marks] == [[0, BOX_MARK + 1], [0, BOX_MARK]]
    assert np.argwhere(pictures.marks[0])[0].tolist() == [32, 16]


def test_a_data_set_of_the_station_gives_boxes_kinds_and_good_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "def_front/a.png")
    write_picture(tmp_path / "ok_front/b.png")
    box = '[{""left_px"": 8, ""top_px"": 8, ""width_px"": 8, ""height_px"": 8, ""score"": 1, ""kind"": """"}]'
    listed = tmp_path / "manifest.csv"
    listed.write_text(f'path,class,kinds,boxes\ndef_front/a.png,def_front,scratch,"{box}"\nok_front/b.png,ok_front,,[]\n')
    pictures = read_marked_pictures(list_boxed_files(listed, "ok_front"), SIDE_PX, {})
    assert pictures.kinds == ("scratch",)
    assert pictures.is_good.tolist() == [False, True]
    assert pictures.marks[0].max() == BOX_MARK + 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("image,x,y\n", "needs the columns"),
        ("image,x,y,w,h\na/b.png,1,2,0,4\n", "Line 2 of"),
        ("image,x,y,w,h\na/b.png,one,2,3,4\n", "Line 2 of"),
    ],
)
def test_a_list_that_holds_no_boxes_is_refused_with_its_line(tmp_path: Path, content: str, reason: str) -> None:
    listed = tmp_path / "boxes.csv"
    listed.write_text(content)
    with pytest.raises(ModelError, match=reason):
        list_boxed_files(listed, "ok")
