"""The decoder: grey levels of accepted pictures, and reasons of refused ones."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.pictures.decoder import DecodedPicture, PictureLimits, decode_picture
from models.pictures.refusal import RefusalReason
from streams.errors import PictureError
from tests.bad_pictures import ExpectedOutcome, make_bad_pictures
from tests.encoded_pictures import make_png
from tests.rendered_pictures import camera_pictures

CORPUS = make_bad_pictures()


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_marked_corner() -> npt.NDArray[np.uint8]:
    """A dark picture with a bright upper left and a grey upper right quarter, so that all its turns and mirror images differ."""
    pixels = np.full((64, 64), 20, np.uint8) + np.arange(64, dtype=np.uint8) // 8
    pixels[:32, :32] = 220
    pixels[:32, 32:] = 120
    return pixels


def turn(upright: npt.NDArray[np.uint8], orientation: int) -> Image.Image:
    """The picture as a camera stores it. The EXIF tag `orientation` says how to turn it upright."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(stored))


def decode_or_refuse(value: bytes) -> DecodedPicture | PictureError:
    try:
        return decode_picture(value, 64)
    except PictureError as error:
        return error


def test_the_corpus_has_at_least_sixty_pictures_of_different_names() -> None:
    assert len({name for name, _, _ in CORPUS}) == len(CORPUS) >= 60


@pytest.mark.parametrize(("value", "expected"), [(v, e) for _, v, e in CORPUS], ids=[name for name, _, _ in CORPUS])
def test_every_bad_picture_is_judged_or_refused_as_expected(value: bytes, expected: ExpectedOutcome) -> None:
    found = decode_or_refuse(value)
    if isinstance(found, PictureError):
        assert expected in ("refused", "either"), found
        assert found.reason in set(RefusalReason)
    else:
        assert expected in ("judged", "either")
        assert found.pixels.shape == (64, 64)
        assert found.pixels.dtype == np.uint8
        assert found.width_px > 0
        assert found.height_px > 0


def test_no_warning_leaves_the_decoder() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _, value, _ in CORPUS:
            decode_or_refuse(value)
    assert [str(each.message) for each in caught] == []


def test_the_same_bytes_give_the_same_picture_in_every_thread() -> None:
    values = [value for _, value, expected in CORPUS if expected == "judged"]
    alone = [decode_picture(value, 96).pixels for value in values]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda value: decode_picture(value, 96).pixels, values * 4))
    for index, pixels in enumerate(together):
        assert np.array_equal(pixels, alone[index % len(values)])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", RefusalReason.EMPTY),
        (b"x" * 2000, RefusalReason.TOO_LARGE),
        (b"no picture", RefusalReason.NOT_AN_IMAGE),
        (encode(Image.new("L", (200, 200))), RefusalReason.TOO_MANY_PIXELS),
        (encode(Image.fromarray(make_marked_corner()))[:-20], RefusalReason.TRUNCATED),
    ],
)
def test_a_refusal_bears_its_reason(value: bytes, reason: RefusalReason) -> None:
    with pytest.raises(PictureError) as refusal:
        decode_picture(value, 64, PictureLimits(max_bytes=1000, max_pixels=10_000))
    assert refusal.value.reason == reason


def test_a_png_whose_pixels_were_hurt_is_refused_though_pillow_would_show_it_black() -> None:
    noisy = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8))
    value = bytearray(encode(noisy))
    value[200] ^= 1
    with pytest.raises(PictureError, match="checksum"):
        decode_picture(bytes(value), 64)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright_whatever_its_exif_orientation(form: str, orientation: int) -> None:
    upright = make_marked_corner()
    image = turn(upright, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    value = encode(image, form, exif=exif) if form == "JPEG" else encode(image, form, tiffinfo={274: orientation})
    assert np.abs(decode_picture(value, 64).pixels.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_lies_where_the_upright_picture_lies(orientation: int) -> None:
    """A picture of 64 x 47 px leaves 17 rows of margin, so one margin has a row more than the other."""
    upright = make_marked_corner()[:47]
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode_picture(encode(turn(upright, orientation), "PNG", exif=exif), 64)
    assert (turned.pixels == decode_picture(encode(Image.fromarray(upright)), 64).pixels).all()
    assert (turned.pixels[turned.area] == upright).all()


def test_the_size_told_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient = Image.linear_gradient("L").resize((90, 60))
    picture = decode_picture(encode(gradient, "JPEG", exif=exif), 64)
    assert (picture.width_px, picture.height_px) == (60, 90)


def test_a_disc_stays_a_disc_in_a_picture_that_is_not_square() -> None:
    y, x = np.mgrid[0:100, 0:200]
    disc = np.where(np.hypot(x - 100, y - 50) < 40, 0, 200).astype(np.uint8)
    pixels = decode_picture(encode(Image.fromarray(disc)), 100).pixels
    dark = pixels < 100
    assert abs(int(dark.any(axis=0).sum()) - int(dark.any(axis=1).sum())) <= 1
    assert pixels[0].min() == 200  # filled up with its own edge, without a line


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((80, 80, 80, 255), (0, 0, 32, 64))
    pixels = decode_picture(encode(image), 64).pixels
    assert pixels[:, 5].max() == 80
    assert pixels[:, 60].min() == 255


def test_the_first_of_several_frames_is_judged() -> None:
    frames = [Image.fromarray(np.tile(np.arange(level, level + 32, dtype=np.uint8), (32, 1))) for level in (30, 200)]
    for form in ("PNG", "TIFF"):
        value = encode(frames[0], form, save_all=True, append_images=frames[1:])
        assert decode_picture(value, 32).pixels.max() == 61


def test_a_large_jpeg_looks_as_a_small_one() -> None:
    """libjpeg may leave out pixels of large ones; what is left must look the same."""
    y, x = np.mgrid[0:2400, 0:2400]
    large = Image.fromarray((127 + 100 * np.sin(x / 130) * np.cos(y / 90)).astype(np.uint8))
    expected = np.asarray(large.resize((96, 96), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(decode_picture(encode(large, "JPEG", quality=95), 96).pixels - expected).mean() < 1.5


@pytest.mark.parametrize(("width_px", "height_px"), [(300, 200), (1093, 1768), (1394, 1565), (1541, 773), (773, 1541), (2049, 1537)])
def test_all_formats_show_a_picture_of_any_size_at_the_same_place(width_px: int, height_px: int) -> None:
    """libjpeg reduces a large JPEG by a factor, and rounds its size up. Such a JPEG was stretched, and could lose a row."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    waves = 127 + 60 * np.sin(9 * x / width_px + 1) * np.cos(7 * y / height_px) + 50 * x / width_px
    grey = Image.fromarray(waves.astype(np.uint8))
    expected = decode_picture(encode(grey, "BMP"), 96).pixels.astype(int)
    jpeg, deep = encode(grey, "JPEG", quality=97), np.round(np.asarray(grey) * (4095 / 255)).astype(np.uint16)
    pictures = {
        "JPEG": decode_picture(jpeg, 96),
        "JPEG with original": decode_picture(jpeg, 96, keep_original=True),
        "PNG": decode_picture(encode(grey, "PNG"), 96),
        "TIFF": decode_picture(encode(grey, "TIFF"), 96),
        "PNG of 12 bits": decode_picture(make_png(deep), 96, depth_bits=12),
        "TIFF of 12 bits": decode_picture(encode(Image.fromarray(deep), "TIFF"), 96, depth_bits=12),
    }
    for name, picture in pictures.items():
        assert np.abs(picture.pixels - expected).max() <= 2, name
        assert (picture.width_px, picture.height_px) == (width_px, height_px), name


def test_the_networks_see_the_same_picture_whether_or_not_the_original_is_kept() -> None:
    """libjpeg reduces a large JPEG while it decodes. If the original is kept, the same reduction is done afterwards."""
    large = Image.fromarray(camera_pictures(1)[0]).resize((1500, 1100), Image.Resampling.BICUBIC)
    for exif in (Image.Exif(), _turned_exif()):
        value = encode(large, "JPEG", quality=92, exif=exif)
        plain, kept = decode_picture(value, 96), decode_picture(value, 96, keep_original=True)
        assert np.abs(plain.pixels.astype(int) - kept.pixels).max() <= 2
        assert plain.original is None
        assert kept.original is not None
        assert kept.original.shape == (kept.height_px, kept.width_px)


def _turned_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
