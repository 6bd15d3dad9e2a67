"""The explanation of one picture: what its image shows, what its line of text says, and what bad input gets for an answer."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from deploy.cli.main import castline
from models.anomaly.version_scorers import VersionScorer
from models.evaluation.explanation import explain_picture
from models.inference.defect_locator import DefectLocator
from models.inference.ensemble import Ensemble
from models.inference.heat_map import DefectMap
from models.inference.soft_vote import SoftVote
from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.part_finder import learn_part_reference
from models.synthetic import render_series
from streams.errors import CastlineError, ModelError, PictureError
from tests.agents.inspector.inspector_rig import RecordingRuntime
from tests.agents.inspector.test_model_switcher import make_version
from tests.models.inference.test_defect_locator import OneSpotScorer

SIDE_PX = 64


class OneKindMapper:
    """Finds one defect of the kind hole, in the right half of the picture."""

    def compute_defect_map(self, pixels: npt.NDArray[np.uint8]) -> DefectMap:
        heat = np.zeros(pixels.shape, np.float32)
        heat[28:36, 40:48] = 1
        return DefectMap(heat, "segmentation", 0.5, ("hole",), heat[np.newaxis], 0.6)


def make_ensemble(probability: float) -> Ensemble:
    version = make_version("a")
    scorer = VersionScorer(OneSpotScorer(SIDE_PX), 3.0)
    return Ensemble(version, RecordingRuntime(probability), SoftVote.from_manifest(version.manifest), scorers=(scorer,))


def make_picture() -> DecodedPicture:
    """A picture of 128 x 64 px. The networks see it with margins above and below."""
    pixels = np.random.default_rng(3).integers(0, 255, (SIDE_PX, SIDE_PX), dtype=np.uint8)
    return DecodedPicture(pixels, 128, 64)


def test_an_explanation_holds_verdict_map_boxes_and_residuals_and_its_image_is_one_png() -> None:
    found = explain_picture(make_ensemble(0.9), DefectLocator(OneKindMapper(), SIDE_PX), make_picture())
    assert found.describe().startswith(
        "version a; label defect; defect probability 0.9000 (threshold 0.5000); votes lenet 0.900; scores one-spot "
    )
    (box,) = found.boxes
    assert (box.left_px, box.top_px, box.width_px, box.height_px, box.kind) == (80, 24, 16, 16, "hole")
    assert found.residuals["one-spot"][4, 8] == 0.5, "the residual 3 lies at the cut-off"
    assert (found.part, found.rebuilt) == (None, None)
    with Image.open(io.BytesIO(found.draw()), formats=("PNG",)) as image:
        image.load()
        assert image.width > image.height


def test_a_picture_that_shows_no_part_is_for_review_and_gets_no_heat_map() -> None:
    ensemble = make_ensemble(0.1)
    castings = [decode_picture(casting.to_jpeg(), 160).pixels for casting in render_series(16, seed=7, defect_share=0)]
    manifest = ensemble.version.manifest.model_copy(update={"part": learn_part_reference(castings)})
    checking = replace(ensemble, version=replace(ensemble.version, manifest=manifest))
    found = explain_picture(checking, DefectLocator(OneKindMapper(), SIDE_PX), make_picture())
    assert found.describe() == "version a; label review; reason no-part"
    assert (found.prediction, found.defects, found.boxes) == (None, None, ())
    assert found.draw().startswith(b"\x89PNG")


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(castline, ["explain", *map(str, arguments)])


def test_bad_input_gets_a_sentence_and_no_file(tmp_path: Path) -> None:
    text, out = tmp_path / "list.csv", tmp_path / "out.png"
    text.write_text("path,class\n")
    cases: list[tuple[tuple[object, ...], type[CastlineError], str]] = [
        ((tmp_path / "none.png", "--model", "demo"), CastlineError, "none.png: No such file or directory. Give the file of a picture."),
        ((text, "--model", "demo"), PictureError, "list.csv cannot be judged: The file is no picture"),
        ((text, "--model", "nothing"), ModelError, "Choose a version with --model."),
    ]
    for arguments, kind, sentence in cases:
        error = explain(*arguments, "--out", out).exception
        assert isinstance(error, kind)
        assert sentence in str(error)
    wrong_suffix = explain(text, "--model", "demo", "--out", tmp_path / "out.jpg")
    assert (wrong_suffix.exit_code, "Choose a name that ends with .png." in wrong_suffix.output) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


@pytest.mark.real
def test_the_command_explains_a_rendered_casting_by_the_shipped_version(tmp_path: Path) -> None:
    casting = next(casting for casting in render_series(20, seed=5) if not casting.is_ok)
    (tmp_path / "a.jpeg").write_bytes(casting.to_jpeg())
    result = explain(tmp_path / "a.jpeg", "--model", "demo", "--out", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "out.png: version demo; label defect; defect probability " in result.output
    with Image.open(tmp_path / "out.png", formats=("PNG",)) as image:
        assert image.width > 3 * 300, "the panels stand side by side"
