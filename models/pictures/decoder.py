"""The decoder turns the bytes of a picture into grey pixels for training, inference and display.

- The picture is padded to a square, so that a round part stays round.
- Transparent pixels become white.

Increase `DECODER_VERSION` with every change that gives other grey levels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from models.pictures.bmp import prepare_bmp, read_bmp_header
from models.pictures.format_header import FormatHeader, PictureFormat
from models.pictures.grey_levels import GreyPixels, check_not_blank, check_not_partly_blank, scale_to_8_bits
from models.pictures.jpeg import choose_scale, decode_jpeg, read_jpeg_header
from models.pictures.pillow_pixels import read_image, read_levels
from models.pictures.png import PNG_SIGNATURE, prepare_png, read_png_header
from models.pictures.refusal import RefusalReason, damaged, truncated
from models.pictures.tiff import prepare_tiff, read_tiff_header
from streams.errors import PictureError
from streams.identity import sniff_content_type

if TYPE_CHECKING:
    from streams.settings import PictureSettings

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
_SIGNATURES: dict[bytes, PictureFormat] = {b"\xff\xd8\xff": "JPEG", PNG_SIGNATURE: "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_READ_HEADER: dict[PictureFormat, Callable[[bytes], FormatHeader]] = {
    "JPEG": read_jpeg_header,
    "PNG": read_png_header,
    "BMP": read_bmp_header,
    "TIFF": read_tiff_header,
}
_PREPARE: dict[PictureFormat, Callable[[bytes, FormatHeader], bytes]] = {"PNG": prepare_png, "BMP": prepare_bmp, "TIFF": prepare_tiff}


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest accepted picture, in bytes and in pixels. The decoder checks both limits before it decodes any pixel."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000

    @classmethod
    def from_settings(cls, settings: PictureSettings) -> Self:
        """Returns the limits of the section [pictures] of castline.toml."""
        return cls(settings.max_bytes, settings.max_pixels)


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture decoded for the networks: `pixels` has shape (side_px, side_px) and type uint8. 0 is black, 255 is white.

    `width_px` and `height_px` are the original size. `original`, shape (height_px, width_px), is None unless it was
    requested.
    """

    pixels: GreyPixels
    width_px: int
    height_px: int
    original: GreyPixels | None = None


class PictureReader:
    """An encoded picture whose header was checked. Only `load` decodes its pixels.

    `width_px` and `height_px` are the size of the upright picture. `depth_bits` is the setting of the line, or None.
    """

    def __init__(self, value: bytes, header: FormatHeader, depth_bits: int | None) -> None:
        self.value = value
        self.header = header
        self.depth_bits = depth_bits
        size = header.width_px, header.height_px
        self.width_px, self.height_px = size if header.orientation < 5 else size[::-1]

    @property
    def content_type(self) -> str:
        """The media type of the bytes, for example `image/jpeg`."""
        return sniff_content_type(self.value)

    def load(self, mode: Literal["L", "RGB"], min_side_px: int | None = None) -> Image.Image:
        """Returns the first frame of the file as an image with 8 bits a channel. Mode "RGB" keeps colours, mode "L" gives grey.

        The image has no transparency, and is not rotated yet.

        With `min_side_px`, a large JPEG can be decoded at a smaller size, but each side has at least this many pixels.
        """
        if self.header.format == "JPEG":
            return Image.fromarray(decode_jpeg(self.value, mode, self.header, min_side_px))
        value = _PREPARE[self.header.format](self.value, self.header)
        if not self.header.is_deep:
            return _flatten(read_image(value, self.header), mode)
        return _flatten(self._scale(read_levels(value, self.header)), mode)

    def _scale(self, levels: npt.NDArray[np.generic]) -> Image.Image:
        """Scales samples of more than 8 bits to an image of 8 bits. Transparency is scaled separately, by its own largest value."""
        if levels.ndim == 2 or levels.shape[2] not in (2, 4):
            return Image.fromarray(scale_to_8_bits(levels, self.header, self.depth_bits))
        colours = scale_to_8_bits(levels[..., :-1], self.header, self.depth_bits)
        opacity = levels[..., -1:].astype(np.float32)
        opacity = (opacity * (255 / max(1.0, float(opacity.max())))).astype(np.uint8)
        return Image.fromarray(np.concatenate((colours, opacity), axis=2))


def decode_picture(
    value: bytes, side_px: int, limits: PictureLimits | None = None, depth_bits: int | None = None, keep_original: bool = False
) -> DecodedPicture:
    """Decodes the picture in `value` to a grey and upright square of `side_px` x `side_px` pixels. Thread-safe.

    - `depth_bits`: bits that the camera uses, or None.
    - `keep_original`: keeps the grey pixels at full size.

    Raises PictureError if the picture cannot be judged, for example because it is damaged or blank. Raises no other error.
    """
    with open_picture(value, limits or PictureLimits(), depth_bits) as file:
        # libjpeg decodes a large JPEG faster at a reduced size. With `keep_original`, `_reduce` reduces the pixels instead.
        grey = file.load("L", None if keep_original else 2 * side_px)
        small = _shrink(_reduce(grey, file.header, 2 * side_px) if keep_original else grey, side_px)
        check_not_blank(small.histogram())
        check_not_partly_blank(grey, is_raw=file.header.format in ("BMP", "TIFF"))
        pixels = rotate_upright(_pad_square(np.asarray(small), side_px), file.header.orientation)
        original = np.ascontiguousarray(rotate_upright(np.asarray(grey), file.header.orientation)) if keep_original else None
        return DecodedPicture(np.ascontiguousarray(pixels), file.width_px, file.height_px, original)


def check_file_size(value: bytes, limits: PictureLimits) -> None:
    """Raises PictureError if a file is empty or has more bytes than `limits` allow."""
    if not value:
        raise PictureError(RefusalReason.EMPTY, "The file is empty. Check that the camera has finished writing before the file is taken.")
    if len(value) > limits.max_bytes:
        message = f"The file has {len(value)} bytes; at most {limits.max_bytes} are accepted. Reduce the camera's picture size or quality."
        raise PictureError(RefusalReason.TOO_LARGE, message)


@contextmanager
def open_picture(value: bytes, limits: PictureLimits, depth_bits: int | None = None) -> Iterator[PictureReader]:
    """Reads and checks the header of the picture in `value`, and yields a reader for the picture.

    Raises PictureError if the header is refused. Turns every exception within the `with` block into a PictureError, too.
    """
    check_file_size(value, limits)
    try:
        header = _READ_HEADER[_find_format(value)](value)
        _check_size(header, limits)
        yield PictureReader(value, header, depth_bits)
    except PictureError:
        raise
    except MemoryError as error:
        message = "The picture needs more memory than it may use. Reduce the camera's resolution, or upload a smaller picture."
        raise PictureError(RefusalReason.DECODER_LIMITS, message) from error
    except UnidentifiedImageError as error:
        raise damaged("the header of the file has a form that the decoder does not know") from error
    except (EOFError, struct.error) as error:
        raise truncated(str(error)) from error
    except Exception as error:  # Pillow raises a dozen types of exception for damaged pictures
        raise (truncated if "truncated" in str(error).lower() else damaged)(str(error) or repr(error)) from error


def rotate_upright(pixels: GreyPixels, orientation: int) -> GreyPixels:
    """Returns `pixels` rotated and mirrored so that the picture is upright. `orientation` is the value of the EXIF tag, 1 to 8.

    The shape of `pixels` is (height, width) or (height, width, channels).
    Source: Exif 2.32, section 4.6.4 A.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1, :]
    return pixels


def _find_format(value: bytes) -> PictureFormat:
    for signature, name in _SIGNATURES.items():
        if value.startswith(signature):
            return name
    message = f"The file is no picture that can be judged: {', '.join(FORMATS)} are accepted. Set the camera to one of them."
    raise PictureError(RefusalReason.NOT_AN_IMAGE, message)


def _check_size(header: FormatHeader, limits: PictureLimits) -> None:
    if header.width_px * header.height_px > limits.max_pixels:
        raise PictureError(
            RefusalReason.TOO_MANY_PIXELS,
            f"The picture has {header.width_px} x {header.height_px} pixels; at most {limits.max_pixels:,} in all are accepted. Reduce the "
            "camera's resolution or its region of interest.",
        )
    if header.width_px <= 0 or header.height_px <= 0:
        raise damaged(f"the header of the file gives an impossible size of {header.width_px} x {header.height_px} pixels")


def _flatten(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Returns `image` with 8 bits and without transparency: in grey if `mode` is "L", or with its colours if `mode` is "RGB"."""
    if image.mode == "L" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        least, most = image.getchannel("A").getextrema()
        if least == most:
            return image.convert("RGB").convert(mode)
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert(mode)
    if image.mode in ("1", "P", "RGB", "RGBX", "YCbCr", "L"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)  # Pillow cannot convert CMYK, LAB and HSV directly to grey


def _reduce(image: Image.Image, header: FormatHeader, min_side_px: int) -> Image.Image:
    """Returns the image of a large JPEG reduced by the factor that libjpeg would use. Returns other images unchanged."""
    scale = choose_scale(header, min_side_px) if header.format == "JPEG" else 1
    return image.reduce(scale) if scale > 1 else image


def _shrink(image: Image.Image, side_px: int) -> Image.Image:
    width_px, height_px = image.size
    scale = side_px / max(width_px, height_px)
    size = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _pad_square(pixels: GreyPixels, side_px: int) -> GreyPixels:
    height_px, width_px = pixels.shape
    if (height_px, width_px) == (side_px, side_px):
        return pixels
    left, top = (side_px - width_px) // 2, (side_px - height_px) // 2
    return np.pad(pixels, ((top, side_px - height_px - top), (left, side_px - width_px - left)), mode="edge")
