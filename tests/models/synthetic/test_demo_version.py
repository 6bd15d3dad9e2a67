"""The shipped version `demo` is complete, small, and judges castings correctly that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from agents.inspector.judging import judge_images
from models.evaluation.segmentation_figures import find_largest_kind, measure_maps
from models.inference.ensemble import Ensemble, open_ensemble
from models.inference.grad_cam import GradCam, open_grad_cam
from models.pictures.decoder import decode_picture
from models.pictures.part_reference import PART_REFUSALS
from models.registry import BUNDLED_VERSIONS, locate_version, open_registry
from models.synthetic import SIDE_PX, RenderedCasting, render_series
from models.synthetic.defects import DefectKind
from models.synthetic.demo_version import SEED
from streams.settings import LineSettings
from tests.agents.inspector.images import make_decoded_image
from tests.conftest import REAL_PICTURES, needs_real_pictures
from tests.part_pictures import ALL_KINDS, make_pictures

pytestmark = pytest.mark.real

UNSEEN_SEED = SEED + 1
LINE = LineSettings(name="line-1")
# Largest distance of the hottest point from a defect, in pixels of a picture of 300.
NEAR_PX = 8


@pytest.fixture(scope="module")
def demo() -> Ensemble:
    return open_ensemble(locate_version("demo"), "tensorflow", batch_sizes=(32,))


@pytest.fixture(scope="module")
def unseen() -> list[RenderedCasting]:
    """200 castings that taught no shipped version. Rendering them takes seconds, so the tests share them."""
    return list(render_series(200, UNSEEN_SEED))


def test_the_shipped_versions_take_less_than_sixteen_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED_VERSIONS.rglob("*") if path.is_file()) < 16_000_000


def test_every_shipped_version_is_verified() -> None:
    assert "demo" in open_registry(BUNDLED_VERSIONS).list_names()
    for name in open_registry(BUNDLED_VERSIONS).list_names():
        open_registry(BUNDLED_VERSIONS).open_version(name)


def test_it_judges_nearly_all_unseen_castings_correctly(demo: Ensemble, unseen: list[RenderedCasting]) -> None:
    castings = unseen[:128]
    pixels = np.stack([decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in castings])
    predictions = [prediction for start in range(0, 128, 32) for prediction in demo.predict(pixels[start : start + 32])]
    pairs = zip(predictions, castings, strict=True)
    is_right = [(prediction.rank >= demo.threshold) != casting.is_ok for prediction, casting in pairs]
    # The accuracy on validation pictures is 0.99. Two errors in 128 can happen by chance.
    assert np.mean(is_right) >= 0.98


def test_no_frame_without_a_whole_part_is_ok_and_every_casting_is_judged(demo: Ensemble, unseen: list[RenderedCasting]) -> None:
    castings = [decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in unseen]
    frames = [frame for kind in ALL_KINDS for frame in make_pictures(kind, castings[:20], 3)]
    images = [make_decoded_image(LINE, 1, pixels).check(demo.part_reference) for pixels in (*castings, *frames)]
    assert [image.part and image.part.reason for image in images[: len(castings)]] == [""] * len(castings)
    judged = judge_images(images[len(castings) :], demo)
    assert {one.label for one in judged} == {"review"}
    assert {one.prediction.reason for one in judged} == set(PART_REFUSALS)


@needs_real_pictures
def test_steel_is_not_ok(demo: Ensemble) -> None:
    paths = sorted((REAL_PICTURES / "neu").rglob("*.jp*g"))[::10]
    images = [make_decoded_image(LINE, 1, decode_picture(path.read_bytes(), demo.side_px).pixels) for path in paths]
    labels = {one.label for one in judge_images([image.check(demo.part_reference) for image in images], demo)}
    assert labels == {"review"}


def test_it_finds_defects_and_names_the_kind_of_the_largest_one(demo: Ensemble, unseen: list[RenderedCasting]) -> None:
    head = demo.segmentation
    assert head is not None
    assert head.member.kinds == tuple(kind.text for kind in DefectKind)
    defective = [casting for casting in unseen[:96] if not casting.is_ok][:40]
    pixels = np.stack([decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in defective])
    truths = [DefectKind(find_largest_kind(casting.mask)).text for casting in defective]
    assert np.mean([answer == truth for answer, truth in zip(head.name_kinds(pixels), truths, strict=True)]) >= 0.8
    masks = np.stack([casting.mask > 0 for casting in defective])
    figures = measure_maps([head.compute_defect_map(picture) for picture in pixels], masks)
    assert figures.pixel_auroc is not None
    assert figures.pixel_auroc >= 0.97
    assert figures.pointing.value >= 0.9


def test_its_heat_maps_are_hottest_at_the_defects(demo: Ensemble, unseen: list[RenderedCasting]) -> None:
    """Looks at pictures that are called defects only, because the heat map of a missed defect need not be hot anywhere."""
    grad_cam = open_grad_cam(demo.version)
    assert isinstance(grad_cam, GradCam)
    defective = [casting for casting in unseen[:64] if not casting.is_ok][:32]
    pixels = np.stack([decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in defective])
    at_defect = []
    for casting, picture, prediction in zip(defective, pixels, demo.predict(pixels), strict=True):
        if prediction.label == "ok":
            continue
        heat_map = grad_cam.compute_heat_map(picture)
        assert heat_map.shape == picture.shape
        assert 0 <= heat_map.min() <= heat_map.max() <= 1
        row, column = (int((place + 0.5) * SIDE_PX / demo.side_px) for place in np.unravel_index(heat_map.argmax(), heat_map.shape))
        at_defect.append(casting.mask[max(0, row - NEAR_PX) : row + NEAR_PX + 1, max(0, column - NEAR_PX) : column + NEAR_PX + 1].any())
    assert len(at_defect) > 20
    # The share was 0.95 of 294 castings.
    assert np.mean(at_defect) >= 0.8
