"""Hostile and unusual pictures that a camera, a network or a person may send instead of a clean JPEG. All are built in code.

Each picture has an expected outcome: "judged", "refused", or "either" if the version of the image library decides whether a damaged file
can be decoded.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

ExpectedOutcome = Literal["judged", "refused", "either"]
BadPicture = tuple[str, bytes, ExpectedOutcome]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@cache
def make_bad_pictures() -> tuple[BadPicture, ...]:
    """Returns all bad pictures as (name, bytes, expected outcome). Names are unique, and the bytes are the same on every call."""
    return (
        *_make_other_files(),
        *_make_truncated(),
        *_make_damaged(),
        *_make_too_large(),
        *_make_unusual_modes(),
        *_make_unusual_sizes(),
        *_make_rotated(),
        *_make_animations(),
    )


@cache
def _draw_disc(mode: str = "L", size: tuple[int, int] = (96, 96)) -> Image.Image:
    """Returns a grey disc on a lighter background. Noise keeps the picture from compressing to a few bytes."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    far = np.hypot(x / size[0] - 0.5, y / size[1] - 0.5)
    grain = np.random.default_rng(3).integers(0, 12, far.shape)
    return Image.fromarray((np.where(far < 0.4, 150, 200) + grain).astype(np.uint8)).convert(mode)


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _make_other_files() -> Iterator[BadPicture]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("casting.jpeg", _encode(_draw_disc(), "JPEG"))
    yield "empty", b"", "refused"
    yield "one zero byte", b"\0", "refused"
    yield "text", b"expected a casting, received a poem\n" * 20, "refused"
    yield "json", b'{"line": "line-1", "part": 1}', "refused"
    yield "html", b"<!doctype html><html><body>504 Gateway Time-out</body></html>", "refused"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>', "refused"
    yield "zip", archive.getvalue(), "refused"
    yield "pdf", b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF", "refused"
    yield "elf", b"\x7fELF" + bytes(400), "refused"
    yield "zeros", bytes(5000), "refused"
    yield "noise", random.Random(1).randbytes(5000), "refused"
    yield "gif", _encode(_draw_disc(), "GIF"), "refused"
    yield "webp", _encode(_draw_disc(), "WEBP"), "refused"
    yield "ppm", _encode(_draw_disc(), "PPM"), "refused"
    yield "ico", _encode(_draw_disc(size=(32, 32)), "ICO"), "refused"
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "refused"
    yield "base64 of a jpeg", b"data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgG", "refused"


def _make_truncated() -> Iterator[BadPicture]:
    for form in ("JPEG", "PNG", "BMP", "TIFF"):
        whole = _encode(_draw_disc(), form)
        for share in (0.01, 0.1, 0.5, 0.9):
            yield f"{form} cut at {share:.0%}", whole[: max(1, int(len(whole) * share))], "refused"
        yield f"{form} magic alone", whole[:8], "refused"
        # PNG and TIFF say where each byte of the pixels lies, so that nothing behind them matters.
        outcome: ExpectedOutcome = "judged" if form in ("PNG", "TIFF") else "refused"
        yield f"{form} with rubbish behind it", whole + random.Random(2).randbytes(300), outcome
        yield f"{form} filled up to a whole block", whole + bytes(-len(whole) % 512), "judged"
    yield "JPEG without its last byte", _encode(_draw_disc(), "JPEG")[:-1], "refused"
    yield "PNG without its end chunk", _encode(_draw_disc(), "PNG")[:-12], "refused"


def _make_damaged() -> Iterator[BadPicture]:
    jpeg, png = _encode(_draw_disc(), "JPEG"), _encode(_draw_disc(), "PNG")
    yield "JPEG magic on PNG", b"\xff\xd8\xff\xe0" + png[4:], "refused"
    yield "PNG magic on JPEG", PNG_MAGIC + jpeg[8:], "refused"
    yield "PNG with a wrong header checksum", png[:29] + b"\0\0\0\0" + png[33:], "refused"
    yield "PNG with wrong pixel data", png[:60] + bytes(200) + png[260:], "refused"
    yield "PNG of bit depth 3", _png(8, 8, depth=3), "refused"
    yield "PNG of colour type 5", _png(8, 8, colour=5), "refused"
    yield "PNG without pixels", _png(8, 8, data=b""), "refused"
    yield "PNG of size 0 x 0", _png(0, 0), "refused"
    yield "PNG of negative size", _png(2**32 - 8, 8), "refused"
    yield "PNG with a chunk of 2 GB announced", png[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + png[41:], "refused"
    yield "PNG with a text chunk that unpacks to 100 MB", _png_with_text_bomb(), "judged"
    yield "JPEG without tables", jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :], "refused"
    yield "JPEG of start and end", b"\xff\xd8\xff\xd9", "refused"
    yield "JPEG of height 0", _jpeg_of_height(0), "refused"
    yield "BMP of negative width", _bmp(-8, 8), "refused"
    yield "BMP of 7 bits", _bmp(8, 8, bits=7), "refused"
    yield "BMP with its pixels behind its end", _bmp(8, 8, offset=2**30), "refused"
    yield "TIFF whose directory points at itself", b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0", "refused"
    yield "TIFF whose directory lies outside", b"II*\0" + struct.pack("<I", 2**31), "refused"
    yield "JPEG with damaged EXIF", _encode(_draw_disc("RGB"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), "judged"
    outcome: ExpectedOutcome
    for form in ("JPEG", "PNG", "BMP", "TIFF"):
        whole = _encode(_draw_disc(), form)
        for seed in range(6):
            chance, value = random.Random(seed), bytearray(whole)
            for _ in range(1 + seed * 4):
                value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
            outcome = "refused" if form == "PNG" else "either"  # A PNG file carries checksums.
            yield f"{form} with flipped bits, seed {seed}", bytes(value), outcome


def _make_too_large() -> Iterator[BadPicture]:
    yield "PNG of 50,000 x 50,000 px", _png(50_000, 50_000), "refused"
    yield "PNG of 2,000,000,000 px in a row", _png(2_000_000_000, 1), "refused"
    yield "PNG of 10,000 x 10,000 px", _png(10_000, 10_000), "refused"
    yield "JPEG of 65,500 x 65,500 px", _jpeg_of_height(65_500, 65_500), "refused"
    yield "BMP of 40,000 x 40,000 px", _bmp(40_000, 40_000), "refused"
    yield "TIFF of 60,000 x 60,000 px", _tiff_of(60_000, 60_000), "refused"


def _make_unusual_modes() -> Iterator[BadPicture]:
    yield "CMYK JPEG", _encode(_draw_disc("CMYK"), "JPEG"), "judged"
    yield "CMYK TIFF", _encode(_draw_disc("CMYK"), "TIFF"), "judged"
    yield "progressive JPEG", _encode(_draw_disc("RGB"), "JPEG", progressive=True), "judged"
    yield "JPEG of quality 1", _encode(_draw_disc("RGB"), "JPEG", quality=1), "judged"
    yield "black and white PNG", _encode(_draw_disc("1"), "PNG"), "judged"
    yield "palette PNG", _encode(_draw_disc("P"), "PNG"), "judged"
    yield "palette PNG with transparency", _encode(_draw_disc("P"), "PNG", transparency=bytes(range(256))), "judged"
    yield "grey PNG with a transparent level", _encode(_draw_disc(), "PNG", transparency=150), "judged"
    yield "grey and alpha PNG", _encode(_draw_disc("LA"), "PNG"), "judged"
    yield "RGBA PNG, all transparent", _encode(Image.new("RGBA", (40, 40), (9, 9, 9, 0)), "PNG"), "refused"
    yield "palette BMP", _encode(_draw_disc("P"), "BMP"), "judged"
    yield "RGBA TIFF", _encode(_draw_disc("RGBA"), "TIFF"), "judged"
    yield "16-bit PNG", _encode(_draw_deep_disc(16), "PNG"), "judged"
    yield "12 bits in a 16-bit PNG", _encode(_draw_deep_disc(12), "PNG"), "refused"
    yield "16-bit TIFF", _encode(_draw_deep_disc(16), "TIFF"), "judged"
    yield "32-bit TIFF", _encode(Image.fromarray(np.asarray(_draw_deep_disc(16)).astype(np.int32)), "TIFF"), "refused"
    yield "float TIFF", _encode(Image.fromarray(np.asarray(_draw_disc()).astype(np.float32) / 255), "TIFF"), "judged"
    yield "float TIFF of no numbers", _encode(Image.fromarray(np.full((20, 20), np.nan, np.float32)), "TIFF"), "refused"
    yield "YCbCr TIFF", _encode(_draw_disc("YCbCr"), "TIFF"), "judged"
    yield "LZW TIFF", _encode(_draw_disc("RGB"), "TIFF", compression="tiff_lzw"), "judged"
    yield "deflated TIFF", _encode(_draw_disc(), "TIFF", compression="tiff_adobe_deflate"), "judged"
    yield "black PNG", _encode(Image.new("L", (60, 60)), "PNG"), "refused"


def _make_unusual_sizes() -> Iterator[BadPicture]:
    for size in ((1, 1), (1, 300), (300, 1)):  # too few pixels for a contrast
        yield f"PNG of {size[0]} x {size[1]} px", _encode(_draw_disc(size=size), "PNG"), "refused"
    for size in ((2, 2), (33, 500), (1200, 900), (4000, 3)):
        yield f"PNG of {size[0]} x {size[1]} px", _encode(_draw_disc(size=size), "PNG"), "judged"
    yield "JPEG of 1 x 1 px", _encode(_draw_disc(size=(1, 1)), "JPEG"), "refused"
    yield "JPEG of 3000 x 2000 px", _encode(_draw_disc("RGB", (3000, 2000)), "JPEG"), "judged"


def _make_rotated() -> Iterator[BadPicture]:
    for orientation in range(10):  # EXIF defines the orientations 1 to 8.
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"JPEG of EXIF orientation {orientation}", _encode(_draw_disc("RGB", (90, 60)), "JPEG", exif=exif), "judged"
    yield "TIFF of orientation 6", _encode(_draw_disc(size=(90, 60)), "TIFF", tiffinfo={274: 6}), "judged"


def _make_animations() -> Iterator[BadPicture]:
    frames = [_draw_disc("RGB").rotate(angle) for angle in (0, 30, 60)]
    yield "animated GIF", _encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "refused"
    yield "animated PNG", _encode(frames[0], "PNG", save_all=True, append_images=frames[1:]), "judged"
    yield "animated WebP", _encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]), "refused"
    yield "TIFF of three pages", _encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "judged"
    yield "MPO, two JPEGs in one", _encode(frames[0], "MPO", save_all=True, append_images=frames[1:]), "judged"


def _draw_deep_disc(bits: int) -> Image.Image:
    """Returns a 16-bit picture of a disc whose grey levels use `bits` bits."""
    return Image.fromarray((np.asarray(_draw_disc()).astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes | None = None) -> bytes:
    """Returns a PNG with this size in its header. Its data are a few kilobytes of zeros, which unpack to 4 MB."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = _pack_zeros() if data is None else data
    return PNG_MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _png_with_text_bomb() -> bytes:
    png = _encode(_draw_disc(), "PNG")
    return png[:33] + _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100_000_000), 9)) + png[33:]


def _jpeg_of_height(height: int, width: int = 96) -> bytes:
    jpeg = bytearray(_encode(_draw_disc(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def _bmp(width: int, height: int, bits: int = 24, offset: int = 54) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 600, 0, 0, offset) + info + bytes(600)


def _tiff_of(width: int, height: int) -> bytes:
    tiff = _encode(_draw_disc(), "TIFF")
    patched = bytearray(tiff)
    directory = struct.unpack("<I", tiff[4:8])[0]
    for index in range(struct.unpack("<H", tiff[directory : directory + 2])[0]):
        at = directory + 2 + 12 * index
        tag = struct.unpack("<H", tiff[at : at + 2])[0]
        if tag in (256, 257):
            patched[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(patched)


@cache
def _pack_zeros() -> bytes:
    return zlib.compress(bytes(4_000_000), 9)
