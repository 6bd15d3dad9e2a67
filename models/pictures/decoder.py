"""The decoder: the only place where the bytes of a picture become pixels, for training, inference and display alike.

The bytes are hostile until they are decoded. Length and size in pixels are checked before a pixel is touched, only four formats are
opened, and every error of Pillow becomes a `PictureError` with one of the words of `RefusalReason`.

Decisions and their reasons:
- Shape: a picture that is not square keeps its proportions and is padded with its own edge. A disc stays a disc, the rim, where
  most defects lie, is not cut off, and no line appears where the padding begins.
- Transparency: transparent pixels become white, like a light belt. Black would look like a hole.
- More than 8 bits: industrial cameras store 10, 12 or 14 bits in 16 without saying so. The smallest of these depths that holds the
  brightest pixel is taken as the full range, because the picture would otherwise be nearly black.
- Several frames: the first one is decoded, as picture viewers do.
"""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from streams.errors import PictureError
from streams.identity import sniff_content_type

if TYPE_CHECKING:
    from streams.settings import PictureSettings

GreyPixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The number of the EXIF tag that says how a picture has to be rotated.
ORIENTATION_TAG = 0x0112
# The numbers of bits of a grey level that cameras store in files with 16 bits a pixel.
DEPTHS_BITS = (8, 10, 12, 14, 16)

# The filters of `warnings` are shared by all threads, so only one thread at a time may change them.
_warnings_lock = threading.Lock()


class RefusalReason(StrEnum):
    """Why a picture cannot be decoded. The values are labels of metrics and are never renamed.

    empty: no bytes. too-large: too many bytes. too-many-pixels: too many pixels. not-an-image: none of the accepted formats.
    truncated: an accepted format that ends too early. damaged: an accepted format whose content contradicts itself.
    """

    EMPTY = "empty"
    TOO_LARGE = "too-large"
    TOO_MANY_PIXELS = "too-many-pixels"
    NOT_AN_IMAGE = "not-an-image"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Largest accepted picture, in bytes and in pixels. Both limits are checked before pixels are decoded."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000

    @classmethod
    def from_settings(cls, settings: PictureSettings) -> Self:
        """Returns the limits of the section [pictures] of castline.toml."""
        return cls(settings.max_bytes, settings.max_pixels)


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture as the networks take it. `pixels` has shape (side_px, side_px), uint8, 0 is black.

    `width_px` and `height_px` are the size of the upright original picture.
    """

    pixels: GreyPixels
    width_px: int
    height_px: int


class PictureReader:
    """An encoded picture whose header was read and checked against the limits. No pixel is decoded before `load` is called.

    `width_px` and `height_px` are the size of the upright picture. `orientation` is that of EXIF, 1 to 8, where 1 is upright; it is
    1 for TIFF, because Pillow rotates TIFF by itself.
    """

    def __init__(self, value: bytes, image: Image.Image, orientation: int) -> None:
        self.value = value
        self.image = image
        self.orientation = orientation
        self.width_px, self.height_px = image.size if orientation < 5 else image.size[::-1]

    @property
    def content_type(self) -> str:
        """The media type of the bytes, for example `image/jpeg`."""
        return sniff_content_type(self.value)

    def load(self, mode: Literal["L", "RGB"], min_side_px: int | None = None) -> Image.Image:
        """Decodes the pixels to 8 bits without transparency. Returns the first frame as it is stored, not yet upright.

        With mode "L" the result is grey; with "RGB" it has colour if the picture has. `min_side_px` allows a JPEG to be decoded at a
        half, a quarter or an eighth of its size, as long as no side gets smaller than `min_side_px`.
        """
        image = self.image
        if image.format == "PNG":
            _check_png_checksums(self.value)
        # Pillow rotates TIFF by itself, and warns while it reads the pixels.
        if image.format == "TIFF":
            with _warnings_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
            self.width_px, self.height_px = image.size
        else:
            if min_side_px is not None:
                image.draft("L" if image.mode == "L" else mode, (min_side_px, min_side_px))
            image.load()
        return _flatten(image, mode)


def decode_picture(value: bytes, side_px: int, limits: PictureLimits | None = None) -> DecodedPicture:
    """Returns the picture in `value`, upright, grey and resampled to `side_px` x `side_px`. Thread-safe.

    Raises PictureError with a `RefusalReason` for every picture that cannot be decoded, and no other error.
    """
    with open_picture(value, limits or PictureLimits()) as file:
        # libjpeg may decode at a smaller scale. Twice the side is kept, so that the resampling below decides how the picture looks.
        grey = file.load("L", 2 * side_px)
        pixels = rotate_upright(_fit_square(grey, side_px), file.orientation)
        return DecodedPicture(np.ascontiguousarray(pixels), file.width_px, file.height_px)


@contextmanager
def open_picture(value: bytes, limits: PictureLimits) -> Iterator[PictureReader]:
    """Yields the picture in `value` after its header was checked, and closes it afterwards.

    Raises PictureError for every error of the header, and for every error of Pillow within the block.
    """
    if not value:
        raise PictureError(RefusalReason.EMPTY, "The file is empty.")
    if len(value) > limits.max_bytes:
        raise PictureError(RefusalReason.TOO_LARGE, f"The file has {len(value)} bytes; at most {limits.max_bytes} are accepted.")
    try:
        file = _read_header(value)
        with file.image:
            _check_size(file, limits)
            yield file
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        message = f"The file is no picture that can be judged: {', '.join(FORMATS)} are accepted."
        raise PictureError(RefusalReason.NOT_AN_IMAGE, message) from error
    except Image.DecompressionBombError as error:
        message = f"The picture has too many pixels; at most {limits.max_pixels:,} are accepted."
        raise PictureError(RefusalReason.TOO_MANY_PIXELS, message) from error
    except Exception as error:  # Pillow raises a dozen types of error for damaged pictures
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            raise PictureError(RefusalReason.TRUNCATED, f"The picture ends too early: {error}.") from error
        raise PictureError(RefusalReason.DAMAGED, f"The picture is damaged: {error}.") from error


def rotate_upright(pixels: GreyPixels, orientation: int) -> GreyPixels:
    """Returns pixels of shape (height, width) or (height, width, channels), rotated and mirrored as EXIF's `orientation` says.

    Source: Exif 2.32, section 4.6.4 A.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1, :]
    return pixels


def _read_header(value: bytes) -> PictureReader:
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(value), formats=FORMATS)
        return PictureReader(value, image, 1 if image.format in ("TIFF", "BMP") else _read_orientation(image))


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  Pillow parses EXIF and raises whatever its bytes provoke
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _check_size(file: PictureReader, limits: PictureLimits) -> None:
    if file.width_px * file.height_px > limits.max_pixels:
        message = f"The picture has {file.width_px} x {file.height_px} pixels; at most {limits.max_pixels:,} in all are accepted."
        raise PictureError(RefusalReason.TOO_MANY_PIXELS, message)
    if file.width_px == 0 or file.height_px == 0:
        raise PictureError(RefusalReason.DAMAGED, f"The picture is damaged: it has {file.width_px} x {file.height_px} pixels.")


def _check_png_checksums(value: bytes) -> None:
    """Verifies the checksums of a PNG up to its end. Pillow ignores those of the pixels and would return black for lost ones."""
    start = len(PNG_SIGNATURE)
    while True:
        if start + 12 > len(value):
            raise PictureError(RefusalReason.TRUNCATED, "The picture ends too early: the PNG has no end chunk.")
        size = int.from_bytes(value[start : start + 4])
        kind, end = value[start + 4 : start + 8], start + 8 + size
        if end + 4 > len(value):
            raise PictureError(RefusalReason.TRUNCATED, f"The picture ends too early: {len(value)} of at least {end + 4} bytes of PNG.")
        if zlib.crc32(memoryview(value)[start + 4 : end]) != int.from_bytes(value[end : end + 4]):
            raise PictureError(RefusalReason.DAMAGED, f"The picture is damaged: the checksum of its PNG chunk {kind!r} is wrong.")
        if kind == b"IEND":
            return
        start = end + 4


def _flatten(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Returns `image` in 8 bits without transparency: grey (mode "L"), or in colour if it has colour and `mode` is "RGB"."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_scale_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert(mode)
    if image.mode in ("1", "P", "RGB", "RGBX", "YCbCr", "L"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)  # Pillow cannot convert CMYK, LAB and HSV to grey directly


def _scale_to_8_bits(wide: npt.NDArray[np.generic]) -> GreyPixels:
    """Returns grey levels of more than 8 bits, or of floating point, as 0..255."""
    levels = np.nan_to_num(wide.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    brightest = float(levels.max(initial=0.0))
    is_fraction = wide.dtype.kind == "f" and brightest <= 1
    full_range = 1.0 if is_fraction else next((2.0**bits - 1 for bits in DEPTHS_BITS if brightest < 2**bits), brightest)
    return (levels * (255 / full_range) + 0.5).astype(np.uint8)


def _fit_square(image: Image.Image, side_px: int) -> GreyPixels:
    """Returns `image` within a square of `side_px`, its proportions kept, padded with its own edge."""
    width_px, height_px = image.size
    scale = side_px / max(width_px, height_px)
    size = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels: GreyPixels = np.asarray(image)
    if size == (side_px, side_px):
        return pixels
    left, top = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    return np.pad(pixels, ((top, side_px - size[1] - top), (left, side_px - size[0] - left)), mode="edge")
