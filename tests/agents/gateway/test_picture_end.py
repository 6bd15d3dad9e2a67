"""Whether a file reaches up to the end that its format names, for whole files and for every kind of half file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from agents.gateway.picture_end import PictureEnd, find_picture_end

PIXELS = np.random.default_rng(3).integers(0, 255, (40, 50), np.uint8)


def encode(image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, image_format, **options)
    return stream.getvalue()


def make_thumbnail_jpeg() -> bytes:
    """Returns a JPEG whose first segment holds another whole JPEG, as the previews of cameras do."""
    preview, picture = encode("JPEG"), encode("JPEG", quality=95)
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview
    return picture[:2] + segment + picture[2:]


WHOLE = {
    "jpeg": encode("JPEG"),
    "progressive jpeg": encode("JPEG", progressive=True),
    "jpeg with restart markers": encode("JPEG", restart_marker_rows=1),
    "jpeg with a preview": make_thumbnail_jpeg(),
    "png": encode("PNG"),
    "bmp": encode("BMP"),
    "tiff": encode("TIFF"),
    "tiff lzw": encode("TIFF", compression="tiff_lzw"),
    "tiff with strips": encode("TIFF", strip_size=200),
    "big tiff": encode("TIFF", big_tiff=True),
    "gif": encode("GIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_has_its_end_and_no_shorter_one_has(kind: str) -> None:
    value = WHOLE[kind]
    assert find_picture_end(value) is PictureEnd.FOUND
    # Pillow writes the directory of a TIFF before the pixels, and the last bytes of a file may be padding.
    wrong = [length for length in range(10, len(value) - 8) if find_picture_end(value[:length]) is PictureEnd.FOUND]
    assert wrong == [length for length in wrong if kind == "gif" and value[length - 1 : length] == b";"]


def test_bytes_after_the_end_are_no_matter() -> None:
    for kind in ("jpeg", "png", "bmp", "tiff"):
        assert find_picture_end(WHOLE[kind] + b"\r\n serial number 7") is PictureEnd.FOUND


def test_a_bitmap_without_its_size_is_measured_by_its_rows() -> None:
    value = WHOLE["bmp"]
    without_size = value[:2] + bytes(4) + value[6:]
    assert find_picture_end(without_size) is PictureEnd.FOUND
    assert find_picture_end(without_size[:-60]) is PictureEnd.MISSING


def test_a_file_that_was_only_reserved_on_disk_has_no_end() -> None:
    for kind in ("jpeg", "png"):
        assert find_picture_end(WHOLE[kind][: len(WHOLE[kind]) // 3] + bytes(len(WHOLE[kind]))) is PictureEnd.MISSING
    assert find_picture_end(bytes(5000)) is PictureEnd.UNKNOWN


def test_a_file_that_names_itself_as_its_next_part_is_decided_too() -> None:
    loop = b"II*\0" + (8).to_bytes(4, "little") + (0).to_bytes(2, "little") + (8).to_bytes(4, "little")
    assert find_picture_end(loop) is PictureEnd.FOUND
    huge = b"II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + b"\x11\x01\x04\x00\xff\xff\xff\xff" + bytes(8)
    assert find_picture_end(huge) is PictureEnd.FOUND
