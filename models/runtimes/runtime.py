"""What every runtime can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Runtime(Protocol):
    """Computes the voters' probabilities. One call at a time, from any thread but the event loop's."""

    @property
    def name(self) -> str:
        """How settings call it."""

    @property
    def max_batch(self) -> int:
        """Most pictures of one call."""

    def warm_up(self) -> None:
        """Computes every batch shape once, so that no picture pays for it."""

    def predict(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Shape (n, side_px, side_px), grey 0..255 -> (n, voters, classes), probabilities; 1 <= n <= max_batch."""


def padded_size(count: int, batch_sizes: Sequence[int]) -> int:
    """The smallest of the sorted `batch_sizes` that holds `count` pictures. Raises ValueError when there is none."""
    if count < 1:
        raise ValueError("expected at least one picture, received none")
    for size in batch_sizes:
        if count <= size:
            return size
    raise ValueError(f"expected at most {batch_sizes[-1]} pictures, received {count}")


def filled(pixels: npt.NDArray[np.uint8], batch_sizes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """`pixels`, shape (n, side, side), with black pictures behind them up to the next of `batch_sizes`."""
    missing = padded_size(len(pixels), batch_sizes) - len(pixels)
    if not missing:
        return pixels
    return np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])


def pieces(pixels: npt.NDArray[np.uint8], most: int) -> Iterator[npt.NDArray[np.uint8]]:
    """`pixels` in pieces of at most `most` pictures."""
    for start in range(0, len(pixels), most):
        yield pixels[start : start + most]
