"""Reads the pixels of PNG, BMP and TIFF through Pillow, with all bits of each sample.

Pillow reduces colours of 16 bits to 8 without saying so. Such files are therefore read twice: once for the upper and once for the lower
byte of each sample, by the raw modes of both byte orders.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from models.pictures.format_header import FormatHeader
from models.pictures.refusal import unsupported

# The raw mode of the other byte order, by the last letter of a raw mode. N is the order of this processor.
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class _QuietDecodes:
    """Silences Python's warnings while at least one picture is decoded in any thread.

    The filters of `warnings` are shared by all threads. They are changed when the first of several decodes begins and restored when the
    last one ends, so that no decode waits for another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._filters = warnings.catch_warnings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._filters.__exit__(None, None, None)


quiet_decodes = _QuietDecodes()


def read_image(value: bytes, header: FormatHeader) -> Image.Image:
    """Returns the first frame of a picture of at most 8 bits a sample, as stored, in the mode that Pillow gives it."""
    with quiet_decodes(), _open(value, header) as image:
        image.load()
        return image.copy()


def read_levels(value: bytes, header: FormatHeader) -> npt.NDArray[np.generic]:
    """Returns the first frame of a picture of more than 8 bits a sample.

    The shape is (height, width) for grey, else (height, width, samples), with transparency as the last of 2 or 4 samples.
    """
    with quiet_decodes(), _open(value, header) as image:
        if image.mode.startswith(("I", "F")):
            levels = np.asarray(image)
            return levels.view(np.uint32) if image.mode == "I" and header.sample_bits == 32 and not header.is_signed else levels
        arguments = image.tile[0].args
        raw_mode = str(arguments[0] if isinstance(arguments, tuple) else arguments)
        if raw_mode == "LA;16B":  # Pillow has no raw mode for the lower bytes; the four bytes of a pixel are read as they are
            return _read_bytes(image, "RGBA").view(">u2")
        if ";16" not in raw_mode or image.mode not in ("RGB", "RGBA"):
            raise unsupported(f"it has {header.sample_bits} bits a sample in the mode {image.mode}")
    upper = _read_again(value, header, raw_mode)
    lower = _read_again(value, header, raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]])
    return upper.astype(np.uint16) << 8 | lower


def _open(value: bytes, header: FormatHeader) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(value), formats=(header.format,))


def _read_again(value: bytes, header: FormatHeader, raw_mode: str) -> npt.NDArray[np.uint8]:
    with quiet_decodes(), _open(value, header) as image:
        return _read_bytes(image, raw_mode)


def _read_bytes(image: ImageFile.ImageFile, raw_mode: str) -> npt.NDArray[np.uint8]:
    """Returns the pixels of `image` unpacked by another raw mode than Pillow chose."""
    image.tile = [tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode) for tile in image.tile]
    image.load()
    return np.asarray(image)
