"""The same casting in the forms that cameras send: every form has the same grey levels, or is refused with the setting that is missing."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.pictures.decoder import MAX_BACKGROUND_SHARE, MAX_BLANK_SHARE, MAX_BLANK_SHARE_RAW, decode_picture
from models.pictures.refusal import RefusalReason
from streams.errors import PictureError
from tests.encoded_pictures import encode, make_bmp_v4, make_png, make_tiff
from tests.rendered_pictures import camera_pictures

SIDE_PX = 160
MAX_SAMPLE, LARGEST_SAMPLE = 281, 341
GREY = camera_pictures(1)[0]
REFERENCE = decode_picture(encode(GREY, "PNG"), SIDE_PX).pixels.astype(int)
RGB = np.repeat(GREY[..., np.newaxis], 3, axis=2)
MONO_12 = np.round(GREY * (4095 / 255)).astype(np.uint16)
RGB_12 = np.repeat(MONO_12[..., np.newaxis], 3, axis=2)
MONO_16 = GREY.astype(np.uint16) * 257
RGB_16 = np.repeat(MONO_16[..., np.newaxis], 3, axis=2)
FRACTION = GREY.astype(np.float32) / 255
BLACK_AND_WHITE = np.where(GREY > 128, 255, 0).astype(np.uint8)


def add_channel(pixels: npt.NDArray[np.generic], level: int) -> npt.NDArray[np.generic]:
    """Returns grey or colour pixels with a last channel of one level."""
    channels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    return np.concatenate((channels, np.full((*channels.shape[:2], 1), level, channels.dtype)), axis=2)


# Name, bytes, depth of the line.
SAME: list[tuple[str, bytes, int | None]] = [
    ("BMP of version 4, unused alpha", make_bmp_v4(GREY, 0), None),
    ("BMP of version 4, alpha of one level", make_bmp_v4(GREY, 77), None),
    ("RGBA PNG, unused alpha", make_png(add_channel(RGB, 0)), None),
    ("LA PNG, unused alpha", make_png(add_channel(GREY, 0)), None),
    ("RGBA PNG, opaque", make_png(add_channel(RGB, 255)), None),
    ("RGBA PNG of 16 bits, unused alpha", make_png(add_channel(RGB_16, 0)), None),
    ("LA PNG of 16 bits, unused alpha", make_png(add_channel(MONO_16, 0)), None),
    ("RGBA TIFF, unused alpha", make_tiff(add_channel(RGB, 0), extra_tags={338: ("H", 2)}), None),
    ("RGBX TIFF", make_tiff(add_channel(RGB, 0), extra_tags={338: ("H", 0)}), None),
    ("RGBA TIFF of 16 bits, unused alpha", make_tiff(add_channel(RGB_16, 0), extra_tags={338: ("H", 2)}), None),
    ("mono PNG of 16 bits", make_png(MONO_16), None),
    ("RGB PNG of 16 bits", make_png(RGB_16), None),
    ("mono PNG of 12 bits in 16", make_png(MONO_12), 12),
    ("RGB PNG of 12 bits in 16", make_png(RGB_12), 12),
    ("RGBA PNG of 12 bits in 16, opaque", make_png(add_channel(RGB_12, 65535)), 12),
    ("LA PNG of 12 bits in 16, opaque", make_png(add_channel(MONO_12, 65535)), 12),
    ("mono PNG of 12 bits in 16 with sBIT", make_png(MONO_12, significant_bits=12), None),
    ("RGB PNG of 12 bits in 16 with sBIT", make_png(RGB_12, significant_bits=12), None),
    ("mono PNG of 12 bits at the upper end with sBIT", make_png(MONO_12 << 4, significant_bits=12), None),
    ("mono PNG of 12 bits at the upper end", make_png(MONO_12 << 4), 16),
    *(
        (f"{name}, byte order {order}", make_tiff(levels, order, extra_tags=tags), depth)
        for order in ("<", ">")
        for name, levels, depth, tags in (
            ("mono TIFF of 16 bits", MONO_16, None, {}),
            ("RGB TIFF of 16 bits", RGB_16, None, {}),
            ("mono TIFF of 12 bits in 16", MONO_12, 12, {}),
            ("RGB TIFF of 12 bits in 16", RGB_12, 12, {}),
            ("mono TIFF with MaxSampleValue", MONO_12, None, {MAX_SAMPLE: ("H", 4095)}),
            ("RGB TIFF with SMaxSampleValue", RGB_12, None, {LARGEST_SAMPLE: ("H", 4095)}),
            ("float TIFF", FRACTION, None, {}),
            ("float TIFF of levels up to 255", FRACTION * 255, 8, {}),
            ("float TIFF with SMaxSampleValue", FRACTION * 4095, None, {LARGEST_SAMPLE: ("f", 4095)}),
            ("float TIFF with SMaxSampleValue 1", FRACTION, None, {LARGEST_SAMPLE: ("f", 1)}),
        )
    ),
    *(
        (f"WhiteIsZero TIFF of {name}, byte order {order}", make_tiff(levels, order, white_is_zero=True, extra_tags=tags), depth)
        for order in ("<", ">")
        for name, levels, depth, tags in (
            ("8 bits", 255 - GREY, None, {}),
            ("16 bits", 65535 - MONO_16, None, {}),
            ("12 bits in 16", 4095 - MONO_12, 12, {}),
            ("12 bits in 16, MaxSampleValue", 4095 - MONO_12, None, {MAX_SAMPLE: ("H", 4095)}),
            ("floating point", 1 - FRACTION, None, {}),
        )
    ),
    ("32-bit TIFF with the depth set", make_tiff(MONO_12.astype(np.int32)), 12),
    ("WhiteIsZero TIFF of 16 bits, deflate", make_tiff(65535 - MONO_16, white_is_zero=True, deflate=True, rows_per_strip=37), None),
    ("RGB TIFF of 12 bits in 16, deflate, both", make_tiff(RGB_12, ">", deflate=True, rows_per_strip=37), 12),
    ("RGB TIFF of 12 bits in 16, deflate", make_tiff(RGB_12, "<", deflate=True, rows_per_strip=37), 12),
]


@pytest.mark.parametrize(("form", "tolerance"), [("PNG", 0), ("TIFF", 0), ("BMP", 0), ("JPEG", 3)])
def test_colours_of_the_same_brightness_have_the_same_grey_level(form: str, tolerance: int) -> None:
    rusty = RGB.copy()
    rusty[100:200, 100:200], plain = (200, 60, 60), RGB.copy()
    plain[100:200, 100:200] = 102
    seen, expected = (decode_picture(encode(pixels, form), SIDE_PX).pixels.astype(int) for pixels in (rusty, plain))
    assert np.abs(seen - expected).max() <= tolerance


@pytest.mark.parametrize(("value", "depth_bits"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_the_same_casting_has_the_same_grey_levels_in_every_form(value: bytes, depth_bits: int | None) -> None:
    pixels = decode_picture(value, SIDE_PX, depth_bits=depth_bits).pixels
    assert np.abs(pixels.astype(int) - REFERENCE).max() <= 1


@pytest.mark.parametrize("depth_bits", [10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_camera_of_any_set_depth_gives_the_same_grey_levels(form: str, depth_bits: int) -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    levels = (ramp * (2**depth_bits - 1)).astype(np.uint16)
    pixels = decode_picture(encode(levels, form), 64, depth_bits=depth_bits).pixels
    assert np.abs(pixels.astype(float) - ramp * 255).max() <= 1


def test_transparency_of_12_bits_is_opaque_at_its_own_largest_level() -> None:
    pixels = add_channel(RGB_12, 4095)
    pixels[0, 0, -1] = 0
    found = decode_picture(make_png(pixels), SIDE_PX, depth_bits=12).pixels.astype(int)
    assert np.abs(found - REFERENCE)[4:, 4:].max() <= 1


@pytest.mark.parametrize("mode", ["1", "L"])
def test_a_black_and_white_picture_is_not_inverted(mode: str) -> None:
    """libtiff's writers store pictures of 1 bit as WhiteIsZero."""
    image = Image.fromarray(BLACK_AND_WHITE).convert(mode)
    expected = decode_picture(encode(BLACK_AND_WHITE, "PNG"), SIDE_PX).pixels.astype(int)
    for compression in ("raw", "group4") if mode == "1" else ("raw",):
        for photometric in (0, 1):
            value = encode(np.asarray(image), "TIFF", compression=compression, tiffinfo={262: photometric})
            assert np.abs(decode_picture(value, SIDE_PX).pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("levels", [MONO_12, RGB_12, MONO_12 // 4, MONO_12 * 4], ids=["mono", "RGB", "10 bits", "14 bits"])
def test_a_dark_picture_of_unknown_depth_is_refused_and_the_setting_named(levels: npt.NDArray[np.uint16]) -> None:
    for value in (make_png(levels), make_tiff(levels), make_tiff(levels.max() - levels, white_is_zero=True)):
        with pytest.raises(PictureError, match="depth_bits") as refusal:
            decode_picture(value, SIDE_PX)
        assert refusal.value.reason == RefusalReason.DEPTH


def test_two_dim_pictures_of_one_camera_keep_their_ratio_of_brightness() -> None:
    """Release 0.1.0 took the range from the brightest pixel, and the scale jumped by four where that passed 1,023."""
    dim = [np.minimum(MONO_12 // 4, 900), np.minimum(MONO_12 // 4, 900)]
    dim[0][0, 0], dim[1][0, 0] = 1000, 1040
    means = [decode_picture(make_png(levels), SIDE_PX, depth_bits=12).pixels.mean() for levels in dim]
    assert abs(means[0] / means[1] - 1) < 0.05
    for levels in dim:
        with pytest.raises(PictureError, match="depth_bits"):
            decode_picture(make_png(levels), SIDE_PX)


@pytest.mark.parametrize("value", [make_png(MONO_16), make_tiff(RGB_16, ">"), make_png(MONO_12 << 4)])
def test_levels_above_the_set_depth_are_refused(value: bytes) -> None:
    with pytest.raises(PictureError, match="depth_bits = 12") as refusal:
        decode_picture(value, SIDE_PX, depth_bits=12)
    assert refusal.value.reason == RefusalReason.DEPTH


def test_the_depth_of_the_line_does_not_change_pictures_of_8_bits() -> None:
    for value in (encode(GREY, "PNG"), encode(RGB, "BMP"), encode(GREY, "TIFF")):
        assert np.array_equal(decode_picture(value, SIDE_PX, depth_bits=12).pixels, REFERENCE)


def test_a_largest_sample_value_that_is_the_brightest_pixel_of_one_picture_is_no_depth() -> None:
    """The TIFF standard allows writers to store the brightest level there. It must not become the range."""
    for tag in (MAX_SAMPLE, LARGEST_SAMPLE):
        value = make_tiff(MONO_12, extra_tags={tag: ("H", int(MONO_12.max()))})
        with pytest.raises(PictureError, match="depth_bits"):
            decode_picture(value, SIDE_PX)


def test_a_deep_tiff_that_does_not_say_which_level_is_black_is_refused() -> None:
    value = make_tiff(MONO_16)
    photometric = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert value.count(photometric) == 1
    with pytest.raises(PictureError, match="does not say whether its level 0 is black or white"):
        decode_picture(value.replace(photometric, struct.pack("<HHIHH", 261, 3, 1, 1, 0)), SIDE_PX)


def test_a_floating_point_picture_with_pixels_that_are_no_numbers_is_refused() -> None:
    levels = FRACTION.copy()
    levels[5, 5] = np.nan
    with pytest.raises(PictureError, match="not a number"):
        decode_picture(make_tiff(levels), SIDE_PX)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF"])
def test_a_blank_picture_is_refused_also_with_the_noise_of_a_sensor(level: int, form: str) -> None:
    noise = np.random.default_rng(level).normal(level, 2, GREY.shape).round().clip(0, 255).astype(np.uint8)
    for pixels in (np.full_like(GREY, level), noise):
        with pytest.raises(PictureError) as refusal:
            decode_picture(encode(pixels, form), SIDE_PX)
        assert refusal.value.reason == RefusalReason.BLANK


@pytest.mark.parametrize(
    ("form", "share"), [("PNG", MAX_BLANK_SHARE), ("JPEG", MAX_BLANK_SHARE), ("BMP", MAX_BLANK_SHARE_RAW), ("TIFF", MAX_BLANK_SHARE_RAW)]
)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_whose_end_never_arrived_is_partly_blank(form: str, share: float, level: int) -> None:
    pixels = GREY.copy()
    pixels[int(len(pixels) * (1 - share)) - 16 :] = level
    for each in (pixels, pixels[::-1]):
        with pytest.raises(PictureError) as refusal:
            decode_picture(encode(each, form, **({"quality": 95} if form == "JPEG" else {})), SIDE_PX)
        assert refusal.value.reason == RefusalReason.PARTLY_BLANK


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_saturated_back_light_on_both_sides_of_the_part_is_no_unfinished_transfer(form: str) -> None:
    pixels = GREY.copy()
    margin = int(len(pixels) * MAX_BACKGROUND_SHARE / 2)
    pixels[:margin] = pixels[-margin:] = 255
    decode_picture(encode(pixels, form), SIDE_PX)
