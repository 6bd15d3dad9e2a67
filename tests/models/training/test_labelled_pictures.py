"""Reading labelled pictures from class folders and lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.pictures.decoder import decode_picture
from models.synthetic import write_castings
from models.training.labelled_pictures import LabelledPictures, find_pictures, read_pictures
from streams.errors import ModelError
from tests.encoded_pictures import make_png
from tests.log_lines import castline_records
from tests.rendered_pictures import camera_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("castings")
    write_castings(root, 24, seed=11)
    return root


def read_sources(*sources: Path) -> LabelledPictures:
    return read_pictures(find_pictures(sources), 64)


def test_the_class_is_the_folder_and_masks_are_no_class(folder: Path) -> None:
    pictures = read_sources(folder)
    assert pictures.classes == ("def_front", "ok_front")
    assert pictures.ok_class == 1
    assert len(pictures) == 24
    assert pictures.pixels.shape == (24, 64, 64)


def test_a_training_tells_rendered_pictures_from_photographs(folder: Path, tmp_path: Path) -> None:
    assert read_sources(folder).rendered == 24
    (tmp_path / "ok_front").mkdir()
    (tmp_path / "ok_front" / "photograph.png").write_bytes(make_png(camera_pictures(1)[0]))
    mixed = read_sources(folder, tmp_path)
    assert (mixed.rendered, len(mixed)) == (24, 25)


def test_a_list_names_the_same_pictures_as_the_folders(folder: Path) -> None:
    assert read_sources(folder / "castings.csv").fingerprint() == read_sources(folder).fingerprint()


def test_unreadable_pictures_among_good_ones_are_listed_and_left_out(tmp_path: Path) -> None:
    write_castings(tmp_path, 6, seed=1)
    (tmp_path / "ok_front" / "empty.jpeg").write_bytes(b"")
    (tmp_path / "ok_front" / "poem.png").write_bytes(b"roses are red")
    pictures = read_sources(tmp_path)
    assert len(pictures) == 6
    assert {(file.path.name, file.reason) for file in pictures.unreadable} == {("empty.jpeg", "empty"), ("poem.png", "not-an-image")}


def test_pictures_of_12_bits_are_read_with_the_depth_of_the_camera(tmp_path: Path) -> None:
    levels = np.round(camera_pictures(1)[0] * (4095 / 255)).astype(np.uint16)
    for name in ("ok", "defect"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(make_png(levels))
    pictures = read_pictures(find_pictures([tmp_path]), 64, depth_bits=12)
    assert np.array_equal(pictures.pixels[0], decode_picture(make_png(levels), 64, depth_bits=12).pixels)
    with pytest.raises(ModelError, match="depth_bits"):
        read_pictures(find_pictures([tmp_path]), 64)


@pytest.mark.parametrize(("brightest", "depth_bits", "named"), [(4000, 14, 12), (2090, 14, 12), (1030, 12, 11), (250, 10, 8)])
def test_a_depth_that_is_too_large_for_all_pictures_is_named_with_one_that_reads_them(
    brightest: int, depth_bits: int, named: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_deep_picture(tmp_path, brightest)
    read_pictures(find_pictures([tmp_path]), 64, depth_bits=depth_bits)
    (record,) = castline_records(caplog)
    assert f"also fit into {named} bits" in record.getMessage()
    assert "--depth-bits" in record.getMessage()
    assert not read_pictures(find_pictures([tmp_path]), 64, depth_bits=named).unreadable


@pytest.mark.parametrize(("brightest", "depth_bits"), [(4095, 12), (40, 8)])
def test_a_depth_that_dark_pictures_need_is_not_complained_about(
    brightest: int, depth_bits: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_deep_picture(tmp_path, brightest)
    read_pictures(find_pictures([tmp_path]), 64, depth_bits=depth_bits)
    assert not castline_records(caplog)


def write_deep_picture(folder: Path, brightest: int) -> None:
    """Writes a picture with 16 bits per sample whose levels go up to `brightest`, over an area that is as bright after resampling."""
    (folder / "ok_front").mkdir()
    levels = np.round(camera_pictures(1)[0] * (brightest / 255)).astype(np.uint16)
    levels[:50, :50] = brightest
    (folder / "ok_front" / "a.png").write_bytes(make_png(levels))


def test_pictures_of_a_small_source_are_repeated_and_those_of_the_largest_are_not(tmp_path: Path) -> None:
    write_castings(tmp_path / "large", 18, seed=1)
    write_castings(tmp_path / "small", 2, seed=2)
    pictures = read_sources(tmp_path / "large", tmp_path / "small")
    assert pictures.repeats(0).tolist() == [1] * 20
    assert pictures.repeats(0.5).tolist() == [1] * 18 + [3] * 2
    assert pictures.repeats(1).tolist() == [1] * 18 + [9] * 2


def test_no_picture_is_repeated_more_than_sixteen_times_an_epoch(tmp_path: Path) -> None:
    write_castings(tmp_path / "large", 40, seed=1)
    write_castings(tmp_path / "corrections", 2, seed=2)
    pictures = read_sources(tmp_path / "large", tmp_path / "corrections")
    assert pictures.repeats(1).tolist() == [1] * 40 + [16] * 2


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Found no pictures"):
        find_pictures([tmp_path])
    with pytest.raises(ModelError, match="absent does not exist"):
        find_pictures([tmp_path / "absent"])


def test_classes_that_the_version_does_not_know_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="Use its classes: good, bad"):
        read_pictures(find_pictures([folder]), 64, ("good", "bad"))


def test_a_list_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,kind\na.png,ok\n")
    with pytest.raises(ModelError, match="columns path and class"):
        find_pictures([tmp_path / "list.csv"])


def test_folders_of_nas_devices_are_no_classes_and_what_is_left_out_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_castings(tmp_path, 6, seed=1)
    picture = next((tmp_path / "ok_front").glob("*.*")).read_bytes()
    for name in (
        "@eaDir/a.jpg",
        "__MACOSX/ok_front/b.jpg",
        ".Trash/c.jpg",
        "ok_front/@eaDir/d.jpg",
        "ok_front/._e.jpg",
        "ok_front/Thumbs.db",
        "ok_front/new.webp",
        "def_front/newer.WEBP",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    pictures = read_sources(tmp_path)
    assert (pictures.classes, len(pictures), pictures.unreadable) == (("def_front", "ok_front"), 6, ())
    (message,) = [record.getMessage() for record in castline_records(caplog)]
    assert "2 .webp pictures, 1 files that are no pictures, 4 folders of the system or the NAS device, 1 hidden files" in message


def test_a_folder_with_nothing_but_unsupported_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok/a.webp").write_bytes(b"RIFF")
    with pytest.raises(ModelError, match=r"Found no pictures in .* but left out 1 \.webp pictures"):
        find_pictures([tmp_path])
