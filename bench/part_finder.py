"""Measures how long the part finder takes for one picture, and how long decoding the picture takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.decoding import SIDE_PX, read_values
from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.part_finder import check_part, find_part, learn_part_reference

_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class PartFinderTime:
    """The result of a measurement with pictures of 160 px.

    The times are processor times for one picture, in microseconds. Each time comes from the fastest of several rounds.

    - `find_us`: time to find the part.
    - `check_us`: time to find the part and compare it with the reference.
    - `empty_us`: like `check_us`, but for pictures of noise, which contain no part.
    - `found`: number of pictures in which a part was found.
    - `accepted`: number of pictures in which the part also fits the reference.
    """

    pictures: int
    found: int
    accepted: int
    decode_us: float
    find_us: float
    check_us: float
    empty_us: float


def measure_part_finder(data: Path | None, pictures: int) -> PartFinderTime:
    """Measures the part finder on the first `pictures` files of the folder `data`, or on rendered castings if `data` is None.

    Raises ModelError if no part is found in these pictures.
    """
    values, limits = read_values(data, pictures), PictureLimits()
    decoded = [decode_picture(value, SIDE_PX, limits) for value in values]
    reference = learn_part_reference([picture.pixels for picture in decoded], [picture.area for picture in decoded])
    noise = list(np.random.default_rng(1).integers(0, 256, (min(pictures, 50), SIDE_PX, SIDE_PX), dtype=np.uint8))
    return PartFinderTime(
        pictures=len(decoded),
        found=sum(find_part(picture.pixels) is not None for picture in decoded),
        accepted=sum(not check_part(picture.pixels, reference, picture.area).reason for picture in decoded),
        decode_us=_find_best(values, lambda value: decode_picture(value, SIDE_PX, limits)),
        find_us=_find_best(decoded, lambda picture: find_part(picture.pixels)),
        check_us=_find_best(decoded, lambda picture: check_part(picture.pixels, reference, picture.area)),
        empty_us=_find_best(noise, lambda pixels: check_part(pixels, reference)),
    )


def _find_best(items: Sequence[Any], work: Callable[[Any], object]) -> float:
    best_s = float("inf")
    for _ in range(_ROUNDS):
        start_s = time.process_time()
        for item in items:
            work(item)
        best_s = min(best_s, (time.process_time() - start_s) / len(items))
    return round(1e6 * best_s, 1)
