"""Trains one network of the ensemble with Keras' `fit`.

After a stop, the checkpoint of the last epoch lets the training continue exactly as if it had not been stopped.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.runtimes.runtime import has_bfloat16
from models.networks.framework import keras, tf
from models.networks.preprocessing import resample, scale_pixels
from models.training.augmentation import augment
from models.training.options import NetworkRecipe
from streams.atomic_file import write_atomically
from streams.errors import ModelError

# The learning rate rises over this share of all steps, because the first gradients of an untrained network are large.
WARM_UP_SHARE = 0.05
# The learning rate begins at this share of its highest value.
FIRST_RATE_SHARE = 0.02
# The learning rate ends at this share of its highest value.
LAST_RATE_SHARE = 1e-3
# Longer gradients are cut to this norm. Without the cut, AlexNet's first steps end in weights that never recover.
MAX_GRADIENT_NORM = 1.0
VALIDATION_BATCH = 64

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Holds losses (cross-entropy in nats) and accuracies (0..1) after one epoch. `number` counts the epochs from 1."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a training of one network needs to go on after a stop.

    `variables` and `optimiser` hold the values after the last epoch, `best` the variables to be used if the training ends here.
    """

    variables: list[Array]
    optimiser: list[Array]
    best: list[Array]
    history: list[EpochResult]

    def save(self, path: Path) -> None:
        """Writes an `.npz` file. If the disk is full, the file of the epoch before stays as it was."""
        arrays: dict[str, Array] = {}
        for name in ("variables", "optimiser", "best"):
            arrays |= {f"{name}.{index}": array for index, array in enumerate(getattr(self, name))}
        history = json.dumps([asdict(epoch) for epoch in self.history])
        arrays["history"] = np.frombuffer(history.encode(), np.uint8)
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads the file that `save` wrote. Raises ModelError if the file is damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                history = [EpochResult(**fields) for fields in json.loads(arrays["history"].tobytes())]
                return cls(_numbered(arrays, "variables"), _numbered(arrays, "optimiser"), _numbered(arrays, "best"), history)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ModelError(f"Cannot read the training checkpoint {path}: {error}. Delete the file to train this network anew.") from error


def save_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Writes `arrays` as an `.npz` file. A crash or a full disk leaves the old file or none, never a part of the new one."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class SplitPictures:
    """Holds the pictures that train a network and those that validate it.

    `pixels` has shape (n, side, side), uint8; `labels` (n,); `validates` (n,) is True for validation pictures. `repeats`, shape (n,),
    says how often an epoch learns from each picture. None means once.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    validates: npt.NDArray[np.bool_]
    repeats: npt.NDArray[np.int32] | None = None

    @property
    def training_indices(self) -> npt.NDArray[np.int64]:
        """Indices of the training pictures. A picture that an epoch repeats has its index several times."""
        indices = np.flatnonzero(~self.validates)
        return indices if self.repeats is None else np.repeat(indices, self.repeats[indices])


# Receives the batches done, the batches of all epochs, the results of all epochs so far, and whether an epoch has just ended.
OnProgress = Callable[[int, int, Sequence[EpochResult], bool], None]


@dataclass(frozen=True)
class Trainer:
    """Trains one Keras network on labelled pictures, with the batch size, epochs and learning rate of a recipe."""

    network: keras.Model
    pictures: SplitPictures
    recipe: NetworkRecipe

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch. Pictures that do not fill the last batch are left out, in every epoch other ones."""
        return max(1, len(self.pictures.training_indices) // self.recipe.batch)

    @property
    def total_steps(self) -> int:
        """Batches of all epochs."""
        return self.recipe.epochs * self.steps_per_epoch

    def fit(self, checkpoint_path: Path, on_progress: OnProgress) -> Checkpoint:
        """Trains until the last epoch, or until `patience` epochs brought no better validation loss, and returns the last checkpoint.

        A checkpoint at `checkpoint_path` is continued; a new one is written there after each epoch. Afterwards the network has the
        weights of the last epoch, or, if patience ended the training, those of the lowest validation loss.

        Lets KeyboardInterrupt through, from `on_progress` too. The checkpoint of the last whole epoch then stays on disk.
        """
        optimiser = self._optimiser()
        optimiser.build(self.network.trainable_variables)
        checkpoint = self._restore(checkpoint_path, optimiser)
        checkpointing = _CheckpointCallback(self, checkpoint_path, checkpoint, on_progress)
        if not self.is_finished(checkpoint.history):
            pictures = self.pictures
            # XLA is off because on a processor an epoch takes about twice as long with it (docs/RESULTS.md).
            self.network.compile(optimiser, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
            self.network.fit(
                self._training_data(len(checkpoint.history)),
                validation_data=_validation_data(self.network, pictures.pixels[pictures.validates], pictures.labels[pictures.validates]),
                steps_per_epoch=self.steps_per_epoch,
                initial_epoch=len(checkpoint.history),
                epochs=self.recipe.epochs,
                class_weight=balance_classes(pictures.labels[pictures.training_indices]),
                callbacks=[checkpointing],
                # The data set has shuffled the pictures already.
                shuffle=False,
                verbose=0,
            )
        _assign(self.network.variables, checkpointing.checkpoint.best)
        return checkpointing.checkpoint

    def restore_best(self, checkpoint_path: Path) -> bool:
        """Gives the network the best weights of the checkpoint. Returns False if there is no checkpoint yet."""
        if not checkpoint_path.exists():
            return False
        _assign(self.network.variables, Checkpoint.load(checkpoint_path).best)
        return True

    def is_finished(self, history: Sequence[EpochResult]) -> bool:
        """Returns whether all epochs are over, or the best one was `patience` epochs ago. A patience of 0 never ends a training."""
        if not history:
            return False
        best = min(history, key=lambda epoch: epoch.validation_loss).number
        return len(history) >= self.recipe.epochs or 0 < self.recipe.patience <= len(history) - best

    def _optimiser(self) -> keras.Optimizer:
        highest = self.recipe.rate
        warm_up_steps = max(1, round(WARM_UP_SHARE * self.total_steps))
        schedule = keras.optimizers.schedules.CosineDecay(
            FIRST_RATE_SHARE * highest,
            max(1, self.total_steps - warm_up_steps),
            alpha=LAST_RATE_SHARE,
            warmup_target=highest,
            warmup_steps=warm_up_steps,
        )
        return keras.optimizers.AdamW(schedule, weight_decay=self.recipe.weight_decay, global_clipnorm=MAX_GRADIENT_NORM)

    def _restore(self, path: Path, optimiser: keras.Optimizer) -> Checkpoint:
        if not path.exists():
            return Checkpoint([], [], _arrays(self.network.variables), [])
        checkpoint = Checkpoint.load(path)
        values = checkpoint.optimiser
        if len(values) == len(optimiser.variables) + 1:
            # Release 0.1.0 kept the learning rate as the optimiser's second variable. Now the schedule computes the rate from the step.
            values = [values[0], *values[2:]]
        _assign(self.network.variables, checkpoint.variables)
        _assign(optimiser.variables, values)
        return checkpoint

    def _training_data(self, first_epoch: int) -> tf.data.Dataset:
        """Returns batches (pixels 0..1, labels) of all epochs from `first_epoch` (counted from 0) on, the same after every restart."""
        network, turned = self.network, self.recipe.turned
        pixels, labels = tf.constant(self.pictures.pixels), tf.constant(self.pictures.labels)

        def prepare(chosen: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            grey = resample(scale_pixels(tf.gather(pixels, chosen)), network)
            return augment(grey, seed, turned), tf.gather(labels, chosen)

        signature = (tf.TensorSpec((self.recipe.batch,), tf.int64), tf.TensorSpec((2,), tf.int32))
        batches = tf.data.Dataset.from_generator(lambda: self._batches(first_epoch), output_signature=signature)
        return batches.map(prepare, num_parallel_calls=2, deterministic=True).prefetch(4)

    def _batches(self, first_epoch: int) -> Iterator[tuple[npt.NDArray[np.int64], list[int]]]:
        """Yields the picture indices and the augmentation's seed of each batch."""
        seed, batch = self.recipe.seed, self.recipe.batch
        for number in range(first_epoch + 1, self.recipe.epochs + 1):
            order = np.random.default_rng([seed, number]).permutation(self.pictures.training_indices)
            if len(order) < batch:
                order = np.resize(order, batch)
            for step in range(self.steps_per_epoch):
                # The augmentation of each batch uses up to four consecutive seeds.
                yield order[step * batch : (step + 1) * batch], [seed, number * 2**16 + step * 4]


class _CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras comes without types
    """Writes a checkpoint after each epoch, reports progress, and ends the training when patience is used up.

    Keras' BackupAndRestore cannot take this place, because the callback also keeps the history and the best weights.
    """

    def __init__(self, trainer: Trainer, path: Path, checkpoint: Checkpoint, on_progress: OnProgress) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self._trainer = trainer
        self._path = path
        self._on_progress = on_progress

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        done = len(self.checkpoint.history) * self._trainer.steps_per_epoch + batch + 1
        self._on_progress(done, self._trainer.total_steps, self.checkpoint.history, False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        result = EpochResult(epoch + 1, *(float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")))
        before, network = self.checkpoint, self._trainer.network
        # The weights after the last epoch, when the learning rate is nearly 0, judge better than those of the lowest validation loss.
        is_last = result.number == self._trainer.recipe.epochs
        is_best = is_last or all(result.validation_loss < earlier.validation_loss for earlier in before.history)
        variables = _arrays(network.variables)
        self.checkpoint = Checkpoint(
            variables, _arrays(network.optimizer.variables), variables if is_best else before.best, [*before.history, result]
        )
        self.checkpoint.save(self._path)
        self._on_progress(result.number * self._trainer.steps_per_epoch, self._trainer.total_steps, self.checkpoint.history, True)
        if self._trainer.is_finished(self.checkpoint.history):
            network.stop_training = True


def predict(network: keras.Model, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns the probabilities of `network`, shape (n, classes), for `pixels`, shape (n, side, side)."""
    signature = [tf.TensorSpec((None, *pixels.shape[1:]), tf.uint8)]
    compute = tf.function(
        lambda some: network(resample(scale_pixels(some), network), training=False), input_signature=signature, autograph=False
    )
    starts = range(0, len(pixels), VALIDATION_BATCH)
    return np.concatenate([compute(tf.constant(pixels[start : start + VALIDATION_BATCH])).numpy() for start in starts])


def fastest_precision() -> str:
    """Returns "mixed_bfloat16" on a GPU or a processor with bfloat16 units, where training is faster with it, else "float32"."""
    return "mixed_bfloat16" if has_bfloat16() or tf.config.list_physical_devices("GPU") else "float32"


def balance_classes(labels: npt.NDArray[np.int32]) -> dict[int, float]:
    """Returns a weight for each class, such that all classes count the same in the loss, however many pictures each has."""
    counts = np.bincount(labels)
    return {label: float(len(labels) / (len(counts) * max(1, count))) for label, count in enumerate(counts)}


def _validation_data(network: keras.Model, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32]) -> tf.data.Dataset:
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(VALIDATION_BATCH)
    return batches.map(lambda some, truth: (resample(scale_pixels(some), network), truth), num_parallel_calls=2).prefetch(2)


def _numbered(arrays: Any, name: str) -> list[Array]:
    found: list[Array] = []
    while f"{name}.{len(found)}" in arrays:
        found.append(arrays[f"{name}.{len(found)}"])
    return found


def _arrays(variables: Sequence[Any]) -> list[Array]:
    return [np.array(variable) for variable in variables]


def _assign(variables: Sequence[Any], arrays: list[Array]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
