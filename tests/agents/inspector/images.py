"""Image records, decoded and judged images for the tests of the inspector."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from agents.inspector.decoding import DecodedImage, read_image_record
from agents.inspector.judging import JudgedImage
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from streams.errors import PictureError
from streams.record_producer import ConsumedRecord
from streams.settings import LineSettings

CAPTURED_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def make_decoded_image(line: LineSettings, part: int, pixels: npt.NDArray[np.uint8] | None) -> DecodedImage:
    """The decoded image of a part. Without pixels it is an image that could not be decoded."""
    source = ConsumedRecord(f"castings.images.{line.name}", 0, part, f"{line.name}:1:{part}".encode(), b"", {})
    record = read_image_record(source, line, CAPTURED_AT, CAPTURED_AT)
    picture = PictureError("truncated", "half a picture") if pixels is None else DecodedPicture(pixels, 300, 300)
    return DecodedImage(record, "0" * 64, picture)


def make_judged_image(line: str, part: int, pixels: npt.NDArray[np.uint8] | None, probability: float = 0.01) -> JudgedImage:
    """The image of a part that was judged as good."""
    decoded = make_decoded_image(LineSettings(name=line), part, pixels)
    if isinstance(decoded.picture, PictureError):
        return JudgedImage(decoded, decoded.picture)
    return JudgedImage(decoded, Prediction("ok", probability, {"alexnet": probability}))
