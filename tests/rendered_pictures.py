"""Rendered castings as the networks take them, and the same castings with faults of a camera."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from models.synthetic import render_series

SIDE_PX = 160
PICTURE_COUNT = 64
Pixels = npt.NDArray[np.uint8]


@cache
def camera_pictures(count: int = PICTURE_COUNT) -> tuple[Pixels, ...]:
    """The first `count` castings as a camera takes them, 300 px. Rendering one takes 40 ms, so a test asks only for those that it needs."""
    return tuple(casting.pixels for casting in render_series(count, seed=99))


@cache
def pictures() -> tuple[Pixels, ...]:
    """Castings as the networks take them."""
    return tuple(map(resample, camera_pictures()))


def spoil_pictures(spoil: Callable[[Pixels], Pixels], which: slice) -> list[Pixels]:
    """Some of the castings, spoiled in the camera and then resampled."""
    return [resample(spoil(pixels)) for pixels in camera_pictures()[which]]


def resample(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def frame_casting(pixels: Pixels, is_tall: bool = False, down_px: int = 0) -> Pixels:
    """The casting in a picture of 400 x 300 px or 300 x 400 px. It lies `down_px` beside the middle, towards a long side."""
    scene = np.pad(np.asarray(Image.fromarray(pixels).resize((300, 300))), 150, mode="edge")
    wide = scene[150 - down_px : 450 - down_px, 100:500]
    return wide.T if is_tall else wide


def dim(share: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: (pixels * share).astype(np.uint8)


def overexpose(pixels: Pixels) -> Pixels:
    return np.minimum(pixels.astype(np.uint16) * 2, 255).astype(np.uint8)


def defocus(pixels: Pixels) -> Pixels:
    """Blurs by 2 px. The noise of the sensor comes on top."""
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)), np.float32)
    noise = np.random.default_rng(int(pixels[0, 0])).normal(0, 1.5, pixels.shape)
    return np.clip(blurred + noise, 0, 255).astype(np.uint8)


def smear(pixels: Pixels) -> Pixels:
    """Blurs along one direction, as the moving belt does while the shutter is open."""
    moved: Pixels = np.mean([np.roll(pixels.astype(np.float32), step, axis=1) for step in range(15)], axis=0).astype(np.uint8)
    return moved


def freeze(_: Pixels) -> Pixels:
    """The same picture again and again."""
    return camera_pictures(1)[0]
