"""Conversion of pictures for browsers: formats, sizes, heat maps, and hostile files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.display import encode_for_browser, encode_heat_map_layer, encode_thumbnail, read_picture_header
from streams.errors import PictureError
from tests.bad_pictures import make_bad_pictures

LIMITS = PictureLimits()


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def open_image(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value))


@pytest.mark.parametrize(("form", "mode"), [("TIFF", "L"), ("BMP", "RGB"), ("JPEG", "CMYK"), ("TIFF", "CMYK")])
def test_formats_that_browsers_do_not_display_become_png(form: str, mode: str) -> None:
    picture = encode_for_browser(encode(Image.new(mode, (40, 30)), form), LIMITS)
    assert picture.content_type == "image/png"
    assert open_image(picture.value).size == (40, 30)


def test_a_picture_of_a_camera_of_12_bits_is_not_black() -> None:
    wide = Image.fromarray(np.full((20, 20), 4095, np.uint16))
    for form in ("PNG", "TIFF"):
        assert open_image(encode_for_browser(encode(wide, form), LIMITS, depth_bits=12).value).getpixel((5, 5)) == 255
        assert open_image(encode_thumbnail(encode(wide, form), LIMITS, 20, depth_bits=12).value).getpixel((5, 5)) == 255


def test_a_heat_map_is_transparent_at_zero_and_red_at_its_maximum() -> None:
    heat = np.zeros((8, 8), np.uint8)
    heat[2, 3] = 255
    light = open_image(encode_heat_map_layer(encode(Image.fromarray(heat), "PNG"), LIMITS).value)
    assert light.getpixel((3, 2)) == (255, 40, 0, 255)
    assert light.getpixel((0, 0)) == (255, 40, 0, 0)


def test_a_thumbnail_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.new("RGB", (900, 600)), "JPEG", exif=exif)
    assert open_image(encode_thumbnail(turned, LIMITS, 240).value).size == (160, 240)
    assert (read_picture_header(turned, LIMITS).width_px, read_picture_header(turned, LIMITS).height_px) == (600, 900)


def test_a_hostile_picture_is_refused_or_encoded_within_the_limits() -> None:
    """Every encoded picture has the format that its content type says."""
    limits, wrong = PictureLimits(max_pixels=20_000_000), []
    for name, value, expected in make_bad_pictures():
        for side_px in (None, 240):
            try:
                picture = encode_for_browser(value, limits) if side_px is None else encode_thumbnail(value, limits, side_px)
            except PictureError as error:
                if expected == "judged":
                    wrong.append((name, str(error)))
                continue
            if not picture.value.startswith({"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG"}[picture.content_type]):
                wrong.append((name, picture.content_type))
    assert wrong == []


def make_colour_picture() -> Image.Image:
    """A smooth picture of 64 x 64 px whose quarters differ in colour and brightness, so that no turn of it equals another."""
    y, x = np.mgrid[0:64, 0:64]
    channels = [40 + 3 * y, 200 - x - y, np.where((y < 32) & (x < 32), 220, 60 + x)]
    return Image.fromarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_gamma(png: bytes) -> bytes:
    """Returns `png` with a chunk that makes browsers show it darker."""
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    return png[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


COLOUR = make_colour_picture()
GREY = COLOUR.convert("L")
ALPHA = Image.merge("RGBA", (*COLOUR.split(), GREY.rotate(180)))
DEEP = np.asarray(GREY).astype(np.uint16)
ACCEPTED = {
    "grey JPEG": encode(GREY, "JPEG"),
    "colour JPEG": encode(COLOUR, "JPEG"),
    "CMYK JPEG": encode(COLOUR.convert("CMYK"), "JPEG"),
    "grey PNG": encode(GREY, "PNG"),
    "colour PNG": encode(COLOUR, "PNG"),
    "black and white PNG": encode(COLOUR.convert("1"), "PNG"),
    "palette PNG": encode(COLOUR.convert("P"), "PNG"),
    "palette PNG with transparency": encode(COLOUR.convert("P"), "PNG", transparency=bytes(range(256))),
    "grey PNG with a transparent level": encode(GREY, "PNG", transparency=int(DEEP[9, 9])),
    "PNG with alpha": encode(ALPHA, "PNG"),
    "grey PNG with alpha": encode(ALPHA.convert("LA"), "PNG"),
    "16-bit PNG": encode(Image.fromarray(DEEP * 257), "PNG"),
    "12 bits at the upper end of a 16-bit PNG": encode(Image.fromarray(DEEP * 256), "PNG"),
    "PNG of an unusual gamma": with_gamma(encode(COLOUR, "PNG")),
    "animated PNG": encode(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(90)]),
    "grey BMP": encode(GREY, "BMP"),
    "colour BMP": encode(COLOUR, "BMP"),
    "palette BMP": encode(COLOUR.convert("P"), "BMP"),
    "grey TIFF": encode(GREY, "TIFF"),
    "colour TIFF": encode(COLOUR, "TIFF"),
    "TIFF with alpha": encode(ALPHA, "TIFF"),
    "CMYK TIFF": encode(COLOUR.convert("CMYK"), "TIFF"),
    "16-bit TIFF": encode(Image.fromarray(DEEP * 257), "TIFF"),
    "floating point TIFF": encode(Image.fromarray(DEEP.astype(np.float32) / 255), "TIFF"),
    **{f"grey JPEG of EXIF orientation {n}": encode(GREY, "JPEG", exif=with_orientation(n)) for n in range(2, 9)},
    **{f"colour JPEG of EXIF orientation {n}": encode(COLOUR, "JPEG", exif=with_orientation(n)) for n in range(2, 9)},
    **{f"PNG of EXIF orientation {n}": encode(COLOUR, "PNG", exif=with_orientation(n)) for n in range(2, 9)},
    **{f"TIFF of orientation {n}": encode(COLOUR, "TIFF", tiffinfo={274: n}) for n in range(2, 9)},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_displayed_grey_levels_are_the_judged_ones(name: str) -> None:
    """A browser shows the first frame and, because `encode_for_browser` leaves nothing to it, applies no rotation, alpha or gamma.

    The grey levels of a colour JPEG are read without a way over RGB; there rounding may differ by 2 of 255 levels.
    """
    judged = decode_picture(ACCEPTED[name], 64, LIMITS).pixels.astype(int)
    displayed = open_image(encode_for_browser(ACCEPTED[name], LIMITS).value)
    assert displayed.mode in ("1", "L", "P", "RGB")
    assert not displayed.has_transparency_data
    assert displayed.getexif().get(0x0112, 1) == 1
    assert not {"gamma", "icc_profile"} & displayed.info.keys()
    difference = np.abs(np.asarray(displayed.convert("L")).astype(int) - judged).max()
    assert difference <= (2 if name.startswith("colour JPEG") else 0)
    thumbnail = open_image(encode_thumbnail(ACCEPTED[name], LIMITS, 64).value)
    assert np.abs(np.asarray(thumbnail.convert("L")).astype(int) - judged).mean() < 6  # JPEG of quality 82


def test_a_picture_that_browsers_show_as_it_is_keeps_its_bytes() -> None:
    for name in ("grey JPEG", "colour JPEG", "grey PNG", "colour PNG", "palette PNG", "black and white PNG"):
        assert encode_for_browser(ACCEPTED[name], LIMITS).value == ACCEPTED[name], name


def test_a_picture_that_the_decoder_refuses_is_not_displayed() -> None:
    damaged = bytearray(ACCEPTED["colour PNG"])
    damaged[len(damaged) // 2] ^= 1
    for value in (bytes(damaged), ACCEPTED["colour JPEG"][:-40]):
        with pytest.raises(PictureError):
            decode_picture(value, 64, LIMITS)
        with pytest.raises(PictureError):
            encode_for_browser(value, LIMITS)
