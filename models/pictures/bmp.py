"""Reads the header of a BMP file, and checks the length of the file. Pillow decodes the pixels.

Source: Microsoft, Bitmap Storage, BITMAPCOREHEADER and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import damaged, truncated, unsupported

_FILE_HEADER_BYTES, _CORE_HEADER_BYTES, _V5_HEADER_BYTES = 14, 12, 124
_HEADER_BYTES = (_CORE_HEADER_BYTES, 40, 52, 56, 64, 108, _V5_HEADER_BYTES)
_BITS = (1, 4, 8, 16, 24, 32)
_RAW, _BITFIELDS, _ALPHA_BITFIELDS = 0, 3, 6


def read_bmp_header(value: bytes) -> FormatHeader:
    """Returns the header of a BMP. Raises PictureError if the header is incomplete or has impossible values."""
    width_px, height_px, bits, _ = _read_fields(value)
    return FormatHeader("BMP", width_px, abs(height_px), samples=4 if bits == 32 else 3)


def prepare_bmp(value: bytes, _: FormatHeader) -> bytes:
    """Returns a BMP unchanged. Raises PictureError if an uncompressed BMP is not as long as its header says.

    A colour profile and zero bytes may follow the pixels.
    """
    width_px, height_px, bits, compression = _read_fields(value)
    if compression not in (_RAW, _BITFIELDS, _ALPHA_BITFIELDS):
        return value
    (start,) = struct.unpack_from("<I", value, 10)
    pixel_bytes = (width_px * bits + 31) // 32 * 4 * abs(height_px)
    if start < _FILE_HEADER_BYTES + _CORE_HEADER_BYTES:
        raise damaged(f"the header of the BMP says that the pixels begin at byte {start}, which lies within the header itself")
    end = max(start + pixel_bytes, _find_profile_end(value))
    if end > len(value):
        raise truncated(f"the BMP has {len(value)} bytes, but its header describes a file of {end} bytes")
    if any(value[end:]):
        raise damaged(f"the BMP has {len(value)} bytes, but its header describes a file of only {end} bytes")
    return value


def _read_fields(value: bytes) -> tuple[int, int, int, int]:
    """Returns width, height, bits per pixel and compression. The height is negative if the file stores the top row first."""
    if len(value) < _FILE_HEADER_BYTES + _CORE_HEADER_BYTES:
        raise truncated(f"the BMP has only {len(value)} bytes, which is too short for a header")
    (header_bytes,) = struct.unpack_from("<I", value, _FILE_HEADER_BYTES)
    if header_bytes not in _HEADER_BYTES:
        raise damaged(f"the BMP says that its header has {header_bytes} bytes, but no version of BMP has such a header")
    if len(value) < _FILE_HEADER_BYTES + header_bytes:
        raise truncated("the header of the BMP is incomplete")
    if header_bytes == _CORE_HEADER_BYTES:
        width_px, height_px, _, bits = struct.unpack_from("<HHHH", value, 18)
        compression = _RAW
    else:
        width_px, height_px, _, bits, compression = struct.unpack_from("<iiHHI", value, 18)
    if width_px < 0:
        raise damaged(f"the header of the BMP gives a negative width of {width_px} pixels")
    if bits not in _BITS:
        raise unsupported(f"the BMP has {bits} bits per pixel, which is not supported")
    return width_px, height_px, bits, compression


def _find_profile_end(value: bytes) -> int:
    """Returns the byte position at which the colour profile of a BMP of version 5 ends, or 0 if the file has no colour profile."""
    if int.from_bytes(value[14:18], "little") != _V5_HEADER_BYTES:
        return 0
    offset, size = struct.unpack_from("<II", value, _FILE_HEADER_BYTES + 112)
    return _FILE_HEADER_BYTES + offset + size if offset and size else 0
