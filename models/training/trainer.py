"""Trains one network of the ensemble with Keras' `fit`.

A checkpoint is written after each epoch. If a training is stopped, it can continue from its last checkpoint. The result is the same as
without the stop.
"""

from __future__ import annotations

import io
import json
import math
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

# During this share of the training steps, the learning rate rises (warm-up). The rate starts low, because the first gradients are large.
WARM_UP_SHARE = 0.05
FIRST_RATE_SHARE = 0.02
LAST_RATE_SHARE = 1e-3
# A gradient with a larger norm is scaled down to this norm. Otherwise AlexNet's first training steps can damage the weights permanently.
MAX_GRADIENT_NORM = 1.0
VALIDATION_BATCH = 64

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Holds the losses (cross-entropy in nats) and accuracies (0..1) of one epoch. `number` counts epochs from 1."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Checkpoint:
    """Holds everything that is needed to continue the training of one network after a stop.

    - `variables`, `optimiser`: the variables of the network and of the optimiser after the last finished epoch.
    - `best`: the variables after the epoch with the lowest validation loss so far. After the last epoch of the recipe, `best` holds the
      variables of the last epoch instead.
    """

    variables: list[Array]
    optimiser: list[Array]
    best: list[Array]
    history: list[EpochResult]

    def save(self, path: Path) -> None:
        """Writes the checkpoint as an `.npz` file. If the disk is full, the previous checkpoint stays unchanged."""
        arrays: dict[str, Array] = {}
        for name in ("variables", "optimiser", "best"):
            arrays |= {f"{name}.{index}": array for index, array in enumerate(getattr(self, name))}
        history = json.dumps([asdict(epoch) for epoch in self.history])
        arrays["history"] = np.frombuffer(history.encode(), np.uint8)
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads a checkpoint that `save` wrote. Raises ModelError if the file is damaged."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                history = [EpochResult(**fields) for fields in json.loads(arrays["history"].tobytes())]
                return cls(_numbered(arrays, "variables"), _numbered(arrays, "optimiser"), _numbered(arrays, "best"), history)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"Cannot read the training checkpoint {path}: {error}. Delete the file to train this network again."
            ) from error


def save_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Writes `arrays` as an `.npz` file. If the program crashes or the disk is full, an older file at `path` stays unchanged."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class SplitPictures:
    """Holds the training and validation pictures of a network.

    - `pixels`: shape (n, side, side), uint8.
    - `labels`: shape (n,).
    - `validates`: shape (n,), True for validation pictures.
    - `repeats`: shape (n,), how often each training picture is used in an epoch. None means once.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    validates: npt.NDArray[np.bool_]
    repeats: npt.NDArray[np.int32] | None = None

    @property
    def training_indices(self) -> npt.NDArray[np.int64]:
        """Indices of the training pictures. If a picture is used several times in an epoch, its index occurs several times."""
        indices = np.flatnonzero(~self.validates)
        return indices if self.repeats is None else np.repeat(indices, self.repeats[indices])


# Called after each batch. Arguments: number of finished batches, number of all batches, results of the epochs so far, and True if an epoch
# has just ended.
OnProgress = Callable[[int, int, Sequence[EpochResult], bool], None]


@dataclass(frozen=True)
class Trainer:
    """Trains one Keras network on labelled pictures, with the batch size, epochs and learning rate of a recipe."""

    network: keras.Model
    pictures: SplitPictures
    recipe: NetworkRecipe

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch. An epoch has only whole batches, so a few pictures, chosen at random, are not used in the epoch.

        If all epochs together would have fewer than `min_steps` batches, an epoch uses each picture several times.
        """
        least = math.ceil(self.recipe.min_steps / self.recipe.epochs)
        return max(1, least, len(self.pictures.training_indices) // self.recipe.batch)

    @property
    def total_steps(self) -> int:
        """Number of batches in all epochs."""
        return self.recipe.epochs * self.steps_per_epoch

    def fit(self, checkpoint_path: Path, on_progress: OnProgress) -> Checkpoint:
        """Trains the network and returns the last checkpoint.

        The training ends after the last epoch, or earlier if the validation loss has not become lower for `patience` epochs. If it ends
        earlier, the network gets the weights with the lowest validation loss.

        A checkpoint is written to `checkpoint_path` after each epoch. If this file exists already, the training continues from it.

        Raises KeyboardInterrupt if `on_progress` raises it, or if the process is interrupted. The checkpoint of the last complete epoch
        then stays on disk.
        """
        optimiser = self._optimiser()
        optimiser.build(self.network.trainable_variables)
        checkpoint = self._restore(checkpoint_path, optimiser)
        checkpointing = _CheckpointCallback(self, checkpoint_path, checkpoint, on_progress)
        if not self.is_finished(checkpoint.history):
            pictures = self.pictures
            # XLA is off. With XLA an epoch takes about twice as long on a processor without GPU (docs/RESULTS.md).
            self.network.compile(optimiser, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
            self.network.fit(
                self._training_data(len(checkpoint.history)),
                validation_data=_validation_data(self.network, pictures.pixels[pictures.validates], pictures.labels[pictures.validates]),
                steps_per_epoch=self.steps_per_epoch,
                initial_epoch=len(checkpoint.history),
                epochs=self.recipe.epochs,
                class_weight=balance_classes(pictures.labels[pictures.training_indices]),
                callbacks=[checkpointing],
                # Keras need not shuffle the pictures, because `_batches` does.
                shuffle=False,
                verbose=0,
            )
        _assign(self.network.variables, checkpointing.checkpoint.best)
        return checkpointing.checkpoint

    def restore_best(self, checkpoint_path: Path) -> bool:
        """Sets the network's weights to the best ones of the checkpoint. Returns False if there is no checkpoint yet."""
        if not checkpoint_path.exists():
            return False
        _assign(self.network.variables, Checkpoint.load(checkpoint_path).best)
        return True

    def is_finished(self, history: Sequence[EpochResult]) -> bool:
        """Returns whether the training must end: all epochs are done, or the last `patience` epochs were not better than an earlier one.

        If `patience` is 0, the training never ends early.
        """
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
            # In checkpoints of release 0.1.0, the second variable is the learning rate. Leave it out, because the learning rate is now
            # computed from the number of the step.
            values = [values[0], *values[2:]]
        _assign(self.network.variables, checkpoint.variables)
        _assign(optimiser.variables, values)
        return checkpoint

    def _training_data(self, first_epoch: int) -> tf.data.Dataset:
        """Returns the batches (pixels 0..1, labels) of all epochs from `first_epoch` on. A resumed training gets the same batches."""
        network, recipe = self.network, self.recipe
        pixels, labels = tf.constant(self.pictures.pixels), tf.constant(self.pictures.labels)

        def prepare(chosen: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            grey = resample(scale_pixels(tf.gather(pixels, chosen)), network)
            return augment(grey, seed, recipe.turned, recipe.handed), tf.gather(labels, chosen)

        signature = (tf.TensorSpec((self.recipe.batch,), tf.int64), tf.TensorSpec((2,), tf.int32))
        batches = tf.data.Dataset.from_generator(lambda: self._batches(first_epoch), output_signature=signature)
        return batches.map(prepare, num_parallel_calls=2, deterministic=True).prefetch(4)

    def _batches(self, first_epoch: int) -> Iterator[tuple[npt.NDArray[np.int64], list[int]]]:
        seed, batch = self.recipe.seed, self.recipe.batch
        for number in range(first_epoch + 1, self.recipe.epochs + 1):
            random, indices = np.random.default_rng([seed, number]), self.pictures.training_indices
            rounds = math.ceil(self.steps_per_epoch * batch / len(indices))
            order = np.concatenate([random.permutation(indices) for _ in range(rounds)])
            for step in range(self.steps_per_epoch):
                # For each batch, `augment` uses the seed s and also s + 1 and s + 2. The next batch gets s + 4, so no seed is used twice.
                yield order[step * batch : (step + 1) * batch], [seed, number * 2**16 + step * 4]


class _CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras comes without types
    """Writes a checkpoint after each epoch, reports progress, and ends the training when `Trainer.is_finished` says so.

    Keras' own callback BackupAndRestore is not enough, because it keeps neither the history nor the best weights.
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
        # The last epoch counts as the best one, even if an earlier epoch had a lower validation loss. The weights of the last epoch are
        # more reliable, because the learning rate is nearly 0 there.
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
    """Returns the class probabilities that `network` gives, shape (n, classes), for `pixels`, shape (n, side, side)."""
    signature = [tf.TensorSpec((None, *pixels.shape[1:]), tf.uint8)]
    compute = tf.function(
        lambda some: network(resample(scale_pixels(some), network), training=False), input_signature=signature, autograph=False
    )
    starts = range(0, len(pixels), VALIDATION_BATCH)
    return np.concatenate([compute(tf.constant(pixels[start : start + VALIDATION_BATCH])).numpy() for start in starts])


def fastest_precision() -> str:
    """Returns the faster precision: "mixed_bfloat16" if there is a GPU or the processor has bfloat16 units, otherwise "float32"."""
    return "mixed_bfloat16" if has_bfloat16() or tf.config.list_physical_devices("GPU") else "float32"


def balance_classes(labels: npt.NDArray[np.int32]) -> dict[int, float]:
    """Returns a weight for each class. The weights give all classes the same influence on the loss, even if some have few pictures."""
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
