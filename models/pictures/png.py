"""Reads the header of a PNG file, and checks all its chunks, because Pillow does not verify the checksums of the pixels.

Source: W3C Portable Network Graphics, third edition.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import damaged, truncated, unsupported
from models.pictures.tiff_directory import read_orientation

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# For each colour type of PNG: the number of samples per pixel, and the numbers of bits per sample that are allowed.
_COLOUR_TYPES = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}
# The passes of an interlaced PNG (Adam7): first column, first row, step between columns, step between rows.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# A browser shows a PNG with one of these chunks as several frames, or with other grey levels than the decoder reads.
_CHANGES_DISPLAY = frozenset((b"tRNS", b"iCCP", b"gAMA", b"acTL"))
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS")
# A PNG may have at most this many chunks, plus one for each KiB of the file, so that a malicious file does not keep the decoder busy.
# Pictures of real cameras had at most 34 chunks.
_MAX_CHUNKS = 1000
_BYTES_PER_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk of a PNG: its type, and its content `value[start:end]`. The checksum follows the content."""

    kind: bytes
    start: int
    end: int


def read_png_header(value: bytes) -> FormatHeader:
    """Returns the header of a PNG. Raises PictureError if a chunk is damaged or the file ends too early.

    Reads all chunks and verifies their checksums. This is fast, because no pixel is decoded.
    """
    header: FormatHeader | None = None
    for chunk in _walk_chunks(value):
        content = memoryview(value)[chunk.start : chunk.end]
        if header is None:
            header = _read_ihdr(chunk, bytes(content))
        elif chunk.kind == b"sBIT" and len(content) > 0:
            header = replace(header, significant_bits=max(content[:3]))
        elif chunk.kind == b"eXIf":
            header = replace(header, orientation=read_orientation(bytes(content)))
        elif chunk.kind == b"tRNS" and header.is_deep:
            raise unsupported("the PNG has a transparent colour of 16 bits, which is not supported")
        elif chunk.kind in _CHANGES_DISPLAY:
            header = replace(header, shows_unchanged=False)
    if header is None:
        raise damaged("the PNG has no header chunk")
    return header if header.orientation == 1 else replace(header, shows_unchanged=False)


def prepare_png(value: bytes, _: FormatHeader) -> bytes:
    """Checks the pixel data of a PNG, and returns the PNG without compression and without text chunks.

    Text chunks are left out, because a small chunk may expand to gigabytes.
    Raises PictureError if the pixel data are damaged or have a wrong length.
    """
    expected = _count_bytes(value[16:29])
    packed, kept = [], []
    for chunk in _walk_chunks(value):
        if chunk.kind == b"IDAT":
            packed.append(value[chunk.start : chunk.end])
        elif chunk.kind in _PIXEL_CHUNKS:
            kept.append(value[chunk.start - 8 : chunk.end + 4])
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(b"".join(packed), expected + 1)
        # zlib can return all pixels before it has read the checksum after the pixels. This call reads the checksum.
        rows += inflate.decompress(inflate.unconsumed_tail, 1)
    except zlib.error as error:
        raise damaged(f"the pixels of the PNG cannot be decompressed: {error}") from error
    if len(rows) > expected:
        raise damaged(f"the pixels of the PNG take more than the {expected} bytes that its header describes")
    if not inflate.eof:
        raise truncated(f"the PNG contains only {len(rows)} of {expected} bytes of pixels")
    if inflate.unused_data:
        raise damaged(f"the PNG has {len(inflate.unused_data)} unexpected bytes after its compressed pixels")
    if len(rows) < expected:
        raise damaged(f"the PNG contains {len(rows)} bytes of pixels, but its header describes {expected}")
    return b"".join((PNG_SIGNATURE, *kept, _make_chunk(b"IDAT", zlib.compress(rows, 0)), _make_chunk(b"IEND", b"")))


def _make_chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)))


def _read_ihdr(chunk: _Chunk, content: bytes) -> FormatHeader:
    if chunk.kind != b"IHDR" or len(content) != 13:
        raise damaged("the PNG does not begin with a valid header chunk")
    width_px, height_px, depth, colour = int.from_bytes(content[:4]), int.from_bytes(content[4:8]), content[8], content[9]
    if depth not in _COLOUR_TYPES.get(colour, (0, ()))[1] or max(width_px, height_px) >= 2**31:
        raise damaged(f"the header of the PNG is not valid: colour type {colour}, {depth} bits per sample, {width_px} x {height_px} pixels")
    samples = 3 if colour == 3 else _COLOUR_TYPES[colour][0]
    return FormatHeader(
        "PNG", width_px, height_px, samples=samples, sample_bits=max(8, depth), shows_unchanged=depth <= 8 and colour in (0, 2, 3)
    )


def _count_bytes(ihdr: bytes) -> int:
    width_px, height_px, depth, colour, interlaced = int.from_bytes(ihdr[:4]), int.from_bytes(ihdr[4:8]), ihdr[8], ihdr[9], ihdr[12]
    bits = depth * _COLOUR_TYPES[colour][0]
    total = 0
    for left, top, step_x, step_y in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(0, width_px - left) // step_x), -(-max(0, height_px - top) // step_y)
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def _walk_chunks(value: bytes) -> Iterator[_Chunk]:
    """Yields the chunks of a PNG up to its end chunk, after verifying their checksums.

    Raises PictureError if a checksum is wrong, if the file ends too early, or if it has too many chunks.
    """
    start = len(PNG_SIGNATURE)
    limit = _MAX_CHUNKS + len(value) // _BYTES_PER_CHUNK
    for _ in range(limit):
        if start + 12 > len(value):
            raise truncated("the PNG has no end chunk")
        kind, end = value[start + 4 : start + 8], start + 8 + int.from_bytes(value[start : start + 4])
        if end + 4 > len(value):
            raise truncated(f"the PNG is cut off: it has {len(value)} bytes and needs at least {end + 4}")
        if zlib.crc32(memoryview(value)[start + 4 : end]) != int.from_bytes(value[end : end + 4]):
            raise damaged(f"the checksum of the PNG chunk {kind!r} is wrong")
        yield _Chunk(kind, start + 8, end)
        if kind == b"IEND":
            return
        start = end + 4
    raise damaged(f"the PNG of {len(value)} bytes has more than {limit} chunks")
