"""Measures how long it takes to decode a picture.

The inspector decodes pictures from cameras in its own process, and uploaded pictures in a separate process. Both ways are measured.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.decoder_process import DecoderProcess
from models.synthetic import render_series
from streams.settings import PictureSettings

SIDE_PX = 160  # of the bundled version
_SUFFIXES = (".jpg", ".jpeg", ".png")
_ROUNDS = 5
_SEED = 5


@dataclass(frozen=True, slots=True)
class DecodingTime:
    """How long it takes to decode one picture, as the mean of the fastest round, in microseconds.

    - `form`: the format of the pictures, "as stored" or "as PNG".
    - `thread_us`: processor time if the picture is decoded in this process.
    - `process_us`: time until the answer comes if a separate process decodes the picture.
    """

    form: str
    pictures: int
    mean_bytes: int
    thread_us: float
    process_us: float


def measure_decoding(data: Path | None, pictures: int) -> list[DecodingTime]:
    """Measures the decoding of pictures in their stored format, and again after conversion to PNG.

    The pictures are the first `pictures` files of the folder `data`, or rendered castings if `data` is None.
    """
    values = read_values(data, pictures)
    png = [_encode_png(value) for value in values]
    settings = PictureSettings()
    process = DecoderProcess(settings.upload_memory_bytes, settings.upload_time_s)
    try:
        return [_measure(form, values, process) for form, values in (("as stored", values), ("as PNG", png))]
    finally:
        process.close()


def read_values(data: Path | None, pictures: int) -> list[bytes]:
    """Returns at most `pictures` encoded pictures: files of the folder `data`, or rendered castings if `data` is None."""
    if data is None:
        return [casting.to_jpeg() for casting in render_series(pictures, _SEED)]
    paths = sorted(path for path in data.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return [path.read_bytes() for path in paths[:pictures]]


def _encode_png(value: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(value)) as image:
        image.convert("L").save(buffer, "PNG")
    return buffer.getvalue()


def _measure(form: str, values: Sequence[bytes], process: DecoderProcess) -> DecodingTime:
    limits = PictureLimits()
    thread_s = _find_best(values, time.process_time, lambda value: decode_picture(value, SIDE_PX, limits))
    process_s = _find_best(values, time.perf_counter, lambda value: process.decode_picture(value, SIDE_PX, limits))
    mean_bytes = sum(map(len, values)) // len(values)
    return DecodingTime(form, len(values), mean_bytes, round(1e6 * thread_s, 1), round(1e6 * process_s, 1))


def _find_best(values: Sequence[bytes], clock: Callable[[], float], decode: Callable[[bytes], object]) -> float:
    """Decodes all `values` in several rounds. Returns the mean time for one value in the fastest round, in seconds."""
    best_s = float("inf")
    for _ in range(_ROUNDS):
        start_s = clock()
        for value in values:
            decode(value)
        best_s = min(best_s, (clock() - start_s) / len(values))
    return best_s
