"""Which pictures show the same casting: near-duplicates by perceptual hash, turned by right angles and mirrored; and turned by any angle.

A validation figure is only honest when pictures of one casting never stand on both sides of a split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates  # type: ignore[import-untyped]  # no stubs

HASH_SIDE = 16  # 2 x 16 x 16 bits: horizontal and vertical differences
# Of 512. Seen on 7,218 pictures of real impellers, of which the makers had turned and mirrored many: pairs up to 44 bits apart showed
# one casting; 40 makes 3,284 groups, the largest of 490 pictures; from 60 on different castings chain into one group of thousands.
NEAR_BITS = 40
BLOCK = 256  # pictures compared with all others at a time, so that memory stays small

# Turned by any angle: a picture's rings, each as the strengths of its waves, which a turn leaves as they are. Of 1,500 of those pictures
# at 128 px a copy turned by 10 to 80 degrees lay 0.023 to 0.040 (5 to 95 %) from its original, the next casting 0.045 to 0.39. Up to 0.045
# joins 447 more of the 3,284 groups; the largest stays, and of the pairs two in a thousand are of two classes.
NEAR_RINGS = 0.045
RING_SIDE, RINGS, ANGLES, WAVES = 128, 16, 64, 20

Bits = npt.NDArray[np.uint64]
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def groups(
    pixels: npt.NDArray[np.uint8], checksums: tuple[str, ...], near_bits: int = NEAR_BITS, near_rings: float = NEAR_RINGS
) -> npt.NDArray[np.int32]:
    """A group number for each picture of `pixels`, shape (n, side, side); equal files and near-duplicates share one.

    `near_rings` 0 leaves turns by other than right angles unrecognised.
    """
    leader = list(range(len(pixels)))

    def of(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[str, int] = {}
    equal = [(first.setdefault(checksum, index), index) for index, checksum in enumerate(checksums)]
    turned = turned_pairs(pixels, near_rings) if near_rings > 0 else ()
    for left, right in (*equal, *zip(*near_pairs(pixels, near_bits), strict=True), *zip(*turned, strict=True)):
        leader[of(int(left))] = of(int(right))
    _, found = np.unique([of(index) for index in range(len(pixels))], return_inverse=True)
    return found.astype(np.int32)


def near_pairs(pixels: npt.NDArray[np.uint8], near_bits: int) -> Pairs:
    """Pairs of pictures of which one, turned or mirrored somehow, differs in at most `near_bits` bits from the other."""
    hashes = np.stack([_hashes(picture) for picture in pixels])  # (n, 8, words)
    upright = hashes[:, 0]
    lefts, rights = [], []
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        nearest = np.full((len(block), len(hashes)), 10**6, np.int32)
        for turn in range(8):
            apart = np.bitwise_count(block[:, turn, None, :] ^ upright[None, :, :]).sum(axis=-1, dtype=np.int32)
            np.minimum(nearest, apart, out=nearest)
        left, right = np.nonzero(nearest <= near_bits)
        forward = left + start < right
        lefts.append(left[forward] + start)
        rights.append(right[forward])
    return np.concatenate(lefts).astype(np.int64), np.concatenate(rights).astype(np.int64)


def turned_pairs(pixels: npt.NDArray[np.uint8], near: float) -> Pairs:
    """Pairs of pictures whose rings lie at most `near` from each other."""
    rings = np.stack([_rings(picture) for picture in pixels])
    squares = np.square(rings).sum(axis=1)
    lefts, rights = [], []
    for start in range(0, len(rings), BLOCK):
        block = slice(start, start + BLOCK)
        apart = squares[block, None] + squares[None] - 2 * rings[block] @ rings.T
        left, right = np.nonzero(apart <= near**2)
        forward = left + start < right
        lefts.append(left[forward] + start)
        rights.append(right[forward])
    return np.concatenate(lefts).astype(np.int64), np.concatenate(rights).astype(np.int64)


def _rings(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Strengths of the waves round the middle of `picture`, ring by ring, whatever its light and contrast."""
    grey = np.asarray(Image.fromarray(picture).resize((RING_SIDE, RING_SIDE)), np.float32)
    radius = (np.arange(RINGS)[:, None] + 0.5) / RINGS * (RING_SIDE / 2 - 4)
    angle = np.arange(ANGLES)[None] / ANGLES * 2 * np.pi
    middle = (RING_SIDE - 1) / 2
    places = [middle + radius * np.sin(angle), middle + radius * np.cos(angle)]
    found = map_coordinates(gaussian_filter(grey, 1.5), places, order=1)
    found = (found - found.mean()) / (found.std() + 1e-6)
    strengths = np.abs(np.fft.rfft(found, axis=1))[:, :WAVES].ravel() / ANGLES
    return strengths.astype(np.float32)


def _hashes(picture: npt.NDArray[np.uint8]) -> Bits:
    """Difference hashes of the picture's eight turns and mirror images, shape (8, words)."""
    small = np.asarray(Image.fromarray(picture).resize((HASH_SIDE + 1, HASH_SIDE + 1), Image.Resampling.BOX), np.int16)
    turns = [np.rot90(side, quarter) for side in (small, small[:, ::-1]) for quarter in range(4)]
    return np.stack([_hash(turn) for turn in turns])


def _hash(small: npt.NDArray[np.int16]) -> Bits:
    across = small[:-1, 1:] > small[:-1, :-1]
    down = small[1:, :-1] > small[:-1, :-1]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).view(np.uint64)


def contradicting(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The numbers of the groups whose pictures have more than one label; `labels` and `groups` have shape (n,)."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    found, classes = np.unique(pairs[0], return_counts=True)
    result: npt.NDArray[np.int32] = found[classes > 1]
    return result
