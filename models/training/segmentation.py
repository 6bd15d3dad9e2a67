"""Trains the segmentation head from masks, which show the exact pixels of each defect, and from boxes around defects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.networks.framework import keras, tf
from models.networks.preprocessing import scale_pixels
from models.networks.segmentation import segmentation_head
from models.registry.manifest import SegmentationMember
from models.training.augmentation import augment, move_marks
from models.training.marked_pictures import BOX_MARK, MarkedPictures

# This share of the pictures in each batch shows marked defects. If all pictures had the same chance, most batches would show only good
# castings.
DEFECT_SHARE = 0.6
# In the loss, a pixel of a defect has this weight, because defects cover only about 1 % of the pixels. Other pixels have the weight 1.
DEFECT_WEIGHT = 4.0
KIND_WEIGHT = 0.5
# The learning rate rises during this share of all batches, at the start of the training.
WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0
WEIGHTS_FILE = "segmentation.weights.h5"


@dataclass(frozen=True, slots=True)
class SegmentationRecipe:
    """Hyperparameters for training a segmentation head.

    A training always has `steps` batches of `batch` pictures. `rate` is the highest learning rate of AdamW.
    """

    side_px: int = 192
    width: int = 16
    steps: int = 2000
    batch: int = 16
    rate: float = 2e-3
    weight_decay: float = 1e-3
    turned: str = "free"
    handed: bool = False
    seed: int = 1


def train_segmentation(
    pictures: MarkedPictures,
    recipe: SegmentationRecipe,
    start: keras.Model | None = None,
    on_step: Callable[[int, int, float], object] = lambda done, total, loss: None,
) -> keras.Model:
    """Returns a segmentation head that was trained on `pictures`. The pictures must have the side `recipe.side_px`.

    `start` is a segmentation head whose weights are used for the start of the training. If `start` knows another number of kinds of defect,
    the last layer begins with random weights instead.

    `on_step` gets the number of finished batches, the number of all batches and the loss.
    """
    keras.utils.set_random_seed(recipe.seed)
    network = segmentation_head(len(pictures.kinds), recipe.side_px, recipe.width)
    if start is not None:
        copy_weights(start, network)
    warm_up = max(1, round(WARM_UP_SHARE * recipe.steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.02 * recipe.rate, max(1, recipe.steps - warm_up), alpha=1e-3, warmup_target=recipe.rate, warmup_steps=warm_up
    )
    optimiser = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=MAX_GRADIENT_NORM)
    network.compile(optimiser, make_mark_loss(len(pictures.kinds)), jit_compile=False)
    report = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: on_step(batch + 1, recipe.steps, float(logs["loss"])))
    network.fit(_batches(pictures, recipe), steps_per_epoch=recipe.steps, epochs=1, callbacks=[report], shuffle=False, verbose=0)
    return network


def describe_member(pictures: MarkedPictures, recipe: SegmentationRecipe, command: str) -> SegmentationMember:
    """Returns the manifest's entry for a segmentation head that is trained on `pictures`. `command` is the command of the training."""
    has_mask, is_good = int(pictures.has_mask.sum()), int(pictures.is_good.sum())
    return SegmentationMember(
        weights_file=WEIGHTS_FILE,
        side_px=recipe.side_px,
        width=recipe.width,
        kinds=pictures.kinds,
        pictures={"with masks": has_mask, "with boxes": len(pictures) - has_mask - is_good, "good": is_good},
        command=command,
    )


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights of each layer in `source` to the layer with the same name in `target`.

    If the weights of the two layers have different shapes, the layer in `target` keeps its own weights.
    """
    for layer in target.layers:
        weights = source.get_layer(layer.name).get_weights()
        if [array.shape for array in weights] == [array.shape for array in layer.get_weights()]:
            layer.set_weights(weights)


def make_mark_loss(kinds: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function that computes the loss of predicted probabilities for the marks of pictures (see `MarkedPictures`).

    Shapes: probabilities (n, side, side, 1 + kinds), marks (n, side, side, 1). The loss is a sum of four terms. Terms 1 and 2
    treat all kinds of defect as one kind, and leave out the pixels in boxes.

    1. The mean cross-entropy in nats. Defects have the weight DEFECT_WEIGHT.
    2. One minus the Dice coefficient (Milletari, Navab, Ahmadi, V-Net, 3DV 2016, section 3).
    3. For the kind of each defect pixel, the mean cross-entropy times KIND_WEIGHT. Without this term, kinds would hardly be learned.
    4. For each box, the cross-entropy of the highest probabilities in the box (multiple instance learning, Ilse, Tomczak, Welling, ICML
       2018).
    """

    def compute(marks: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        marks = tf.cast(marks[..., 0], tf.int32)
        logs = tf.math.log(tf.clip_by_value(probabilities, 1e-6, 1.0))
        is_exact = marks < BOX_MARK
        exact = tf.cast(is_exact, tf.float32)
        is_defect = exact * tf.cast(marks > 0, tf.float32)
        defect = 1 - probabilities[..., 0]
        log_defect = tf.math.log(tf.clip_by_value(defect, 1e-6, 1.0))
        entropy = -tf.reduce_sum((exact - is_defect) * logs[..., 0] + DEFECT_WEIGHT * is_defect * log_defect)
        overlap = 2 * tf.reduce_sum(defect * is_defect) + 1.0
        dice = 1 - overlap / (tf.reduce_sum(exact * defect) + tf.reduce_sum(is_defect) + 1.0)
        wanted = tf.one_hot(tf.where(is_exact, marks, 0), 1 + kinds)
        kind = tf.reduce_sum(is_defect * (log_defect - tf.reduce_sum(wanted * logs, axis=-1)))
        return (
            entropy / tf.maximum(tf.reduce_sum(exact), 1.0)
            + dice
            + KIND_WEIGHT * kind / tf.maximum(tf.reduce_sum(is_defect), 1.0)
            + _box_loss(marks, probabilities)
        )

    def _box_loss(marks: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0.0)
        for number in range(1 + kinds):
            inside = tf.cast(marks == BOX_MARK + number, tf.float32)
            level = inside * (1 - probabilities[..., 0] if number == 0 else probabilities[..., number])
            # Take a weighted mean of the values in a box. The maximum of the values would train only one pixel of the box.
            strength = tf.reduce_sum(level * level, axis=(1, 2)) / tf.maximum(tf.reduce_sum(level, axis=(1, 2)), 1e-6)
            has_box = tf.cast(tf.reduce_any(inside > 0, axis=(1, 2)), tf.float32)
            total -= tf.reduce_sum(has_box * tf.math.log(tf.clip_by_value(strength, 1e-6, 1.0)))
        return total / tf.cast(tf.shape(marks)[0], tf.float32)

    return compute


def compute_draw_chances(marks: npt.NDArray[np.uint8], kinds: int) -> npt.NDArray[np.float64]:
    """Returns the chance that a defective picture is drawn for a batch, shape (n,). The sum is 1. Shape of `marks`: (n, side, side).

    The main kind of a picture is the kind with the most marked pixels. Pictures that only have boxes count as one more kind.

    A picture of a rare kind is drawn more often. The chance is proportional to 1 / sqrt(m) if m pictures have the same main kind. Example:
    if 100 pictures show flash and 25 show scratches, a picture of scratches is drawn twice as often as a picture of flash.
    """
    exact = np.where(marks < BOX_MARK, marks, 0).reshape(len(marks), -1)
    pixels = np.stack([(exact == kind).sum(axis=1) for kind in range(1, 1 + kinds)], axis=1)
    main = np.where(pixels.any(axis=1), pixels.argmax(axis=1), kinds)
    chances: npt.NDArray[np.float64] = 1 / np.sqrt(np.bincount(main, minlength=1 + kinds)[main])
    chances /= chances.sum()
    return chances


def _batches(pictures: MarkedPictures, recipe: SegmentationRecipe) -> tf.data.Dataset:
    """Returns the batches for a training. A batch holds grey levels, 0..1, and a mark for each pixel (see `MarkedPictures`).

    Position, angle and brightness of each picture are changed at random.
    """
    pixels, marks = tf.constant(pictures.pixels), tf.constant(pictures.marks)

    def prepare(chosen: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moved = move_marks(tf.gather(marks, chosen)[..., tf.newaxis], seed, recipe.turned, recipe.handed)
        return augment(scale_pixels(tf.gather(pixels, chosen)), seed, recipe.turned, recipe.handed), moved

    signature = (tf.TensorSpec((recipe.batch,), tf.int64), tf.TensorSpec((2,), tf.int32))
    chosen = tf.data.Dataset.from_generator(lambda: _choose_batches(pictures, recipe), output_signature=signature)
    return chosen.map(prepare, num_parallel_calls=2, deterministic=True).prefetch(4)


def _choose_batches(pictures: MarkedPictures, recipe: SegmentationRecipe) -> Any:
    rng = np.random.default_rng(recipe.seed)
    is_good = pictures.is_good
    good, defective = np.flatnonzero(is_good), np.flatnonzero(~is_good)
    chances = compute_draw_chances(pictures.marks[defective], len(pictures.kinds))
    from_defective = round(DEFECT_SHARE * recipe.batch) if len(good) else recipe.batch
    for step in range(recipe.steps):
        # For each batch, `augment` uses the seeds s, s + 1 and s + 2. The next batch begins at s + 4, so no seed is used twice.
        yield (
            np.concatenate([rng.choice(defective, from_defective, p=chances), _draw(rng, good, recipe.batch - from_defective)]),
            [recipe.seed, 4 * step],
        )


def _draw(rng: np.random.Generator, indices: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return rng.choice(indices, count, replace=len(indices) < count) if count else np.zeros(0, np.int64)
