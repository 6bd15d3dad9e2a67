"""A version with a detail template finds small defects in large pictures, whatever its reduced picture shows."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from agents.inspector.decoding import DecodedImage, ImageRecord, decode_image, read_image_record
from agents.inspector.judging import judge_images, make_verdict
from agents.inspector.model_switcher import ModelSwitcher
from deploy.cli.main import castline
from deploy.cli.replay import judge_again
from models.anomaly.scorer import AlarmShare, load_arrays, save_arrays
from models.anomaly.version_scorers import VersionDetails, open_details
from models.evaluation.evaluation_report import evaluate_version
from models.inference.ensemble import Ensemble, open_ensemble
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture, decode_picture
from models.pictures.regions import Regions
from models.registry import Version, locate_version, open_registry, write_manifest
from models.synthetic.casting import encode_jpeg
from models.synthetic.defects import DefectKind
from models.synthetic.large_casting import LargeCasting, render_large_casting
from models.training.details import learn_details
from models.training.good_only import GoodOnlyRun
from models.training.labelled_pictures import find_pictures, read_pictures
from streams.errors import ModelError
from streams.model_choices import ModelChoices
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord
from streams.settings import LineSettings, PictureSettings, Settings
from tests.agents.inspector.images import CAPTURED_AT
from tests.agents.inspector.test_judging import VERSION, make_rules
from tests.models.training.test_good_only import Log

LARGE_PX, SIDE_PX, GOOD = 800, 128, 12
TIME_S = 600.0


@cache
def casting(number: int) -> LargeCasting:
    return render_large_casting(np.random.default_rng([6, number]), LARGE_PX)


def encode(number: int, kind: DefectKind | None = None) -> bytes:
    """The casting as JPEG. A defect is 2.8 mm long, 6 px in the original and 1 px in the reduced picture."""
    return encode_jpeg(casting(number).expose(kind, 2.8, np.random.default_rng([7, number]))[0])


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version that was made with `castline train --good-only --details`."""
    folder = tmp_path_factory.mktemp("details")
    (folder / "good").mkdir()
    for number in range(GOOD):
        (folder / "good" / f"{number:02}.jpeg").write_bytes(encode(number))
    run = GoodOnlyRun(folder / "good", folder / "versions", "fine", AlarmShare(0.02), SIDE_PX, with_details=True)
    return run.run(Log()).version


@pytest.fixture(scope="module")
def ensemble(version: Version) -> Ensemble:
    return open_ensemble(version, detail_time_s=TIME_S)


def read_record(value: bytes) -> ImageRecord:
    source = ConsumedRecord("castings.images.line-1", 0, 1, b"line-1:1:1", value, {})
    return read_image_record(source, LineSettings(name="line-1"), CAPTURED_AT, CAPTURED_AT)


def decode(value: bytes, ensemble: Ensemble, folder: Path) -> DecodedImage:
    """Decodes and searches a picture as the inspector does."""
    record = read_record(value)
    settings = PictureSettings()
    store = ObjectStore(str(folder), settings.max_bytes)
    decoded = decode_image(record, ensemble.side_px, settings, store, keep_original=ensemble.details is not None)
    return decoded.search_details(ensemble.details).check(ensemble.part_reference)


def test_the_manifest_says_how_the_version_searches_in_tiles(version: Version) -> None:
    details = version.manifest.details
    assert details is not None
    assert details.strip_rings == 96
    assert 0 < details.overlap_rings < details.strip_rings < details.rings
    assert details.radius_px == pytest.approx(casting(0).view.radius_px, rel=0.15)
    assert details.good_pictures == GOOD


def test_the_two_scorers_of_a_version_share_the_allowed_false_alarms(version: Version) -> None:
    assert [entry.alarm_share for entry in version.manifest.entries_by_scorer.values()] == [0.01, 0.01]


def test_a_part_with_a_small_defect_is_for_review_and_a_good_one_is_not(ensemble: Ensemble, tmp_path: Path) -> None:
    numbers = range(GOOD, GOOD + 3)
    images = [decode(encode(number, kind), ensemble, tmp_path) for number in numbers for kind in (None, DefectKind.BLOW_HOLE)]
    judged = judge_images(images, ensemble)
    assert [one.label for one in judged] == ["ok", "review"] * 3
    verdict = make_verdict(judged[1], ensemble.version_name, ensemble.threshold, CAPTURED_AT)
    assert verdict.reason == "anomaly"
    assert verdict.votes["detail-template"] > 0.5
    assert verdict.votes["golden-template"] < 0.5


def test_a_defect_in_an_ignored_region_raises_no_score_and_elsewhere_it_does(ensemble: Ensemble, tmp_path: Path) -> None:
    pixels, defect = casting(GOOD).expose(DefectKind.BLOW_HOLE, 2.8, np.random.default_rng([7, GOOD]))
    assert defect is not None
    record, settings = read_record(encode_jpeg(pixels)), Settings(lines=(LineSettings(name="line-1"),))
    store = ObjectStore(str(tmp_path), settings.pictures.max_bytes)
    around, opposite = (make_square(x / LARGE_PX, y / LARGE_PX) for x, y in ((defect.x_px, defect.y_px), (LARGE_PX - defect.x_px, 0)))
    scores = []
    for regions in ({}, {"ignore_regions": [opposite]}, {"ignore_regions": [around]}, {"inspect_regions": [opposite]}):
        (judged,) = judge_again([record], ensemble, settings, store, make_rules(**regions))
        assert isinstance(judged.prediction, Prediction)
        scores.append(judged.prediction.scores["detail-template"])
    assert scores[0] == scores[1] > 0.5
    assert max(scores[2:]) < 0.5


def make_square(x: float, y: float) -> dict[str, list[dict[str, float]]]:
    """A region of a tenth of the picture's width and height around a point. All numbers are shares of the picture."""
    left, top = min(max(x - 0.05, 0), 0.9), min(max(y - 0.05, 0), 0.9)
    return {"corners": [{"x": left + right, "y": top + down} for right, down in ((0, 0), (0.1, 0), (0.1, 0.1), (0, 0.1))]}


def test_images_that_wait_for_the_networks_hold_no_original_pixels(ensemble: Ensemble, tmp_path: Path) -> None:
    image = decode(encode(GOOD), ensemble, tmp_path)
    assert isinstance(image.picture, DecodedPicture)
    assert image.picture.original is None
    assert (image.picture.width_px, image.picture.height_px) == (LARGE_PX, LARGE_PX)


def test_a_version_that_searches_decodes_an_image_again_that_was_not_searched(ensemble: Ensemble, tmp_path: Path) -> None:
    image = decode(encode(GOOD), replace(ensemble, details=None), tmp_path)
    assert image.inspection is None
    assert image.fits(ensemble.side_px)
    assert not image.fits(ensemble.side_px, ensemble.details)


def test_an_image_is_searched_again_if_the_regions_of_its_line_have_changed(ensemble: Ensemble, tmp_path: Path) -> None:
    image = decode(encode(GOOD), ensemble, tmp_path)
    assert image.fits(ensemble.side_px, ensemble.details)
    assert not image.fits(ensemble.side_px, ensemble.details, Regions(ignore=(((0, 0), (1, 0), (1, 1)),)))


def test_a_search_that_takes_too_long_ends_and_the_part_is_for_review(ensemble: Ensemble, tmp_path: Path) -> None:
    assert ensemble.details is not None
    hurried = replace(ensemble, details=VersionDetails(ensemble.details.template, ensemble.details.cut_off, 1e-6))
    image = decode(encode(GOOD), hurried, tmp_path)
    assert image.inspection is not None
    assert image.inspection.skipped == "too-slow"
    assert judge_images([image], hurried)[0].label == "review"


def test_a_version_searches_no_picture_unless_it_is_told_to(version: Version) -> None:
    assert open_ensemble(version).details is None
    assert open_details(version, 0) is None
    assert open_details(replace(version, manifest=version.manifest.model_copy(update={"details": None})), TIME_S) is None


def test_with_networks_the_settings_of_the_line_decide_and_a_defect_stays_a_defect(ensemble: Ensemble, tmp_path: Path) -> None:
    image = decode(encode(GOOD, DefectKind.BLOW_HOLE), ensemble, tmp_path)
    (judged,) = judge_images([image], ensemble)
    assert isinstance(judged.prediction, Prediction)
    score = judged.prediction.scores["detail-template"]
    ok, defect = (Prediction(label, 0.2, {"alexnet": 0.2}).add_score("detail-template", score) for label in ("ok", "defect"))
    strict, plain = (make_rules(review_anomalies=value).find("line-1", VERSION) for value in (True, None))
    assert ok.label == "ok"
    assert strict.apply(replace(judged, prediction=ok)).label == "review"
    assert plain.apply(replace(judged, prediction=ok)).label == "ok"
    assert strict.apply(replace(judged, prediction=defect)).label == "defect"


def test_a_template_that_does_not_fit_its_manifest_is_refused(version: Version) -> None:
    assert version.manifest.details is not None
    other = version.manifest.details.model_copy(update={"rings": 50})
    with pytest.raises(ModelError, match="the manifest says 50"):
        open_details(replace(version, manifest=version.manifest.model_copy(update={"details": other})), TIME_S)


def test_a_version_with_an_old_template_is_rejected_and_another_one_goes_on_judging(version: Version, folder: Path, tmp_path: Path) -> None:
    """A template of format 1, which has no format number, was written before the residuals were computed in another way."""
    for name in ("fine", "old"):
        shutil.copytree(version.folder, tmp_path / name)
    template = tmp_path / "old" / "detail-template.npz"
    save_arrays(template, load_arrays(template, ("shape", "texture", "limits")))
    entries = version.manifest.model_dump(mode="json", exclude={"files", "decoder_version", "made_by", "made_with"})
    write_manifest(tmp_path / "old", {**entries, "version": "old"})

    choice = ModelChoices("fine", {}).make_choice("line-1", "old", "anna", CAPTURED_AT)
    opener = partial(open_ensemble, detail_time_s=TIME_S)
    switcher = ModelSwitcher(("line-1",), open_registry(tmp_path).open_version, opener)
    switcher.start(ModelChoices("fine", {"line-1": choice}))
    switcher.stop()
    assert switcher.assignments["line-1"].ensemble.version_name == "fine"

    result = CliRunner().invoke(castline, ["evaluate", "--model", str(tmp_path / "old"), "--data", str(folder)])
    assert isinstance(result.exception, ModelError)
    assert "Make the version again with castline train --details" in str(result.exception)
    assert open_ensemble(locate_version(str(tmp_path / "old")), detail_time_s=0).details is None


def test_pictures_that_are_hardly_larger_than_the_reduced_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "good.jpeg"
    path.write_bytes(encode(0))
    with pytest.raises(ModelError, match="Leave out --details"):
        learn_details([path], np.zeros(1, np.int32), 600, AlarmShare(0.02))


def noise(side_px: int) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (side_px, side_px), np.uint8)
    return encode_jpeg(pixels)


def half_size(value: bytes) -> bytes:
    """The same picture from a camera with half as many pixels in each direction."""
    pixels = decode_picture(value, LARGE_PX).pixels
    return encode_jpeg(np.asarray(Image.fromarray(pixels).resize((LARGE_PX // 2, LARGE_PX // 2))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures: good castings, castings with a small defect, a picture without a part and a picture that is too coarse."""
    folder = tmp_path_factory.mktemp("labelled")
    pictures = {"ok/0": encode(GOOD), "ok/1": encode(GOOD + 1), "bad/noise": noise(LARGE_PX), "bad/coarse": half_size(encode(GOOD))}
    pictures |= {f"bad/{number}": encode(number, DefectKind.BLOW_HOLE) for number in (GOOD, GOOD + 1)}
    for name, value in pictures.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.jpeg").write_bytes(value)
    return folder


Labels = dict[str, tuple[str, str]]


def label_as_inspector(ensemble: Ensemble, folder: Path, store: Path) -> Labels:
    paths = sorted(folder.rglob("*.jpeg"))
    judged = judge_images([decode(path.read_bytes(), ensemble, store) for path in paths], ensemble)
    verdicts = [make_verdict(one, ensemble.version_name, ensemble.threshold, CAPTURED_AT) for one in judged]
    return {str(path): (verdict.label, verdict.reason) for path, verdict in zip(paths, verdicts, strict=True)}


def test_an_evaluation_gives_each_picture_the_label_and_reason_of_the_inspector(ensemble: Ensemble, folder: Path, tmp_path: Path) -> None:
    expected = label_as_inspector(ensemble, folder, tmp_path)
    assert sorted(expected.values()) == [("ok", ""), ("ok", ""), *[("review", "anomaly")] * 3, ("review", "no-part")]
    pictures = read_pictures(
        find_pictures([folder]), SIDE_PX, ensemble.version.manifest.picture_classes or ("bad", "ok"), details=ensemble.details
    )
    report = evaluate_version(ensemble, pictures)
    found = {str(file.path): (one.label, one.reason) for file, one in zip(pictures.files, report.predictions, strict=True)}
    assert found == expected
    assert (report.figures.misses.count, report.figures.false_alarms.count) == (0, 0)


def test_a_replay_gives_each_picture_the_label_and_reason_of_the_inspector(ensemble: Ensemble, folder: Path, tmp_path: Path) -> None:
    expected = label_as_inspector(ensemble, folder, tmp_path)
    settings = Settings(lines=(LineSettings(name="line-1"),))
    records = [read_record(path.read_bytes()) for path in sorted(folder.rglob("*.jpeg"))]
    judged = judge_again(records, ensemble, settings, ObjectStore(str(tmp_path), settings.pictures.max_bytes))
    assert [(one.label, one.prediction.reason) for one in judged] == list(expected.values())


@pytest.mark.real
def test_the_commands_search_as_the_settings_say(
    version: Version, ensemble: Ensemble, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, misses in (("60", 0), ("0", 2)):
        monkeypatch.setenv("CASTLINE_INSPECTOR__DETAIL_TIME_S", seconds)
        result = CliRunner().invoke(castline, ["evaluate", "--model", str(version.folder), "--data", str(folder), "--json"])
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        names = {Path(error["path"]).stem for error in report["errors"]}
        assert len(names & {str(GOOD), str(GOOD + 1)}) == misses, "without a search, nobody sees the small defects"
    monkeypatch.setenv("CASTLINE_INSPECTOR__DETAIL_TIME_S", "60")
    for path, (label, reason) in label_as_inspector(ensemble, folder, tmp_path).items():
        arguments = ["explain", path, "--out", str(tmp_path / "out.png"), "--model", str(version.folder)]
        result = CliRunner().invoke(castline, arguments)
        assert f"label {label}" in result.output, result.output
        assert (f"reason {reason}" in result.output) == bool(reason)


def test_pictures_that_were_not_searched_are_refused_by_an_evaluation(ensemble: Ensemble, folder: Path) -> None:
    pictures = read_pictures(find_pictures([folder]), SIDE_PX, ("bad", "ok"))
    with pytest.raises(ValueError, match="read without its detail template"):
        evaluate_version(ensemble, pictures)
