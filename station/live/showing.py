"""From a camera's bytes to what a browser shows. Bytes are hostile: size limits before pixels, four formats, nothing else handed out.

JPEG and PNG of 8 bits go out as they came. TIFF, BMP, 16 bits and CMYK, which browsers show wrongly or not at all, become PNG.
"""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from streams.errors import PictureError
from streams.identity import sniff_content_type
from streams.settings import PictureSettings

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
_GLOW = (255, 40, 0)
_DEPTHS_BITS = (8, 10, 12, 14, 16)  # what a camera puts into a wide pixel
# One picture at a time: decoding takes some bytes a pixel, and `warnings` has one list of filters for all threads.
_decoding = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A picture as it goes to a browser: `image/jpeg` or `image/png`."""

    value: bytes
    content_type: str


@dataclass(frozen=True)
class Look:
    """What a picture's header says; the size is after EXIF rotation."""

    content_type: str
    width_px: int
    height_px: int


def look(value: bytes, limits: PictureSettings) -> Look:
    """What `value` is, by its header alone. Raises PictureError: in words for the person who sent it."""
    with _open(value, limits) as image:
        turned = image.format != "TIFF" and _turn(image) >= 5
        width_px, height_px = image.size[::-1] if turned else image.size
    return Look(sniff_content_type(value), width_px, height_px)


def shown(value: bytes, limits: PictureSettings) -> Picture:
    """`value` for a browser, in its own size. Raises PictureError: when it is no picture that can be shown."""
    with _open(value, limits) as image:
        content_type = sniff_content_type(value)
        if content_type in ("image/jpeg", "image/png") and image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
            return Picture(value, content_type)
        return Picture(_encoded(image, None), "image/png")


def small(value: bytes, limits: PictureSettings, side_px: int) -> Picture:
    """`value` at most `side_px` wide and high, upright, as JPEG. Raises PictureError: as `shown`."""
    with _open(value, limits) as image:
        return Picture(_encoded(image, side_px), "image/jpeg")


def glow(value: bytes, limits: PictureSettings) -> Picture:
    """A heat map, grey with white the hottest, as red light to lay over its picture: clear where nothing is. Raises PictureError."""
    buffer = io.BytesIO()
    with _open(value, limits) as image:
        try:
            with _decoding:
                image.load()
                heat = _eight_bits(image).convert("L")
                # Half the heat is to be seen as such: the square root lifts what is faint.
                light = Image.new("RGBA", heat.size, _GLOW)
                light.putalpha(heat.point([round(255 * (level / 255) ** 0.5) for level in range(256)]))
                light.save(buffer, "PNG")
        except Exception as error:  # the place where hostile pixels are isolated: Pillow raises a dozen types
            raise PictureError("damaged", "The heat map is damaged.") from error
    return Picture(buffer.getvalue(), "image/png")


def _open(value: bytes, limits: PictureSettings) -> Image.Image:
    """The image, of which only the header was read."""
    if not value:
        raise PictureError("empty", "The file is empty.")
    if len(value) > limits.max_bytes:
        raise PictureError("too-large", f"The file has {len(value)} bytes; the most is {limits.max_bytes}.")
    try:
        with _decoding, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(value), formats=_FORMATS)
    except UnidentifiedImageError:
        raise PictureError("not-an-image", "This is no picture that can be judged: JPEG, PNG, BMP or TIFF is expected.") from None
    except Image.DecompressionBombError:
        raise PictureError("too-many-pixels", f"The picture has too many pixels; the most is {limits.max_pixels:,}.") from None
    except Exception as error:  # the place where a hostile header is isolated: Pillow raises a dozen types
        raise PictureError("damaged", "The picture is damaged: its header cannot be read.") from error
    width_px, height_px = image.size
    if width_px * height_px > limits.max_pixels:
        image.close()
        message = f"The picture has {width_px} x {height_px} pixels; the most is {limits.max_pixels:,} in all."
        raise PictureError("too-many-pixels", message)
    if not width_px or not height_px:
        image.close()
        raise PictureError("damaged", "The picture is damaged: it has no pixels.")
    return image


def _turn(image: Image.Image) -> int:
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  EXIF is parsed by Pillow, which raises whatever its bytes provoke
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _encoded(image: Image.Image, side_px: int | None) -> bytes:
    """PNG in full size, or JPEG of at most `side_px`."""
    buffer = io.BytesIO()
    try:
        with _decoding, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if side_px is not None and image.format == "JPEG":
                image.draft("RGB" if image.mode != "L" else "L", (side_px, side_px))  # reads every 2nd, 4th or 8th pixel only
            image.load()
            plain = _eight_bits(image)
            if image.format != "TIFF" and _turn(image) > 1:
                plain = ImageOps.exif_transpose(plain)
            if side_px is None:
                plain.save(buffer, "PNG", compress_level=1)
            else:
                plain.thumbnail((side_px, side_px))
                plain.convert("L" if plain.mode == "L" else "RGB").save(buffer, "JPEG", quality=82)
    except Exception as error:  # the place where hostile pixels are isolated: Pillow raises a dozen types
        raise PictureError("damaged", "The picture is damaged or ends too early.") from error
    return buffer.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        levels = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
        top = float(levels.max(initial=0.0))
        # The smallest depth that holds the brightest pixel: a camera's 12 bits in 16 would else look black.
        full = 1.0 if image.mode == "F" and top <= 1 else next((2.0**bits - 1 for bits in _DEPTHS_BITS if top < 2**bits), top)
        return Image.fromarray((levels * (255 / (full or 1.0)) + 0.5).astype(np.uint8))
    if image.mode in ("1", "P", "LA", "PA", "RGBA", "La", "RGBa"):
        plain = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
