"""Reads a TIFF image file directory: the tags of a TIFF file, and those of EXIF, which has the same form.

Source: TIFF 6.0, section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping

from models.pictures.refusal import damaged, truncated
from streams.errors import PictureError

TiffTags = Mapping[int, tuple[float, ...]]

ORIENTATION_TAG = 274
# Pictures of cameras have some dozen tags. A directory of more tags is an attack or damage.
_MAX_TAGS = 1000
# Values of a tag: strips of a picture of one row each are the most that is sensible.
_MAX_VALUES = 2**20
# By the number of the type: its struct character. ASCII and rational numbers are not needed and left out.
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d"}


def read_byte_order(value: bytes) -> str:
    """Returns the struct prefix of the byte order of a TIFF, "<" or ">". Raises PictureError if `value` is no TIFF."""
    if value[:4] == b"II*\0":
        return "<"
    if value[:4] == b"MM\0*":
        return ">"
    raise damaged("it has no TIFF header")


def read_first_directory(value: bytes, numbers: Collection[int]) -> TiffTags:
    """Returns the tags of a TIFF's first directory that have one of the `numbers` and numeric values.

    Raises PictureError if the directory is damaged.
    """
    order = read_byte_order(value)
    if len(value) < 8:
        raise truncated("the header of the TIFF is incomplete")
    (start,) = struct.unpack_from(order + "I", value, 4)
    if start < 8 or start + 2 > len(value):
        raise truncated(f"its TIFF directory begins at byte {start} of {len(value)}")
    (count,) = struct.unpack_from(order + "H", value, start)
    if not 0 < count <= _MAX_TAGS:
        raise damaged(f"its TIFF directory has {count} tags")
    if start + 2 + 12 * count > len(value):
        raise truncated("its TIFF directory is incomplete")
    tags: dict[int, tuple[float, ...]] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", value, at)
        if tag in numbers and kind in _TYPES:
            tags[tag] = _read_values(value, order + f"{values}" + _TYPES[kind], at + 8, values)
    return tags


def read_orientation(exif: bytes) -> int:
    """Returns the orientation in the bytes of an EXIF block, 1 to 8. An absent, damaged or unknown orientation counts as upright, 1."""
    try:
        (orientation,) = read_first_directory(exif.removeprefix(b"Exif\0\0"), (ORIENTATION_TAG,)).get(ORIENTATION_TAG, (1,))
    except (PictureError, ValueError):
        return 1
    return int(orientation) if orientation in range(1, 9) else 1


def _read_values(value: bytes, form: str, at: int, count: int) -> tuple[float, ...]:
    if count > _MAX_VALUES:
        raise damaged(f"a tag of its TIFF directory has {count} values")
    size = struct.calcsize(form)
    if size > 4:
        (at,) = struct.unpack_from(form[0] + "I", value, at)
    if at + size > len(value):
        raise truncated(f"a tag of its TIFF directory lies at byte {at} of {len(value)}")
    return struct.unpack_from(form, value, at)
