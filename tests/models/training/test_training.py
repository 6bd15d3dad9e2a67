"""A whole training, small: it learns, goes on exactly where it stopped, and what it wrote serves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deploy.cli.main import castline
from models.inference.runtimes import open_runtime
from models.inference.version_ensemble import open_ensemble
from models.networks.framework import keras
from models.registry import versions as registry
from models.registry.versions import Version
from models.synthetic.folder import write_series
from models.training import checkpoint
from models.training.checkpoint import Epoch
from models.training.collection import Collection
from models.training.options import Options
from models.training.trainer import Lesson
from models.training.training_run import Course
from streams.errors import ModelError

SMALL = Options(
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
)
TINY = ["--side", "64", "--lenet-side", "64", "--lenet-width", "1", "--dense-width", "16", "--dense-layers", "1", "--maps", "0.1"]


@dataclass
class Told:
    """Hears a training; interrupts it, as Ctrl-C would, after `stop_after` epochs of a voter."""

    stop_after: tuple[str, int] | None = None
    epochs: dict[str, list[Epoch]] = field(default_factory=dict)
    unreadable: int = 0

    def reading(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def collected(self, pictures: Collection, groups: int, contradicting: int, validates: int) -> None:
        assert 0 < validates < groups <= len(pictures)
        assert 0 <= contradicting <= groups
        self.unreadable = len(pictures.unreadable)

    def learning(self, voter: str, done: int, total: int, epoch: Epoch | None) -> None:
        assert 0 < done <= total
        if epoch:
            self.epochs.setdefault(voter, []).append(epoch)
            if (voter, epoch.number) == self.stop_after:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("castings")
    write_series(root, 60, seed=31)
    (root / "ok_front" / "broken.jpeg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    shutil.copy(sorted((root / "ok_front").glob("*"))[-1], root / "def_front" / "called-both.jpeg")
    return root


@pytest.fixture(scope="module")
def trained(castings: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    return Course(SMALL, (castings,), tmp_path_factory.mktemp("models"), "first", "castline train").run(Told()).version


def weights(version: Version) -> bytes:
    return version.file("alexnet.weights.h5").read_bytes() + version.file("lenet.weights.h5").read_bytes()


def test_a_trained_version_loads_verifies_and_serves_on_every_runtime(trained: Version) -> None:
    loaded = registry.load(trained.folder.parent, "first")
    pixels = np.random.default_rng(1).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    for runtime in ("tensorflow", "tensorflow-bf16"):
        ensemble = open_ensemble(loaded, runtime, batch_sizes=(1, 4, 8))
        assert [set(opinion.votes) for opinion in ensemble.opinions(pixels)] == [{"alexnet", "lenet"}] * 5
        assert ensemble.version_name == "first"


def test_padding_changes_no_answer(trained: Version) -> None:
    runtime = open_runtime(trained, "tensorflow", (1, 8))
    pixels = np.random.default_rng(2).integers(0, 255, (5, 64, 64)).astype(np.uint8)
    alone = np.concatenate([runtime.predict(pixels[index : index + 1]) for index in range(5)])
    assert np.allclose(runtime.predict(pixels), alone, atol=1e-5)
    with pytest.raises(ValueError, match="at most 8"):
        runtime.predict(np.zeros((9, 64, 64), np.uint8))


def test_the_records_name_the_split_and_what_could_not_be_read(trained: Version) -> None:
    records = trained.folder.parent / "first.training"
    cleaning = json.loads((records / "cleaning.json").read_text())
    assert [Path(bad["path"]).name for bad in cleaning["unreadable"]] == ["broken.jpeg"]
    (called,) = cleaning["contradicting_groups"]
    assert [Path(path).name for path in called["def_front"]] == ["called-both.jpeg"]
    assert len(called["ok_front"]) == 1
    assert {"alexnet.png", "lenet.png", "split.csv", "options.json"} <= {path.name for path in records.iterdir()}
    assert trained.manifest.data.sha256 == cleaning["fingerprint"]


def test_an_epoch_learns_from_each_picture_as_often_as_told_and_never_from_one_that_validates() -> None:
    pixels, labels, validates = np.zeros((4, 8, 8), np.uint8), np.zeros(4, np.int32), np.array([False, False, True, False])
    lesson = Lesson(keras.Sequential(), pixels, labels, validates, 2, 1, 1, 0.1, 0, 1, repeats=np.array([1, 3, 5, 1], np.int32))
    assert lesson.learners.tolist() == [0, 1, 1, 1, 3]
    assert lesson.steps == 2


@pytest.mark.parametrize(("patience", "epochs", "kept"), [(0, 6, 6), (6, 6, 6), (2, 3, 1)])
def test_a_whole_lesson_keeps_its_last_epoch_and_one_out_of_patience_its_best(
    tmp_path: Path, patience: int, epochs: int, kept: int
) -> None:
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax", kernel_initializer="zeros")]
    )
    dark = np.arange(64) % 2
    pixels = np.where(dark[:, None, None], 40, 200) + np.zeros((64, 8, 8))
    validates = np.arange(64) >= 32
    labels = np.where(validates, 1 - dark, dark).astype(np.int32)  # who validates contradicts: each epoch makes it worse
    lesson = Lesson(network, pixels.astype(np.uint8), labels, validates, 8, 6, patience, 0.001, 0, 1)
    at_best, history = {}, []

    def hear(done: int, total: int, epoch: Epoch | None) -> None:
        if epoch:
            history.append(epoch)
            at_best[epoch.number] = [np.array(variable) for variable in network.variables]

    state = lesson.learn(tmp_path / "state.npz", hear, [])
    assert [epoch.validation_loss for epoch in history] == sorted(epoch.validation_loss for epoch in history)
    assert len(history) == epochs
    for array, stored, now in zip(at_best[kept], state.best, network.variables, strict=True):
        assert np.array_equal(array, stored)
        assert np.array_equal(array, np.array(now))


def test_a_training_stopped_and_resumed_ends_as_one_that_was_not(castings: Path, trained: Version, tmp_path: Path) -> None:
    course = Course(SMALL, (castings,), tmp_path, "first", "castline train")
    stopped = course.run(Told(("alexnet", 1)))
    assert stopped.interrupted
    assert registry.load(tmp_path, "first").manifest.figures == stopped.version.manifest.figures  # the best so far is a version
    heard = Told()
    resumed = course.run(heard, resume=True)
    assert not resumed.interrupted
    assert [epoch.number for epoch in heard.epochs["alexnet"]] == [2]
    assert "lenet" not in heard.epochs
    assert resumed.version.manifest.figures == trained.manifest.figures
    assert resumed.version.manifest.threshold == trained.manifest.threshold


def test_a_training_stopped_before_every_network_had_an_epoch_leaves_no_version(castings: Path, tmp_path: Path) -> None:
    course = Course(SMALL, (castings,), tmp_path, "first", "castline train")
    with pytest.raises(KeyboardInterrupt):
        course.run(Told(("lenet", 1)))
    assert registry.names(tmp_path) == []
    with pytest.raises(ModelError, match="add --resume"):
        course.run(Told())


def test_resuming_with_other_options_is_refused_and_they_are_named(castings: Path, trained: Version) -> None:
    other = Course(SMALL.model_copy(update={"seed": 9}), (castings,), trained.folder.parent, "first", "castline train")
    with pytest.raises(ModelError, match="these differ: seed"):
        other.run(Told(), resume=True)


def test_resuming_with_other_pictures_is_refused(castings: Path, trained: Version, tmp_path: Path) -> None:
    records = trained.folder.with_name(f"{trained.name}.training")
    shutil.copytree(records, tmp_path / f"{trained.name}.training")
    shutil.copytree(castings, tmp_path / "castings")
    next((tmp_path / "castings" / "ok_front").iterdir()).unlink()
    options = json.loads((records / "options.json").read_text())
    (tmp_path / f"{trained.name}.training" / "options.json").write_text(json.dumps(options | {"data": [str(tmp_path / "castings")]}))
    with pytest.raises(ModelError, match=r"expected the \d+ pictures of .*split.csv"):
        Course(SMALL, (tmp_path / "castings",), tmp_path, trained.name, "").run(Told(), resume=True)


def test_fine_tuning_goes_on_from_the_weights_of_a_version(castings: Path, trained: Version, tmp_path: Path) -> None:
    """At a learning rate of next to nothing LeNet, which keeps no averages, must answer as before."""
    still = SMALL.model_copy(update={"start": str(trained.folder), "lenet_epochs": 1, "epochs": 1, "rate": 1e-12, "lenet_rate": 1e-12})
    tuned = Course(still, (castings,), tmp_path, "second", "castline train").run(Told()).version
    pixels = np.random.default_rng(4).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    before, after = (open_runtime(version, "tensorflow", (4,)).predict(pixels)[:, 0] for version in (trained, tuned))
    assert np.allclose(before, after, atol=1e-4)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.state.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match=r"alexnet\.state\.npz"):
        checkpoint.load(path)


def test_a_full_disk_leaves_the_state_that_was_there(tmp_path: Path) -> None:
    """The kernel refuses the writing for real: the child may write 20 kB to any file."""
    path = tmp_path / "state.npz"
    before = checkpoint.State([np.ones(3)], [], [], [])
    checkpoint.save(path, before)
    child = f"""
import resource, signal
from pathlib import Path
import numpy as np
from models.training import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
checkpoint.save(Path({str(path)!r}), checkpoint.State([np.zeros(100_000)], [], [], []))
"""
    ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=60, check=False)
    assert "File too large" in ended.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["state.npz"]
    assert np.array_equal(checkpoint.load(path).variables[0], np.ones(3))


def test_one_class_only_is_refused_before_any_learning(castings: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ok_front").symlink_to(castings / "ok_front")
    with pytest.raises(ModelError, match="at least two classes, found only ok_front"):
        Course(SMALL, (tmp_path / "data",), tmp_path, "first", "castline train").run(Told())


def test_the_commands_train_evaluate_and_verify(castings: Path, tmp_path: Path) -> None:
    out, runner = tmp_path / "quick", CliRunner()
    made = runner.invoke(castline, ["train", "--data", str(castings), "--out", str(out), "--epochs", "1", "--lenet-epochs", "1", *TINY])
    assert made.exit_code == 0, made.output
    judged = runner.invoke(
        castline, ["evaluate", "--model", str(out), "--data", str(castings), "--json", "--report", str(tmp_path / "report")]
    )
    assert judged.exit_code == 0, judged.output
    found = json.loads(judged.stdout)
    assert found["figures"]["pictures"] == 61
    assert len(found["unreadable"]) == 1
    assert len(found["strained"]) > 5
    assert "<h2>Confusion</h2>" in (tmp_path / "report" / "report.html").read_text()
    listed = runner.invoke(castline, ["models", "list", "--root", str(tmp_path), "--json"])
    assert [row["state"] for row in json.loads(listed.output)] == ["verified"]
    compared = runner.invoke(castline, ["models", "compare", str(out), str(out), "--data", str(castings), "--json"])
    assert json.loads(compared.stdout)["differences"] == []
    (out / "golden.npz").write_bytes(b"tampered")
    assert runner.invoke(castline, ["models", "list", "--root", str(tmp_path)], standalone_mode=False).return_value == 1


def test_ctrl_c_on_the_command_keeps_the_best_and_resume_goes_on(castings: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("castline"))]
    line = [
        *command,
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
        *TINY,
    ]
    state = tmp_path / "v.training" / "alexnet.state.npz"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            deadline = time.monotonic() + 140  # seconds; a quiet machine needs ten
            while not state.exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            said, complained = child.communicate(timeout=140)
        finally:
            child.kill()
    assert child.returncode == 130, complained
    assert "interrupted: the best so far" in said
    assert registry.load(tmp_path, "v").manifest.figures["pictures"] > 0
    assert state.exists()
