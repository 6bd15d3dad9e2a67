"""Disturbs pictures in ways that occur in a plant: different light, blur, noise, rotation and JPEG compression, in several strengths.

An evaluation counts the errors on the disturbed pictures, which shows how robust a version is.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from models.pictures.decoder import decode_picture

GreyPixels = npt.NDArray[np.uint8]
Disturbance = Callable[[GreyPixels], GreyPixels]


def make_disturbances(seed: int = 1) -> dict[str, Disturbance]:
    """Returns the disturbances by name: functions that disturb one picture, shape (side, side). `seed` is for the random noise."""
    rng = np.random.default_rng(seed)
    return {
        "light x 0.6": lambda pixels: _clip(pixels * 0.6),
        "light x 0.8": lambda pixels: _clip(pixels * 0.8),
        "light x 1.2": lambda pixels: _clip(pixels * 1.2),
        "blur 0.7 px": lambda pixels: _blur(pixels, 0.7),
        "blur 1.5 px": lambda pixels: _blur(pixels, 1.5),
        "noise 5 levels": lambda pixels: _clip(pixels + rng.normal(0, 5, pixels.shape)),
        "noise 12 levels": lambda pixels: _clip(pixels + rng.normal(0, 12, pixels.shape)),
        "turned by 17 degrees": lambda pixels: _rotate(pixels, 17),
        "turned by 90 degrees": lambda pixels: _rotate(pixels, 90),
        "JPEG quality 50": lambda pixels: _compress(pixels, 50),
        "JPEG quality 20": lambda pixels: _compress(pixels, 20),
    }


def _clip(values: npt.NDArray[np.floating]) -> GreyPixels:
    result: GreyPixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return result


def _blur(pixels: GreyPixels, radius_px: float) -> GreyPixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius_px)))


def _rotate(pixels: GreyPixels, degrees: float) -> GreyPixels:
    background = int(np.median(pixels[0]))
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=background))


def _compress(pixels: GreyPixels, quality: int) -> GreyPixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return decode_picture(buffer.getvalue(), pixels.shape[0]).pixels
