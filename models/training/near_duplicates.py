"""Groups pictures that show the same casting, so that a split can keep each group on one side.

Two measures find such near-duplicates. A perceptual hash finds copies that are mirrored or turned by right angles. Spectra of rings
around the centre find copies that are turned by any angle. A validation figure is honest only if no casting both teaches and validates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates  # type: ignore[import-untyped]  # no stubs

# A hash holds the horizontal and the vertical differences of a picture of 16 x 16 pixels: 512 bits.
HASH_SIDE = 16
# Largest number of differing bits. Among 7,218 pictures of real impellers, many of which their makers had turned and mirrored, pairs of up
# to 44 bits showed one casting. 40 bits make 3,284 groups, the largest of 490 pictures. From 60 bits on, different castings join into one
# group of thousands.
NEAR_BITS = 40
# Pictures that are compared with all others at a time; it bounds the memory.
BLOCK = 256

# Largest distance of ring spectra. Among 1,500 of those pictures at 128 px, copies turned by 10 to 80 degrees lay 0.023 to 0.040 (5th to
# 95th percentile) from their original, and other castings 0.045 to 0.39. A distance of 0.045 joins 447 more of the 3,284 groups. The
# largest group does not grow, and two of a thousand joined pairs are of two classes.
NEAR_RINGS = 0.045
RING_SIDE, RINGS, ANGLES, WAVES = 128, 16, 64, 20

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def group_near_duplicates(
    pixels: npt.NDArray[np.uint8], checksums: tuple[str, ...], near_bits: int = NEAR_BITS, near_rings: float = NEAR_RINGS
) -> npt.NDArray[np.int32]:
    """Returns a group number for each picture of `pixels`, shape (n, side, side). Equal files and near-duplicates share a number.

    With `near_rings` 0, copies that are turned by other than right angles stay in groups of their own.
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
    """Returns the pairs of pictures whose hashes differ in at most `near_bits` bits after some right-angled turn or mirroring."""
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
    """Returns the pairs of pictures whose ring spectra lie at most `max_distance` apart (Euclidean)."""
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
    """Returns the numbers of the groups whose pictures have more than one label. `labels` and `groups` have shape (n,)."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    numbers, classes = np.unique(pairs[0], return_counts=True)
    result: npt.NDArray[np.int32] = numbers[classes > 1]
    return result


def _ring_spectrum(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns the strengths of the waves along each ring around the centre. Turning the casting or changing its light keeps them."""
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
    """Returns the difference hashes of the picture's eight right-angled turns and mirror images, shape (8, words)."""
    small = np.asarray(Image.fromarray(picture).resize((HASH_SIDE + 1, HASH_SIDE + 1), Image.Resampling.BOX), np.int16)
    orientations = [np.rot90(side, quarter) for side in (small, small[:, ::-1]) for quarter in range(4)]
    return np.stack([_difference_hash(orientation) for orientation in orientations])


def _difference_hash(small: npt.NDArray[np.int16]) -> npt.NDArray[np.uint64]:
    across = small[:-1, 1:] > small[:-1, :-1]
    down = small[1:, :-1] > small[:-1, :-1]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).view(np.uint64)
