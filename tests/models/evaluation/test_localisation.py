"""Heat maps compared with masks: the metrics by hand and by brute force, the pairing of pictures and masks, and the command."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import roc_auc_score

from deploy.cli.main import castline
from models.evaluation.localisation import (
    GRID_SIDE_PX,
    HeatSource,
    compute_aupimo,
    compute_aupro,
    compute_box_iou,
    compute_pixel_auroc,
    evaluate_localisation,
    measure_localisation,
    points_at_defect,
    read_masked_pictures,
)
from models.synthetic import write_castings
from models.training.labelled_pictures import LabelledFile, find_pictures
from streams.errors import ModelError

Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CASTINGS = Path("../shared/data/casting")
real_data = pytest.mark.skipif(not CASTINGS.is_dir(), reason=f"the real pictures are not at {CASTINGS}")


def heat(*rows: Sequence[float]) -> Heat:
    return np.array(rows, np.float32)


def mask(*rows: Sequence[int]) -> Mask:
    return np.array(rows, np.bool_)


def list_aupimo(heats: list[Heat], masks: list[Mask], *limits: float) -> list[float] | None:
    found = compute_aupimo(heats, masks, *limits)
    return None if found is None else found.tolist()


def test_auroc_counts_the_pairs_in_which_the_defect_is_hotter() -> None:
    # Defect pixels 0.9 and 0.4, others 0.5 and 0.4: of four pairs, two and a half are right, because two pixels are equally hot.
    assert compute_pixel_auroc([heat([0.9, 0.4, 0.5, 0.4])], [mask([1, 1, 0, 0])]) == pytest.approx(2.5 / 4)


def test_auroc_pools_all_pictures_so_a_map_divided_by_its_maximum_loses() -> None:
    absolute, good = heat([4.0, 1.0]), heat([0.5, 0.1])
    masks = [mask([1, 0]), mask([0, 0])]
    assert compute_pixel_auroc([absolute, good], masks) == 1
    assert compute_pixel_auroc([absolute / absolute.max(), good / good.max()], masks) == pytest.approx(2.5 / 3)


def test_aupro_counts_every_defect_the_same() -> None:
    # The defect of one pixel is hotter than all other pixels. The defect of four pixels is colder than three of the seven others. So the
    # curve is at 1/2 until a false positive rate of 3/7, and at 1 from there on.
    one = heat([9, 1, 5, 5, 5, 5], [1, 8, 1, 8, 8, 1])
    drawn = mask([1, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])
    assert compute_aupro([one], [drawn], limit=1.0) == pytest.approx(3 / 7 * 0.5 + 4 / 7 * 1)
    assert compute_aupro([one], [drawn], limit=0.3) == pytest.approx(0.5)
    assert compute_pixel_auroc([one], [drawn]) == pytest.approx(1 / 5 * 1 + 4 / 5 * 4 / 7)


def test_aupro_interpolates_at_its_limit() -> None:
    # The only threshold between 0 and 1 has a false positive rate of 1/2 and a per-region overlap of 1. The straight line from the
    # origin has the height 0.6 at 0.3.
    assert compute_aupro([heat([1, 1, 0])], [mask([1, 0, 0])], limit=0.3) == pytest.approx(0.3)


def test_pixels_that_touch_at_a_corner_are_one_defect() -> None:
    touching = mask([1, 0], [0, 1])
    assert measure_localisation([heat([1, 0], [0, 1])], [touching]).defects == 1
    # As two defects, the one that is found would count for a half.
    assert compute_aupro([heat([9, 5, 0], [5, 0, 0])], [mask([1, 0, 0], [0, 1, 1])], limit=1.0) == pytest.approx(1 / 3 + 2 / 3 / 3 / 2)


def test_aupimo_is_the_mean_recall_over_the_logarithm_of_the_good_pictures_false_positive_rate() -> None:
    # In a good picture of 1,000 pixels one pixel has 0.8 and nine have 0.6. The rate is 0.001 below 0.8, and 0.01 below 0.6.
    good = np.zeros((1, 1000), np.float32)
    good[0, 0], good[0, 1:10] = 0.8, 0.6
    defective, drawn = heat([0.9, 0.7, 0.5, 0.95]), mask([1, 1, 1, 0])
    pictures, masks = [good, defective], [np.zeros((1, 1000), np.bool_), drawn]
    # Below the rate 0.001, only the pixel above 0.8 is found. From 0.001 on, two are found. From 0.01 on, all three.
    assert list_aupimo(pictures, masks, 1e-4, 1e-2) == pytest.approx([0.5 * 1 / 3 + 0.5 * 2 / 3])
    assert list_aupimo(pictures, masks, 1e-3, 1e-1) == pytest.approx([0.5 * 2 / 3 + 0.5 * 1])


def test_aupimo_is_given_for_each_defective_picture_and_needs_good_pictures() -> None:
    good, empty = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_)
    drawn = np.eye(4, dtype=np.bool_)
    assert list_aupimo([drawn.astype(np.float32), good, good], [drawn, empty, drawn]) == [1, 0]
    assert compute_aupimo([good], [drawn]) is None
    assert compute_aupimo([good], [empty]) is None


def test_a_perfect_map_has_one_everywhere() -> None:
    drawn = np.zeros((20, 20), np.bool_)
    drawn[3:6, 4:9], drawn[15, 15] = True, True
    figures = measure_localisation([drawn.astype(np.float32), np.zeros((20, 20), np.float32)], [drawn, np.zeros_like(drawn)])
    assert (figures.defective, figures.good, figures.defects) == (1, 1, 2)
    assert (figures.pixel_auroc, figures.aupro, figures.aupimo, figures.pointing.value, figures.box_iou) == (1, 1, 1, 1, 1)


def test_a_constant_map_knows_nothing() -> None:
    drawn = np.zeros((20, 20), np.bool_)
    drawn[3:6, 4:9] = True
    figures = measure_localisation([np.full((20, 20), 0.7, np.float32)] * 2, [drawn, np.zeros_like(drawn)])
    assert figures.pixel_auroc == pytest.approx(0.5)
    assert figures.aupro == pytest.approx(0.15)
    assert (figures.aupimo, figures.pointing.value) == (0, 0)


def test_figures_that_cannot_be_computed_are_none() -> None:
    figures = measure_localisation([np.ones((2, 2), np.float32)], [np.zeros((2, 2), np.bool_)])
    assert (figures.pixel_auroc, figures.aupro, figures.aupimo, figures.box_iou, figures.pointing.of) == (None, None, None, None, 0)


def test_a_map_points_at_a_defect_up_to_eight_pixels_away() -> None:
    drawn = np.zeros((40, 40), np.bool_)
    drawn[10, 10] = True
    for row, column, expected in ((10, 18, True), (10, 19, False), (16, 15, True), (16, 16, False)):
        hot = np.zeros((40, 40), np.float32)
        hot[row, column] = 0.1
        assert points_at_defect(hot, drawn) is expected


def test_box_iou_compares_the_boxes_of_findings_with_boxes_around_the_defects() -> None:
    drawn = np.zeros((10, 10), np.bool_)
    drawn[0, 0], drawn[3, 3], drawn[1, 1], drawn[2, 2] = True, True, True, True  # one defect with a box of 4 x 4
    hot = np.zeros((10, 10), np.float32)
    hot[0:4, 2:6], hot[9, 9] = 1.0, 0.4
    assert compute_box_iou(hot, drawn) == pytest.approx(8 / 24)
    assert compute_box_iou(hot, drawn, box_level=0.3) == pytest.approx(8 / 25)
    assert compute_box_iou(hot, drawn, box_level=1.5) == 0


levels = st.integers(0, 4).map(float)
pictures_strategy = st.integers(1, 3).flatmap(
    lambda count: st.tuples(
        st.lists(arrays(np.float32, (3, 5), elements=levels), min_size=count, max_size=count),
        st.lists(arrays(np.bool_, (3, 5)), min_size=count, max_size=count),
    )
)


@given(pictures_strategy)
def test_auroc_equals_that_of_scikit_learn(pictures: tuple[list[Heat], list[Mask]]) -> None:
    heats, masks = pictures
    truth = np.concatenate([one.ravel() for one in masks])
    if truth.all() or not truth.any():
        assert compute_pixel_auroc(heats, masks) is None
    else:
        assert compute_pixel_auroc(heats, masks) == pytest.approx(roc_auc_score(truth, np.concatenate([one.ravel() for one in heats])))


@given(pictures_strategy, st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_aupro_equals_the_sum_over_all_thresholds(pictures: tuple[list[Heat], list[Mask]], limit: float) -> None:
    heats, masks = pictures
    found = compute_aupro(heats, masks, limit)
    if all(one.all() for one in masks) or not any(one.any() for one in masks):
        assert found is None
        return
    regions = [(one, region) for one, drawn in zip(heats, masks, strict=True) for region in split_regions(drawn)]
    others = np.concatenate([one[~drawn] for one, drawn in zip(heats, masks, strict=True)])
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(value) for one in heats for value in one.ravel()}, reverse=True):
        overlap = np.mean([(one[region] >= threshold).mean() for one, region in regions])
        curve.append((float((others >= threshold).mean()), float(overlap)))
    area = 0.0
    for (x, y), (next_x, next_y) in itertools.pairwise(curve):
        if x < limit and next_x > x:
            end = min(limit, next_x)
            area += (end - x) * (y + (y + (next_y - y) * (end - x) / (next_x - x))) / 2
    assert found == pytest.approx(area / limit)


@given(pictures_strategy, st.sampled_from([(1e-5, 1e-4), (0.01, 0.3), (0.1, 1.0)]))
def test_aupimo_equals_the_recall_at_the_lowest_threshold_of_each_rate(
    pictures: tuple[list[Heat], list[Mask]], limits: tuple[float, float]
) -> None:
    heats, masks = pictures
    found = compute_aupimo(heats, masks, *limits)
    good = [one for one, drawn in zip(heats, masks, strict=True) if not drawn.any()]
    defective = [one[drawn] for one, drawn in zip(heats, masks, strict=True) if drawn.any()]
    if not good or not defective:
        assert found is None
        return

    def rate(threshold: float) -> float:
        return float(np.mean([(one > threshold).mean() for one in good]))

    # Between these rates nothing changes, so the lowest threshold is looked for in the middle of each span.
    low, high = limits
    edges = sorted({low, high, *(share for share in (rate(value) for value in range(-1, 5)) if low < share < high)})
    expected = np.zeros(len(defective))
    for left, right in itertools.pairwise(edges):
        middle = math.sqrt(left * right)
        threshold = min(value for value in range(-1, 5) if rate(value) <= middle)
        recalls = np.array([(values > threshold).mean() for values in defective])
        expected += recalls * math.log(right / left) / math.log(high / low)
    assert found == pytest.approx(expected)


def split_regions(drawn: Mask) -> list[Mask]:
    """Returns one mask for each region of True pixels that touch, found by flooding."""
    left, regions = set(zip(*np.nonzero(drawn), strict=True)), []
    while left:
        region, border = np.zeros_like(drawn), [left.pop()]
        while border:
            row, column = border.pop()
            region[row, column] = True
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            border += near
        regions.append(region)
    return regions


def save_picture(path: Path, size: tuple[int, int] = (60, 60)) -> Path:
    """Writes a picture of noise and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(3).integers(0, 255, size[::-1], dtype=np.uint8)).save(path)
    return path


def save_mask(path: Path, *marks: tuple[int, tuple[slice, slice]], size: tuple[int, int] = (60, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size[::-1], np.uint8)
    for value, spans in marks:
        values[spans] = value
    Image.fromarray(values).save(path)
    return path


HOLE = (3, (slice(10, 20), slice(30, 40)))
PART = (4, (slice(5, 55), slice(5, 55)))


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """A set with one defective and one good picture below `set`, and a mask of each below `masks`, with the part marked by 4."""
    save_picture(tmp_path / "set/def/a.png")
    save_picture(tmp_path / "set/ok/a.png")
    save_mask(tmp_path / "masks/def/a.png", PART, HOLE)
    save_mask(tmp_path / "masks/ok/a.png", PART)
    return tmp_path


def test_pictures_and_masks_are_joined_by_the_path_below_their_folders(small_set: Path) -> None:
    found = read_masked_pictures(find_pictures([small_set / "set"]), small_set / "masks", "ok", (4,))
    defective, good = found.pictures
    assert (defective.file.path, good.file.path) == (small_set / "set/def/a.png", small_set / "set/ok/a.png")
    # 60 px of the picture are 300 px of the grid.
    expected = np.zeros((GRID_SIDE_PX, GRID_SIDE_PX), np.bool_)
    expected[50:100, 150:200] = True
    np.testing.assert_array_equal(defective.mask, expected)
    assert not good.mask.any()
    assert found.left_out == ()


def test_pictures_of_a_list_are_joined_by_the_names_of_their_folder_and_file(small_set: Path) -> None:
    (small_set / "list.csv").write_text(f"path,class\nset/def/a.png,def\n{small_set}/set/ok/a.png,ok\n")
    assert len(read_masked_pictures(find_pictures([small_set / "list.csv"]), small_set / "masks", "ok", (4,)).pictures) == 2


def test_what_cannot_be_compared_is_left_out_with_a_sentence(small_set: Path) -> None:
    for name in (
        "def/without.png",
        "def/larger.png",
        "def/unmarked.png",
        "def/colour.png",
        "ok/marked.png",
        "ok/clean.png",
        "ok/other.png",
    ):
        save_picture(small_set / "set" / name)
    save_mask(small_set / "masks/def/larger.png", HOLE, size=(120, 120))
    save_mask(small_set / "masks/def/unmarked.png", PART)
    save_mask(small_set / "masks/ok/marked.png", PART, HOLE)
    save_mask(small_set / "masks/ok/other.png", PART)
    save_mask(small_set / "masks/def/nobody.png", HOLE)
    Image.new("RGB", (60, 60)).save(small_set / "masks/def/colour.png")
    found = read_masked_pictures(find_pictures([small_set / "set"]), small_set / "masks", "ok", (4,))
    names = [f"{picture.file.path.parent.name}/{picture.file.path.name}" for picture in found.pictures]
    assert names == ["def/a.png", "ok/a.png", "ok/clean.png", "ok/other.png"]
    folder = small_set / "masks"
    assert sorted(found.left_out) == [
        f"Left out, because defective pictures have no mask: 1 ({small_set}/set/def/without.png).",
        f"Left out, because masks cannot be used: 1 ({folder}/def/colour.png (the file is no grey PNG of 8 bits)).",
        f"Left out, because masks fit no picture: 1 ({folder}/def/nobody.png).",
        f"Left out, because masks have another size than their picture: 1 ({folder}/def/larger.png (120 x 120 instead of 60 x 60 px)).",
        f"Left out, because masks of defective pictures show no defect: 1 ({folder}/def/unmarked.png).",
        f"Left out, because masks of good pictures show a defect: 1 ({folder}/ok/marked.png).",
    ]


def test_masks_that_mark_the_part_are_refused_until_its_value_is_named(small_set: Path) -> None:
    with pytest.raises(ModelError, match=r"masks of 1 of 1 good pictures show defects, .* for example --part-value 4\.$"):
        read_masked_pictures(find_pictures([small_set / "set"]), small_set / "masks", "ok")


def test_masks_of_another_set_are_refused(small_set: Path) -> None:
    save_picture(small_set / "other/def/a.png", (90, 90))
    with pytest.raises(ModelError, match=r"No defective picture can be compared .* \(60 x 60 instead of 90 x 90 px\)"):
        read_masked_pictures(find_pictures([small_set / "other"]), small_set / "masks", "ok", (4,))


def test_a_mask_that_fits_two_pictures_is_refused(small_set: Path) -> None:
    save_picture(small_set / "set/def/a.bmp")
    with pytest.raises(ModelError, match=r"a\.png fits two pictures"):
        read_masked_pictures(find_pictures([small_set / "set"]), small_set / "masks", "ok", (4,))


def test_a_folder_without_masks_is_refused_with_what_to_put_there(small_set: Path) -> None:
    files = find_pictures([small_set / "set"])
    with pytest.raises(ModelError, match=r"folder of masks .* does not exist"):
        read_masked_pictures(files, small_set / "none", "ok")
    (small_set / "none").mkdir()
    with pytest.raises(ModelError, match=r"Found no masks in .* Put an 8-bit PNG"):
        read_masked_pictures(files, small_set / "none", "ok")


def test_a_defect_that_is_smaller_than_a_cell_of_the_grid_is_kept(tmp_path: Path) -> None:
    save_picture(tmp_path / "set/def/a.png", (3000, 1500))
    save_mask(tmp_path / "masks/def/a.png", (1, (slice(4, 5), slice(2990, 2991))), size=(3000, 1500))
    (picture,) = read_masked_pictures(find_pictures([tmp_path / "set"]), tmp_path / "masks", "ok").pictures
    assert picture.mask.shape == (150, 300)
    assert np.argwhere(picture.mask).tolist() == [[0, 299]]


def test_a_source_is_any_function_from_a_picture_to_a_map_and_padding_is_cut_off(tmp_path: Path) -> None:
    """The source sees a square of its own side. Its right half is hot, and so is the right half of the mask of a wide picture."""
    save_picture(tmp_path / "set/def/a.png", (80, 40))
    save_mask(tmp_path / "masks/def/a.png", (1, (slice(0, 40), slice(40, 80))), size=(80, 40))
    pictures = read_masked_pictures(find_pictures([tmp_path / "set"]), tmp_path / "masks", "ok")
    right = np.zeros((20, 20), np.float32)
    right[5:15, 10:] = 2.0
    right[:5] = 9.0  # padding
    report = evaluate_localisation(
        pictures, [HeatSource("right", 20, lambda _: right), HeatSource("flat", 30, lambda _: np.ones((30, 30), np.float32))]
    )
    assert report.sources["right"].pixel_auroc == pytest.approx(1)
    assert report.sources["right"].box_iou == pytest.approx(1, abs=0.05)
    assert report.sources["flat"].pixel_auroc == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [np.ones((5, 5), np.float32), np.full((20, 20), np.nan, np.float32)])
def test_a_map_of_another_shape_or_without_numbers_is_refused(small_set: Path, wrong: Heat) -> None:
    pictures = read_masked_pictures(find_pictures([small_set / "set"]), small_set / "masks", "ok", (4,))
    with pytest.raises(ModelError, match="The heat map of broken for"):
        evaluate_localisation(pictures, [HeatSource("broken", 20, lambda _: wrong)])


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    write_castings(folder, 24, seed=2030)
    return folder


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(castline, ["evaluate", "--model", "demo", *map(str, arguments)])


@pytest.mark.real
def test_the_command_compares_heat_maps_with_masks_and_reports_them(rendered: Path, tmp_path: Path) -> None:
    result = evaluate("--data", rendered, "--masks", rendered / "masks", "--report", tmp_path / "report", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "report" / "report.json").read_text())["localisation"]["sources"]["grad-cam"]
    # 200 other rendered castings had 0.96 and 0.99.
    assert figures["pixel_auroc"] > 0.9
    assert figures["pointing"]["value"] > 0.8
    assert "<h2>Heat maps compared with masks</h2>" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.real
def test_masks_that_cannot_be_used_end_the_command_before_anything_is_written(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    report = tmp_path / "report"
    # `castline` ends with the exit code 3 after a ModelError.
    assert isinstance(evaluate("--data", rendered, "--masks", tmp_path / "masks", "--report", report).exception, ModelError)
    assert evaluate("--data", rendered, "--data", rendered, "--masks", rendered / "masks", "--report", report).exit_code == 2
    assert evaluate("--data", rendered, "--part-value", 4, "--report", report).exit_code == 2
    assert not report.exists()


@real_data
def test_the_real_masks_fit_the_real_pictures_of_512_px_only() -> None:
    masks = CASTINGS / "512_masks"
    found = read_masked_pictures(find_pictures([CASTINGS / "512"]), masks, "ok_front", (4,))
    assert len(found.defective) == 74
    with pytest.raises(ModelError, match="instead of 300 x 300 px"):
        read_masked_pictures(choose_same_names(find_pictures([CASTINGS / "300" / "train"]), masks), masks, "ok_front", (4,))


def choose_same_names(files: Sequence[LabelledFile], masks: Path) -> list[LabelledFile]:
    """Returns those of `files` whose class and name are also those of a mask."""
    return [file for file in files if (masks / file.class_name / f"{file.path.stem}.png").exists()]
