"""The patch memory compares the features of small patches of a part with the features of patches of good parts.

Source: PatchCore (Roth et al., CVPR 2022). Difference: the features come from AlexNet's first convolution, and are computed without
TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from models.anomaly.memory_autoencoder import RINGS, compute_rings, place_residuals, register_part
from models.anomaly.scorer import PartFinder, ResidualScorer, find_good_parts, load_arrays, save_arrays
from models.pictures.part_finder import FoundPart, find_part
from models.registry import Version
from streams.errors import ModelError

FloatArray = npt.NDArray[np.float32]
PixelArray = npt.NDArray[np.uint8]

# Before patches are compared, the picture is scaled to this side in pixels, with the rim of the part as a circle around the middle. With a
# patch every 4 px, the picture has 48 x 48 patches.
REGISTERED_SIDE_PX = 192
STRIDE_PX = 4
MEMORY_PATCHES = 500
# A patch memory learns from at most this many random pictures, because the features of 300 pictures take 200 MB.
MAX_PICTURES = 300
# The patches in the memory are chosen from at most this many random patches of good parts, so that learning takes only seconds.
MAX_CANDIDATES = 10_000
# To choose patches faster, a random matrix first reduces the features to this many dimensions, as in PatchCore.
PROJECTED_FEATURES = 16
# Each ring around the part's centre has a limit: how far its patches may be from the remembered patches of good parts. The limit is chosen
# so that this share of the good parts exceeds it.
LIMIT_SHARE = 0.05
# Learning needs at least two pictures, because it divides the pictures into two halves. The patches of each half are compared with those
# of the other half, to find how much good parts differ.
MIN_PICTURES = 2
# Features are scaled to the variance 1. In features that hardly vary, the scaling would amplify rounding errors. So this share of the mean
# variance is first added to the variance of each feature.
LEAST_VARIANCE = 0.01
# A score is a distance divided by the limit of a ring. A limit is at least this large, so that no distance is divided by nearly 0.
MIN_DISTANCE = 1e-3


@dataclass(frozen=True)
class FirstConvolution:
    """The first convolution of a trained AlexNet: `kernel`, shape (size, size, features), and `bias`, shape (features,)."""

    kernel: FloatArray
    bias: FloatArray

    def compute_features(self, picture: PixelArray) -> FloatArray:
        """Returns the features of `picture`, shape (side, side), grey levels 0..255. The result has shape (patches, patches, features).

        There is a patch every STRIDE_PX pixels. The side must be a multiple of STRIDE_PX. Features are at least 0.
        """
        size, patches = len(self.kernel), picture.shape[0] // STRIDE_PX
        margin = size - STRIDE_PX
        grey = np.pad(picture.astype(np.float32) / 127.5 - 1, (margin // 2, margin - margin // 2))
        windows = sliding_window_view(grey, (size, size))[::STRIDE_PX, ::STRIDE_PX].reshape(patches**2, size**2)
        features: FloatArray = np.maximum(windows @ self.kernel.reshape(size**2, -1) + self.bias, 0)
        return features.reshape(patches, patches, -1)


@dataclass(frozen=True)
class PatchMemory(ResidualScorer):
    """Remembers patches of good parts. Scores a part by how far its patches are from the remembered patches. Implements `GoodOnlyScorer`.

    - `means`, shape (features,): the mean features of good parts.
    - `whitening`, shape (features, features): the matrix that makes features uncorrelated, with variance 1.
    - `patches`, shape (patches, features): the remembered patches.
    - `limits`, shape (rings,): a distance for each ring. Few good parts have a patch that is farther away from the remembered patches.
    """

    convolution: FirstConvolution
    means: FloatArray
    whitening: FloatArray
    patches: FloatArray
    limits: FloatArray
    side_px: int
    find: PartFinder = find_part

    name: ClassVar[str] = "patch-memory"

    def compare(self, picture: PixelArray, part: FoundPart) -> FloatArray:
        """Returns how much each patch of the part differs from good parts, shape (48, 48). Patches outside the part are 0.

        `part` is the outline that was found in `picture`.
        """
        rings = compute_rings(REGISTERED_SIDE_PX // STRIDE_PX)
        features = self.convolution.compute_features(register_part(picture, part, REGISTERED_SIDE_PX))[rings >= 0]
        residuals = np.zeros(rings.shape, np.float32)
        distances = _measure_distances(((features - self.means) @ self.whitening).astype(np.float32), self.patches)
        residuals[rings >= 0] = distances / self.limits[rings[rings >= 0]]
        return residuals

    def place(self, residuals: FloatArray, part: FoundPart) -> FloatArray:
        """Returns `residuals`, which `compare` computed, as a map of the picture, shape (side_px, side_px)."""
        return place_residuals(residuals, part, self.side_px)

    def save(self, folder: Path) -> tuple[str, ...]:
        """Writes the patch memory to a file in `folder`, and returns the name of the file in a tuple."""
        file = f"{self.name}.npz"
        arrays = {"kernel": self.convolution.kernel, "bias": self.convolution.bias, "means": self.means, "whitening": self.whitening}
        save_arrays(folder / file, {**arrays, "patches": self.patches, "limits": self.limits, "side_px": np.array(self.side_px)})
        return (file,)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the patch memory from the file that `save` wrote. Raises ModelError if the file is missing or damaged."""
        path = folder / f"{cls.name}.npz"
        names = ("kernel", "bias", "means", "whitening", "patches", "limits")
        arrays = load_arrays(path, (*names, "side_px"))
        kernel, bias, means, whitening, patches, limits = (arrays[name] for name in names)
        side_px, features = arrays["side_px"], bias.size
        is_shaped = kernel.ndim == 3 and kernel.shape == (len(kernel), len(kernel), features) and patches.shape == (len(patches), features)
        is_shaped &= (
            bias.shape == means.shape
            and whitening.shape == (features, features)
            and limits.shape == (RINGS,)
            and side_px.shape == ()
            and len(patches) > 0
        )
        are_finite = all(np.isfinite(arrays[name]).all() for name in names)
        if not is_shaped or not are_finite or not (limits > 0).all() or side_px < 1:
            raise ModelError(f"{path} does not hold a patch memory. Copy the version again.")
        return cls(FirstConvolution(kernel, bias), means, whitening, patches, limits, int(side_px))


def read_first_convolution(version: Version) -> FirstConvolution:
    """Returns the first convolution of the AlexNet of `version`. Raises ModelError if the version has no AlexNet. Loads TensorFlow."""
    from models.networks.factory import load_network

    for voter in version.manifest.voters:
        if voter.network == "alexnet":
            kernel, bias = load_network(version, voter).get_layer("conv1").get_weights()
            return FirstConvolution(kernel[:, :, 0], bias)
    raise ModelError(f"The version {version.name} has no AlexNet, so it gives no features for a patch memory. Choose another version.")


def learn_patch_memory(pixels: PixelArray, convolution: FirstConvolution, find: PartFinder = find_part, seed: int = 0) -> PatchMemory:
    """Learns a patch memory from pictures of good parts, shape (n, side_px, side_px), grey levels 0..255.

    If there are more than MAX_PICTURES, some are chosen at random with `seed`.
    Raises ModelError if many pictures show no part, or if fewer than MIN_PICTURES show one.
    """
    found = find_good_parts(pixels, find)
    if len(found) < MIN_PICTURES:
        raise ModelError(f"A patch memory needs at least {MIN_PICTURES} good pictures, found {len(found)}. Add good pictures.")
    random = np.random.default_rng(seed)
    if len(found) > MAX_PICTURES:
        found = [found[index] for index in random.choice(len(found), MAX_PICTURES, replace=False)]
    rings = compute_rings(REGISTERED_SIDE_PX // STRIDE_PX)
    is_scored = rings >= 0
    features = np.stack(
        [convolution.compute_features(register_part(picture, part, REGISTERED_SIDE_PX))[is_scored] for picture, part in found]
    )
    means = features.mean(axis=(0, 1))
    whitening = _compute_whitening(features.reshape(-1, features.shape[-1]))
    features = (features - means) @ whitening
    limits = measure_limits(features, rings[is_scored], random)
    return PatchMemory(convolution, means, whitening, _select_coreset(features, random), limits, pixels.shape[1], find)


def _compute_whitening(features: FloatArray) -> FloatArray:
    covariance = np.cov(features.T.astype(np.float64))
    mean_variance = max(np.trace(covariance) / len(covariance), 1e-12)
    values, vectors = np.linalg.eigh(covariance + LEAST_VARIANCE * mean_variance * np.eye(len(covariance)))
    whitening: FloatArray = (vectors / np.sqrt(values)).astype(np.float32)
    return whitening


def measure_limits(features: FloatArray, rings: npt.NDArray[np.int32], random: np.random.Generator) -> FloatArray:
    """Returns the limit of each ring, shape (rings,). It is a distance: few good parts have a patch that is farther away from the memory.

    To find the limits, the pictures are divided into two halves. A memory is made from each half, and compared with the pictures of the
    other half.

    `features` has shape (pictures, patches, features). `rings` holds the ring of each patch.
    """
    order = random.permutation(len(features))
    halves = order[::2], order[1::2]
    largest = []
    for seen, others in (halves, halves[::-1]):
        memory = _select_coreset(features[seen], random)
        for picture in features[others]:
            distances = _measure_distances(picture, memory)
            largest.append([distances[rings == ring].max(initial=0.0) for ring in range(RINGS)])
    limits: FloatArray = np.maximum(np.quantile(largest, 1 - LIMIT_SHARE, axis=0), MIN_DISTANCE).astype(np.float32)
    return limits


def _select_coreset(features: FloatArray, random: np.random.Generator) -> FloatArray:
    """Returns at most MEMORY_PATCHES of the patches in `features`, shape (pictures, patches, features).

    Each step adds the patch that is farthest from all selected patches (Roth et al. 2022, algorithm 1).
    """
    candidates = features.reshape(-1, features.shape[-1])
    if len(candidates) > MAX_CANDIDATES:
        candidates = candidates[random.choice(len(candidates), MAX_CANDIDATES, replace=False)]
    if len(candidates) <= MEMORY_PATCHES:
        return candidates
    projected = candidates @ random.standard_normal((candidates.shape[1], PROJECTED_FEATURES)).astype(np.float32)
    selected = [0]
    distances = np.full(len(projected), np.inf, np.float32)
    while len(selected) < MEMORY_PATCHES:
        difference = projected - projected[selected[-1]]
        np.minimum(distances, np.einsum("pf,pf->p", difference, difference), out=distances)
        selected.append(int(distances.argmax()))
    return candidates[selected]


def _measure_distances(features: FloatArray, memory: FloatArray) -> FloatArray:
    products = features @ memory.T
    squares = np.square(features).sum(axis=1) + (np.square(memory).sum(axis=1) - 2 * products).min(axis=1)
    distances: FloatArray = np.sqrt(np.maximum(squares, 0))
    return distances
