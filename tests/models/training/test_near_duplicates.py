"""Pictures of one casting form one group, however the casting is turned."""

from __future__ import annotations

import numpy as np
from PIL import Image

from models.synthetic import render_series
from models.training.near_duplicates import group_near_duplicates


def test_turned_and_mirrored_pictures_of_a_casting_are_one_group() -> None:
    castings = [casting.pixels for casting in render_series(6, 21)]
    turned = [np.rot90(pixels, quarter) for quarter, pixels in enumerate(castings)]
    mirrored = [pixels[:, ::-1] for pixels in castings]
    groups = group_near_duplicates(np.stack([*castings, *turned, *mirrored]), tuple(str(index) for index in range(18)), near_bits=20)
    assert (groups[:6] == groups[6:12]).all()
    assert (groups[:6] == groups[12:]).all()
    assert len(set(groups[:6])) == 6


def test_a_casting_turned_by_any_angle_is_one_group_and_others_stay_apart() -> None:
    castings = [casting.pixels for casting in render_series(8, 3)]
    turned = []
    for angle, pixels in zip(range(13, 77, 8), castings, strict=True):
        background = int(np.median(pixels[0]))
        turned.append(np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=background)))
    pixels = np.stack(castings + turned)
    names = tuple(str(index) for index in range(16))
    groups = group_near_duplicates(pixels, names)
    assert np.array_equal(groups[:8], groups[8:])
    assert len(set(groups)) == 8
    assert len(set(group_near_duplicates(pixels, names, near_rings=0))) > 8


def test_equal_files_are_one_group_whatever_they_show() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (3, 32, 32)).astype(np.uint8)
    first, other, equal = group_near_duplicates(noise, ("a", "b", "a"), near_bits=0)
    assert first == equal != other
