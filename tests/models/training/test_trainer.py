"""The training of one network: which pictures teach, which epoch is kept, and checkpoints that continue exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models.networks.framework import keras, tf
from models.training.augmentation import augment
from models.training.options import NetworkRecipe
from models.training.trainer import Checkpoint, EpochResult, SplitPictures, Trainer, balance_classes
from streams.errors import ModelError

pytestmark = pytest.mark.real

RECIPE = NetworkRecipe(batch=8, epochs=6, patience=0, rate=0.001, weight_decay=0, seed=1)


@dataclass
class ProgressLog:
    """Collects the epochs of a training and the weights after each. Interrupts the training after the epoch `stop_after`."""

    network: keras.Model
    stop_after: int = 0
    history: list[EpochResult] = field(default_factory=list)
    weights: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def __call__(self, done: int, total: int, history: Sequence[EpochResult], is_epoch_end: bool) -> None:
        assert 0 < done <= total
        if is_epoch_end:
            self.history = list(history)
            self.weights[len(history)] = [np.array(variable) for variable in self.network.variables]
            if len(history) == self.stop_after:
                raise KeyboardInterrupt


def make_network(dropout: float = 0.0) -> keras.Model:
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense(2, "softmax", kernel_initializer="zeros")
    return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(dropout), dense])


def make_contradicting_pictures() -> SplitPictures:
    """Returns pictures whose validation labels are the opposite of the training labels, so that each epoch makes validation worse."""
    is_dark = np.arange(64) % 2
    pixels = np.where(is_dark[:, None, None], 40, 200) + np.zeros((64, 8, 8))
    validates = np.arange(64) >= 32
    return SplitPictures(pixels.astype(np.uint8), np.where(validates, 1 - is_dark, is_dark).astype(np.int32), validates)


def test_an_epoch_repeats_pictures_as_given_and_never_learns_from_one_that_validates() -> None:
    pixels, labels, validates = np.zeros((4, 8, 8), np.uint8), np.zeros(4, np.int32), np.array([False, False, True, False])
    pictures = SplitPictures(pixels, labels, validates, repeats=np.array([1, 3, 5, 1], np.int32))
    assert pictures.training_indices.tolist() == [0, 1, 1, 1, 3]
    recipe = NetworkRecipe(batch=2, epochs=1, patience=1, rate=0.1, weight_decay=0, seed=1)
    assert Trainer(keras.Sequential(), pictures, recipe).steps_per_epoch == 2


def test_all_classes_count_the_same_in_the_loss() -> None:
    labels = np.array([0, 0, 0, 1], np.int32)
    weights = balance_classes(labels)
    assert weights[0] * 3 == pytest.approx(weights[1])
    assert sum(weights[label] for label in labels) == pytest.approx(4)


@pytest.mark.parametrize(("patience", "epochs", "kept"), [(0, 6, 6), (6, 6, 6), (2, 3, 1)])
def test_a_complete_training_keeps_its_last_epoch_and_one_out_of_patience_its_best(
    tmp_path: Path, patience: int, epochs: int, kept: int
) -> None:
    network = make_network()
    recipe = NetworkRecipe(batch=8, epochs=6, patience=patience, rate=0.001, weight_decay=0, seed=1)
    log = ProgressLog(network)
    checkpoint = Trainer(network, make_contradicting_pictures(), recipe).fit(tmp_path / "state.npz", log)
    assert [epoch.validation_loss for epoch in log.history] == sorted(epoch.validation_loss for epoch in log.history)
    assert len(log.history) == epochs
    for expected, best, current in zip(log.weights[kept], checkpoint.best, network.variables, strict=True):
        assert np.array_equal(expected, best)
        assert np.array_equal(expected, np.array(current))


@pytest.mark.parametrize("is_of_release_0_1_0", [False, True])
def test_a_stopped_training_continues_exactly(tmp_path: Path, is_of_release_0_1_0: bool) -> None:
    pictures, path = make_contradicting_pictures(), tmp_path / "state.npz"
    complete = make_network(dropout=0.3)
    expected = Trainer(complete, pictures, RECIPE).fit(tmp_path / "complete.npz", ProgressLog(complete))
    stopped = make_network(dropout=0.3)
    with pytest.raises(KeyboardInterrupt):
        Trainer(stopped, pictures, RECIPE).fit(path, ProgressLog(stopped, stop_after=2))
    if is_of_release_0_1_0:
        state = Checkpoint.load(path)
        step, *moments = state.optimiser
        # Release 0.1.0 wrote the learning rate of the last step between the step and the moments.
        Checkpoint(state.variables, [step, np.array(0.0007, np.float32), *moments], state.best, state.history).save(path)
    resumed = make_network(dropout=0.3)
    log = ProgressLog(resumed)
    checkpoint = Trainer(resumed, pictures, RECIPE).fit(path, log)
    assert sorted(log.weights) == [3, 4, 5, 6]
    assert [asdict(epoch) for epoch in checkpoint.history] == [asdict(epoch) for epoch in expected.history]
    assert all(np.array_equal(left, right) for left, right in zip(checkpoint.variables, expected.variables, strict=True))


def test_the_names_in_a_checkpoint_are_those_of_release_0_1_0(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    Checkpoint([np.ones(3)], [np.zeros(1)], [np.ones(3)], [EpochResult(1, 0.7, 0.5, 0.6, 0.4)]).save(path)
    with np.load(path) as arrays:
        assert set(arrays) == {"variables.0", "optimiser.0", "best.0", "history"}
        (epoch,) = json.loads(arrays["history"].tobytes())
    assert epoch == {"number": 1, "loss": 0.7, "accuracy": 0.5, "validation_loss": 0.6, "validation_accuracy": 0.4}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.state.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match=r"alexnet\.state\.npz"):
        Checkpoint.load(path)


def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(tmp_path: Path) -> None:
    """The kernel refuses to write, because the child process may write 20 kB to a file."""
    path = tmp_path / "state.npz"
    Checkpoint([np.ones(3)], [], [], []).save(path)
    child = f"""
import resource, signal
from pathlib import Path
import numpy as np
from models.training.trainer import save_arrays
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
save_arrays(Path({str(path)!r}), {{"variables.0": np.zeros(100_000)}})
"""
    ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=60, check=False)
    assert "File too large" in ended.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]
    assert np.array_equal(Checkpoint.load(path).variables[0], np.ones(3))


def test_few_pictures_are_repeated_until_there_are_enough_steps() -> None:
    """Twenty-five pictures once trained one step an epoch, and nobody was told."""
    pictures = SplitPictures(np.zeros((25, 8, 8), np.uint8), np.zeros(25, np.int32), np.arange(25) >= 20)
    trainer = Trainer(make_network(), pictures, replace(RECIPE, min_steps=60))
    assert trainer.total_steps == 60
    epoch = [indices for indices, _ in trainer._batches(RECIPE.epochs - 1)]
    assert [len(indices) for indices in epoch] == [8] * 10
    assert np.bincount(np.concatenate(epoch)).tolist() == [4] * 20
    assert Trainer(make_network(), pictures, RECIPE).steps_per_epoch == 2


@pytest.mark.parametrize(("handed", "mirrored"), [(False, True), (True, False)])
def test_pictures_of_handed_parts_are_turned_but_never_mirrored(handed: bool, mirrored: bool) -> None:
    """Of a grey ramp to the right with a white corner, the corner is clockwise of the bright side, unless the picture is mirrored."""
    picture = np.tile(np.linspace(0.2, 0.8, 16, dtype=np.float32), (16, 1))
    picture[12:, 12:] = 0
    pictures = augment(tf.constant(np.repeat(picture[None, :, :, None], 40, axis=0)), tf.constant([1, 2]), "quarter", handed)
    originals, mirrors = (
        np.stack([np.rot90(one, turn) for turn in range(4)]).reshape(4, -1) for one in (picture, np.ascontiguousarray(picture[:, ::-1]))
    )

    def find_best_match(some: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> float:
        return float(max(np.corrcoef(some.ravel(), other)[0, 1] for other in others))

    found = [find_best_match(one, mirrors) > find_best_match(one, originals) for one in np.asarray(pictures)]
    assert any(found) == mirrored
    assert not all(found)
