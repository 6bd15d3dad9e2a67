"""Writes pictures in the forms of cameras that Pillow cannot write: unused transparency, 12 bits in 16, WhiteIsZero, both byte orders."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Levels = npt.NDArray[np.generic]


def encode(pixels: Levels, form: str, **options: object) -> bytes:
    """Returns `pixels` in a format that Pillow writes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, form, **options)
    return buffer.getvalue()


def make_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def make_png(levels: Levels, significant_bits: int | None = None, compressed: bytes | None = None) -> bytes:
    """Returns a PNG of uint8 or uint16 levels, shape (height, width) or (height, width, 1 to 4). `compressed` replaces its pixels."""
    height, width = levels.shape[:2]
    samples = 1 if levels.ndim == 2 else levels.shape[2]
    depth = 8 * levels.dtype.itemsize
    rows = levels.astype(f">u{levels.dtype.itemsize}").reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    sbit = make_chunk(b"sBIT", bytes([significant_bits] * samples)) if significant_bits else b""
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)) if compressed is None else compressed
    return PNG_SIGNATURE + make_chunk(b"IHDR", header) + sbit + make_chunk(b"IDAT", pixels) + make_chunk(b"IEND", b"")


def make_bmp_v4(pixels: Levels, alpha: int | Levels) -> bytes:
    """Returns a BMP of version 4 with a fourth channel, from grey pixels of shape (height, width)."""
    height, width = pixels.shape
    channels = np.stack((pixels, pixels, pixels, np.broadcast_to(np.asarray(alpha, np.uint8), pixels.shape)), axis=-1)[::-1]
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, channels.size, 2835, 2835, 0, 0)
    info += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + channels.size, 0, 0, 122) + info + channels.astype(np.uint8).tobytes()


def make_tiff(
    levels: Levels,
    order: Literal["<", ">"] = "<",
    *,
    white_is_zero: bool = False,
    deflate: bool = False,
    rows_per_strip: int | None = None,
    extra_tags: Mapping[int, tuple[str, float]] | None = None,
) -> bytes:
    """Returns a TIFF of integer or floating-point levels, shape (height, width) or (height, width, samples).

    `extra_tags` adds tags of one value, each with its struct character, by tag number.
    """
    height, width = levels.shape[:2]
    samples = 1 if levels.ndim == 2 else levels.shape[2]
    strip_rows = rows_per_strip or height
    stored = levels.astype(levels.dtype.newbyteorder(order))
    strips = [stored[top : top + strip_rows].tobytes() for top in range(0, height, strip_rows)]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = np.cumsum([8, *map(len, strips)])
    photometric = 2 if samples >= 3 else 0 if white_is_zero else 1
    tags: dict[int, tuple[str, tuple[float, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (8 * levels.dtype.itemsize,) * samples),
        259: ("H", (8 if deflate else 1,)),
        262: ("H", (photometric,)),
        273: ("I", tuple(int(offset) for offset in offsets[:-1])),
        277: ("H", (samples,)),
        278: ("I", (strip_rows,)),
        279: ("I", tuple(map(len, strips))),
        339: ("H", ({"u": 1, "i": 2, "f": 3}[levels.dtype.kind],) * samples),
        **{tag: (kind, (number,)) for tag, (kind, number) in (extra_tags or {}).items()},
    }
    return _assemble_tiff(order, b"".join(strips), tags)


def _assemble_tiff(order: str, pixels: bytes, tags: dict[int, tuple[str, tuple[float, ...]]]) -> bytes:
    start = 8 + len(pixels) + len(pixels) % 2
    values_at = start + 2 + 12 * len(tags) + 4
    directory, values = struct.pack(order + "H", len(tags)), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(order + f"{len(numbers)}{kind}", *numbers)
        if len(packed) > 4:
            field = struct.pack(order + "I", values_at + len(values))
            values += packed
        else:
            field = packed.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4, "f": 11}[kind], len(numbers)) + field
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return magic + pixels.ljust(start - 8, b"\0") + directory + bytes(4) + values


def make_large_png(side_px: int) -> bytes:
    """Returns a PNG of noise-free pixels, which is small for its size."""
    row = zlib.compressobj(1)
    pixels = b"".join(row.compress(b"\0" + bytes(range(256)) * (side_px // 256)) for _ in range(side_px)) + row.flush()
    header = struct.pack(">IIBBBBB", side_px // 256 * 256, side_px, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + make_chunk(b"IHDR", header) + make_chunk(b"IDAT", pixels) + make_chunk(b"IEND", b"")
