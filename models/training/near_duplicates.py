"""Groups near-duplicates: pictures of the same casting. Networks must not be validated on castings from which they have learned.

- A perceptual hash finds copies that are mirrored or turned by right angles.
- Ring spectra find copies that are turned by any angle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates  # type: ignore[import-untyped]  # no stubs

# For a perceptual hash, a picture is divided into 16 x 16 cells. Each cell gives two bits: whether its right neighbour is brighter, and
# whether its lower neighbour is brighter.
HASH_SIDE = 16
# The hashes of near-duplicates differ in at most this many bits. With a higher limit, different castings would count as near-duplicates:
# in a trial with a limit of 60 bits, thousands of real impellers formed one group.
NEAR_BITS = 40
BLOCK = 256

# Two pictures are near-duplicates if the distance between their ring spectra is at most this value. In a trial with real impellers, the
# distance was at most 0.040 between turned copies of a picture, and at least 0.045 between different castings.
NEAR_RINGS = 0.045
RING_SIDE, RINGS, ANGLES, WAVES = 128, 16, 64, 20

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def group_near_duplicates(
    pixels: npt.NDArray[np.uint8], checksums: tuple[str, ...], near_bits: int = NEAR_BITS, near_rings: float = NEAR_RINGS
) -> npt.NDArray[np.int32]:
    """Returns a group number for each picture of `pixels`, shape (n, side, side). Equal files and near-duplicates have the same number.

    Copies that are mirrored or turned by right angles are always found. If `near_rings` is not 0, copies that are turned by any angle are
    found, too.
    """
    parents = list(range(len(pixels)))

    def find_root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[str, int] = {}
    equal = [(first.setdefault(checksum, index), index) for index, checksum in enumerate(checksums)]
    by_rings = find_ring_pairs(pixels, near_rings) if near_rings > 0 else ()
    for left, right in (*equal, *zip(*find_hash_pairs(pixels, near_bits), strict=True), *zip(*by_rings, strict=True)):
        parents[find_root(int(left))] = find_root(int(right))
    _, groups = np.unique([find_root(index) for index in range(len(pixels))], return_inverse=True)
    return groups.astype(np.int32)


def find_hash_pairs(pixels: npt.NDArray[np.uint8], near_bits: int) -> Pairs:
    """Returns the pairs of pictures whose hashes differ in at most `near_bits` bits.

    One picture of a pair may be turned by right angles, mirrored, or both. The function tries all eight orientations of this picture, and
    uses the hash of the most similar orientation.
    """
    hashes = np.stack([_orientation_hashes(picture) for picture in pixels])
    upright = hashes[:, 0]
    lefts, rights = [], []
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        nearest = np.full((len(block), len(hashes)), 10**6, np.int32)
        for orientation in range(8):
            bits = np.bitwise_count(block[:, orientation, None, :] ^ upright[None, :, :]).sum(axis=-1, dtype=np.int32)
            np.minimum(nearest, bits, out=nearest)
        left, right = np.nonzero(nearest <= near_bits)
        is_ordered = left + start < right
        lefts.append(left[is_ordered] + start)
        rights.append(right[is_ordered])
    return np.concatenate(lefts).astype(np.int64), np.concatenate(rights).astype(np.int64)


def find_ring_pairs(pixels: npt.NDArray[np.uint8], max_distance: float) -> Pairs:
    """Returns the pairs of pictures whose spectra (see `_ring_spectrum`) have a Euclidean distance of at most `max_distance`."""
    spectra = np.stack([_ring_spectrum(picture) for picture in pixels])
    squares = np.square(spectra).sum(axis=1)
    lefts, rights = [], []
    for start in range(0, len(spectra), BLOCK):
        block = slice(start, start + BLOCK)
        squared_distance = squares[block, None] + squares[None] - 2 * spectra[block] @ spectra.T
        left, right = np.nonzero(squared_distance <= max_distance**2)
        is_ordered = left + start < right
        lefts.append(left[is_ordered] + start)
        rights.append(right[is_ordered])
    return np.concatenate(lefts).astype(np.int64), np.concatenate(rights).astype(np.int64)


def find_contradicting_groups(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Returns the numbers of the groups that contain pictures with different labels. `labels` and `groups` have shape (n,)."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    numbers, classes = np.unique(pairs[0], return_counts=True)
    result: npt.NDArray[np.int32] = numbers[classes > 1]
    return result


def _ring_spectrum(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns the Fourier amplitudes of the grey levels along rings around the centre of the picture.

    The amplitudes stay nearly the same if the casting is turned or if the light changes.
    """
    grey = np.asarray(Image.fromarray(picture).resize((RING_SIDE, RING_SIDE)), np.float32)
    radius = (np.arange(RINGS)[:, None] + 0.5) / RINGS * (RING_SIDE / 2 - 4)
    angle = np.arange(ANGLES)[None] / ANGLES * 2 * np.pi
    middle = (RING_SIDE - 1) / 2
    places = [middle + radius * np.sin(angle), middle + radius * np.cos(angle)]
    rings = map_coordinates(gaussian_filter(grey, 1.5), places, order=1)
    rings = (rings - rings.mean()) / (rings.std() + 1e-6)
    strengths = np.abs(np.fft.rfft(rings, axis=1))[:, :WAVES].ravel() / ANGLES
    return strengths.astype(np.float32)


def _orientation_hashes(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Returns the hashes of the picture and of its mirror image, each turned by 0, 90, 180 and 270 degrees. Shape: (8, words)."""
    small = np.asarray(Image.fromarray(picture).resize((HASH_SIDE + 1, HASH_SIDE + 1), Image.Resampling.BOX), np.int16)
    orientations = [np.rot90(side, quarter) for side in (small, small[:, ::-1]) for quarter in range(4)]
    return np.stack([_difference_hash(orientation) for orientation in orientations])


def _difference_hash(small: npt.NDArray[np.int16]) -> npt.NDArray[np.uint64]:
    across = small[:-1, 1:] > small[:-1, :-1]
    down = small[1:, :-1] > small[:-1, :-1]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).view(np.uint64)
