"""Defines the class FormatHeader, which describes a picture file in the same way for JPEG, PNG, BMP and TIFF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PictureFormat = Literal["JPEG", "PNG", "BMP", "TIFF"]


@dataclass(frozen=True, slots=True)
class FormatHeader:
    """The header of a picture file, read without decoding any pixel.

    - `width_px`, `height_px`: the size before rotation.
    - `orientation`: the EXIF tag, 1 to 8.
    - `sample_bits`: bits of a sample, at least 8.
    - `is_white_zero`: level 0 means white.
    - `significant_bits`: bits that the camera uses, or None.
    - `largest_level`: the camera's largest level, or None.
    - `shows_unchanged`: browsers show the right grey levels.
    """

    format: PictureFormat
    width_px: int
    height_px: int
    orientation: int = 1
    samples: int = 1
    sample_bits: int = 8
    is_float: bool = False
    is_signed: bool = False
    is_white_zero: bool = False
    significant_bits: int | None = None
    largest_level: float | None = None
    shows_unchanged: bool = False

    @property
    def mode(self) -> str:
        """Pillow's name for the samples of a pixel.

        Pixels with one, two, three or four samples have the mode L, LA, RGB or RGBA. In a JPEG, four samples have the mode CMYK.
        """
        return "CMYK" if self.format == "JPEG" and self.samples == 4 else {1: "L", 2: "LA", 3: "RGB"}.get(self.samples, "RGBA")

    @property
    def is_deep(self) -> bool:
        """True if the samples have more than 8 bits or are floating-point numbers. They must then be scaled to 8 bits."""
        return self.sample_bits > 8 or self.is_float
