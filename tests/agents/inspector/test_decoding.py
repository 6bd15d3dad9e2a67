"""What the inspector passes to the decoder: the depth of the line, the limits of the settings, and the decoder of uploads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.inspector.decoding import PictureDecoder, decode_image, find_checksum, read_image_record
from models.pictures.decoder import DecodedPicture, PictureLimits, decode_picture
from models.pictures.refusal import RefusalReason
from streams.errors import PictureError
from streams.object_store import ObjectStore
from streams.record_producer import ConsumedRecord
from streams.settings import LineSettings, PictureSettings
from tests.agents.inspector.images import CAPTURED_AT
from tests.encoded_pictures import make_png
from tests.image_topics import make_jpeg
from tests.rendered_pictures import camera_pictures

MONO_12 = make_png(np.round(camera_pictures(1)[0] * (4095 / 255)).astype(np.uint16))


def decode(line: LineSettings, tmp_path: Path) -> DecodedPicture | PictureError:
    source = ConsumedRecord(f"castings.images.{line.name}", 0, 1, f"{line.name}:1:1".encode(), MONO_12, {})
    record = read_image_record(source, line, CAPTURED_AT, CAPTURED_AT)
    settings = PictureSettings()
    return decode_image(record, 96, settings, ObjectStore(str(tmp_path), settings.max_bytes)).picture


def test_a_picture_is_decoded_with_the_depth_of_its_line(tmp_path: Path) -> None:
    picture = decode(LineSettings(name="line-1", depth_bits=12), tmp_path)
    assert isinstance(picture, DecodedPicture)
    expected = decode_picture(MONO_12, 96, PictureLimits(), depth_bits=12)
    assert np.array_equal(picture.pixels, expected.pixels)


def test_a_dark_picture_of_a_line_without_a_depth_is_for_review_and_its_message_names_the_setting(tmp_path: Path) -> None:
    picture = decode(LineSettings(name="line-1"), tmp_path)
    assert isinstance(picture, PictureError)
    assert picture.reason == RefusalReason.DEPTH
    assert "depth_bits" in str(picture)


def make_failing_decoder(error: Exception) -> PictureDecoder:
    def decode(value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None, keep_original: bool) -> DecodedPicture:
        raise error

    return decode


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), MemoryError(), KeyError("x")])
def test_a_picture_on_which_the_decoder_fails_is_for_review_and_harms_no_other(tmp_path: Path, error: Exception) -> None:
    source = ConsumedRecord("castings.images.line-1", 0, 1, b"line-1:1:1", make_jpeg(1), {})
    record = read_image_record(source, LineSettings(name="line-1"), CAPTURED_AT, CAPTURED_AT)
    picture = decode_image(record, 96, PictureSettings(), ObjectStore(str(tmp_path)), make_failing_decoder(error)).picture
    assert isinstance(picture, PictureError)
    assert picture.reason == "handling-failed"


def test_an_object_store_that_does_not_answer_is_no_fault_of_the_picture(tmp_path: Path) -> None:
    source = ConsumedRecord("castings.images.line-1", 0, 1, b"line-1:1:1", make_jpeg(1), {})
    record = read_image_record(source, LineSettings(name="line-1"), CAPTURED_AT, CAPTURED_AT)
    with pytest.raises(ConnectionError):
        decode_image(record, 96, PictureSettings(), ObjectStore(str(tmp_path)), make_failing_decoder(ConnectionError("no store")))


def test_a_picture_in_the_object_store_that_is_not_fetched_keeps_the_checksum_of_its_record(tmp_path: Path) -> None:
    headers = {"claim": f"{tmp_path}/gone".encode(), "sha256": b"a" * 64}
    source = ConsumedRecord("castings.images.line-1", 0, 1, b"line-1:1:1", b"", headers)
    record = read_image_record(source, LineSettings(name="line-1"), CAPTURED_AT, CAPTURED_AT)
    assert record.identity.sha256 == find_checksum(record) == "a" * 64
    refused = replace(record, header_error=PictureError("header", "For this test."))
    assert decode_image(refused, 96, PictureSettings(), ObjectStore(str(tmp_path))).sha256 == "a" * 64
