"""What every runtime can do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class Runtime(Protocol):
    """Computes the voters' probabilities, from any thread but the event loop's.

    Calls side by side are safe; more than it was opened for wait for each other or for processors.
    """

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


def side_by_side(threads: int) -> int:
    """How many calls are best made at once with so many threads in all (0: as many as there are processors): 2, or 1 with one alone.

    Threads that share a call wait for each other at every layer; two calls on half of the threads each leave no processor waiting.
    """
    return min(2, total_threads(threads))


def total_threads(threads: int) -> int:
    """`threads`, or where that is 0 the processors that this process may use."""
    return threads or len(os.sched_getaffinity(0))


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
