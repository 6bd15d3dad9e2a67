"""Files that were damaged on their way: none is judged that the decoder can tell from a whole one, and every whole one is judged."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from models.pictures.decoder import PictureLimits, decode_picture, open_picture
from models.pictures.pillow_pixels import quiet_decodes
from models.pictures.refusal import RefusalReason
from models.synthetic import render_series
from streams.errors import PictureError
from tests.encoded_pictures import PNG_SIGNATURE, encode, make_chunk, make_png, make_tiff
from tests.picture_mutations import JPEG_TRANSFER_DAMAGES, MUTATED_FORMS, count_outcomes, mutate_picture
from tests.rendered_pictures import camera_pictures

SIDE_PX = 160
GREY = camera_pictures(1)[0]


def judge(value: bytes) -> str:
    """Returns "judged", or the reason of the refusal. Every other error escapes."""
    try:
        decode_picture(value, SIDE_PX)
    except PictureError as error:
        return error.reason
    return "judged"


def repeat_png_chunk(kind: bytes, content: bytes, count: int) -> bytes:
    png = encode(GREY, "PNG")
    return png[:33] + make_chunk(kind, content) * count + png[33:]


def repeat_jpeg_segment(marker: int, content: bytes, count: int) -> bytes:
    jpeg = encode(GREY, "JPEG")
    return jpeg[:2] + (bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content) * count + jpeg[2:]


# A directory with 1000 equal tags, each of 2^20 values, that all point to the same bytes.
REPEATED_TAGS = (
    b"II*\0" + struct.pack("<I", 2**20 + 8) + bytes(2**20) + struct.pack("<H", 1000) + struct.pack("<HHII", 273, 1, 2**20, 8) * 1000
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (repeat_png_chunk(b"sBIT", b"\x08", 3000), "more than 10.. chunks"),
        (repeat_jpeg_segment(0xFE, b"", 3000), "more than 1000 segments"),
        (repeat_jpeg_segment(0xC4, bytes(17) * 3000, 3), "tables"),
        (REPEATED_TAGS, "twice"),
    ],
)
def test_a_file_of_very_many_small_pieces_is_refused(value: bytes, words: str) -> None:
    with pytest.raises(PictureError, match=words) as refused:
        decode_picture(value, SIDE_PX)
    assert refused.value.reason == RefusalReason.DAMAGED


def test_a_png_with_pixels_in_chunks_of_a_kibibyte_is_judged() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1500, 1500), np.uint8)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise), 0)
    chunks = b"".join(make_chunk(b"IDAT", rows[at : at + 1024]) for at in range(0, len(rows), 1024))
    head = make_chunk(b"IHDR", struct.pack(">IIBBBBB", 1500, 1500, 8, 0, 0, 0, 0))
    assert judge(PNG_SIGNATURE + head + chunks + make_chunk(b"IEND", b"")) == "judged"


@pytest.mark.real
def test_of_800_damaged_jpegs_at_most_4_are_judged_and_no_whole_one_is_refused() -> None:
    outcomes: Counter[str] = Counter()
    # A progressive file has no redundancy in the last bits of its coefficients; docs/RESULTS.md says how many of those are judged.
    forms = ({"quality": 75}, {"quality": 92}, {"quality": 85, "restart_marker_rows": 2}, {"quality": 95, "optimize": True})
    values = [encode(casting.pixels, "JPEG", **form) for casting in render_series(50, seed=16) for form in forms]
    for number, value in enumerate(values):
        assert judge(value) == "judged"
        for damage in JPEG_TRANSFER_DAMAGES:
            outcomes[judge(mutate_picture(value, damage, seed=number, other=values[number - 1]))] += 1
    assert sum(outcomes.values()) == 800
    assert outcomes["judged"] <= 4, outcomes


def test_zeros_within_the_pixels_of_a_jpeg_are_refused_although_libjpeg_decodes_them() -> None:
    value = encode(list(render_series(4, seed=16))[3].pixels, "JPEG", quality=92)
    start = value.index(b"\xff\xda") + 14
    for at in range(start, len(value) - 200, 500):
        assert judge(value[:at] + bytes(64) + value[at + 64 :]) == RefusalReason.DAMAGED


def test_the_bytes_of_another_picture_behind_the_end_of_a_jpeg_are_refused() -> None:
    value = encode(GREY, "JPEG")
    for tail in (value, value[len(value) // 2 :], b"\0\1"):
        assert judge(value + tail) == RefusalReason.DAMAGED
    for padding in (b"\0" * 300, b"\xff" * 17):
        assert judge(value + padding) == "judged"


def test_a_jpeg_of_thousands_of_scans_is_refused_before_its_pixels_are_decoded() -> None:
    value = encode(GREY, "JPEG", progressive=True)
    last = value.rindex(b"\xff\xda")
    assert judge(value[:-2] + value[last:-2] * 200 + value[-2:]) == RefusalReason.DAMAGED


def test_a_png_whose_pixels_are_damaged_is_refused_also_if_its_chunks_bear_right_checksums() -> None:
    whole = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    lost, other = whole[:2000] + whole[2512:], bytearray(whole)
    other[-1] ^= 1
    longer = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY) + bytes(5))
    for compressed in (lost, bytes(other), whole[:-4], longer, whole + whole[-9:], b""):
        assert judge(make_png(GREY, compressed=compressed)) in (RefusalReason.DAMAGED, RefusalReason.TRUNCATED)
    assert judge(make_png(GREY, compressed=whole)) == "judged"


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 7), (5, 3), (33, 29)])
def test_the_length_of_the_pixels_is_known_for_every_kind_of_png(size: tuple[int, int], interlaced: bool) -> None:
    """Interlaced files are written here by hand, because Pillow does not write them."""
    width, height = size
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width) * 3
    parts = [pixels[top::down, left::right] for left, top, right, down in passes] if interlaced else [pixels]
    content = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, int(interlaced))
    chunks = make_chunk(b"IHDR", header) + make_chunk(b"IDAT", zlib.compress(content)) + make_chunk(b"IEND", b"")
    with open_picture(PNG_SIGNATURE + chunks, PictureLimits()) as file:
        assert np.array_equal(np.asarray(file.load("L")), pixels)


@pytest.mark.parametrize("change", [-2, 2, -40])
@pytest.mark.parametrize("at", [18, 22], ids=["width", "height"])
def test_a_bmp_of_a_wrong_size_is_refused(at: int, change: int) -> None:
    value = bytearray(encode(np.repeat(GREY[..., np.newaxis], 3, axis=2), "BMP"))
    struct.pack_into("<i", value, at, struct.unpack_from("<i", value, at)[0] + change)
    assert judge(bytes(value)) in (RefusalReason.DAMAGED, RefusalReason.TRUNCATED)


@pytest.mark.parametrize("rows_per_strip", [None, 32])
@pytest.mark.parametrize("change", [-1, 1, -40])
@pytest.mark.parametrize("tag", [256, 257], ids=["width", "height"])
def test_a_raw_tiff_of_a_wrong_size_is_refused(tag: int, change: int, rows_per_strip: int | None) -> None:
    value = make_tiff(GREY, rows_per_strip=rows_per_strip)
    entry = struct.pack("<HHI", tag, 4, 1)
    changed = value.replace(entry + struct.pack("<I", len(GREY)), entry + struct.pack("<I", len(GREY) + change))
    assert changed != value
    assert judge(changed) in (RefusalReason.DAMAGED, RefusalReason.TRUNCATED)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bmp_and_raw_tiff_whose_second_part_was_never_written_are_refused(share: float) -> None:
    bmp, tiff = encode(GREY, "BMP"), make_tiff(GREY)
    for value, end in ((bmp, len(bmp)), (tiff, 8 + GREY.size)):
        blank = int(GREY.size * share)
        assert judge(value[: end - blank] + bytes(blank) + value[end:]) in (RefusalReason.PARTLY_BLANK, RefusalReason.BLANK)


def test_a_jpeg_within_a_tiff_is_checked_like_any_jpeg() -> None:
    value = encode(GREY, "TIFF", compression="jpeg")
    assert judge(value) == "judged"
    middle = len(value) // 2
    assert judge(value[:middle] + bytes(512) + value[middle + 512 :]) == RefusalReason.DAMAGED


def test_a_png_of_178_megapixels_is_refused_without_memory() -> None:
    """Pillow's getexif decodes a PNG whole. The memory is that of a process of its own, beyond what a small picture needs."""
    script = """
        import resource, struct, sys, zlib
        from models.pictures.decoder import decode_picture
        from models.pictures.display import encode_thumbnail, read_picture_header
        from models.pictures.decoder import PictureLimits
        from streams.errors import PictureError
        from tests.encoded_pictures import PNG_SIGNATURE, encode, make_chunk
        from tests.rendered_pictures import camera_pictures

        side = 13350
        row = zlib.compressobj(9)
        pixels = b"".join(row.compress(bytes(side + 1)) for _ in range(side)) + row.flush()
        header = make_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        exif = make_chunk(b"eXIf", b"MM\\0*\\0\\0\\0\\x08\\0\\0\\0\\0\\0\\0")
        bomb = PNG_SIGNATURE + header + make_chunk(b"IDAT", pixels) + exif + make_chunk(b"IEND", b"")
        decode_picture(encode(camera_pictures(1)[0], "PNG"), 160)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        limits = PictureLimits()
        refusals = (decode_picture, 160), (read_picture_header, limits), (encode_thumbnail, limits, 64)
        for refuse, *arguments in refusals:
            try:
                refuse(bomb, *arguments)
                sys.exit("the picture was accepted")
            except PictureError as error:
                assert error.reason == "too-many-pixels", error
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 20_000, "the picture has 178 MB of pixels"


def test_no_picture_waits_for_another_one_that_is_being_decoded() -> None:
    """Release 0.1.0 held a lock while Pillow decoded. Here one thread stays within a decode until all other pictures are decoded."""
    is_inside, may_leave = threading.Event(), threading.Event()

    def stay_inside() -> None:
        with quiet_decodes():
            is_inside.set()
            assert may_leave.wait(60)

    thread = threading.Thread(target=stay_inside)
    thread.start()
    assert is_inside.wait(60)
    try:
        for form in ("JPEG", "PNG", "BMP", "TIFF"):
            assert judge(encode(GREY, form)) == "judged"
    finally:
        may_leave.set()
        thread.join()


def test_a_progressive_jpeg_that_lost_a_whole_scan_is_refused() -> None:
    """libjpeg does not miss it: the picture only becomes blurred."""
    value = encode(GREY, "JPEG", progressive=True)
    assert judge(value) == "judged"
    assert judge(value[: value.rindex(b"\xff\xda")] + value[-2:]) == RefusalReason.DAMAGED


@pytest.mark.parametrize("form", MUTATED_FORMS)
def test_mutated_pictures_are_judged_or_refused_and_never_crash_the_decoder(form: str) -> None:
    """Some 300 mutations in all; `make campaign-pictures` runs 10,000."""
    for kind, outcomes in count_outcomes(seed=16, count=300 // len(MUTATED_FORMS) + 1, forms=(form,)).items():
        assert outcomes.crashed == 0, kind
        assert outcomes.judged == 0 or not kind.must_be_refused, kind


def test_pictures_within_one_file_announced_by_it_are_accepted() -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(pixels) for pixels in camera_pictures(3)]
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    assert judge(buffer.getvalue()) == "judged"
