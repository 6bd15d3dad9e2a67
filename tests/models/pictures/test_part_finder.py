"""The part finder: it finds the rim, accepts the parts it was taught, good or defective, and refuses every picture without a whole part."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.part_finder import FoundPart, PartReference, check_part, find_part, learn_part_reference
from models.synthetic import render_series
from models.synthetic.impeller import CameraView, render_impeller
from models.training.near_duplicates import group_near_duplicates
from streams.errors import ModelError
from tests.conftest import REAL_PICTURES, needs_real_pictures
from tests.part_pictures import ALL_KINDS, NO_PART_KINDS, Pixels, make_pictures, shift, zoom
from tests.rendered_pictures import frame_casting, resample

DISK_CLASS = 4
FOLDS = 3


@cache
def castings(is_ok: bool) -> tuple[Pixels, ...]:
    """Rendered castings of 160 px."""
    return tuple(resample(casting.pixels) for casting in render_series(160, seed=17, defect_share=0.0 if is_ok else 1.0))


@cache
def reference() -> PartReference:
    return learn_part_reference(castings(True)[:60])


def photograph(pixels: Pixels, is_tall: bool = False, down_px: int = 0, orientation: int = 1) -> DecodedPicture:
    """The picture of a camera with the format 4:3 or 3:4. The casting lies `down_px` beside the middle, towards a long side."""
    upright = Image.fromarray(frame_casting(pixels, is_tall, down_px))
    turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    turn, exif, buffer = turns[orientation], Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    (upright if turn is None else upright.transpose(turn)).save(buffer, "PNG", exif=exif)
    return decode_picture(buffer.getvalue(), 160)


@cache
def reference_of_format(is_tall: bool) -> PartReference:
    pictures = [photograph(pixels, is_tall) for pixels in castings(True)[:40]]
    return learn_part_reference([picture.pixels for picture in pictures], [picture.area for picture in pictures])


def fill_ellipse(part: FoundPart, side_px: int) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:side_px, :side_px]
    x, y = columns - part.centre_x_px, rows - part.centre_y_px
    cos, sin = np.cos(part.angle_rad), np.sin(part.angle_rad)
    inside: npt.NDArray[np.bool_] = ((x * cos + y * sin) / part.semi_major_px) ** 2 + ((y * cos - x * sin) / part.semi_minor_px) ** 2 <= 1
    return inside


@pytest.mark.parametrize("seed", range(8))
def test_the_ellipse_lies_along_the_rim(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view = CameraView.draw(rng, 300)
    pixels = np.clip(render_impeller(view, rng), 0, 255).astype(np.uint8)
    part = find_part(pixels)
    assert part is not None
    drawn = view.plate[0] <= 1
    found = fill_ellipse(part, 300)
    assert (drawn & found).sum() / (drawn | found).sum() > 0.94
    assert part.semi_minor_px / part.semi_major_px == pytest.approx(view.squash, abs=0.05)


@pytest.mark.real
def test_a_larger_picture_of_the_same_scene_gives_the_same_outline() -> None:
    for pixels in castings(True)[:10]:
        large = np.asarray(Image.fromarray(pixels).resize((480, 480), Image.Resampling.BICUBIC))
        small, part = find_part(pixels), find_part(large)
        assert small is not None
        assert part is not None
        assert part.centre_x_px == pytest.approx(small.scale(3).centre_x_px, abs=2)
        assert part.semi_major_px == pytest.approx(small.scale(3).semi_major_px, abs=3)


def test_a_picture_that_is_not_square_is_searched_too() -> None:
    wide = np.pad(castings(True)[0], ((0, 0), (60, 20)), mode="edge")
    square, part = find_part(castings(True)[0]), find_part(wide)
    assert square is not None
    assert part is not None
    assert part.centre_x_px - square.centre_x_px == pytest.approx(60, abs=3)


def test_tiny_and_thin_pictures_show_no_part() -> None:
    assert find_part(np.zeros((1, 1), np.uint8)) is None
    assert find_part(castings(True)[0][:20]) is None
    assert find_part(castings(True)[0][:, :3]) is None


@pytest.mark.parametrize("is_ok", [True, pytest.param(False, marks=pytest.mark.real)])
def test_new_parts_are_accepted_whether_good_or_defective(is_ok: bool) -> None:
    reasons = [check_part(pixels, reference()).reason for pixels in castings(is_ok)[60:]]
    assert reasons == [""] * 100


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_picture_without_a_whole_part_is_accepted(kind: str) -> None:
    reasons = [check_part(pixels, reference()).reason for pixels in make_pictures(kind, castings(True), 6)]
    assert all(reasons), reasons


@pytest.mark.parametrize("kind", sorted(NO_PART_KINDS.keys() - {"stripes", "clouds", "text", "hand", "noise", "vignette"}))
def test_a_picture_without_any_part_is_refused_as_no_part(kind: str) -> None:
    for pixels in make_pictures(kind, castings(True), 4):
        check = check_part(pixels, reference())
        assert (check.reason, check.part) == ("no-part", None)


@pytest.mark.parametrize("share", [0.2, 0.25, 0.3])
def test_a_part_that_leaves_the_view_is_refused_as_partly_in_view(share: float) -> None:
    for quarter in range(4):
        check = check_part(shift(castings(True)[quarter], share, quarter * np.pi / 2), reference())
        assert check.reason == "partly-in-view"
        assert check.part is not None


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("is_tall", [False, True])
def test_a_part_cut_off_at_a_long_side_is_only_partly_in_view(is_tall: bool, orientation: int) -> None:
    learned = reference_of_format(is_tall)
    of_older_release = learned.model_copy(update={"border": "square", "most_overhang": 0.03})
    for pixels in castings(True)[40:46]:
        for down_px in (-60, 60):
            picture = photograph(pixels, is_tall, down_px, orientation)
            for one in (learned, of_older_release):
                assert check_part(picture.pixels, one, picture.area).reason == "partly-in-view"


@pytest.mark.parametrize("is_tall", [False, True])
def test_a_whole_part_is_accepted_in_a_picture_that_is_not_square(is_tall: bool) -> None:
    pictures = [photograph(pixels, is_tall, down_px, 6) for pixels in castings(True)[40:60] for down_px in (-10, 0, 10)]
    refused = [check_part(picture.pixels, reference_of_format(is_tall), picture.area).reason for picture in pictures]
    assert refused == [""] * 60


def test_a_reference_of_an_older_release_accepts_parts_that_the_border_always_cuts() -> None:
    """Its limit of the overhang was measured in the padded square. The new border alone must not refuse every part of such a line."""
    cut = [photograph(zoom(pixels, 1.3)) for pixels in castings(True)[:40]]
    learned = learn_part_reference([picture.pixels for picture in cut])
    of_older_release = learned.model_copy(update={"border": "square"})
    for one, is_any_refused in ((of_older_release, False), (learned, True)):
        assert any(check_part(picture.pixels, one, picture.area).reason for picture in cut) == is_any_refused


def test_a_part_of_another_size_is_refused_as_unknown_part() -> None:
    for pixels in castings(True)[:4]:
        check = check_part(zoom(pixels, 0.6), reference())
        assert check.reason == "unknown-part"
        assert check.part is not None


def test_a_part_anywhere_in_view_is_accepted() -> None:
    """The part may lie beside the middle of the picture, as long as its rim is in view."""
    small = [zoom(pixels, 0.8) for pixels in castings(True)[:40]]
    learned = learn_part_reference(small)
    for quarter in range(4):
        assert check_part(shift(small[quarter], 0.1, quarter * np.pi / 2), learned).reason == ""


def test_a_reference_survives_json() -> None:
    restored = PartReference.model_validate_json(reference().model_dump_json())
    assert restored == reference()
    assert len(reference().model_dump_json()) < 20_000


def test_twenty_good_pictures_are_enough() -> None:
    learned = learn_part_reference(castings(True)[:20])
    assert sum(bool(check_part(pixels, learned).reason) for pixels in castings(True)[20:]) <= 1
    for kind in ALL_KINDS:
        assert all(check_part(pixels, learned).reason for pixels in make_pictures(kind, castings(True), 2)), kind


def test_a_few_other_pictures_among_the_good_ones_do_no_harm() -> None:
    others = [
        pixels for kind in ("washer", "black", "noise", "polygon with 6 corners") for pixels in make_pictures(kind, castings(True), 1)
    ]
    learned = learn_part_reference([*castings(True)[:40], *others])
    assert learned.pictures <= 40
    for kind in ("washer", "polygon with 6 corners"):
        assert all(check_part(pixels, learned).reason for pixels in make_pictures(kind, castings(True), 4))


@pytest.mark.parametrize(
    "pictures",
    [
        [],
        [np.zeros((160, 160), np.uint8)],
        [np.zeros((160, 160), np.uint8)] * 30,
        make_pictures("plain disc", [np.zeros((160, 160), np.uint8)], 30),
    ],
    ids=["none", "one", "all equal", "without a cavity"],
)
def test_pictures_from_which_no_part_can_be_learned_are_refused_with_advice(pictures: Sequence[Pixels]) -> None:
    with pytest.raises(ModelError, match=f"of {len(pictures)} pictures of good parts .* Remove pictures of other parts, and add pictures"):
        learn_part_reference(pictures)


def read_real(folder: str) -> list[Pixels]:
    return [decode_picture(path.read_bytes(), 160).pixels for path in sorted((REAL_PICTURES / "casting" / folder).glob("*"))]


@needs_real_pictures
def test_the_outline_agrees_with_the_masks_of_real_castings() -> None:
    overlaps = []
    for path in sorted((REAL_PICTURES / "casting" / "512_masks").glob("*/*.png")):
        picture = next((REAL_PICTURES / "casting" / "512" / path.parent.name).glob(f"{path.stem}.*"))
        part = find_part(decode_picture(picture.read_bytes(), 160).pixels)
        assert part is not None
        disk, found = np.asarray(Image.open(path)) == DISK_CLASS, fill_ellipse(part.scale(512 / 160), 512)
        overlaps.append((disk & found).sum() / (disk | found).sum())
    assert len(overlaps) >= 100
    assert np.median(overlaps) > 0.97
    assert min(overlaps) > 0.85


@needs_real_pictures
@pytest.mark.real
def test_real_parts_of_held_out_groups_are_accepted_and_nothing_else() -> None:
    good = read_real("512/ok_front") + read_real("300/train/ok_front")[::6]
    bad = read_real("512/def_front")[::2]
    groups = group_near_duplicates(np.stack(good), tuple(map(str, range(len(good)))))
    fold_of_group = np.random.default_rng(0).integers(0, FOLDS, groups.max() + 1)
    refused = 0
    for fold in range(FOLDS):
        is_held_out = fold_of_group[groups] == fold
        learned = learn_part_reference(pixels for pixels, held_out in zip(good, is_held_out, strict=True) if not held_out)
        refused += sum(bool(check_part(good[index], learned).reason) for index in np.flatnonzero(is_held_out))
    assert refused <= 2 * len(good) / 1000
    assert sum(bool(check_part(pixels, learned).reason) for pixels in bad) <= 0.02 * len(bad)
    steel = [decode_picture(path.read_bytes(), 160).pixels for path in sorted((REAL_PICTURES / "neu").rglob("*.jp*g"))[::20]]
    assert all(check_part(pixels, learned).reason for pixels in steel)
    for kind in ALL_KINDS:
        accepted = [not check_part(pixels, learned).reason for pixels in make_pictures(kind, good, 4)]
        assert not any(accepted), kind
