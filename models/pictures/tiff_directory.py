"""Reads the tags in the image file directory of a TIFF file. EXIF data have the same form, so this module reads them, too.

Source: TIFF 6.0, section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping

from models.pictures.refusal import damaged, truncated
from streams.errors import PictureError

TiffTags = Mapping[int, tuple[float, ...]]

ORIENTATION_TAG = 274
# Pictures from cameras have a few dozen tags. A directory with more tags than this is damaged or an attack.
_MAX_TAGS = 1000
# A tag with more values than this is refused. The limit is high, because some tags have a value for each row of pixels, for example the
# positions of all rows in the file.
_MAX_VALUES = 2**20
# The `struct` character of each TIFF data type. Texts and fractions are left out, because no tag that is read here contains them.
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d"}


def read_byte_order(value: bytes) -> str:
    """Returns the byte order of a TIFF as a prefix for `struct`: "<" or ">". Raises PictureError if `value` is not a TIFF."""
    if value[:4] == b"II*\0":
        return "<"
    if value[:4] == b"MM\0*":
        return ">"
    raise damaged("the file has no TIFF header")


def read_first_directory(value: bytes, numbers: Collection[int]) -> TiffTags:
    """Returns the values of the tags with the given `numbers` in the first directory of a TIFF. Leaves out tags that are not numeric.

    Raises PictureError if the directory is damaged.
    """
    order = read_byte_order(value)
    if len(value) < 8:
        raise truncated("the header of the TIFF is incomplete")
    (start,) = struct.unpack_from(order + "I", value, 4)
    if start < 8 or start + 2 > len(value):
        raise truncated(f"the directory of the TIFF cannot begin at byte {start}, because the file has {len(value)} bytes")
    (count,) = struct.unpack_from(order + "H", value, start)
    if not 0 < count <= _MAX_TAGS:
        raise damaged(f"the directory of the TIFF has {count} tags; 1 to {_MAX_TAGS} are accepted")
    if start + 2 + 12 * count > len(value):
        raise truncated("the file ends within the directory of the TIFF")
    tags: dict[int, tuple[float, ...]] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", value, at)
        if tag in numbers and kind in _TYPES:
            # Refuse a repeated tag, because reading a large tag 1000 times would take half a minute.
            if tag in tags:
                raise damaged(f"the directory of the TIFF has tag {tag} twice")
            tags[tag] = _read_values(value, order + f"{values}" + _TYPES[kind], at + 8, values)
    return tags


def read_orientation(exif: bytes) -> int:
    """Returns the orientation that an EXIF block gives, 1 to 8. If it is absent, damaged or unknown, returns 1, which means upright."""
    try:
        (orientation,) = read_first_directory(exif.removeprefix(b"Exif\0\0"), (ORIENTATION_TAG,)).get(ORIENTATION_TAG, (1,))
    except (PictureError, ValueError):
        return 1
    return int(orientation) if orientation in range(1, 9) else 1


def _read_values(value: bytes, form: str, at: int, count: int) -> tuple[float, ...]:
    if count > _MAX_VALUES:
        raise damaged(f"a tag in the directory of the TIFF has {count} values; at most {_MAX_VALUES} are accepted")
    size = struct.calcsize(form)
    if size > 4:
        (at,) = struct.unpack_from(form[0] + "I", value, at)
    if at + size > len(value):
        raise truncated(f"the values of a TIFF tag go from byte {at} to byte {at + size}, but the file has only {len(value)} bytes")
    return struct.unpack_from(form, value, at)
