"""Conversion of pictures for browsers: formats, sizes, heat maps, and hostile files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from models.pictures.decoder import PictureLimits
from models.pictures.display import encode_for_browser, encode_heat_map_layer, encode_thumbnail, read_picture_header
from streams.errors import PictureError
from tests.bad_pictures import make_bad_pictures

LIMITS = PictureLimits()


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value))


@pytest.mark.parametrize(("form", "mode"), [("TIFF", "L"), ("BMP", "RGB"), ("JPEG", "CMYK"), ("TIFF", "CMYK")])
def test_formats_that_browsers_do_not_display_become_png(form: str, mode: str) -> None:
    picture = encode_for_browser(encoded(Image.new(mode, (40, 30)), form), LIMITS)
    assert picture.content_type == "image/png"
    assert opened(picture.value).size == (40, 30)


def test_a_picture_of_12_bits_is_not_black() -> None:
    wide = Image.fromarray(np.full((20, 20), 4095, np.uint16))
    for form in ("PNG", "TIFF"):
        assert opened(encode_for_browser(encoded(wide, form), LIMITS).value).getpixel((5, 5)) == 255


def test_a_heat_map_is_transparent_at_zero_and_red_at_its_maximum() -> None:
    heat = np.zeros((8, 8), np.uint8)
    heat[2, 3] = 255
    light = opened(encode_heat_map_layer(encoded(Image.fromarray(heat), "PNG"), LIMITS).value)
    assert light.getpixel((3, 2)) == (255, 40, 0, 255)
    assert light.getpixel((0, 0)) == (255, 40, 0, 0)


def test_a_thumbnail_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", (900, 600)), "JPEG", exif=exif)
    assert opened(encode_thumbnail(turned, LIMITS, 240).value).size == (160, 240)
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
