"""Scores parts with a memory-augmented adversarial autoencoder (MAA), which learns to rebuild pictures of good parts only.

First, each picture is registered. This means that it is moved and scaled so that the rim of the part is a circle around the middle.

- The score "error" is the mean difference between a picture and the rebuilt picture.
- The score "frechet" compares these differences with those of good parts, ring by ring around the centre. The most unusual ring gives the
  score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, rotate  # type: ignore[import-untyped]  # no stubs

from models.anomaly.scorer import (
    NO_PART_SCORE,
    AnomalyScores,
    Masks,
    PartFinder,
    expect_pixels,
    find_good_parts,
    load_arrays,
    save_arrays,
)
from models.pictures.part_finder import FoundPart, find_part
from streams.atomic_file import write_atomically
from streams.errors import ModelError

if TYPE_CHECKING:
    from models.networks.framework import keras

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]

# In a registered picture, the rim of the part is a circle around the middle of the picture. The circle's radius is this share of the
# picture's side, so the surroundings of the rim stay visible.
RIM_SHARE = 0.42
# Pixels farther from the middle than 1.12 radii of the part are not scored, because they show only the belt.
SCORED_RADII = 1.12
# The part is divided into this many rings around its middle. Each ring has statistics of its own, because the network rebuilds the edges of
# a part less exactly than smooth areas.
RINGS = 24
# A ring is scored only if at least this share of its pixels is inspected. Fewer pixels give no reliable covariance.
MIN_INSPECTED_SHARE = 0.1
# The grey levels (0..1) of every picture are scaled to this mean and standard deviation, so that an ageing lamp changes no score.
NORMAL_MEAN, NORMAL_SPREAD = 0.5, 0.2
# Residuals are smoothed with a Gaussian. Its standard deviation is this share of the picture's side.
# Example: 1 px in a picture of 96 px.
SMOOTHING_SHARE = 1 / 96
# A training uses at least this many pictures. If there are fewer good pictures, each is used several times, at different angles.
LEAST_TURNED_PICTURES = 2048
REBUILDING_BATCH = 64
MAX_DESCRIBED_PICTURES = 1024

Rule = Literal["error", "frechet"]

# Called after each epoch with the number of finished epochs, the number of all epochs, and the epoch's mean losses by name.
OnEpoch = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class AutoencoderRecipe:
    """The hyperparameters with which an autoencoder is built and trained.

    - `prototypes`: size of the memory; 0 means no memory.
    - `adversary_weight`: weight of the discriminator in the loss; 0 means no discriminator.
    - `entropy_weight`: weight of the prototypes' entropy in the loss.
    - `steps`: number of batches in the training.
    - `rate`: the highest learning rate.
    """

    side_px: int = 96
    width: int = 16
    code_channels: int = 32
    prototypes: int = 64
    adversary_weight: float = 1e-3
    entropy_weight: float = 2e-4
    steps: int = 2500
    batch: int = 64
    rate: float = 2e-3
    seed: int = 1


@dataclass(frozen=True)
class ResidualStatistics:
    """Statistics of the residuals of good pictures, for each ring.

    - `spreads`, shape (rings,): the mean absolute residual.
    - `means`, shape (rings, 5), and `covariances`, shape (rings, 5, 5): see `compute_ring_moments`.
    - `distances`, shape (rings,): the mean of the squared Fréchet distances of the good pictures.
    """

    spreads: FloatArray
    means: FloatArray
    covariances: FloatArray
    distances: FloatArray


@dataclass(frozen=True)
class MemoryAutoencoder:
    """Scores parts with a trained autoencoder. Implements `GoodOnlyScorer`.

    - `network`: rebuilds aligned pictures, in which the rim of the part is a circle around the middle. The side of an aligned picture is
      `recipe.side_px`.
    - `side_px`: the side of the pictures before they are aligned.
    - `rule`: the score that the method `score` returns, "error" or "frechet".
    """

    network: keras.Model
    statistics: ResidualStatistics
    recipe: AutoencoderRecipe
    side_px: int
    rule: Rule = "frechet"
    find: PartFinder = find_part

    name: ClassVar[str] = "memory-autoencoder"

    def score(self, pixels: PixelArray) -> AnomalyScores:
        """Scores pictures of shape (n, side_px, side_px), grey levels 0..255. Raises ValueError for another shape.

        A residual of 1 is usual for a good part. A picture without a part has the score NO_PART_SCORE and residuals of 0.
        """
        expect_pixels(pixels, self.side_px)
        scores = np.full(len(pixels), NO_PART_SCORE, np.float32)
        residuals = np.zeros(pixels.shape, np.float32)
        found = [(index, part) for index, picture in enumerate(pixels) if (part := self.find(picture)) is not None]
        if found:
            registered = np.stack([register_part(pixels[index], part, self.recipe.side_px) for index, part in found])
            by_rule, maps = self.score_registered(registered)
            for (index, part), score, residual in zip(found, by_rule[self.rule], maps, strict=True):
                scores[index] = min(score, NO_PART_SCORE)
                residuals[index] = place_residuals(residual, part, self.side_px)
        return AnomalyScores(scores, residuals)

    def score_parts(self, pixels: PixelArray, parts: Sequence[FoundPart], masks: Masks | None = None) -> FloatArray:
        """Returns the scores of `pixels`, shape (n,), without residual maps. `parts` are the outlines of the parts in the pictures.

        `masks` holds a mask for each picture. Only pixels inside the mask count. None instead of a mask means that all pixels count.
        """
        if not len(pixels):
            return np.zeros(0, np.float32)
        side_px = self.recipe.side_px
        registered = [register_part(picture, part, side_px) for picture, part in zip(pixels, parts, strict=True)]
        if masks is None or all(mask is None for mask in masks):
            scores, _ = self.score_registered(np.stack(registered))
            return scores[self.rule]
        inspected = [
            np.ones((side_px, side_px), np.bool_) if mask is None else register_part(mask.astype(np.uint8) * 255, part, side_px) > 127
            for mask, part in zip(masks, parts, strict=True)
        ]
        scores, _ = self.score_registered(np.stack(registered), np.stack(inspected))
        return scores[self.rule]

    def score_registered(
        self, pixels: PixelArray, inspected: npt.NDArray[np.bool_] | None = None
    ) -> tuple[dict[Rule, FloatArray], FloatArray]:
        """Scores pictures from `register_part`, in which the rim is a circle. Shape: (n, recipe.side_px, recipe.side_px).

        Returns the scores "error" and "frechet" by name, each of shape (n,), and the residual maps, same shape as `pixels`.
        `inspected`, same shape as `pixels`, says which pixels count in the scores. None means all.
        """
        rings = compute_rings(self.recipe.side_px)
        residuals = compute_residuals(self.network, pixels if inspected is None else _hide_pixels(pixels, inspected, rings))
        statistics, is_scored = self.statistics, rings >= 0
        maps = smooth_residuals(residuals) / statistics.spreads[np.maximum(rings, 0)] * is_scored
        counts = np.ones(pixels.shape, np.bool_) if inspected is None else inspected
        distances = compute_frechet_distances(*compute_ring_moments(residuals, counts), statistics.means, statistics.covariances)
        distances[_compute_inspected_shares(counts, rings) < MIN_INSPECTED_SHARE] = 0
        weights = (counts & is_scored).astype(np.float32)
        scores: dict[Rule, FloatArray] = {
            "error": (maps * weights).sum(axis=(1, 2)) / np.maximum(weights.sum(axis=(1, 2)), 1),
            "frechet": (distances / statistics.distances).max(axis=1),
        }
        return scores, maps

    def rebuild(self, picture: PixelArray, part: FoundPart) -> FloatArray:
        """Returns `picture` as the network rebuilds it: grey levels 0..1, shape (side_px, side_px).

        Pixels outside the part are 0. The brightness may differ from the picture, because the light is normalised.
        """
        registered = register_part(picture, part, self.recipe.side_px)[np.newaxis]
        rebuilt = normalise_light(registered) - compute_residuals(self.network, registered)
        return place_residuals(rebuilt[0], part, self.side_px)

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes weights, statistics and recipe to three files in `folder`, and returns the names of the files."""
        weights, arrays, recipe = self._file_names()
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_weights(folder / weights)
        save_arrays(folder / arrays, asdict(self.statistics))
        fields = {"side_px": self.side_px, "rule": self.rule, "recipe": asdict(self.recipe)}
        write_atomically(folder / recipe, json.dumps(fields, indent=2) + "\n")
        return weights, arrays, recipe

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a scorer that `save` wrote. Raises ModelError, naming the file, if a file is missing or damaged."""
        from models.networks.autoencoder import build_autoencoder

        weights, arrays, recipe_file = cls._file_names()
        path = folder / recipe_file
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            recipe, side_px, rule = AutoencoderRecipe(**fields["recipe"]), int(fields["side_px"]), fields["rule"]
            if rule not in ("error", "frechet"):
                raise ValueError(f"expected the rule to be 'error' or 'frechet', found {rule!r}")
            network = build_autoencoder(recipe.side_px, recipe.width, recipe.code_channels, recipe.prototypes, False).rebuilding
            path = folder / weights
            network.load_weights(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is missing or damaged: {error}. Copy the version again.") from error
        path = folder / arrays
        statistics = ResidualStatistics(**load_arrays(path, ("spreads", "means", "covariances", "distances")))
        expected = ((RINGS,), (RINGS, 5), (RINGS, 5, 5), (RINGS,))
        found = tuple(array.shape for array in asdict(statistics).values())
        if found != expected or not all(np.isfinite(array).all() for array in asdict(statistics).values()):
            raise ModelError(f"{path} does not hold the statistics of residuals. Copy the version again.")
        return cls(network, statistics, recipe, side_px, rule)

    @classmethod
    def _file_names(cls) -> tuple[str, str, str]:
        return f"{cls.name}.weights.h5", f"{cls.name}.npz", f"{cls.name}.json"


def learn_memory_autoencoder(
    pixels: PixelArray, recipe: AutoencoderRecipe | None = None, on_epoch: OnEpoch | None = None, find: PartFinder = find_part
) -> MemoryAutoencoder:
    """Learns from pictures of good parts, shape (n, side_px, side_px), grey levels 0..255.

    Raises ModelError if there are no pictures, or if many of them show no part.
    """
    recipe = recipe or AutoencoderRecipe()
    good = np.stack([register_part(picture, part, recipe.side_px) for picture, part in find_good_parts(pixels, find)])
    network = train_autoencoder(good, recipe, on_epoch)
    statistics = describe_good_residuals(compute_residuals(network, good[:MAX_DESCRIBED_PICTURES]))
    return MemoryAutoencoder(network, statistics, recipe, pixels.shape[1], find=find)


def train_autoencoder(pixels: PixelArray, recipe: AutoencoderRecipe, on_epoch: OnEpoch | None = None) -> keras.Model:
    """Trains an autoencoder on pictures of good parts, shape (n, side_px, side_px). Returns the network that rebuilds pictures.

    `pixels` come from `register_part`, so the rim is a circle around the middle. Pictures are turned, but not mirrored, because a mirrored
    picture may show a different kind of part.
    """
    from models.networks.autoencoder import build_autoencoder
    from models.networks.framework import keras

    keras.utils.set_random_seed(recipe.seed)
    autoencoder = build_autoencoder(recipe.side_px, recipe.width, recipe.code_channels, recipe.prototypes, recipe.adversary_weight > 0)
    training = autoencoder.training
    grey = normalise_light(_turn_pictures(pixels, recipe.seed))[..., None]
    losses, weights, targets = _make_losses(training, recipe, grey)
    # Adam divides each gradient by its usual size, so the discriminator learns fast although its loss has a small weight.
    rate = keras.optimizers.schedules.CosineDecay(recipe.rate, recipe.steps, alpha=1e-2)
    training.compile(keras.optimizers.Adam(rate, beta_1=0.5), loss=losses, loss_weights=weights)
    epochs = max(1, round(recipe.steps * recipe.batch / len(grey)))

    def report(epoch: int, logs: dict[str, Any] | None) -> None:
        if on_epoch:
            on_epoch(epoch + 1, epochs, {name: float(value) for name, value in (logs or {}).items()})

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=report)]
    training.fit(grey, targets, batch_size=recipe.batch, epochs=epochs, callbacks=callbacks, verbose=0)
    return autoencoder.rebuilding


def compute_residuals(network: keras.Model, pixels: PixelArray) -> FloatArray:
    """Returns each picture minus its rebuilt picture, shape (n, side_px, side_px). Values can be negative.

    `pixels`, shape (n, side_px, side_px), come from `register_part`. First, all pictures get the same mean and spread of grey levels.
    """
    grey = normalise_light(pixels)
    rebuilt = []
    for start in range(0, len(grey), REBUILDING_BATCH):
        batch = grey[start : start + REBUILDING_BATCH]
        # The last batch is filled up to full size, because Keras would compile the network again for another size.
        filled = np.concatenate([batch, np.repeat(batch[-1:], REBUILDING_BATCH - len(batch), axis=0)])
        rebuilt.append(np.asarray(network.predict_on_batch(filled[..., None]))[: len(batch), ..., 0])
    residuals: FloatArray = grey - np.concatenate(rebuilt)
    return residuals


def register_part(picture: PixelArray, part: FoundPart, side_px: int) -> PixelArray:
    """Returns a picture of shape (side_px, side_px) in which the rim of `part` is a circle around the middle.

    The part is not turned. Points outside of `picture`, shape (rows, columns), get the grey level of the nearest pixel.
    """
    places = ((np.arange(side_px) + 0.5) / side_px - 0.5) / RIM_SHARE
    across, down = np.meshgrid(places, places)
    matrix = _circle_to_ellipse(part)
    column = part.centre_x_px + matrix[0, 0] * across + matrix[0, 1] * down
    row = part.centre_y_px + matrix[1, 0] * across + matrix[1, 1] * down
    # A large picture is smoothed before it is reduced, so that every pixel counts.
    step_px = np.sqrt(part.semi_major_px * part.semi_minor_px) / (RIM_SHARE * side_px)
    grey = picture.astype(np.float32)
    if step_px > 1.2:
        grey = gaussian_filter(grey, 0.45 * step_px)
    registered = map_coordinates(grey, [row, column], order=1, mode="nearest")
    result: PixelArray = np.clip(np.rint(registered), 0, 255).astype(np.uint8)
    return result


def place_residuals(residuals: FloatArray, part: FoundPart, side_px: int) -> FloatArray:
    """Moves the residual map of a picture from `register_part` back to the place of `part` in the original picture.

    Returns a map of shape (side_px, side_px). Pixels outside the part are 0.
    """
    rows, columns = np.mgrid[:side_px, :side_px]
    inverse = np.linalg.inv(_circle_to_ellipse(part))
    across, down = columns - part.centre_x_px, rows - part.centre_y_px
    size = len(residuals)
    column, row = (((inverse[axis, 0] * across + inverse[axis, 1] * down) * RIM_SHARE + 0.5) * size - 0.5 for axis in (0, 1))
    placed: FloatArray = map_coordinates(residuals, [row, column], order=1, mode="constant").astype(np.float32)
    return placed


def normalise_light(pixels: PixelArray) -> FloatArray:
    """Returns pictures from `register_part` as grey levels 0..1, same shape.

    Inside the rim, the grey levels of every picture have the same mean and standard deviation.
    """
    grey = pixels.astype(np.float32) / 255
    inside = compute_radii(grey.shape[1]) <= 1
    means = grey[:, inside].mean(axis=1)[:, None, None]
    spreads = grey[:, inside].std(axis=1)[:, None, None]
    normal: FloatArray = np.clip(NORMAL_MEAN + NORMAL_SPREAD * (grey - means) / np.maximum(spreads, 1e-3), 0, 1).astype(np.float32)
    return normal


def compute_radii(side_px: int) -> FloatArray:
    """Returns the distance of each pixel from the middle of a picture, shape (side_px, side_px). The rim has the distance 1."""
    places = (np.arange(side_px, dtype=np.float32) + 0.5) / side_px - 0.5
    radii: FloatArray = (np.hypot(places[:, None], places[None]) / RIM_SHARE).astype(np.float32)
    return radii


def compute_rings(side_px: int) -> npt.NDArray[np.int32]:
    """Returns the number of the ring in which each pixel lies, shape (side_px, side_px). Pixels that are not scored have -1."""
    radii = compute_radii(side_px)
    rings = np.minimum((radii / SCORED_RADII * RINGS).astype(np.int32), RINGS - 1)
    return np.where(radii <= SCORED_RADII, rings, -1).astype(np.int32)


def compute_ring_moments(residuals: FloatArray, counts: npt.NDArray[np.bool_] | None = None) -> tuple[FloatArray, FloatArray]:
    """Returns the mean and the covariance of the neighbourhoods on each ring, shapes (n, rings, 5) and (n, rings, 5, 5).

    - A neighbourhood holds the residuals of a pixel and of its four neighbours. `residuals` has shape (n, side_px, side_px).
    - `counts`, same shape, is True for the pixels that are used. None means all pixels. A ring without used pixels gets zeros.
    """
    if counts is None:
        counts = np.ones(residuals.shape, np.bool_)
    rings = compute_rings(residuals.shape[1])
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    neighbourhoods = np.stack([np.roll(residuals, shift, axis=(1, 2)) for shift in shifts], axis=-1)
    means, covariances = [], []
    for ring in range(RINGS):
        vectors = neighbourhoods[:, rings == ring]
        weights = counts[:, rings == ring].astype(np.float32)[..., None]
        total = np.maximum(weights.sum(axis=1), 1)
        mean = (vectors * weights).sum(axis=1) / total
        centred = (vectors - mean[:, None]) * weights
        means.append(mean)
        covariances.append(np.einsum("npi,npj->nij", centred, centred) / total[..., None])
    return np.stack(means, axis=1).astype(np.float32), np.stack(covariances, axis=1).astype(np.float32)


def _hide_pixels(pixels: PixelArray, inspected: npt.NDArray[np.bool_], rings: npt.NDArray[np.int32]) -> PixelArray:
    """Returns a copy of `pixels` in which each pixel outside `inspected` has the mean grey level of its ring.

    The network sees this copy. Otherwise, dirt outside of the inspected area could make the network rebuild the inspected pixels wrongly.
    """
    result = pixels.copy()
    for ring in range(RINGS):
        is_ring = rings == ring
        for picture, is_inspected in zip(result, inspected, strict=True):
            seen, hidden = is_ring & is_inspected, is_ring & ~is_inspected
            if hidden.any():
                picture[hidden] = round(float(picture[seen if seen.any() else is_ring].mean()))
    return result


def _compute_inspected_shares(counts: npt.NDArray[np.bool_], rings: npt.NDArray[np.int32]) -> FloatArray:
    """Returns the inspected share of the pixels of each ring, shape (n, rings). `counts` is True for inspected pixels."""
    shares: FloatArray = np.stack([counts[:, rings == ring].mean(axis=1) for ring in range(RINGS)], axis=1).astype(np.float32)
    return shares


def compute_frechet_distances(
    means: FloatArray, covariances: FloatArray, good_means: FloatArray, good_covariances: FloatArray
) -> FloatArray:
    """Returns how much each ring of a picture differs from the same ring of good pictures: the squared Fréchet distance, shape (n, rings).

    For means m and covariances C, the distance is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).
    Source: Dowson, Landau, Journal of Multivariate Analysis 12, 1982.
    """
    values, vectors = np.linalg.eigh(good_covariances.astype(np.float64))
    roots = np.einsum("rij,rj,rkj->rik", vectors, np.sqrt(np.maximum(values, 0)), vectors)
    inner = np.einsum("rij,nrjk,rkl->nril", roots, covariances.astype(np.float64), roots)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(inner), 0)).sum(axis=-1)
    traces = np.trace(covariances, axis1=2, axis2=3) + np.trace(good_covariances, axis1=1, axis2=2)[None]
    squares = np.square(means - good_means[None]).sum(axis=-1) + traces - 2 * cross
    distances: FloatArray = np.maximum(squares, 0).astype(np.float32)
    return distances


def describe_good_residuals(residuals: FloatArray) -> ResidualStatistics:
    """Returns the statistics of the residuals of good pictures.

    `residuals`, shape (n, side_px, side_px), are differences of grey levels, positive or negative.
    """
    rings = compute_rings(residuals.shape[1])
    smooth = smooth_residuals(residuals)
    spreads = np.array([smooth[:, rings == ring].mean() for ring in range(RINGS)], np.float32)
    means, covariances = compute_ring_moments(residuals)
    good_means = means.mean(axis=0)
    # The total covariance is the mean covariance within the pictures plus the covariance of their means.
    offsets = means - good_means[None]
    good_covariances = covariances.mean(axis=0) + np.einsum("nri,nrj->rij", offsets, offsets) / len(means)
    distances = compute_frechet_distances(means, covariances, good_means, good_covariances).mean(axis=0)
    return ResidualStatistics(np.maximum(spreads, 1e-6), good_means, good_covariances, np.maximum(distances, 1e-12))


def smooth_residuals(residuals: FloatArray) -> FloatArray:
    """Returns the smoothed absolute values of `residuals`, same shape."""
    sigma = SMOOTHING_SHARE * residuals.shape[1]
    rows = gaussian_filter1d(np.abs(residuals), sigma, axis=1)
    smooth: FloatArray = gaussian_filter1d(rows, sigma, axis=2)
    return smooth


def _make_losses(
    training: keras.Model, recipe: AutoencoderRecipe, grey: FloatArray
) -> tuple[dict[str, Any], dict[str, float], dict[str, npt.NDArray[np.float32]]]:
    from models.networks.autoencoder import ADDRESSING, FORGED, GENUINE, REBUILT
    from models.networks.framework import keras

    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    all_losses = {REBUILT: "mse", ADDRESSING: _mean_of_output, GENUINE: cross_entropy, FORGED: cross_entropy}
    all_weights = {
        REBUILT: 1.0,
        ADDRESSING: recipe.entropy_weight,
        GENUINE: recipe.adversary_weight,
        FORGED: recipe.adversary_weight,
    }
    names = list(training.output)
    targets = {REBUILT: grey}
    for name in names:
        if name != REBUILT:
            shape = (len(grey), *training.output[name].shape[1:])
            targets[name] = np.broadcast_to(np.float32(name == GENUINE), shape)
    return {name: all_losses[name] for name in names}, {name: all_weights[name] for name in names}, targets


def _mean_of_output(target: Any, output: Any) -> Any:
    """A loss function that ignores the target. The loss is the output itself, so the training makes the output small."""
    return output


def _turn_pictures(pixels: PixelArray, seed: int) -> PixelArray:
    turns = max(1, -(-LEAST_TURNED_PICTURES // len(pixels)))
    random = np.random.default_rng([seed, 1])
    angles = random.uniform(0, 360, (turns, len(pixels)))
    turned = [
        rotate(picture, angle, reshape=False, order=1, mode="nearest") for row in angles for picture, angle in zip(pixels, row, strict=True)
    ]
    return np.stack(turned).astype(np.uint8)


def _circle_to_ellipse(part: FoundPart) -> npt.NDArray[np.float64]:
    cosine, sine = np.cos(part.angle_rad), np.sin(part.angle_rad)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    matrix: npt.NDArray[np.float64] = turn @ np.diag((part.semi_major_px, part.semi_minor_px)) @ turn.T
    return matrix
