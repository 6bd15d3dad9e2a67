"""What a plant does to pictures, in steps: is the version still right when light, sharpness or pose are not those of the training?"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Grey = npt.NDArray[np.uint8]


def strains(seed: int = 1) -> dict[str, Callable[[Grey], Grey]]:
    """Name and change of one picture, shape (side, side)."""
    rng = np.random.default_rng(seed)

    def clipped(values: npt.NDArray[np.floating]) -> Grey:
        result: Grey = np.clip(values + 0.5, 0, 255).astype(np.uint8)
        return result

    def light(factor: float) -> Callable[[Grey], Grey]:
        return lambda pixels: clipped(pixels * factor)

    def blur(radius_px: float) -> Callable[[Grey], Grey]:
        return lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius_px)))

    def noise(deviation: float) -> Callable[[Grey], Grey]:
        return lambda pixels: clipped(pixels + rng.normal(0, deviation, pixels.shape))

    def turn(degrees: float) -> Callable[[Grey], Grey]:
        def turned(pixels: Grey) -> Grey:
            ground = int(np.median(pixels[0]))
            return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=ground))

        return turned

    def jpeg(quality: int) -> Callable[[Grey], Grey]:
        def squeezed(pixels: Grey) -> Grey:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
            return np.asarray(Image.open(buffer, formats=("JPEG",)))

        return squeezed

    return {
        "light x 0.6": light(0.6),
        "light x 0.8": light(0.8),
        "light x 1.2": light(1.2),
        "blur 0.7 px": blur(0.7),
        "blur 1.5 px": blur(1.5),
        "noise 5 levels": noise(5),
        "noise 12 levels": noise(12),
        "turned by 17 degrees": turn(17),
        "turned by 90 degrees": turn(90),
        "JPEG quality 50": jpeg(50),
        "JPEG quality 20": jpeg(20),
    }
