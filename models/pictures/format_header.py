"""What the header of a picture file says, in the same words for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PictureFormat = Literal["JPEG", "PNG", "BMP", "TIFF"]


@dataclass(frozen=True, slots=True)
class FormatHeader:
    """The header of a picture file. No pixel is decoded to read it.

    `width_px` and `height_px` are the size as stored; `orientation` is that of EXIF, 1 to 8, where 1 is upright.
    `samples` is the number of samples of a pixel, transparency included; a palette counts as three.
    `sample_bits` is the number of bits that one sample takes in the file, and `is_float` tells whether a sample is a floating-point
    number. `significant_bits` (PNG's sBIT) and `largest_level` (TIFF's MaxSampleValue or SMaxSampleValue) say which part of the range
    the camera uses; they are None if the file does not say so. `is_white_zero` means that the level 0 is white and that the decoder has to
    invert it. `shows_unchanged` tells whether a browser shows the bytes with the grey levels that the decoder reads.
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
        """The kind of the pixels in Pillow's words: L, LA, RGB, RGBA, or CMYK for a JPEG of four samples."""
        return "CMYK" if self.format == "JPEG" and self.samples == 4 else {1: "L", 2: "LA", 3: "RGB"}.get(self.samples, "RGBA")

    @property
    def is_deep(self) -> bool:
        """Whether the samples have more than 8 bits or are floating-point numbers, so that their range has to be known."""
        return self.sample_bits > 8 or self.is_float
