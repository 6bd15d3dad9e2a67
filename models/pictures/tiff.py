"""Reads the header of a TIFF file, and checks each strip or tile of pixels, because Pillow does not.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (deflate); TIFF Technical Note 2 (JPEG).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import simplejpeg

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import damaged, truncated, unsupported
from models.pictures.tiff_directory import ORIENTATION_TAG, TiffTags, read_byte_order, read_first_directory

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES, _MAX_SAMPLE, _PLANAR = 273, 278, 279, 281, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _LARGEST_SAMPLE, _JPEG_TABLES = 338, 339, 341, 347
_WANTED = frozenset(
    (
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES, _MAX_SAMPLE),
        *(_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _LARGEST_SAMPLE),
        *(_JPEG_TABLES, ORIENTATION_TAG),
    )
)
_RAW, _OLD_JPEG, _JPEG, _PACKBITS = 1, 6, 7, 32773
_DEFLATE = (8, 32946)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE = 0, 1, 3
_SEPARATE_PLANES, _PREMULTIPLIED = 2, 1
_SIGNED, _FLOAT = 2, 3
_SHORT = 3
_INFLATE_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class _Piece:
    """A strip or tile of a TIFF: its stored bytes `value[start:end]`, and the expected number of bytes after decompression."""

    start: int
    end: int
    unpacked_bytes: int


def read_tiff_header(value: bytes) -> FormatHeader:
    """Returns the header of the first picture of a TIFF. Raises PictureError if it is damaged or of a kind that is not supported."""
    tags = read_first_directory(value, _WANTED)
    bits, sample_format = _number(tags, _BITS, 1), _number(tags, _SAMPLE_FORMAT, 1)
    orientation = _number(tags, ORIENTATION_TAG, 1)
    header = FormatHeader(
        "TIFF",
        _number(tags, _WIDTH, 0),
        _number(tags, _HEIGHT, 0),
        orientation if orientation in range(1, 9) else 1,
        samples=3 if _number(tags, _PHOTOMETRIC, -1) == _PALETTE else _number(tags, _SAMPLES, 1),
        sample_bits=max(8, bits),
        is_float=sample_format == _FLOAT,
        is_signed=sample_format == _SIGNED,
        largest_level=_find_largest_level(tags, sample_format == _FLOAT),
        is_white_zero=(bits > 8 or sample_format == _FLOAT) and _number(tags, _PHOTOMETRIC, -1) == _WHITE_IS_ZERO,
    )
    _check_kind(tags, header)
    return header


def prepare_tiff(value: bytes, header: FormatHeader) -> bytes:
    """Checks the pixels of a TIFF. Returns the file with changed tags, so that Pillow does not rotate or invert the pixels.

    The changed tags say "upright" and "0 means black". Castline's decoder uses the original tags to rotate and invert the pixels later.
    Raises PictureError if a strip or tile of the first picture is damaged.
    """
    _check_pieces(value)
    changed = {ORIENTATION_TAG: 1, **({_PHOTOMETRIC: _BLACK_IS_ZERO} if header.is_white_zero else {})}
    return _replace_tags(value, changed)


def _check_pieces(value: bytes) -> None:
    tags = read_first_directory(value, _WANTED)
    compression = _number(tags, _COMPRESSION, _RAW)
    check = _make_check(compression, tags)
    for piece in _list_pieces(tags):
        if piece.end > len(value):
            raise truncated(f"the pixels of the TIFF should end at byte {piece.end}, but the file has only {len(value)} bytes")
        if check is not None:
            check(value[piece.start : piece.end], piece.unpacked_bytes)


def _replace_tags(value: bytes, changed: Mapping[int, int]) -> bytes:
    order, result = read_byte_order(value), bytearray(value)
    (start,) = struct.unpack_from(order + "I", value, 4)
    (count,) = struct.unpack_from(order + "H", value, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(order + "H", value, at)
        if tag in changed:
            struct.pack_into(order + "HIHH", result, at + 2, _SHORT, 1, changed[tag], 0)
    return bytes(result)


def _number(tags: TiffTags, tag: int, default: int) -> int:
    """Returns the first value of a tag, or `default` if the tag is absent. Raises PictureError if the tag is empty."""
    values = tags.get(tag, (default,))
    if not values:
        raise damaged(f"tag {tag} in the directory of the TIFF has no value")
    return int(values[0])


def _find_largest_level(tags: TiffTags, is_float: bool) -> float | None:
    """Returns the largest grey level that the camera can give, according to the tags, or None.

    Only numbers such as 4095 (12 bits) are used. Another number is probably the brightest level of this picture.
    """
    for tag in (_LARGEST_SAMPLE, _MAX_SAMPLE):
        level = max(tags.get(tag, (0,)), default=0)
        if (is_float and level == 1) or (level >= 255 and level == int(level) and (int(level) + 1) & int(level) == 0):
            return level
    return None


def _check_kind(tags: TiffTags, header: FormatHeader) -> None:
    if len(set(tags.get(_BITS, ()))) > 1 or len(set(tags.get(_SAMPLE_FORMAT, ()))) > 1:
        raise unsupported("the channels of the TIFF differ in their number of bits or in their number format")
    if _number(tags, _COMPRESSION, _RAW) == _OLD_JPEG:
        raise unsupported("the TIFF has the obsolete JPEG compression (number 6)")
    if not header.is_deep:
        return
    if _PHOTOMETRIC not in tags:
        raise damaged("the TIFF does not say whether its level 0 is black or white")
    if _number(tags, _PLANAR, 1) == _SEPARATE_PLANES and _number(tags, _SAMPLES, 1) > 1:
        raise unsupported("the TIFF has channels of more than 8 bits and stores each channel separately")
    if _PREMULTIPLIED in tags.get(_EXTRA_SAMPLES, ()):
        raise unsupported("the TIFF has more than 8 bits and premultiplied transparency")


def _list_pieces(tags: TiffTags) -> Iterator[_Piece]:
    """Yields the strips or tiles of the picture. Raises PictureError if their number does not match the size of the picture."""
    width_px, height_px, samples = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0), _number(tags, _SAMPLES, 1)
    is_separate = _number(tags, _PLANAR, 1) == _SEPARATE_PLANES and samples > 1
    row_bits = _number(tags, _BITS, 1) * (1 if is_separate else samples)
    planes = samples if is_separate else 1
    if _TILE_OFFSETS in tags:
        offsets, counts = tags[_TILE_OFFSETS], tags.get(_TILE_BYTES, ())
        tile_width, tile_height = _number(tags, _TILE_WIDTH, 0), _number(tags, _TILE_HEIGHT, 0)
        if tile_width <= 0 or tile_height <= 0:
            raise damaged("the TIFF gives no valid size for its tiles")
        rows = [tile_height] * (-(-width_px // tile_width) * -(-height_px // tile_height) * planes)
        row_bytes = -(-tile_width * row_bits // 8)
    else:
        offsets, counts = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_BYTES, ())
        strip_rows = max(1, min(height_px, _number(tags, _ROWS_PER_STRIP, height_px)))
        rows = [min(strip_rows, height_px - top) for top in range(0, height_px, strip_rows)] * planes
        row_bytes = -(-width_px * row_bits // 8)
    if not len(offsets) == len(counts) == len(rows):
        raise damaged(
            f"the TIFF has {len(offsets)} positions and {len(counts)} sizes of strips or tiles, but its picture needs {len(rows)} of each"
        )
    for offset, count, high in zip(offsets, counts, rows, strict=True):
        yield _Piece(int(offset), int(offset) + int(count), high * row_bytes)


def _make_check(compression: int, tags: TiffTags) -> Callable[[bytes, int], None] | None:
    """Returns the function that checks compressed strips and tiles. Returns None for LZW, because only libtiff can check LZW."""
    if compression == _JPEG:
        tables = bytes(int(byte) for byte in tags.get(_JPEG_TABLES, ()))
        return lambda piece, _: _check_jpeg(piece, tables)
    if compression in _DEFLATE:
        return _check_deflate
    return {_RAW: _check_raw, _PACKBITS: _check_packbits}.get(compression)


def _check_raw(piece: bytes, unpacked_bytes: int) -> None:
    if len(piece) != unpacked_bytes:
        raise damaged(f"a strip of the TIFF has {len(piece)} bytes instead of {unpacked_bytes}")


def _check_deflate(piece: bytes, unpacked_bytes: int) -> None:
    """Decompresses a strip in small pieces, which also verifies its checksum. Raises PictureError if its size or checksum is wrong."""
    inflate, found = zlib.decompressobj(), 0
    try:
        rest = piece
        while not inflate.eof and found <= unpacked_bytes:
            unpacked = inflate.decompress(rest, _INFLATE_BYTES)
            if not unpacked and not inflate.eof:
                raise truncated(f"a strip of the TIFF ends after {found} of {unpacked_bytes} decompressed bytes")
            found, rest = found + len(unpacked), inflate.unconsumed_tail
    except zlib.error as error:
        raise damaged(f"a strip of the TIFF cannot be decompressed: {error}") from error
    if found != unpacked_bytes or inflate.unused_data:
        raise damaged(f"a strip of the TIFF does not have exactly {unpacked_bytes} decompressed bytes")


def _check_packbits(piece: bytes, unpacked_bytes: int) -> None:
    """Raises PictureError if a strip in PackBits compression does not expand to `unpacked_bytes` bytes. Source: TIFF 6.0, section 9."""
    at, found = 0, 0
    while at < len(piece):
        head = piece[at]
        literal = head + 1 if head < 128 else 0
        found += literal or (257 - head if head > 128 else 0)
        at += 1 + (literal or (head != 128))
    # Some programs append an unused byte to a strip. It is accepted.
    if found != unpacked_bytes or at > len(piece):
        raise damaged(f"a strip of the TIFF has {found} decompressed bytes instead of {unpacked_bytes}")


def _check_jpeg(piece: bytes, tables: bytes) -> None:
    whole = tables[:-2] + piece[2:] if tables else piece
    try:
        simplejpeg.decode_jpeg(whole, "GRAY", strict=True)
    except ValueError as error:
        raise damaged(f"a strip of the TIFF holds a damaged JPEG: {error}") from error
