"""The one guarded way from bytes to grey levels, for training and for inference alike.

A picture is hostile until it is decoded: its length and its size in pixels are checked before a pixel is touched, only four
formats are opened, and whatever Pillow may raise becomes a `PictureError` with one of the words of `Reason`.

What is decided here, and why:
- **Shape.** A picture that is not square keeps its proportions and is filled up with its own edge: a disc stays a disc, no rim (where
  most defects sit) is cut off, and no line appears where the filling begins.
- **Alpha** is laid over white: what was cut out of its background then looks like a part on a light belt, not in a black hole.
- **16 bit and more.** Industrial cameras put 10, 12 or 14 bits into 16 without saying so. The smallest of these depths that holds the
  brightest pixel is taken as the full range, so that such a picture is not judged nearly black.
- **Several frames.** The first one is judged: it is the one that every viewer shows.
"""

from __future__ import annotations

import io
import threading
import warnings
import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from streams.errors import PictureError

Grey = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
BOMB_PX = 178_956_970  # Pillow refuses more by itself, whatever our limit says
ORIENTATION_TAG = 0x0112  # EXIF
DEPTHS_BITS = (8, 10, 12, 14, 16)  # what a camera puts into a wide pixel

# `warnings` has one list of filters for all threads, so that it is changed by one thread at a time.
_quiet = threading.Lock()


class Reason(StrEnum):
    """Why a picture could not be judged; these words are metric labels and never renamed."""

    EMPTY = "empty"  # no bytes at all
    TOO_LARGE = "too-large"  # more bytes than allowed
    TOO_MANY_PIXELS = "too-many-pixels"  # more pixels than allowed, whatever the bytes
    NOT_AN_IMAGE = "not-an-image"  # none of the allowed formats
    TRUNCATED = "truncated"  # an allowed format that ends too early
    DAMAGED = "damaged"  # an allowed format whose content contradicts itself


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What a picture may be at most, checked before its pixels are touched."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture. `pixels` has shape (side_px, side_px), uint8, 0 black; the size is that of the upright original."""

    pixels: Grey
    width_px: int
    height_px: int


def decode(value: bytes, side_px: int, limits: PictureLimits | None = None) -> Picture:
    """The picture in `value`, upright, grey and resampled to `side_px` x `side_px`. Safe to call from several threads.

    Raises PictureError with a `Reason` for everything that cannot be judged, and nothing else.
    """
    limits = limits or PictureLimits()
    if not value:
        raise PictureError(Reason.EMPTY, "expected a picture, received no bytes")
    if len(value) > limits.max_bytes:
        raise PictureError(Reason.TOO_LARGE, f"expected at most {limits.max_bytes} bytes, received {len(value)}")
    try:
        return _decode(value, side_px, limits)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        message = f"expected one of {', '.join(FORMATS)}, received {len(value)} bytes of something else"
        raise PictureError(Reason.NOT_AN_IMAGE, message) from error
    except Image.DecompressionBombError as error:
        raise PictureError(Reason.TOO_MANY_PIXELS, f"expected at most {limits.max_pixels} px: {error}") from error
    except Exception as error:  # the place where a poison picture is isolated: Pillow raises a dozen types
        short = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = Reason.TRUNCATED if short else Reason.DAMAGED
        raise PictureError(reason, f"expected a whole picture of {len(value)} bytes: {error}") from error


def _decode(value: bytes, side_px: int, limits: PictureLimits) -> Picture:
    image, turn = _open(value)
    with image:
        width_px, height_px = image.size
        if width_px * height_px > limits.max_pixels:
            message = f"expected at most {limits.max_pixels} px, received {width_px} x {height_px} px"
            raise PictureError(Reason.TOO_MANY_PIXELS, message)
        if width_px == 0 or height_px == 0:
            raise PictureError(Reason.DAMAGED, f"expected pixels, received {width_px} x {height_px} px")
        if image.format == "PNG":
            _check_sums(value)
        if image.format == "TIFF":  # warns while it reads pixels, and turns itself upright
            with _quiet, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.load()
            width_px, height_px = image.size
        else:
            # libjpeg leaves out the colours, and of a large picture reads only every 2nd, 4th or 8th pixel;
            # twice the side is kept, so that the resampling below still decides how the picture looks.
            image.draft("L", (2 * side_px, 2 * side_px))
            image.load()
        pixels = _upright(_squared(_grey(image), side_px), turn)
    if turn >= 5:
        width_px, height_px = height_px, width_px
    return Picture(np.ascontiguousarray(pixels), width_px, height_px)


def _check_sums(value: bytes) -> None:
    """A PNG's own checksums up to its end: Pillow passes over those of the pixels, and would hand out black for what was lost."""
    at = len(PNG_MAGIC)
    while True:
        if at + 12 > len(value):
            raise PictureError(Reason.TRUNCATED, f"expected a PNG's end, received {len(value)} bytes without one")
        size = int.from_bytes(value[at : at + 4])
        kind, end = value[at + 4 : at + 8], at + 8 + size
        if end + 4 > len(value):
            raise PictureError(Reason.TRUNCATED, f"expected {end + 4} bytes of PNG, received {len(value)}")
        if zlib.crc32(memoryview(value)[at + 4 : end]) != int.from_bytes(value[end : end + 4]):
            raise PictureError(Reason.DAMAGED, f"expected the checksum of a PNG's part {kind!r} to be right, found another")
        if kind == b"IEND":
            return
        at = end + 4


def _open(value: bytes) -> tuple[Image.Image, int]:
    """The image, of which only the header was read, and its EXIF orientation (1 to 8, 1 upright)."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(value), formats=FORMATS)
        if image.format in ("TIFF", "BMP"):
            return image, 1
        turn = _orientation(image)
    return image, turn


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 when there is none or it cannot be read, since a damaged note does not spoil the picture."""
    try:
        turn = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  EXIF is parsed by Pillow, which raises whatever its bytes provoke
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _grey(image: Image.Image) -> Image.Image:
    """`image` in mode "L"."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("L")
    if image.mode in ("1", "P", "RGB", "RGBX", "YCbCr", "L"):
        return image.convert("L")
    return image.convert("RGB").convert("L")  # CMYK, LAB, HSV have no direct way


def _eight_bits(wide: npt.NDArray[np.generic]) -> Grey:
    """Grey levels of more than 8 bits, or of fractions, as 0..255."""
    levels = np.nan_to_num(wide.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    top = float(levels.max(initial=0.0))
    fractions = wide.dtype.kind == "f" and top <= 1
    full = 1.0 if fractions else next((2.0**bits - 1 for bits in DEPTHS_BITS if top < 2**bits), top)
    return (levels * (255 / full) + 0.5).astype(np.uint8)


def _squared(image: Image.Image, side_px: int) -> Grey:
    """`image` within a square of `side_px`, its proportions kept, filled up with its own edge."""
    width, height = image.size
    scale = side_px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels: Grey = np.asarray(image)
    if size == (side_px, side_px):
        return pixels
    left, top = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    return np.pad(pixels, ((top, side_px - size[1] - top), (left, side_px - size[0] - left)), mode="edge")


def _upright(pixels: Grey, turn: int) -> Grey:
    """A square picture turned and mirrored as EXIF's orientation says (Exif 2.32, 4.6.4 A)."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.T
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1, :]
    return pixels
