"""Scales grey levels of more than 8 bits to 8 bits, and finds blank pictures.

The settings or the file say which level is white. The brightest pixel is not used, because it differs between pictures of the same part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import RefusalReason, damaged
from streams.errors import PictureError

GreyPixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.generic]

# A picture is too dark if its brightest pixel is below this share of the range. The camera then probably uses only some of the bits.
_DARK_SHARE = 0.25
# A picture is blank if the grey levels of 98 % of its resampled pixels differ by less than this.
MIN_CONTRAST = 8
# A picture is partly blank if this share of its rows, at the top or at the bottom, has one single grey level.
MAX_BLANK_SHARE = 0.25
# A BMP or TIFF is partly blank if this share of its rows has one grey level. The limit is low, because these formats have no checksum.
MAX_BLANK_SHARE_RAW = 0.05
# If the first and the last row of a picture have the same single grey level, this share is the limit of blank rows. It is higher than
# MAX_BLANK_SHARE, because these rows probably show the background.
MAX_BACKGROUND_SHARE = 0.5
_NAME_DEPTH = "Set depth_bits of the line to the number of bits that the camera delivers."


def scale_to_8_bits(levels: Levels, header: FormatHeader, depth_bits: int | None) -> GreyPixels:
    """Scales `levels`, an array of any shape, to 0..255, where 255 is white.

    `depth_bits` is the setting of the line, or None. Raises PictureError if a level is out of range, or if the picture is dark and its
    range is unknown.
    """
    if header.is_float and not np.isfinite(levels).all():
        raise damaged("some pixels of the picture are infinite or not a number")
    lowest, brightest = float(levels.min()), float(levels.max())
    if lowest < 0:
        raise damaged(f"the picture has negative grey levels, down to {lowest:g}")
    full_range = _find_range(levels, brightest, header, depth_bits)
    scaled = levels.astype(np.float32) * np.float32(255 / full_range)
    if header.is_white_zero:
        scaled = 255 - scaled
    return (scaled + 0.5).astype(np.uint8)


def _find_range(levels: Levels, brightest: float, header: FormatHeader, depth_bits: int | None) -> float:
    """Returns the highest possible grey level. In most pictures it means white, but in some TIFFs black.

    Raises PictureError if a pixel has a higher level, or if the picture is dark and its range is unknown.
    """
    named = _find_named_range(levels, brightest, header, depth_bits)
    if named is not None:
        full_range, source = named
        if brightest > full_range:
            raise PictureError(
                RefusalReason.DEPTH,
                f"The picture has grey levels up to {brightest:g}, but {source} allows {full_range:g}. {_NAME_DEPTH} "
                "If the camera shifts its bits to the upper end of 16 bits, set 16.",
            )
        return full_range
    full_range = 1.0 if header.is_float else 2.0 ** (header.sample_bits - header.is_signed) - 1
    if brightest > full_range or brightest < _DARK_SHARE * full_range:
        raise PictureError(
            RefusalReason.DEPTH,
            f"The brightest grey level of the picture is {brightest:g}. The file has {header.sample_bits} bits per sample, but the line's "
            f"settings and the file do not say how many bits the camera uses. {_NAME_DEPTH}",
        )
    return full_range


def _find_named_range(levels: Levels, brightest: float, header: FormatHeader, depth_bits: int | None) -> tuple[float, str] | None:
    """Returns the highest possible grey level, and whether the settings or the file gave it. Returns None if neither gave it."""
    if depth_bits is not None:
        return 2.0**depth_bits - 1, f"depth_bits = {depth_bits} of the line"
    if header.largest_level is not None:
        return header.largest_level, "the file's largest sample value"
    if header.is_float:
        return None
    if 8 < header.sample_bits < 16:
        return 2.0**header.sample_bits - 1, "the file's bits per sample"
    bits = header.significant_bits
    if bits is not None and 0 < bits < header.sample_bits:
        is_shifted = brightest >= 2**bits or _are_low_bits_zero(levels, header.sample_bits - bits)
        return (2.0**header.sample_bits - 1, "the file's sample size") if is_shifted else (2.0**bits - 1, "the file's significant bits")
    return None


def _are_low_bits_zero(levels: Levels, spare_bits: int) -> bool:
    """Returns whether the lowest `spare_bits` bits of all levels are 0. The PNG standard asks for this, but many cameras do not obey."""
    return not np.bitwise_and(levels.astype(np.int64), 2**spare_bits - 1).any()


def check_not_partly_blank(image: Image.Image, is_raw: bool) -> None:
    """Raises PictureError if many rows at the top or at the bottom of a grey picture have one single grey level.

    The picture must not be rotated yet. `is_raw` is True for BMP and TIFF.
    """
    width_px, height_px = image.size
    edges = [image.crop((0, top, width_px, top + 1)).getextrema() for top in (0, height_px - 1)]
    if all(darkest != brightest for darkest, brightest in edges):
        return
    pixels = np.asarray(image)
    first, last = _measure_blank_share(pixels), _measure_blank_share(pixels[::-1])
    is_background = edges[0] == edges[1] and first > 0
    limit = MAX_BLANK_SHARE_RAW if is_raw else MAX_BLANK_SHARE
    share = max(first, last)
    if share >= (MAX_BACKGROUND_SHARE if is_background else limit):
        raise PictureError(
            RefusalReason.PARTLY_BLANK,
            f"{share:.0%} of the picture's rows, at its top or bottom, have one single grey level, as if the rest had never arrived. "
            "Check that the camera's transfer is complete before the file is taken.",
        )


def check_not_blank(histogram: Sequence[int]) -> None:
    """Raises PictureError if nearly all pixels have the same grey level. `histogram` counts the pixels of each level."""
    few = 0.01 * sum(histogram)
    low = _find_level(histogram, few)
    high = len(histogram) - 1 - _find_level(histogram[::-1], few)
    if high - low < MIN_CONTRAST:
        raise PictureError(
            RefusalReason.BLANK,
            f"The picture is blank: 98 % of its pixels have grey levels from {low} to {high}. Check the light, the lens cap and the "
            "exposure of the camera.",
        )


def _find_level(histogram: Sequence[int], few: float) -> int:
    """Returns the lowest grey level that remains if the darkest `few` pixels of the picture are ignored."""
    for level, count in enumerate(histogram):
        few -= count
        if few < 0:
            return level
    return len(histogram) - 1


def _measure_blank_share(pixels: GreyPixels) -> float:
    """Returns the share of rows at the top that have the same single grey level: 0.1 if the first 10 of 100 rows are white."""
    if not (pixels[0] == pixels[0, 0]).all():
        return 0.0
    is_other = (pixels != pixels[0, 0]).any(axis=1)
    return float(is_other.argmax() if is_other.any() else len(pixels)) / len(pixels)
