"""The segmentation head: what its loss asks for, what it learns from a few marked pictures, and the version into which it is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.anomaly.polar import PolarGrid
from models.anomaly.template import GoldenTemplate
from models.evaluation.localisation import open_heat_sources
from models.inference.defect_locator import CombinedMapper, ResidualMapper, SegmentationFirst, open_heat_mapper
from models.inference.ensemble import open_ensemble
from models.inference.heat_map import UNKNOWN_KIND
from models.inference.segmentation import Segmentation, open_segmentation
from models.networks.framework import keras, tf
from models.networks.segmentation import segmentation_head
from models.registry import Version, locate_version, open_registry
from models.registry.manifest import FileEntry, ScorerEntry
from models.training.augmentation import augment, move_marks
from models.training.learned_pictures import LearnedPictures, Missing, shorten_checksums
from models.training.marked_pictures import BOX_MARK, MarkedPictures
from models.training.segmentation import SegmentationRecipe, compute_draw_chances, make_mark_loss
from models.training.segmentation_run import SegmentationRun, add_segmentation
from streams.errors import ModelError
from streams.user_cache import sha256_of_file

pytestmark = pytest.mark.real

SIDE_PX = 64
RECIPE = SegmentationRecipe(side_px=SIDE_PX, width=8, steps=60, batch=8, rate=1e-2)


def make_pictures(count: int, seed: int) -> MarkedPictures:
    """Grey pictures with noise. A third shows a white square, a third a black one, and the others are good."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(110, 146, (count, SIDE_PX, SIDE_PX), dtype=np.uint8)
    marks = np.zeros_like(pixels)
    for index in range(count):
        row, column = rng.integers(10, SIDE_PX - 20, 2)
        kind = index % 3
        if kind:
            pixels[index, row : row + 10, column : column + 10] = (250, 5)[kind - 1]
            marks[index, row : row + 10, column : column + 10] = kind
    return MarkedPictures(pixels, marks, ("white", "black"), (Path("a.png"),) * count, tuple(f"{seed}{index:03}" for index in range(count)))


def open_head(version: Version) -> Segmentation:
    head = open_segmentation(version)
    assert head is not None
    return head


def measure_nothing(*_: object) -> dict[str, float]:
    return {"kind_right": 1.0}


def test_a_rare_kind_is_drawn_more_often_for_each_of_its_pictures() -> None:
    marks = np.zeros((125, 4, 4), np.uint8)
    marks[:100, 0, 0] = 1
    marks[100:104, 0] = 2
    marks[100:104, 1, 0] = 1
    marks[104:, 2] = BOX_MARK + 1
    chances = compute_draw_chances(marks, 3)
    assert chances.sum() == pytest.approx(1)
    assert chances[100] == pytest.approx(5 * chances[0])
    assert chances[104] == pytest.approx(chances[0] * (100 / 21) ** 0.5)
    assert (chances[:100] == chances[0]).all()


@pytest.fixture(scope="module")
def tiny(models_root: Path) -> Version:
    return open_registry(models_root).open_version("tiny")


@pytest.fixture(scope="module")
def taught(tiny: Version, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The version `tiny` with a segmentation head that has learned from 36 pictures."""
    run = SegmentationRun(tiny, tmp_path_factory.mktemp("versions"), "taught", RECIPE, 0.2, measure_nothing, "test")
    return run.run(make_pictures(36, 1))


def test_the_head_finds_defects_and_names_their_kind_in_new_pictures(taught: Version) -> None:
    segmentation = open_segmentation(open_registry(taught.folder.parent).open_version("taught"))
    assert segmentation is not None
    pictures = make_pictures(12, 2)
    assert segmentation.name_kinds(pictures.pixels) == [UNKNOWN_KIND, "white", "black"] * 4
    found = [segmentation.compute_defect_map(picture).heat >= 0.5 for picture in pictures.pixels]
    overlaps = [
        (heat & (marks > 0)).sum() / (heat | (marks > 0)).sum() for heat, marks in zip(found, pictures.marks, strict=True) if marks.any()
    ]
    assert np.mean(overlaps) > 0.6


def test_the_new_version_gives_the_same_predictions_and_says_how_its_head_was_trained(tiny: Version, taught: Version) -> None:
    member = taught.manifest.segmentation
    assert member is not None
    assert (member.kinds, member.command, member.figures) == (("white", "black"), "test", {"kind_right": 1.0})
    assert sum(member.pictures.values()) < 36, "a part of the pictures is kept for validation"
    pixels = np.random.default_rng(3).integers(0, 256, (4, 64, 64), dtype=np.uint8)
    old, new = (open_ensemble(version, batch_sizes=(4,)) for version in (tiny, taught))
    assert (old.segmentation is None, new.segmentation is None) == (True, False)
    assert old.predict(pixels) == new.predict(pixels)


JUDGE = """
import sys
import numpy as np
from pathlib import Path
from models.inference.ensemble import open_ensemble
from models.registry import open_registry

folder, runtime, pictures = Path(sys.argv[1]), sys.argv[2], np.load(sys.argv[3])
ensemble = open_ensemble(open_registry(folder.parent).open_version(folder.name), runtime, (1, 4, 16))
print(len(ensemble.predict(pictures)), *ensemble.segmentation.name_kinds(pictures))
print("tensorflow" in sys.modules or "keras" in sys.modules)
"""


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
def test_a_version_with_a_head_is_judged_without_tensorflow_by_the_other_runtimes(taught: Version, runtime: str, tmp_path: Path) -> None:
    pictures = make_pictures(12, 2).pixels
    np.save(tmp_path / "pictures.npy", pictures)
    by_tensorflow, exported = open_segmentation(taught), open_segmentation(taught, runtime)
    assert by_tensorflow is not None
    assert exported is not None
    assert np.abs(by_tensorflow.predict(pictures) - exported.predict(pictures)).max() < 1e-4
    open_ensemble(taught, runtime, (1, 4, 16))  # converts the networks, which needs TensorFlow once
    judge: list[str | Path] = [sys.executable, "-c", JUDGE, taught.folder, runtime, tmp_path / "pictures.npy"]
    judged = subprocess.run(judge, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert judged[-2:] == [f"12 {' '.join(by_tensorflow.name_kinds(pictures))}", "False"]


def test_grad_cam_takes_over_where_the_head_sees_nothing(tiny: Version, taught: Version) -> None:
    mapper = open_heat_mapper(taught)
    assert isinstance(mapper, SegmentationFirst)
    good, white, _ = make_pictures(3, 4).pixels
    assert [mapper.compute_defect_map(picture).method for picture in (good, white)] == ["grad-cam", "segmentation"]
    member = taught.manifest.segmentation
    assert member is not None
    poor = member.model_copy(update={"figures": {"pointing": 0.5}})
    mapper = open_heat_mapper(Version(taught.folder, taught.manifest.model_copy(update={"segmentation": poor})))
    assert mapper is not None
    assert mapper.compute_defect_map(white).method == "grad-cam", "a head that points badly makes no heat maps"
    before = open_heat_mapper(tiny)
    assert before is not None
    assert before.compute_defect_map(white).method == "grad-cam"


def test_a_head_and_a_scorer_make_one_heat_map_which_the_evaluation_measures_too(taught: Version, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shutil.copytree(taught.folder, folder)
    template = GoldenTemplate(PolarGrid(16, 64, 0.05, 1.12), np.ones((2, 16), np.float32), np.full((2, 2, 16), 3, np.float32), SIDE_PX)
    figures = {"cut_off": 1.0, "alarm_share": 0.01, "highest_alarm_share": 0.1, "good_pictures": 20}
    scorer = ScorerEntry.model_validate({"name": template.name, "files": template.save(folder), "side_px": SIDE_PX} | figures)
    files = {file: FileEntry(sha256=sha256_of_file(folder / file), bytes=(folder / file).stat().st_size) for file in scorer.files}
    version = Version(folder, taught.manifest.model_copy(update={"scorers": (scorer,), "files": taught.manifest.files | files}))
    assert isinstance(open_heat_mapper(version), ResidualMapper), "the head was never measured"
    member = taught.manifest.segmentation
    assert member is not None
    measured = member.model_copy(update={"figures": {"pointing": 0.6}})
    version = Version(folder, version.manifest.model_copy(update={"segmentation": measured}))
    mapper = open_heat_mapper(version)
    assert isinstance(mapper, CombinedMapper)
    white = make_pictures(2, 4).pixels[1]
    sources = {source.name: source for source in open_heat_sources(version)}
    assert list(sources) == ["grad-cam", "segmentation", "segmentation+residual", "residual of golden-template"]
    assert np.allclose(sources["segmentation+residual"].compute(white), mapper.compute_defect_map(white).heat)
    poor = member.model_copy(update={"figures": {"pointing": 0.4}})
    assert isinstance(open_heat_mapper(Version(folder, version.manifest.model_copy(update={"segmentation": poor}))), ResidualMapper)


@pytest.mark.usefixtures("without_graphs")
def test_a_first_head_begins_with_the_weights_of_the_start_version(tiny: Version, taught: Version, tmp_path: Path) -> None:
    """After one batch with a tiny learning rate, a head still finds what the head of the start version finds."""
    recipe = replace(RECIPE, steps=1, rate=1e-9)
    started = SegmentationRun(tiny, tmp_path, "started", recipe, 0.2, measure_nothing, "test", taught).run(make_pictures(36, 1))
    random = SegmentationRun(tiny, tmp_path, "random", recipe, 0.2, measure_nothing, "test").run(make_pictures(36, 1))
    white = make_pictures(2, 4).pixels[1]
    hottest = [float(open_head(version).compute_defect_map(white).heat.max()) for version in (taught, started, random)]
    assert hottest[0] > 0.9
    assert hottest[1] == pytest.approx(hottest[0], abs=0.1)
    assert hottest[2] < hottest[0] - 0.2, "a head with new weights has learned nothing yet"


@pytest.mark.usefixtures("without_graphs")
def test_pictures_that_the_first_head_has_learned_do_not_validate_the_next_head(taught: Version, tmp_path: Path) -> None:
    member = taught.manifest.segmentation
    assert member is not None
    learned = LearnedPictures.load(taught, member.learned).checksums
    assert len(learned) == sum(member.pictures.values())
    measured: list[str] = []

    def measure(_: Segmentation, pictures: MarkedPictures) -> dict[str, float]:
        measured.extend(pictures.checksums)
        return {"pointing": 1.0}

    recipe = replace(RECIPE, steps=1, seed=4)
    version = SegmentationRun(taught, tmp_path, "next", recipe, 0.4, measure, "test").run(make_pictures(36, 1))
    assert measured
    assert not np.isin(shorten_checksums(measured), learned).any()
    next_member = version.manifest.segmentation
    assert next_member is not None
    assert set(LearnedPictures.load(version, next_member.learned).checksums) >= set(learned)
    assert version.manifest.warnings == ()
    pictures = make_pictures(36, 1)
    known = pictures.select(np.isin(shorten_checksums(pictures.checksums), learned))
    with pytest.raises(ModelError, match=f"has already learned {len(known)} of the {len(known)} pictures"):
        SegmentationRun(taught, tmp_path, "none", recipe, 0.2, measure, "test").run(known)


@pytest.mark.usefixtures("without_graphs")
def test_a_first_head_of_an_older_release_leaves_a_warning_with_the_figures_of_the_next_head(taught: Version, tmp_path: Path) -> None:
    member = taught.manifest.segmentation
    assert member is not None
    older = Version(taught.folder, taught.manifest.model_copy(update={"segmentation": member.model_copy(update={"learned": None})}))
    recipe, pictures = replace(RECIPE, steps=1), make_pictures(36, 2)
    measured = SegmentationRun(older, tmp_path, "second", recipe, 0.3, measure_nothing, "test").run(pictures)
    (warning,) = measured.manifest.all_warnings
    assert "not known which pictures the segmentation head of version taught has learned" in warning
    assert "the figures of the new segmentation head are too good" in warning
    unmeasured = SegmentationRun(measured, tmp_path, "third", recipe, 0, measure_nothing, "test").run(pictures)
    assert unmeasured.manifest.all_warnings == (), "no figure was measured, so none can be too good"
    for version in (measured, unmeasured):
        assert version.manifest.segmentation is not None
        entry = version.manifest.segmentation.learned
        assert entry is not None
        assert (entry.is_complete, entry.misses_only_rendered) == (False, False)


def test_a_head_that_comes_with_castline_has_learned_only_rendered_pictures(taught: Version, tmp_path: Path) -> None:
    demo = locate_version("demo")
    shutil.copytree(demo.folder, tmp_path / "copy")
    fields = json.loads((tmp_path / "copy/manifest.json").read_text()) | {"version": "copy"}
    (tmp_path / "copy/manifest.json").write_text(json.dumps(fields))
    for version in (demo, open_registry(tmp_path).open_version("copy")):
        first = SegmentationRun(version, tmp_path, "next", RECIPE, 0.3, measure_nothing, "test").find_first_head()
        assert first is not None
        assert first.learned.missing is Missing.RENDERED
        assert first.describe_unknown_pictures(rendered=0) == ()
        assert len(first.describe_unknown_pictures(rendered=1)) == 1
    assert taught.manifest.segmentation is not None
    assert taught.manifest.segmentation.learned is not None
    assert taught.manifest.segmentation.learned.is_complete


def test_too_few_marks_and_an_existing_version_are_refused_before_the_training(tiny: Version, taught: Version) -> None:
    root = taught.folder.parent
    with pytest.raises(ModelError, match="only 4 pictures"):
        SegmentationRun(tiny, root, "new", RECIPE, 0.2, measure_nothing, "test").run(make_pictures(6, 1))
    with pytest.raises(ModelError, match="never changed"):
        SegmentationRun(tiny, root, "taught", RECIPE, 0.2, measure_nothing, "test").run(make_pictures(36, 1))
    assert not (root / "new").exists()


def test_a_head_that_does_not_fit_its_manifest_is_named(taught: Version, tmp_path: Path) -> None:
    member = taught.manifest.segmentation
    assert member is not None
    wrong = member.model_copy(update={"kinds": (*member.kinds, "third")})
    version = add_segmentation(taught, tmp_path, "wrong", segmentation_head(2, SIDE_PX, 8), member)
    broken = Version(version.folder, version.manifest.model_copy(update={"segmentation": wrong}))
    with pytest.raises(ModelError, match=r"segmentation\.weights\.h5 does not contain the weights of a segmentation head of 3 kinds"):
        open_segmentation(broken)


def test_marks_are_moved_as_their_pictures_are() -> None:
    marks = np.zeros((4, SIDE_PX, SIDE_PX, 1), np.uint8)
    marks[:, 20:40, 12:30] = 2
    seed = tf.constant([3, 8])
    moved = move_marks(tf.constant(marks), seed).numpy()
    picture = augment(tf.constant(marks, tf.float32) / 2, seed).numpy()
    assert set(np.unique(moved)) == {0, 2}
    assert ((moved > 0) != (picture > 0.5)).mean() < 0.01
    assert (moved != marks).mean() > 0.05


def test_one_place_in_a_box_is_enough_and_an_empty_box_is_not() -> None:
    marks = np.zeros((1, 16, 16, 1), np.uint8)
    marks[0, 4:12, 4:12] = BOX_MARK
    nothing = np.full((1, 16, 16, 3), (0.98, 0.01, 0.01), np.float32)
    inside, outside = nothing.copy(), nothing.copy()
    inside[0, 6:8, 6:8], outside[0, 1:3, 1:3] = (0.02, 0.96, 0.02), (0.02, 0.96, 0.02)
    compute = make_mark_loss(2)
    losses = [float(compute(tf.constant(marks), tf.constant(probabilities, tf.float32))) for probabilities in (inside, nothing, outside)]
    assert losses[0] + 0.5 < losses[1] < losses[2]


@pytest.mark.parametrize(("kinds", "side_px"), [(0, 64), (2, 60)])
def test_a_head_without_kinds_or_of_a_side_that_cannot_be_halved_is_refused(kinds: int, side_px: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        segmentation_head(kinds, side_px)


def test_the_head_is_small() -> None:
    network: keras.Model = segmentation_head(6, 160)
    assert network.count_params() * 4 < 2**20
