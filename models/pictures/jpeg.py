"""Checks the structure of a JPEG file, reads its header, and decodes it with simplejpeg.

Pillow is not used, because it does not report damaged data.
Source: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import damaged, truncated, unsupported
from models.pictures.tiff_directory import read_orientation

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_HUFFMAN, _QUANTISATION, _APP1, _APP2, _APP14 = 0xC4, 0xDB, 0xE1, 0xE2, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# A progressive JPEG stores the picture in several scans. Cameras write at most a few dozen scans. A small file with thousands of scans
# would take minutes to decode.
_MAX_SCANS = 100
# The number of segments and the size of all tables are limited, so that a malicious file does not keep the decoder busy. Pictures of real
# cameras had at most 8 segments and some hundred bytes of tables.
_MAX_SEGMENTS = 1000
_MAX_TABLE_BYTES = 2**17
_MAX_ZEROS = 32
# The factors by which libjpeg may reduce a JPEG. Do not change them, because model versions were trained on pictures with these factors.
_SCALES = (8, 4, 2, 1)
_NO_FILL_BYTE = re.compile(rb"[^\xff]")


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    end: int


def read_jpeg_header(value: bytes) -> FormatHeader:
    """Returns the header of a JPEG. Raises PictureError if it is damaged or does not have 8 bits per sample."""
    orientation, is_corrected = 1, False
    for segment in _walk_segments(value):
        content = value[segment.start : segment.end]
        if segment.marker == _APP1 and content.startswith(b"Exif\0\0"):
            orientation = read_orientation(content)
        elif (segment.marker == _APP2 and content.startswith(b"ICC_PROFILE\0")) or segment.marker == _APP14:
            is_corrected = True
        elif segment.marker in _FRAMES:
            return _read_frame(content, orientation, is_corrected)
    raise truncated("the JPEG has no frame header")


def decode_jpeg(value: bytes, mode: Literal["L", "RGB"], header: FormatHeader, min_side_px: int | None) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a JPEG as stored: shape (height, width), or (height, width, 3) for colour with mode "RGB".

    With `min_side_px`, a large JPEG is decoded at a smaller size, but each side has at least this many pixels.
    Raises PictureError if the file is damaged.
    """
    _check_structure(value)
    scale = choose_scale(header, min_side_px)
    size = {"min_height": -(-header.height_px // scale), "min_width": -(-header.width_px // scale)}
    try:
        if header.samples == 4:
            return _flatten_cmyk(simplejpeg.decode_jpeg(value, "CMYK", strict=True, **size), mode)
        colours = "RGB" if mode == "RGB" and header.samples == 3 else "GRAY"
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(value, colours, strict=True, **size)
    except ValueError as error:
        # The JPEG is damaged, but not cut off, because `_check_structure` has found its end marker.
        raise damaged(str(error)) from error
    return pixels[..., 0] if colours == "GRAY" else pixels


def choose_scale(header: FormatHeader, min_side_px: int | None) -> int:
    """Returns the factor by which `decode_jpeg` reduces a JPEG: 1, 2, 4 or 8.

    The factor is as large as possible, but each side keeps at least `min_side_px` pixels. Example: if the sides have 1000 px and
    `min_side_px` is 192, the factor is 4. A small JPEG is not reduced.
    """
    if min_side_px is None:
        return 1
    room = min(header.width_px // min_side_px, header.height_px // min_side_px)
    return next((scale for scale in _SCALES if room >= scale), 1)


def _check_structure(value: bytes) -> None:
    """Checks all segments of a JPEG. Raises PictureError if a segment is damaged, or if other data follow the end marker.

    Padding after the end marker is accepted. In a multi-picture file (MPO), further pictures are accepted, too.
    """
    segments = [(segment, value[segment.start : segment.end]) for segment in _walk_segments(value)]
    _check_scans([(segment.marker, content) for segment, content in segments if segment.marker in _FRAMES or segment.marker == _SCAN])
    if sum(len(content) for segment, content in segments if segment.marker in (_HUFFMAN, _QUANTISATION)) > _MAX_TABLE_BYTES:
        raise damaged(f"the tables of the JPEG have more than {_MAX_TABLE_BYTES} bytes")
    for segment, content in segments:
        if segment.marker == _QUANTISATION:
            _check_quantisation(content)
    _check_zeros(value, segments)
    end = segments[-1][0].end
    is_multiple = any(segment.marker == _APP2 and content.startswith(b"MPF\0") for segment, content in segments)
    if not is_multiple and len(set(value[end:])) > 1:
        raise damaged(f"{len(value) - end} bytes follow the end marker of the JPEG, as if part of another picture were attached")


def _flatten_cmyk(cmyk: npt.NDArray[np.uint8], mode: Literal["L", "RGB"]) -> npt.NDArray[np.uint8]:
    """Converts CMYK pixels to grey or colour. Expects inverted values, because Adobe's programs store CMYK in this way."""
    return np.asarray(Image.fromarray(255 - cmyk, "CMYK").convert("RGB").convert(mode))


def _read_frame(content: bytes, orientation: int, is_corrected: bool) -> FormatHeader:
    if len(content) < 6:
        raise truncated("the frame header of the JPEG is incomplete")
    height_px, width_px, components = int.from_bytes(content[1:3]), int.from_bytes(content[3:5]), content[5]
    if content[0] != 8:
        raise unsupported(f"the JPEG has {content[0]} bits per sample; only 8 are accepted")
    shows_unchanged = components in (1, 3) and orientation == 1 and not is_corrected
    return FormatHeader("JPEG", width_px, height_px, orientation, components, shows_unchanged=shows_unchanged)


def _walk_segments(value: bytes) -> Iterator[_Segment]:
    """Yields the segments of a JPEG in order, the end marker last. Raises PictureError at the first fault in the structure."""
    at, markers = 0, None
    for _ in range(_MAX_SEGMENTS):
        found = _read_marker(value, at)
        yield found
        if found.marker == _END:
            return
        at = found.end
        if found.marker == _SCAN:
            markers = _find_markers(value) if markers is None else markers
            behind = int(np.searchsorted(markers, at))
            if behind == len(markers):
                raise truncated("the JPEG has no end marker")
            at = int(markers[behind])
    raise damaged(f"the JPEG has more than {_MAX_SEGMENTS} segments")


def _find_markers(value: bytes) -> npt.NDArray[np.intp]:
    """Returns the positions of all markers at which compressed pixels may end, in ascending order.

    A marker is 0xFF and a second byte. The pixels continue if the second byte is 0, 0xFF or a restart marker (0xD0 to 0xD7).
    """
    content = np.frombuffer(value, np.uint8)
    at = np.flatnonzero(content[:-1] == 0xFF)
    behind = content[at + 1]
    markers: npt.NDArray[np.intp] = at[(behind != 0) & (behind != 0xFF) & (behind & 0xF8 != 0xD0)]
    return markers


def _read_marker(value: bytes, at: int) -> _Segment:
    if at + 2 > len(value):
        raise truncated(f"the JPEG has no end marker within its {len(value)} bytes")
    if value[at] != 0xFF:
        raise damaged(f"byte {at} of the JPEG should begin a marker, but is not 0xFF")
    # Any number of fill bytes 0xFF may stand before a marker. A regular expression skips millions of them quickly.
    if (code := _NO_FILL_BYTE.search(value, at + 1)) is None:
        raise truncated("the JPEG ends within a marker")
    at = code.start() - 1
    marker, start = value[at + 1], at + 2
    if marker in (_START, _END):
        return _Segment(marker, start, start)
    length = int.from_bytes(value[start : start + 2])
    if length < 2 or marker < 0xC0:
        raise damaged(f"byte {at} of the JPEG begins a marker that is not valid")
    if start + length > len(value):
        raise truncated(f"a segment of the JPEG should end at byte {start + length}, but the file has only {len(value)} bytes")
    return _Segment(marker, start + 2, start + length)


def _check_zeros(value: bytes, segments: list[tuple[_Segment, bytes]]) -> None:
    """Raises PictureError if the compressed pixels contain a long run of zero bytes, as after a damaged transfer.

    Progressive files and files for which `_may_hold_zeros` is true are not checked.
    """
    markers = {segment.marker for segment, _ in segments}
    tables = b"".join(content for segment, content in segments if segment.marker == _HUFFMAN)
    if not markers.isdisjoint(_PROGRESSIVE) or _may_hold_zeros(tables):
        return
    start = next(segment.end for segment, _ in segments if segment.marker == _SCAN)
    at = value.find(bytes(_MAX_ZEROS), start)
    if 0 <= at < segments[-1][0].start - _MAX_ZEROS:
        raise damaged(f"from byte {at} on, pixels of the JPEG are overwritten by zeros")


def _may_hold_zeros(tables: bytes) -> bool:
    """Returns whether the compressed pixels of an undamaged JPEG can contain long runs of zero bits.

    This happens if the Huffman code for the end of a block (in a table for AC coefficients) has only zero bits.
    Source: ITU-T T.81, B.2.4.2.
    """
    at = 0
    while at + 17 < len(tables):
        if tables[at] >> 4 and tables[at + 17] == 0:
            return True
        at += 17 + sum(tables[at + 1 : at + 17])
    return False


def _check_scans(headers: list[tuple[int, bytes]]) -> None:
    """Raises PictureError if a scan of the JPEG is missing. From such a file, libjpeg would make a blurred picture.

    `headers` holds the marker and the content of each frame and scan header.
    Source: ITU-T T.81, B.2.3 and G.1.1.1.
    """
    frames = [(marker, content) for marker, content in headers if marker in _FRAMES]
    scans = [content for marker, content in headers if marker == _SCAN]
    if not scans:
        raise truncated("the JPEG has no pixels")
    if len(scans) > _MAX_SCANS:
        raise unsupported(f"the JPEG has {len(scans)} scans; at most {_MAX_SCANS} are accepted")
    if len(frames) != 1:
        raise damaged(f"the JPEG has {len(frames)} frame headers instead of one")
    marker, frame = frames[0]
    missing = {frame[at] for at in range(6, len(frame) - 2, 3)}
    complete: dict[int, set[int]] = {component: set() for component in missing}
    for scan in scans:
        count = scan[0] if scan else 0
        if len(scan) != 2 * count + 4:
            raise damaged("the header of a scan in the JPEG has a wrong length")
        first, last, lowest_bit = (0, 63, 0) if marker not in _PROGRESSIVE else (scan[-3], scan[-2], scan[-1] & 15)
        for component in scan[1 : 2 * count + 1 : 2]:
            if lowest_bit == 0:
                complete.setdefault(component, set()).update(range(first, last + 1))
    if any(len(coefficients) < 64 for coefficients in complete.values()):
        raise damaged("a scan of the JPEG is missing")


def _check_quantisation(content: bytes) -> None:
    """Raises PictureError if a quantisation table is too short or contains a 0, which libjpeg does not report."""
    at = 0
    while at < len(content):
        step = 2 if content[at] >> 4 else 1
        table = content[at + 1 : at + 1 + 64 * step]
        if len(table) < 64 * step or 0 in (table if step == 1 else np.frombuffer(table, ">u2")):
            raise damaged("a quantisation table of the JPEG is incomplete or contains a zero")
        at += 1 + 64 * step
