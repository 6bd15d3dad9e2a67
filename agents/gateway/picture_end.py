"""Finds out whether a file holds a complete picture, so that the gateway does not send an unfinished file.

The functions only follow lengths and markers. They decode nothing, so a damaged picture may count as complete.
"""

from __future__ import annotations

import re
import struct
from enum import Enum

from streams.identity import sniff_content_type

# Matches the marker that ends the compressed pixels of a JPEG. A marker is the byte FF and one more byte. FF00, FFD0 to FFD7 and FFFF do
# not match, because they do not end the pixels.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Some programs append bytes to a JPEG, such as a line feed. So the gateway looks for the end marker in the last 64 bytes.
_TAIL_BYTES = 64
# At most this many directories of a TIFF are read, because the directories of a damaged file may point to each other in a circle.
_MAX_TIFF_DIRECTORIES = 64
# At most this many strips or tiles of a TIFF directory are read.
_MAX_TIFF_PIECES = 1_000_000
# A TIFF stores its pixels in strips or in tiles. The keys are the tags for their offsets, and the values are the tags for their sizes.
_TIFF_OFFSETS = {273: 279, 324: 325}
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


class PictureEnd(Enum):
    """Says whether a file holds a complete picture. UNKNOWN means that the file's format is not known."""

    FOUND = "found"
    MISSING = "missing"
    UNKNOWN = "unknown"


def find_picture_end(value: bytes) -> PictureEnd:
    """Returns whether the bytes `value` are a complete picture. The known formats are JPEG, PNG, BMP, TIFF and GIF."""
    find = {
        "image/jpeg": _has_jpeg_end,
        "image/png": _has_png_end,
        "image/bmp": _has_bmp_end,
        "image/tiff": _has_tiff_end,
        "image/gif": _has_gif_end,
    }.get(sniff_content_type(value))
    if find is None:
        return PictureEnd.UNKNOWN
    try:
        return PictureEnd.FOUND if find(value) else PictureEnd.MISSING
    except (struct.error, IndexError):  # The file ends before its header is complete.
        return PictureEnd.MISSING


def _has_jpeg_end(value: bytes) -> bool:
    """Returns whether a JPEG has its end marker.

    Follows the segments of the file, because a preview inside the file has an end marker too.
    """
    at = 2
    while at + 4 <= len(value):
        if value[at] != 0xFF:
            return b"\xff\xd9" in value[-_TAIL_BYTES:]  # The file is damaged, but an end marker shows that the transfer is finished.
        kind = value[at + 1]
        if kind == 0xD9:
            return True
        if kind == 0xFF:
            at += 1
        elif kind == 0xDA:  # After this marker, compressed pixels follow until the next marker.
            marker = _JPEG_MARKER.search(value, at + 2 + int.from_bytes(value[at + 2 : at + 4]))
            if marker is None:
                return False
            at = marker.start()
        else:
            at += 2 + int.from_bytes(value[at + 2 : at + 4])
    return value[at : at + 2] == b"\xff\xd9"


def _has_png_end(value: bytes) -> bool:
    at = 8
    while at + 12 <= len(value):
        size, kind = struct.unpack_from(">I4s", value, at)
        if kind == b"IEND":
            return True
        if not kind.isalpha():
            return b"IEND" in value[-_TAIL_BYTES:]
        at += 12 + int(size)
    return False


def _has_bmp_end(value: bytes) -> bool:
    size, offset, header_size = struct.unpack_from("<I4xII", value, 2)
    if size > offset:
        return len(value) >= int(size)
    # Some programs write the size 0 into a BMP. Then the size is computed from its rows. Each row is a multiple of four bytes long.
    form = "<HHxxH" if header_size == 12 else "<iixxH"
    width, height, bits = struct.unpack_from(form, value, 18)
    row_bytes = (width * bits + 31) // 32 * 4
    return len(value) >= int(offset + row_bytes * abs(height))


def _has_gif_end(value: bytes) -> bool:
    return value.rstrip(b"\0\r\n").endswith(b";")


def _has_tiff_end(value: bytes) -> bool:
    """Returns whether the file holds all directories of a TIFF and all pixels to which they point."""
    order = "<" if value[:2] == b"II" else ">"
    is_big = value[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + ("Q" if is_big else "I"), value, 8 if is_big else 4)
    for _ in range(_MAX_TIFF_DIRECTORIES):
        if at == 0:
            break
        at, end = _read_tiff_directory(value, order, is_big, at)
        if end > len(value):
            return False
    else:
        return True
    return bool(struct.unpack_from(order + ("Q" if is_big else "I"), value, 8 if is_big else 4)[0])


def _read_tiff_directory(value: bytes, order: str, is_big: bool, at: int) -> tuple[int, int]:
    """Reads the directory of a TIFF at byte `at`.

    Returns the position of the next directory (0 if there is none) and the position at which the last pixels end.
    """
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), value, at)
    start, entry_bytes = (at + 8, 20) if is_big else (at + 2, 12)
    numbers: dict[int, tuple[int, ...]] = {}
    for entry in range(min(int(count), 0xFFFF)):
        tag = struct.unpack_from(order + "H", value, start + entry * entry_bytes)[0]
        if tag in _TIFF_OFFSETS or tag in _TIFF_OFFSETS.values():
            numbers[tag] = _read_tiff_numbers(value, order, is_big, start + entry * entry_bytes)
    (following,) = struct.unpack_from(order + ("Q" if is_big else "I"), value, start + int(count) * entry_bytes)
    ends = [
        offset + size
        for offsets, sizes in _TIFF_OFFSETS.items()
        for offset, size in zip(numbers.get(offsets, ()), numbers.get(sizes, ()), strict=False)
    ]
    return int(following), max(ends, default=0)


def _read_tiff_numbers(value: bytes, order: str, is_big: bool, at: int) -> tuple[int, ...]:
    _, kind, count = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), value, at)
    number = _TIFF_NUMBERS.get(kind)
    if number is None or count > _MAX_TIFF_PIECES:
        return ()
    form = f"{order}{count}{number}"
    place, room = (at + 12, 8) if is_big else (at + 8, 4)
    if struct.calcsize(form) > room:
        (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), value, place)
    return struct.unpack_from(form, value, place)
