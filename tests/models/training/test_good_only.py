"""Versions from good pictures alone: what they judge, what they hold, how they switch, and which pictures are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from agents.inspector.judging import judge_images, make_verdict
from agents.inspector.model_switcher import ModelSwitcher
from deploy.cli.main import castline
from models.anomaly.scorer import AlarmShare, ExpectedCosts
from models.evaluation.evaluation_report import evaluate_version
from models.evaluation.explanation import explain_picture
from models.inference.ensemble import open_ensemble
from models.inference.training_index import load_training_index
from models.pictures.decoder import decode_picture
from models.registry import BUNDLED_VERSIONS, RemoteRegistry, Version, locate_version, open_registry
from models.synthetic import render_series
from models.training.good_only import GoodOnlyRun
from models.training.labelled_pictures import LabelledFile, LabelledPictures, find_pictures, read_pictures
from streams.errors import ModelError
from streams.model_choices import ModelChoices
from streams.settings import LineSettings
from tests.agents.inspector.images import CAPTURED_AT, make_decoded_image
from tests.part_pictures import ALL_KINDS, make_pictures
from tests.rendered_pictures import Pixels, frame_casting, resample

pytestmark = pytest.mark.real

SIDE_PX = 160
LINE = LineSettings(name="line-1")


@cache
def castings(is_ok: bool) -> tuple[Pixels, ...]:
    """Rendered castings of 160 px."""
    return tuple(resample(casting.pixels) for casting in render_series(80, seed=31, defect_share=0.0 if is_ok else 1.0))


def write_pictures(folder: Path, pictures: Sequence[Pixels], prefix: str = "good") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / f"{prefix}-{number:02}.png")
    return folder


class Log:
    """Collects the files that a training leaves out, by the reason."""

    def __init__(self) -> None:
        self.left_out: dict[str, list[str]] = {}
        self.learned = 0

    def on_picture_read(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def on_pictures_left_out(self, reason: str, names: Sequence[str]) -> None:
        self.left_out[reason] = [Path(name).name for name in names]

    def on_scorer_learned(self, done: int, total: int) -> None:
        self.learned += 1
        assert 0 < done <= total


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A version that has learned from twenty good pictures."""
    folder = tmp_path_factory.mktemp("good")
    write_pictures(folder / "pictures", castings(True)[:20])
    log = Log()
    result = GoodOnlyRun(folder / "pictures", folder / "versions", "new-part", AlarmShare(0.05), SIDE_PX).run(log)
    assert log.learned == 6
    return result.version


def test_the_version_separates_good_from_defective_parts(version: Version) -> None:
    pixels = np.stack([*castings(True)[20:], *castings(False)])
    labels = np.repeat([0, 1], [60, 80]).astype(np.int32)
    files = tuple(LabelledFile(Path(str(index)), "ok", "all") for index in range(140))
    pictures = LabelledPictures(pixels, labels, ("ok", "bad"), files, tuple(map(str, range(140))), ())
    figures = evaluate_version(open_ensemble(version), pictures).figures
    assert figures.roc_auc is not None
    assert figures.roc_auc > 0.95
    assert figures.recall.value > 0.7
    assert figures.false_alarms.value <= 0.15


def test_its_verdicts_are_ok_or_review_and_name_the_scorer(version: Version) -> None:
    ensemble = open_ensemble(version)
    pictures = [*castings(True)[20:30], *castings(False)[:20], *(make_pictures("washer", castings(True), 2))]
    images = [make_decoded_image(LINE, part, pixels).check(ensemble.part_reference) for part, pixels in enumerate(pictures, 1)]
    verdicts = [make_verdict(judged, "new-part", ensemble.threshold, CAPTURED_AT) for judged in judge_images(images, ensemble)]
    assert {verdict.label for verdict in verdicts} == {"ok", "review"}
    for verdict in verdicts:
        assert verdict.defect_probability is None
        assert verdict.threshold == 0.5
        if verdict.reason == "unknown-part":
            continue
        assert verdict.votes.keys() == {"golden-template"}
        assert (verdict.votes["golden-template"] > 0.5) == (verdict.label == "review")
        assert verdict.reason == ("anomaly" if verdict.label == "review" else "")
    assert [verdict.reason for verdict in verdicts[-2:]] == ["unknown-part"] * 2


def test_the_version_holds_an_index_of_its_good_pictures(version: Version) -> None:
    entry = version.manifest.training_index
    assert entry is not None
    index = load_training_index(version.file(entry.file).read_bytes())
    assert 15 <= entry.pictures == len(index.pictures) <= 20
    assert {picture.class_name for picture in index.pictures} == {"ok"}


def test_no_frame_without_a_whole_part_is_ok(version: Version) -> None:
    ensemble = open_ensemble(version)
    for kind in ALL_KINDS:
        images = [make_decoded_image(LINE, 1, pixels).check(ensemble.part_reference) for pixels in make_pictures(kind, castings(True), 2)]
        assert [judged.label for judged in judge_images(images, ensemble)] == ["review"] * 2, kind


def test_a_part_cut_off_at_a_long_side_is_for_review_in_evaluations_and_explanations(tmp_path: Path) -> None:
    """The camera's pictures have the format 4:3. The margin that makes them square shows no part, although the decoder fills it."""
    whole = write_pictures(tmp_path / "whole" / "ok", [frame_casting(pixels) for pixels in castings(True)[:20]])
    cut = write_pictures(tmp_path / "cut" / "ok", [frame_casting(pixels, down_px=60) for pixels in castings(True)[:6]])
    version = GoodOnlyRun(whole, tmp_path / "versions", "wide", AlarmShare(0.05), SIDE_PX).run(Log()).version
    assert version.manifest.part is not None
    assert version.manifest.part.border == "picture"
    ensemble = open_ensemble(version)
    for folder, reasons in ((whole, {"", "anomaly"}), (cut, {"partly-in-view"})):
        predictions = evaluate_version(ensemble, read_pictures(find_pictures([folder.parent]), SIDE_PX)).predictions
        assert {prediction.reason for prediction in predictions} <= reasons
        first = decode_picture(next(folder.iterdir()).read_bytes(), SIDE_PX)
        check = explain_picture(ensemble, None, first).check
        assert check is not None
        assert check.reason in reasons


def test_a_damaged_scorer_and_changed_scores_are_refused(version: Version, tmp_path: Path) -> None:
    damaged = tmp_path / version.name
    shutil.copytree(version.folder, damaged)
    content = bytearray((damaged / "golden-template.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "golden-template.npz").write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"golden-template.npz is damaged"):
        locate_version(damaged)
    moved = version.manifest.model_copy(
        update={"scorers": (version.manifest.scorers[0].model_copy(update={"cut_off": 2 * version.manifest.scorers[0].cut_off}),)}
    )
    with pytest.raises(ModelError, match="give the golden set other scores"):
        open_ensemble(Version(version.folder, moved))


def test_a_version_without_networks_replaces_any_version_and_goes_to_a_remote_registry(version: Version, tmp_path: Path) -> None:
    demo = open_registry(BUNDLED_VERSIONS).read_manifest("demo")
    assert version.manifest.has_same_classes(demo)
    assert demo.has_same_classes(version.manifest)
    url = f"memory://{tmp_path.name}/versions"
    RemoteRegistry(url).push(version)
    assert RemoteRegistry(url).read_manifest(version.name) == version.manifest
    assert RemoteRegistry(url).open_version(version.name).manifest == version.manifest


def test_an_inspector_puts_the_version_in_force(version: Version) -> None:
    switcher = ModelSwitcher(("line-1",), open_registry(version.folder.parent).open_version, open_ensemble)
    switcher.start(ModelChoices("new-part", {}))
    switcher.stop()
    ensemble = switcher.assignments["line-1"].ensemble
    assert (ensemble.version_name, ensemble.runtime.name) == ("new-part", "numpy")
    assert ensemble.predict(np.stack(castings(True)[:2]))[0].defect_probability is None


def test_the_command_makes_a_version_and_other_commands_show_it(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", castings(True)[:24])
    run = CliRunner()
    options = ["--side", str(SIDE_PX), "--alarms-per-hour", "2", "--parts-per-hour", "100"]
    made = run.invoke(castline, ["train", "--good-only", str(folder), "--out", str(tmp_path / "v" / "one"), *options])
    assert made.exit_code == 0, made.output
    assert "learned from 24 good pictures" in made.output
    assert "2.00% false alarms" in made.output
    assert "golden-template" in run.invoke(castline, ["models", "list", "--root", str(tmp_path / "v"), "--json"]).output
    assert '"cut_off"' in run.invoke(castline, ["models", "show", str(tmp_path / "v" / "one")]).output
    verified = run.invoke(castline, ["models", "verify", str(tmp_path / "v" / "one")])
    assert verified.exit_code == 0
    assert "pictures on numpy, scores only: labels same" in verified.output
    again = run.invoke(castline, ["train", "--good-only", str(folder), "--out", str(tmp_path / "v" / "one")])
    assert "versions are never changed" in str(again.exception)
    useless = run.invoke(castline, ["train", "--good-only", str(folder), "--out", str(tmp_path / "v" / "two"), "--epochs", "3"])
    assert "--epochs cannot be used with --good-only" in useless.output
    neither = run.invoke(castline, ["train", "--out", str(tmp_path / "v" / "two")])
    assert "Give either --data or --good-only" in neither.output


def grow(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((200, 200)))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (lambda: [], "holds no picture .* Add pictures of good parts: at least 8"),
        (lambda: castings(True)[:1], "holds only 1 picture "),
        (lambda: [castings(True)[0]] * 20, "All 20 files hold the same picture"),
        (lambda: [*castings(True)[:10], *map(grow, castings(True)[10:20])], r"Only 10 of 20 .* Not .* px like the others: .*good-1\d.png"),
        (
            lambda: [*castings(True)[:20], *make_pictures("washer", castings(True), 10)],
            "Only 20 of 30 .* Not the same whole part as in the other pictures: .*good-20.png",
        ),
    ],
    ids=["none", "one", "all equal", "other sizes", "other parts"],
)
def test_bad_pictures_are_refused_with_their_names_and_nothing_is_written(
    pictures: Callable[[], Sequence[Pixels]], message: str, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "pictures", pictures())
    with pytest.raises(ModelError, match=message):
        GoodOnlyRun(folder, tmp_path / "versions", "bad", AlarmShare(0.05), SIDE_PX).run(Log())
    assert not (tmp_path / "versions").exists()


def test_a_depth_that_does_not_fit_the_camera_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(castings(True)[:10]):
        Image.fromarray(pixels.astype(np.uint16) * 16).save(folder / f"{number}.png")
    with pytest.raises(ModelError, match=r"None of the 10 files .* depth_bits = 10 of the line allows 1023"):
        GoodOnlyRun(folder, tmp_path / "versions", "bad", AlarmShare(0.05), SIDE_PX, depth_bits=10).run(Log())
    assert not (tmp_path / "versions").exists()
    made = GoodOnlyRun(folder, tmp_path / "versions", "good", AlarmShare(0.05), SIDE_PX, depth_bits=12).run(Log())
    assert made.version.manifest.preprocessing.depth_bits == 12


def test_a_few_other_parts_and_sizes_are_left_out_by_name(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", castings(True)[:30])
    write_pictures(folder, make_pictures("washer", castings(True), 1), "washer")
    write_pictures(folder, [grow(castings(True)[40])], "large")
    log = Log()
    result = GoodOnlyRun(folder, tmp_path / "versions", "most", ExpectedCosts(10, 1, 0.01), SIDE_PX).run(log)
    assert result.cut_off.good_pictures == 30
    assert sorted(name for names in log.left_out.values() for name in names) == ["large-00.png", "washer-00.png"]


def test_a_folder_with_a_subfolder_for_each_class_is_refused(tmp_path: Path) -> None:
    for name in ("ok_front", "def_front"):
        write_pictures(tmp_path / "pictures" / name, castings(True)[:10])
    with pytest.raises(ModelError, match=r"Give only the folder of the good pictures, .*pictures/ok_front"):
        GoodOnlyRun(tmp_path / "pictures", tmp_path / "versions", "bad", AlarmShare(0.05), SIDE_PX).run(Log())
