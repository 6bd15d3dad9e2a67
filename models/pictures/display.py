"""Makes pictures for browsers: the judged picture, its thumbnail, and a heat map to lay over the picture.

The pictures are decoded as for the networks, so people see what the networks saw. Colours are kept, although the networks see only grey.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.pictures.decoder import PictureLimits, open_picture, rotate_upright

HEAT_COLOUR = (255, 40, 0)
HEAT_OPACITY = 0.6
JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """The bytes of a picture for a browser, with their media type: `image/jpeg` or `image/png`."""

    value: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """The media type and the upright size of a picture. Both come from the header of the picture file."""

    content_type: str
    width_px: int
    height_px: int


def read_picture_header(value: bytes, limits: PictureLimits) -> PictureHeader:
    """Returns the header of the picture in `value` without decoding pixels.

    Raises PictureError if the header is damaged or the picture is too large. The message is meant for the person who sent the picture.
    """
    with open_picture(value, limits) as file:
        return PictureHeader(file.content_type, file.width_px, file.height_px)


def encode_for_browser(value: bytes, limits: PictureLimits, depth_bits: int | None = None) -> EncodedPicture:
    """Returns the picture in `value` in full size and in a format that browsers can show.

    A picture that browsers cannot show exactly becomes an upright PNG. `depth_bits` is a setting of the line. Raises PictureError if the
    decoder refuses the picture.
    """
    with open_picture(value, limits, depth_bits) as file:
        image = file.load("RGB")
        if file.header.shows_unchanged:
            return EncodedPicture(value, file.content_type)
        return _encode_png(rotate_upright(np.asarray(image), file.header.orientation))


def encode_thumbnail(value: bytes, limits: PictureLimits, side_px: int, depth_bits: int | None = None) -> EncodedPicture:
    """Returns the picture in `value` as an upright JPEG, at most `side_px` wide and high.

    `depth_bits` is a setting of the production line from which the picture comes. Raises PictureError if the decoder refuses the picture.
    """
    with open_picture(value, limits, depth_bits) as file:
        image = file.load("RGB", side_px)
        upright = Image.fromarray(np.ascontiguousarray(rotate_upright(np.asarray(image), file.header.orientation)))
        upright.thumbnail((side_px, side_px))
        buffer = io.BytesIO()
        upright.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return EncodedPicture(buffer.getvalue(), "image/jpeg")


def encode_heat_map_layer(value: bytes, limits: PictureLimits) -> EncodedPicture:
    """Returns a heat map as a red PNG to lay over its picture. The hottest pixels are the most opaque.

    `value` is a grey picture with white for the hottest pixels. Raises PictureError if the decoder refuses it.
    """
    with open_picture(value, limits) as file:
        heat = rotate_upright(np.asarray(file.load("L")), file.header.orientation)
        layer = np.empty((*heat.shape, 4), np.uint8)
        layer[..., :3] = HEAT_COLOUR
        # The opacity is the square root of the heat, so that faint heat is visible.
        opacity = np.array([round(255 * (level / 255) ** 0.5) for level in range(256)], np.uint8)
        layer[..., 3] = opacity[heat]
        return _encode_png(layer)


def overlay_heat_map(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> Image.Image:
    """Returns the grey picture `pixels` with its heat map laid over it in red.

    `pixels` has the shape (rows, columns). `heat` has the same shape and the range 0..1.
    """
    opacity = HEAT_OPACITY * heat[..., np.newaxis]
    colour = np.array(HEAT_COLOUR, np.float32)
    return Image.fromarray((pixels[..., np.newaxis] * (1 - opacity) + colour * opacity + 0.5).astype(np.uint8))


def _encode_png(pixels: npt.NDArray[np.uint8]) -> EncodedPicture:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return EncodedPicture(buffer.getvalue(), "image/png")
