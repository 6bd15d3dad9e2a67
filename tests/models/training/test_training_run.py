"""A whole training of small networks: the version serves, a stopped training continues exactly, and unfit pictures are refused."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from deploy.cli.main import castline
from models.inference.ensemble import open_ensemble
from models.inference.runtimes.runtime import open_runtime
from models.inference.soft_vote import choose_label
from models.inference.training_index import load_training_index
from models.pictures.decoder import decode_picture
from models.pictures.part_finder import check_part
from models.registry import Version, open_registry
from models.synthetic import render_series, write_castings
from models.training.labelled_pictures import LabelledPictures, find_pictures, read_pictures
from models.training.learned_pictures import LearnedPictures, shorten_checksums
from models.training.options import CUT_OFF_OPTIONS, TrainingOptions
from models.training.trainer import EpochResult
from models.training.training_run import TrainingRun, learn_part
from streams.errors import ModelError
from tests.part_pictures import make_pictures, zoom
from tests.rendered_pictures import camera_pictures, frame_casting, resample

pytestmark = pytest.mark.real

SMALL = TrainingOptions(
    side_px=64,
    lenet_side_px=64,
    lenet_width=1,
    dense_width=16,
    dense_layers=1,
    maps=0.1,
    epochs=2,
    lenet_epochs=2,
    batch=16,
    precision="float32",
    min_steps=0,
    scorer=True,
)
SMALL_ARGUMENTS = [
    "--side",
    "64",
    "--lenet-side",
    "64",
    "--lenet-width",
    "1",
    "--dense-width",
    "16",
    "--dense-layers",
    "1",
    "--maps",
    "0.1",
    "--min-steps",
    "0",
]


@dataclass
class CallbackLog:
    """Collects the epochs of each network. Interrupts the training, as Ctrl-C would, after the network and epoch of `stop_after`."""

    stop_after: tuple[str, int] | None = None
    epochs: dict[str, list[EpochResult]] = field(default_factory=dict)

    def on_picture_read(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def on_pictures_split(self, pictures: LabelledPictures, groups: int, contradicting: int, validation: int) -> None:
        assert 0 < validation < groups <= len(pictures)
        assert 0 <= contradicting <= groups

    def on_training_step(self, network: str, done: int, total: int, epoch: EpochResult | None) -> None:
        assert 0 < done <= total
        if epoch:
            self.epochs.setdefault(network, []).append(epoch)
            if (network, epoch.number) == self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("castings")
    write_castings(root, 60, seed=31)
    (root / "ok_front" / "broken.jpeg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    shutil.copy(sorted((root / "ok_front").glob("*"))[-1], root / "def_front" / "called-both.jpeg")
    return root


@pytest.fixture(scope="module")
def new_castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Castings that the version `trained` has not learned."""
    root = tmp_path_factory.mktemp("new")
    write_castings(root, 60, seed=32)
    return root


@pytest.fixture(scope="module")
def trained(castings: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return TrainingRun(SMALL, (castings,), tmp_path_factory.mktemp("models"), "first", "castline train").run(CallbackLog()).version


def test_a_trained_version_loads_verifies_and_serves_on_every_runtime(trained: Version) -> None:
    loaded = open_registry(trained.folder.parent).open_version("first")
    pixels = np.random.default_rng(1).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    for runtime in ("tensorflow", "tensorflow-bf16"):
        ensemble = open_ensemble(loaded, runtime, batch_sizes=(1, 4, 8))
        assert [set(opinion.votes) for opinion in ensemble.predict(pixels)] == [{"alexnet", "lenet"}] * 5
        assert ensemble.version_name == "first"


def test_a_trained_version_knows_its_part(trained: Version) -> None:
    reference = trained.manifest.part
    assert reference is not None
    good = [resample(pixels) for pixels in camera_pictures(20)]
    assert sum(check_part(pixels, reference).reason == "" for pixels in good) >= 15
    assert all(check_part(pixels, reference).reason for pixels in make_pictures("washer", good, 4))


def test_a_trained_version_has_the_scorer_that_was_asked_for(trained: Version) -> None:
    (entry,) = trained.manifest.scorers
    assert (entry.name, entry.alarm_share) == ("golden-template", 0.05)
    pixels = np.stack([np.asarray(Image.fromarray(pixels).resize((64, 64))) for pixels in camera_pictures(8)])
    predictions = open_ensemble(trained, batch_sizes=(8,)).predict(pixels)
    assert [set(one.scores) for one in predictions] == [{"golden-template"}] * 8
    assert [one.label for one in predictions] == [choose_label(one.rank, trained.manifest.threshold, *band(trained)) for one in predictions]


def test_a_trained_version_finds_its_training_pictures_again(castings: Path, trained: Version) -> None:
    entry = trained.manifest.training_index
    assert entry is not None
    index = load_training_index(trained.file(entry.file).read_bytes())
    assert {picture.class_name for picture in index.pictures} == set(trained.manifest.classes)
    for picture in index.pictures[::9]:
        assert Path(picture.path).is_relative_to(castings)
        pixels = decode_picture(Path(picture.path).read_bytes(), 64).pixels
        assert index.find_nearest(pixels, 1) == ([picture], False)


def band(version: Version) -> tuple[float, float]:
    return version.manifest.band.low, version.manifest.band.high


def test_pictures_without_a_known_part_are_trained_without_a_part_reference(castings: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = read_pictures(find_pictures([castings]), 64)
    assert learn_part(replace(pictures, pixels=np.full_like(pictures.pixels, 99))) is None
    assert "No part reference" in caplog.text


def test_the_part_reference_of_a_training_measures_the_border_of_the_camera_picture(tmp_path: Path) -> None:
    """All parts are so large that the long sides of the picture cut them a little."""
    for number, casting in enumerate(render_series(16, seed=9, defect_share=0.0)):
        (tmp_path / "ok").mkdir(exist_ok=True)
        Image.fromarray(frame_casting(zoom(casting.pixels, 1.3))).save(tmp_path / "ok" / f"{number}.png")
    pictures = read_pictures(find_pictures([tmp_path]), 160)
    learned, of_square = learn_part(pictures), learn_part(replace(pictures, sizes=()))
    assert learned is not None
    assert of_square is not None
    assert learned.most_overhang > 0.1 > of_square.most_overhang


def test_padding_a_batch_changes_no_probability(trained: Version) -> None:
    runtime = open_runtime(trained, "tensorflow", (1, 8))
    pixels = np.random.default_rng(2).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    alone = np.concatenate([runtime.predict(pixels[index : index + 1]) for index in range(5)])
    assert np.allclose(runtime.predict(pixels), alone, atol=1e-5)
    with pytest.raises(ValueError, match="at most 8"):
        runtime.predict(np.zeros((9, 64, 64), np.uint8))


def test_the_training_folder_names_the_split_and_what_could_not_be_read(trained: Version) -> None:
    folder = trained.folder.parent / "first.training"
    cleaning = json.loads((folder / "cleaning.json").read_text())
    assert [Path(bad["path"]).name for bad in cleaning["unreadable"]] == ["broken.jpeg"]
    (group,) = cleaning["contradicting_groups"]
    assert [Path(path).name for path in group["def_front"]] == ["called-both.jpeg"]
    assert len(group["ok_front"]) == 1
    assert {"alexnet.png", "lenet.png", "split.csv", "options.json"} <= {path.name for path in folder.iterdir()}
    curves = json.loads((folder / "lenet.json").read_text())
    assert [epoch["number"] for epoch in curves["epochs"]] == [1, 2]
    assert trained.manifest.data.sha256 == cleaning["fingerprint"]


def test_a_training_stopped_and_resumed_ends_as_one_that_was_not(castings: Path, trained: Version, tmp_path: Path) -> None:
    training = TrainingRun(SMALL, (castings,), tmp_path, "first", "castline train")
    stopped = training.run(CallbackLog(("alexnet", 1)))
    assert stopped.was_interrupted
    assert open_registry(tmp_path).open_version("first").manifest.figures == stopped.version.manifest.figures
    log = CallbackLog()
    resumed = training.run(log, resume=True)
    assert not resumed.was_interrupted
    assert [epoch.number for epoch in log.epochs["alexnet"]] == [2]
    assert "lenet" not in log.epochs
    assert resumed.version.manifest.figures == trained.manifest.figures
    assert resumed.version.manifest.threshold == trained.manifest.threshold


def test_a_training_stopped_before_every_network_had_an_epoch_leaves_no_version(castings: Path, tmp_path: Path) -> None:
    training = TrainingRun(SMALL, (castings,), tmp_path, "first", "castline train")
    with pytest.raises(KeyboardInterrupt):
        training.run(CallbackLog(("lenet", 1)))
    assert open_registry(tmp_path).list_names() == []
    with pytest.raises(ModelError, match="Add --resume"):
        training.run(CallbackLog())


def test_resuming_with_other_options_is_refused_by_their_names(castings: Path, trained: Version) -> None:
    other = TrainingRun(SMALL.model_copy(update={"seed": 9}), (castings,), trained.folder.parent, "first", "castline train")
    with pytest.raises(ModelError, match="to be resumed: seed"):
        other.run(CallbackLog(), resume=True)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"scorer": True, "alarms_per_hour": 5}, "--alarms-per-hour and --parts-per-hour belong together"),
        ({"details": True, "alarms_per_hour": 5, "parts_per_hour": 900, "defect_share": 0.01}, "two objectives for one cut-off"),
        ({"scorer": True, "defect_share": 0.4}, "reviewing every part is cheapest"),
        ({"scorer": True, "alarms_per_hour": 900, "parts_per_hour": 900}, "most or all parts would be sent to review"),
        ({"alarms_per_hour": 5, "parts_per_hour": 900}, "Add --scorer or --details, or leave out --alarms-per-hour and --parts-per-hour"),
        ({"alarm_share": 0.05}, "leave out --alarm-share"),
    ],
)
def test_options_of_a_cut_off_that_cannot_be_used_are_refused_before_pictures_are_read(
    castings: Path, tmp_path: Path, chosen: dict[str, float], message: str
) -> None:
    options = TrainingOptions(**{**SMALL.model_dump(exclude={"scorer", *CUT_OFF_OPTIONS}), **chosen})
    with pytest.raises(ModelError, match=message):
        TrainingRun(options, (castings / "missing",), tmp_path, "refused", "castline train").run(CallbackLog())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_graphs")
def test_a_stopped_training_is_resumed_with_another_cut_off(castings: Path, tmp_path: Path) -> None:
    run = TrainingRun(SMALL, (castings,), tmp_path, "changed", "castline train")
    run.run(CallbackLog(("alexnet", 1)))
    with pytest.raises(ModelError, match="alarms-per-hour and --parts-per-hour belong together"):
        replace(run, options=SMALL.model_copy(update={"alarms_per_hour": 5})).run(CallbackLog(), resume=True)
    resumed = replace(run, options=SMALL.model_copy(update={"alarm_share": 0.25}))
    assert resumed.run(CallbackLog(), resume=True).version.manifest.scorers[0].alarm_share == 0.25


def test_resuming_with_other_pictures_is_refused(castings: Path, trained: Version, tmp_path: Path) -> None:
    folder = trained.folder.with_name(f"{trained.name}.training")
    shutil.copytree(folder, tmp_path / f"{trained.name}.training")
    shutil.copytree(castings, tmp_path / "castings")
    next((tmp_path / "castings" / "ok_front").iterdir()).unlink()
    options = json.loads((folder / "options.json").read_text())
    (tmp_path / f"{trained.name}.training" / "options.json").write_text(json.dumps(options | {"data": [str(tmp_path / "castings")]}))
    with pytest.raises(ModelError, match=r"split\.csv lists the \d+ pictures"):
        TrainingRun(SMALL, (tmp_path / "castings",), tmp_path, trained.name, "").run(CallbackLog(), resume=True)


@pytest.mark.usefixtures("without_graphs")
def test_fine_tuning_goes_on_from_the_weights_of_a_version(castings: Path, new_castings: Path, trained: Version, tmp_path: Path) -> None:
    """At a learning rate near 0, LeNet must predict as before, because it has no running averages that change."""
    still = SMALL.model_copy(update={"start": str(trained.folder), "lenet_epochs": 1, "epochs": 1, "rate": 1e-12, "lenet_rate": 1e-12})
    tuned = TrainingRun(still, (castings, new_castings), tmp_path, "second", "castline train").run(CallbackLog()).version
    pixels = np.random.default_rng(4).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    before, after = (open_runtime(version, "tensorflow", (4,)).predict(pixels)[:, 0] for version in (trained, tuned))
    assert np.allclose(before, after, atol=1e-4)
    assert (trained.manifest.only_rendered, tuned.manifest.only_rendered) == (True, True)
    learned, learned_later = (LearnedPictures.load(version, version.manifest.learned).checksums for version in (trained, tuned))
    checked = shorten_checksums(list_checksums(tuned, "validation"))
    assert len(learned) == len(set(list_checksums(trained, "training")))
    assert len(checked) >= 20
    assert not np.isin(checked, learned).any(), "the start version has learned none of the validation pictures"
    assert set(learned_later) == {*learned, *shorten_checksums(list_checksums(tuned, "training"))}
    assert not any("It is not known which pictures" in warning for warning in tuned.manifest.warnings)


def list_checksums(version: Version, side: str) -> list[str]:
    with (version.folder.with_name(f"{version.name}.training") / "split.csv").open(newline="") as file:
        return [row["sha256"] for row in csv.DictReader(file) if row["side"] == side]


@pytest.mark.usefixtures("without_graphs")
def test_fine_tuning_of_a_version_of_an_older_release_warns_and_so_does_that_of_its_successor(
    castings: Path, new_castings: Path, trained: Version, tmp_path: Path
) -> None:
    """The older release did not record which pictures it learned."""
    shutil.copytree(trained.folder, tmp_path / "older")
    fields = json.loads((tmp_path / "older/manifest.json").read_text())
    fields["version"] = "older"
    del fields["learned"], fields["files"]["learned-pictures.npz"]
    (tmp_path / "older/manifest.json").write_text(json.dumps(fields))
    (tmp_path / "older/learned-pictures.npz").unlink()
    start = tmp_path / "older"
    for name, data in (("second", castings), ("third", new_castings)):
        options = SMALL.model_copy(update={"start": str(start), "lenet_epochs": 1, "epochs": 1, "scorer": False, "seed": 2})
        manifest = TrainingRun(options, (data,), tmp_path, name, "castline train").run(CallbackLog()).version.manifest
        assert any(f"It is not known which pictures version {start.name} has learned" in warning for warning in manifest.warnings)
        assert manifest.learned is not None
        assert not manifest.learned.is_complete
        start = tmp_path / name


def test_one_class_only_is_refused_before_any_training(castings: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ok_front").symlink_to(castings / "ok_front")
    with pytest.raises(ModelError, match="All pictures have the class ok_front"):
        TrainingRun(SMALL, (tmp_path / "data",), tmp_path, "first", "castline train").run(CallbackLog())


def test_refused_pictures_leave_nothing_behind_and_the_same_folder_can_be_used_again(castings: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(castings / "ok_front", data / "ok_front")
    (data / "def_front").mkdir()
    shutil.copy(next((castings / "def_front").iterdir()), data / "def_front")
    with pytest.raises(ModelError, match="Each class needs at least"):
        TrainingRun(SMALL, (data,), tmp_path, "first", "castline train").run(CallbackLog())
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    with pytest.raises(ModelError, match="Found no pictures"):
        TrainingRun(SMALL.model_copy(update={"seed": 9}), (data / "def_front",), tmp_path, "first", "castline train").run(CallbackLog())
    assert not (tmp_path / "first.training").exists()


def test_twenty_good_and_five_defective_pictures_make_a_version_with_warnings(castings: Path, tmp_path: Path) -> None:
    for name in ("ok_front", "def_front"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for path in sorted((castings / "ok_front").glob("casting_*.jpeg"))[:20]:
        (tmp_path / "data" / "ok_front" / path.name).symlink_to(path)
    # Even a small network learns within some steps that noise is no good casting.
    for seed in range(5):
        noise = np.random.default_rng(seed).integers(0, 255, (64, 64)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / "def_front" / f"{seed}.png")
    options = SMALL.model_copy(update={"epochs": 1, "lenet_epochs": 1, "min_steps": 60, "handed": True})
    log = CallbackLog()
    manifest = TrainingRun(options, (tmp_path / "data",), tmp_path, "few", "castline train").run(log).version.manifest
    assert manifest.data.pictures == {"def_front": 5, "ok_front": 20}
    good, defective, *others = manifest.warnings
    assert "only 20 pictures of good castings" in good
    assert "only 5 pictures of defective castings" in defective
    assert "too few to compare weights" in others[0]
    assert manifest.handed
    cleaning = json.loads((tmp_path / "few.training" / "cleaning.json").read_text())
    assert cleaning["warnings"] == [good, defective]
    assert cleaning["handed"]


def test_the_commands_train_evaluate_simulate_and_verify(castings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, runner = tmp_path / "quick", CliRunner()
    monkeypatch.chdir(castings.parent)
    made = runner.invoke(
        castline, ["train", "--data", castings.name, "--out", str(out), "--epochs", "1", "--lenet-epochs", "1", *SMALL_ARGUMENTS]
    )
    assert made.exit_code == 0, made.output
    judged = runner.invoke(
        castline, ["evaluate", "--model", str(out), "--data", str(castings), "--json", "--report", str(tmp_path / "report")]
    )
    assert judged.exit_code == 0, judged.output
    found = json.loads(judged.stdout)
    learned = json.loads((out / "manifest.json").read_text())["learned"]["pictures"]
    # One picture is there twice, and its checksum is stored once.
    assert f"version quick has learned {learned + 1} of the 61 pictures" in judged.stderr
    assert found["figures"]["pictures"] == 61
    assert len(found["unreadable"]) == 1
    assert len(found["strained"]) > 5
    assert "<h2>Confusion</h2>" in (tmp_path / "report" / "report.html").read_text()
    split = str(tmp_path / "quick.training/split.csv")
    simulated = runner.invoke(castline, ["lines", "simulate", "--model", str(out), "--split", split, "--defect-share", "0.01", "--json"])
    assert simulated.exit_code == 0, simulated.output
    assert "has learned" not in simulated.stderr, "the validation pictures"
    assert json.loads(simulated.stdout)["pictures"] == json.loads((out / "manifest.json").read_text())["figures"]["pictures"]
    listed = runner.invoke(castline, ["models", "list", "--root", str(tmp_path), "--json"])
    assert [row["state"] for row in json.loads(listed.stdout)] == ["verified"]
    compared = runner.invoke(castline, ["models", "compare", str(out), str(out), "--data", str(castings), "--json"])
    assert json.loads(compared.stdout)["differences"] == []
    (out / "golden.npz").write_bytes(b"tampered")
    assert runner.invoke(castline, ["models", "list", "--root", str(tmp_path)], standalone_mode=False).return_value == 1


def test_ctrl_c_on_the_command_keeps_the_best_and_resume_goes_on(castings: Path, tmp_path: Path) -> None:
    castline_script = str(Path(sys.executable).with_name("castline"))
    command = [
        castline_script,
        "train",
        "--data",
        str(castings),
        "--out",
        str(tmp_path / "v"),
        "--epochs",
        "400",
        "--patience",
        "400",
        "--lenet-epochs",
        "1",
        *SMALL_ARGUMENTS,
    ]
    state = tmp_path / "v.training" / "alexnet.state.npz"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            # Ten seconds are enough on a quiet machine.
            deadline = time.monotonic() + 140
            while not state.exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=140)
        finally:
            child.kill()
    assert child.returncode == 130, errors
    assert "interrupted: the best so far" in output
    assert open_registry(tmp_path).open_version("v").manifest.figures["pictures"] > 0
    assert state.exists()
