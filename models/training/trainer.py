"""The training of one voter, epoch by epoch, resumable after each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.inference.runtimes.choice import has_bfloat16
from models.inference.runtimes.tensorflow import resampled, scaled
from models.networks.framework import keras, tf
from models.training import checkpoint
from models.training.augmentation import augmented
from models.training.checkpoint import Arrays, Epoch, State

WARM_UP = 0.05  # share of all steps over which the learning rate rises
GRADIENT_NORM = 1.0  # longer gradients are cut: AlexNet's first steps would else throw it off
EXAMINED = 64  # pictures of one validation step

Progress = Callable[[int, int, Epoch | None], None]  # batches done, batches in all, the epoch just ended


@dataclass(frozen=True)
class Lesson:
    """One voter's pictures: `pixels` (n, side, side) uint8, `labels` (n,); the flags say who validates."""

    network: keras.Model
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    validates: npt.NDArray[np.bool_]
    batch: int
    epochs: int
    patience: int
    rate: float
    weight_decay: float
    seed: int
    turned: str = "free"
    repeats: npt.NDArray[np.int32] | None = None  # (n,): how often an epoch learns from each picture; once where absent

    @property
    def learners(self) -> npt.NDArray[np.int64]:
        """Indices of the pictures learned from, each as often as an epoch does so."""
        found = np.flatnonzero(~self.validates)
        return found if self.repeats is None else np.repeat(found, self.repeats[found])

    @property
    def steps(self) -> int:
        """Batches of one epoch; what does not fill the last one is left out, in every epoch others."""
        return max(1, len(self.learners) // self.batch)

    def learn(self, file: Path, progress: Progress, history: list[Epoch]) -> State:
        """Trains until `epochs` or until `patience` is used up; `file` holds the state after every epoch and is resumed from.

        Returns the state whose `best` are the last epoch's weights, or, when patience or an interrupt ended it earlier, those with the
        lowest validation loss; the network has them. `history` is given the epochs of the state that was resumed from. An interrupt
        (KeyboardInterrupt) goes through, `file` is then that of the last whole epoch.
        """
        optimiser = keras.optimizers.AdamW(self.rate, weight_decay=self.weight_decay, global_clipnorm=GRADIENT_NORM)
        optimiser.build(self.network.trainable_variables)
        state = self._resumed(file, optimiser)
        history.extend(state.history)
        step = _step(self.network, optimiser, _class_weights(self.labels[self.learners]))
        compute = _answering(self.network)
        held = tf.constant(self.pixels), tf.constant(self.labels)
        examined, truth = self.pixels[self.validates], self.labels[self.validates]
        while not self.done(state.history):
            number = len(state.history) + 1
            loss, accuracy = self._epoch(number, step, optimiser, held, progress)
            epoch = Epoch(number, loss, accuracy, *_examined(_all_answers(compute, examined), truth))
            # After the last epoch, when the rate has fallen to nothing, the weights judge better than those of the lowest loss.
            better = number == self.epochs or all(epoch.validation_loss < before.validation_loss for before in state.history)
            best = _arrays(self.network.variables) if better else state.best
            state = State(_arrays(self.network.variables), _arrays(optimiser.variables), best, [*state.history, epoch])
            checkpoint.save(file, state)
            progress(number * self.steps, self.epochs * self.steps, epoch)
        _assign(self.network.variables, state.best)
        return state

    def take_best(self, file: Path) -> bool:
        """Gives the network the best weights of the state in `file`; false when there is none yet."""
        if not file.exists():
            return False
        _assign(self.network.variables, checkpoint.load(file).best)
        return True

    def done(self, history: Sequence[Epoch]) -> bool:
        """Whether all epochs are over, or the best one is `patience` epochs ago; with a patience of 0 only the former."""
        if not history:
            return False
        best = min(history, key=lambda epoch: epoch.validation_loss).number
        return len(history) >= self.epochs or 0 < self.patience <= len(history) - best

    def _resumed(self, file: Path, optimiser: keras.Optimizer) -> State:
        if not file.exists():
            return State([], [], _arrays(self.network.variables), [])
        state = checkpoint.load(file)
        _assign(self.network.variables, state.variables)
        _assign(optimiser.variables, state.optimiser)
        return state

    def _epoch(
        self, number: int, step: Any, optimiser: keras.Optimizer, held: tuple[tf.Tensor, tf.Tensor], progress: Progress
    ) -> tuple[float, float]:
        """Loss and accuracy over the pictures as they were learned from."""
        order = np.random.default_rng([self.seed, number]).permutation(self.learners)
        losses, rights = tf.zeros(()), tf.zeros(())
        batches = self._batches(order, number, held)
        for done, (grey, labels) in enumerate(batches, (number - 1) * self.steps):
            optimiser.learning_rate.assign(self.rate * _share(done / (self.epochs * self.steps)))
            loss, right = step(grey, labels)
            losses, rights = losses + loss, rights + right
            progress(done + 1, self.epochs * self.steps, None)
        return float(losses) / self.steps, float(rights) / self.steps

    def _batches(self, order: npt.NDArray[np.int64], number: int, held: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
        pixels, labels = held
        network, seed = self.network, tf.constant([self.seed, number * 2**16], tf.int32)
        if len(order) < self.batch:
            order = np.resize(order, self.batch)

        def prepared(at: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            grey = resampled(scaled(tf.gather(pixels, chosen)), network)
            return augmented(grey, seed + tf.stack([0, tf.cast(at, tf.int32) * 4]), self.turned), tf.gather(labels, chosen)

        data = tf.data.Dataset.from_tensor_slices(order).batch(self.batch, drop_remainder=True).enumerate()
        return data.map(prepared, num_parallel_calls=2, deterministic=True).prefetch(4)


def answers(network: keras.Model, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities of `network` for `pixels`, shape (n, side, side) -> (n, classes)."""
    return _all_answers(_answering(network), pixels)


def _answering(network: keras.Model) -> Any:
    return tf.function(lambda some: network(resampled(scaled(some), network), training=False), autograph=False)


def _all_answers(compute: Any, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    found = []
    for start in range(0, len(pixels), EXAMINED):
        piece = pixels[start : start + EXAMINED]
        filled = np.concatenate([piece, np.zeros((EXAMINED - len(piece), *piece.shape[1:]), np.uint8)])
        found.append(compute(tf.constant(filled)).numpy()[: len(piece)])
    return np.concatenate(found)


def best_precision() -> str:
    """ "mixed_bfloat16" where the machine computes it faster (a GPU, or a processor with bfloat16 units), else "float32"."""
    return "mixed_bfloat16" if has_bfloat16() or tf.config.list_physical_devices("GPU") else "float32"


def _step(network: keras.Model, optimiser: keras.Optimizer, weights: npt.NDArray[np.float32]) -> Any:
    of_class = tf.constant(weights)

    def step(grey: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            found = network(grey, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, found)
            loss = tf.reduce_mean(losses * tf.gather(of_class, labels))
        variables = network.trainable_variables
        optimiser.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        right = tf.cast(tf.argmax(found, axis=1, output_type=tf.int32) == labels, tf.float32)
        return loss, tf.reduce_mean(right)

    return tf.function(step, autograph=False)


def _share(done: float) -> float:
    """Of the learning rate, after `done` (0..1) of all steps."""
    if done < WARM_UP:
        return (done + 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) + 1e-3


def _class_weights(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Every class counts the same in all, however many pictures it has."""
    counts = np.bincount(labels)
    return (len(labels) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def _examined(answers: npt.NDArray[np.float32], truth: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Cross-entropy and accuracy."""
    of_truth = np.clip(answers[np.arange(len(truth)), truth], 1e-7, 1)
    return float(-np.log(of_truth).mean()), float((answers.argmax(axis=1) == truth).mean())


def _arrays(variables: Sequence[Any]) -> Arrays:
    return [np.array(variable) for variable in variables]


def _assign(variables: Sequence[Any], arrays: Arrays) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
