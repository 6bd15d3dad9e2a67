"""The decoder turns the bytes of a picture into grey pixels for training, inference and display.

- The upright picture is padded to a square, so that a round part stays round. `find_picture_area` says where it lies in the square.
- Transparent pixels become white.
- Grey levels of more than 8 bits are scaled to 8 bits. The settings or the file say which level is white. The decoder does not take the
  brightest pixel as white, because the brightest pixel differs between pictures of the same part.
- A blank picture is refused.

Increase `DECODER_VERSION` with every change that gives other grey levels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from models.pictures.bmp import prepare_bmp, read_bmp_header
from models.pictures.format_header import FormatHeader, PictureFormat
from models.pictures.jpeg import choose_scale, decode_jpeg, read_jpeg_header
from models.pictures.pillow_pixels import read_image, read_levels
from models.pictures.png import PNG_SIGNATURE, prepare_png, read_png_header
from models.pictures.refusal import RefusalReason, damaged, truncated
from models.pictures.tiff import prepare_tiff, read_tiff_header
from streams.errors import PictureError
from streams.identity import sniff_content_type

if TYPE_CHECKING:
    from streams.settings import PictureSettings

GreyPixels = npt.NDArray[np.uint8]
# The rows and the columns of a padded square that show the original picture. The rest of the square is margin.
PictureArea = tuple[slice, slice]
Levels = npt.NDArray[np.generic]

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
_SIGNATURES: dict[bytes, PictureFormat] = {b"\xff\xd8\xff": "JPEG", PNG_SIGNATURE: "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_READ_HEADER: dict[PictureFormat, Callable[[bytes], FormatHeader]] = {
    "JPEG": read_jpeg_header,
    "PNG": read_png_header,
    "BMP": read_bmp_header,
    "TIFF": read_tiff_header,
}
_PREPARE: dict[PictureFormat, Callable[[bytes, FormatHeader], bytes]] = {"PNG": prepare_png, "BMP": prepare_bmp, "TIFF": prepare_tiff}

# A picture is too dark if its brightest pixel is below this share of the highest possible grey level. The camera then probably uses only
# some of the bits.
_DARK_SHARE = 0.25
# A picture is blank if the grey levels of 98 % of its resampled pixels differ by less than this.
MIN_CONTRAST = 8
# A picture is partly blank if at least this share of its rows, at the top or at the bottom, has the same single grey level.
MAX_BLANK_SHARE = 0.25
# A BMP or TIFF is partly blank if at least this share of its rows, at the top or at the bottom, has the same single grey level. The limit
# is lower than for other formats, because a BMP or TIFF has no checksum that would show that pixels were lost.
MAX_BLANK_SHARE_RAW = 0.05
# If the first and the last row of a picture have the same single grey level, they probably show the background and no pixels were lost. So
# such a picture is partly blank only if at least this share of its rows, at the top or at the bottom, has this grey level.
MAX_BACKGROUND_SHARE = 0.5
_NAME_DEPTH = "Set depth_bits of the line to the number of bits that the camera delivers."


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

    @property
    def area(self) -> PictureArea:
        """Which rows and which columns of `pixels` show the original picture."""
        return find_picture_area(len(self.pixels), self.width_px, self.height_px)


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
        """Scales samples of more than 8 bits to an image of 8 bits.

        If the picture has an opacity for each pixel, the opacities are scaled so that the largest one becomes 255.
        """
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
        # libjpeg decodes a large JPEG faster at a reduced size. With `keep_original`, libjpeg decodes the full size instead, and Pillow
        # reduces the pixels afterwards.
        grey = file.load("L", None if keep_original else 2 * side_px)
        scale = choose_scale(file.header, 2 * side_px) if file.header.format == "JPEG" else 1
        small = _shrink(grey.reduce(scale) if keep_original and scale > 1 else grey, scale, file.header, side_px)
        check_not_blank(small.histogram())
        check_not_partly_blank(grey, is_raw=file.header.format in ("BMP", "TIFF"))
        # Turn the picture upright before the padding. Opposite margins can differ by one pixel. If the padded square were turned, the wider
        # margin would come to another side.
        pixels = _pad_square(rotate_upright(np.asarray(small), file.header.orientation), side_px)
        original = np.ascontiguousarray(rotate_upright(np.asarray(grey), file.header.orientation)) if keep_original else None
        return DecodedPicture(np.ascontiguousarray(pixels), file.width_px, file.height_px, original)


def find_picture_area(side_px: int, width_px: int, height_px: int) -> PictureArea:
    """Returns which rows and which columns of a square picture show the original picture. The rest of the square is margin.

    `width_px` and `height_px` are the size of the upright original picture.
    """
    width, height = _shrink_size(side_px, width_px, height_px)
    left, top = (side_px - width) // 2, (side_px - height) // 2
    return slice(top, top + height), slice(left, left + width)


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
    except Exception as error:  # for damaged pictures, Pillow raises a dozen types of exception
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
    return image.convert("RGB").convert(mode)  # CMYK, LAB and HSV become RGB first, because Pillow cannot convert them directly to grey


def _shrink(image: Image.Image, scale: int, header: FormatHeader, side_px: int) -> Image.Image:
    """Resizes `image` so that its longer side has `side_px` pixels.

    `header` describes the original picture. `image` may have been reduced by the factor `scale` already, and its size was then rounded up.
    So the last row and the last column of `image` may lie partly outside the original picture. The result leaves out this part.
    """
    size = _shrink_size(side_px, header.width_px, header.height_px)
    box = (0.0, 0.0, header.width_px / scale, header.height_px / scale)
    return image.resize(size, Image.Resampling.BILINEAR, box)


def _shrink_size(side_px: int, width_px: int, height_px: int) -> tuple[int, int]:
    scale = side_px / max(width_px, height_px)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _pad_square(pixels: GreyPixels, side_px: int) -> GreyPixels:
    height_px, width_px = pixels.shape
    if (height_px, width_px) == (side_px, side_px):
        return pixels
    rows, columns = find_picture_area(side_px, width_px, height_px)
    return np.pad(pixels, ((rows.start, side_px - rows.stop), (columns.start, side_px - columns.stop)), mode="edge")


def scale_to_8_bits(levels: Levels, header: FormatHeader, depth_bits: int | None) -> GreyPixels:
    """Scales `levels`, an array of any shape, to 0..255, where 255 is white. `depth_bits` is the setting of the line, or None.

    Raises PictureError in two cases:

    - A level is out of range.
    - The picture is dark, and neither the setting nor the file gives the highest possible level.
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
    """Returns the highest possible grey level. This level means white in most pictures, but black in some TIFFs.

    Raises PictureError in two cases:

    - A pixel has a higher level.
    - The picture is dark, and neither the settings nor the file give the highest possible level.
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
    """Returns the highest possible grey level and its source, as words for a message. Returns None if the level is not known."""
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
    """Returns whether the lowest `spare_bits` bits of all levels are 0. The PNG standard asks for this, but many cameras ignore it."""
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
    """Returns the share of the rows, from the top, that have only the grey level of the first pixel. 10 of 100 rows give 0.1."""
    if not (pixels[0] == pixels[0, 0]).all():
        return 0.0
    is_other = (pixels != pixels[0, 0]).any(axis=1)
    return float(is_other.argmax() if is_other.any() else len(pixels)) / len(pixels)
