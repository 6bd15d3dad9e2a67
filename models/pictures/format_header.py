"""What the header of a picture file says about the picture, in the same form for JPEG, PNG, BMP and TIFF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PictureFormat = Literal["JPEG", "PNG", "BMP", "TIFF"]


@dataclass(frozen=True, slots=True)
class FormatHeader:
    """The header of a picture file. It is read without decoding any pixel.

    - `width_px` and `height_px`: the size before the picture is rotated upright.
    - `orientation`: the value of the EXIF tag, 1 to 8, where 1 means upright.
    - `samples`: the number of samples of a pixel, including transparency. A picture with a palette has three.
    - `sample_bits`: the number of bits of one sample in the file, but at least 8.
    - `is_float`, `is_signed`: whether the samples are floating-point numbers or signed integers.
    - `is_white_zero`: whether the level 0 means white, so that the decoder must invert the picture.
    - `significant_bits` (PNG's sBIT): how many bits of a sample the camera uses, or None if the file does not say so.
    - `largest_level` (TIFF's MaxSampleValue or SMaxSampleValue): the largest level of the camera, or None if the file does not say so.
    - `shows_unchanged`: whether a browser shows the file with the same grey levels that the decoder reads.
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
        """Pillow's name for the kind of the pixels: L, LA, RGB or RGBA, or CMYK for a JPEG with four samples."""
        return "CMYK" if self.format == "JPEG" and self.samples == 4 else {1: "L", 2: "LA", 3: "RGB"}.get(self.samples, "RGBA")

    @property
    def is_deep(self) -> bool:
        """True if the samples have more than 8 bits or are floating-point numbers. They must then be scaled to 8 bits."""
        return self.sample_bits > 8 or self.is_float
