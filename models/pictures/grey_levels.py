"""Grey levels of more than 8 bits become 8 bits here, and blank pictures are found.

The range of the levels comes from the settings of the line, from the file, or from the size of a sample, in this order. It is never
derived from the brightest pixel of one picture, because the same part would then change its brightness from picture to picture.
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

# A picture whose range nothing names is refused as too dark below this share of the range: a camera of 14 bits in 16 stays below it.
_DARK_SHARE = 0.25
# A picture is blank if 98 % of its pixels, resampled to the networks' side, lie within so many grey levels.
MIN_CONTRAST = 8
# A picture is partly blank if so large a share of its rows, from the first or from the last row on, has one single grey level.
MAX_BLANK_SHARE = 0.25
# A file without compression and checksum shows an unfinished transfer in no other way, so a smaller share counts there.
MAX_BLANK_SHARE_RAW = 0.05
# Where both ends have the same grey level it is the background of the part, such as a saturated back light.
MAX_BACKGROUND_SHARE = 0.5
_NAME_DEPTH = "Set depth_bits of the line to the number of bits that the camera delivers."


def scale_to_8_bits(levels: Levels, header: FormatHeader, depth_bits: int | None) -> GreyPixels:
    """Returns `levels`, of any shape, as 0..255, where 255 is the end of the camera's range. A WhiteIsZero picture is inverted.

    `depth_bits` is the setting of the line. Raises PictureError if the levels do not fit the range, or if nothing names the range
    and the picture is dark.
    """
    if header.is_float and not np.isfinite(levels).all():
        raise damaged("some of its pixels are no numbers")
    lowest, brightest = float(levels.min()), float(levels.max())
    if lowest < 0:
        raise damaged(f"it has grey levels down to {lowest:g}")
    full_range = _find_range(levels, brightest, header, depth_bits)
    scaled = levels.astype(np.float32) * np.float32(255 / full_range)
    if header.is_white_zero:
        scaled = 255 - scaled
    return (scaled + 0.5).astype(np.uint8)


def _find_range(levels: Levels, brightest: float, header: FormatHeader, depth_bits: int | None) -> float:
    """Returns the level that stands for white (or black, in WhiteIsZero)."""
    named = _find_named_range(levels, brightest, header, depth_bits)
    if named is not None:
        full_range, source = named
        if brightest > full_range:
            raise PictureError(
                RefusalReason.DEPTH,
                f"The picture has grey levels up to {brightest:g}, but {source} allows {full_range:g}. {_NAME_DEPTH} "
                "Cameras that shift their bits to the upper end of 16 need 16.",
            )
        return full_range
    full_range = 1.0 if header.is_float else 2.0 ** (header.sample_bits - header.is_signed) - 1
    if brightest > full_range or brightest < _DARK_SHARE * full_range:
        raise PictureError(
            RefusalReason.DEPTH,
            f"The brightest of the picture's {header.sample_bits}-bit grey levels is {brightest:g}, and neither the line's settings nor "
            f"the file say how many bits the camera uses. {_NAME_DEPTH}",
        )
    return full_range


def _find_named_range(levels: Levels, brightest: float, header: FormatHeader, depth_bits: int | None) -> tuple[float, str] | None:
    """Returns the range that the settings or the file name, with a word for the source, or None."""
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
    """Returns whether the unused low bits of all levels are 0.

    If they are 0, the writer has shifted the levels to the high bits, as the PNG standard asks. Many cameras write the chunk sBIT without
    shifting the levels.
    """
    return not np.bitwise_and(levels.astype(np.int64), 2**spare_bits - 1).any()


def check_not_partly_blank(image: Image.Image, is_raw: bool) -> None:
    """Checks the first and last rows of a grey picture, as it is stored. Raises PictureError if it is partly blank."""
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
            f"{share:.0%} of the picture's rows, at one end, have the same grey level, as if the rest had never arrived. Check that the "
            "camera's transfer is complete before the file is taken.",
        )


def check_not_blank(histogram: Sequence[int]) -> None:
    """Checks the contrast of a resampled picture by its histogram of 256 levels. Raises PictureError if nearly all pixels are equal."""
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
    """Returns the first level up to which there are more than `few` pixels."""
    for level, count in enumerate(histogram):
        few -= count
        if few < 0:
            return level
    return len(histogram) - 1


def _measure_blank_share(pixels: GreyPixels) -> float:
    """Returns the share of rows from the first one on that have the grey level of the first pixel, and no other."""
    if not (pixels[0] == pixels[0, 0]).all():
        return 0.0
    is_other = (pixels != pixels[0, 0]).any(axis=1)
    return float(is_other.argmax() if is_other.any() else len(pixels)) / len(pixels)
