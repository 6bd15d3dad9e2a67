"""The version that the project ships: whole, small, and right about castings it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from models.inference.ensemble import Ensemble, open_ensemble
from models.inference.grad_cam import GradCam, open_grad_cam
from models.pictures.decoder import decode_picture
from models.registry import BUNDLED_VERSIONS, locate_version, open_registry
from models.synthetic import SIDE_PX, render_series
from models.synthetic.demo_version import SEED

pytestmark = pytest.mark.real

UNSEEN = SEED + 1
NEAR_PX = 8  # of 300


@pytest.fixture(scope="module")
def demo() -> Ensemble:
    return open_ensemble(locate_version("demo"), "tensorflow", batch_sizes=(32,))


def test_all_that_is_shipped_fits_into_sixteen_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED_VERSIONS.rglob("*") if path.is_file()) < 16_000_000


def test_every_shipped_version_is_verified() -> None:
    assert "demo" in open_registry(BUNDLED_VERSIONS).list_names()
    for name in open_registry(BUNDLED_VERSIONS).list_names():
        open_registry(BUNDLED_VERSIONS).open_version(name)


def test_it_is_right_about_ninety_nine_of_a_hundred_castings_it_has_not_seen(demo: Ensemble) -> None:
    castings = list(render_series(128, UNSEEN))
    pixels = np.stack([decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in castings])
    opinions = [opinion for start in range(0, 128, 32) for opinion in demo.predict(pixels[start : start + 32])]
    right = [(opinion.defect_probability >= demo.threshold) != casting.is_ok for opinion, casting in zip(opinions, castings, strict=True)]
    assert np.mean(right) >= 0.98  # 0.99 on validation; of 128, two may be wrong by chance


def test_its_heat_maps_are_hottest_at_the_defects(demo: Ensemble) -> None:
    """Of pictures that it calls defects: one that it misses has no reason to be hot anywhere."""
    heat = open_grad_cam(demo.version)
    assert isinstance(heat, GradCam)
    bad = [casting for casting in render_series(64, UNSEEN) if not casting.is_ok][:32]
    pixels = np.stack([decode_picture(casting.to_jpeg(), demo.side_px).pixels for casting in bad])
    at_defect = []
    for casting, shown, opinion in zip(bad, pixels, demo.predict(pixels), strict=True):
        if opinion.label == "ok":
            continue
        found = heat.compute_heat_map(shown)
        assert found.shape == shown.shape
        assert 0 <= found.min() <= found.max() <= 1
        row, column = (int((place + 0.5) * SIDE_PX / demo.side_px) for place in np.unravel_index(found.argmax(), found.shape))
        at_defect.append(casting.mask[max(0, row - NEAR_PX) : row + NEAR_PX + 1, max(0, column - NEAR_PX) : column + NEAR_PX + 1].any())
    assert len(at_defect) > 20
    assert np.mean(at_defect) >= 0.8  # 0.95 of 294
