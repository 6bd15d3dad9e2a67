"""Reads the pixels of PNG, BMP and TIFF files with Pillow, and keeps all bits of each sample.

Pillow reads only the upper 8 bits of 16-bit colours. To get the lower 8 bits, the module reads the file again with the opposite byte order.
Pillow then takes the lower byte for the upper byte.
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

# Maps each byte order to the opposite byte order. L is little, B is big and N is native. Pillow writes this letter at the end of its raw
# modes, for example RGB;16B.
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class _QuietDecodes:
    """Silences Python's warnings while at least one thread decodes a picture.

    All threads share the filters of `warnings`, so the class counts the decoding threads. After the last one, warnings are shown again.
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
    """Returns the first frame of a picture of at most 8 bits per sample, in the mode that Pillow chooses, without any conversion."""
    with quiet_decodes(), _open(value, header) as image:
        image.load()
        return image.copy()


def read_levels(value: bytes, header: FormatHeader) -> npt.NDArray[np.generic]:
    """Returns the levels in the first frame of a picture of more than 8 bits per sample.

    The shape is (height, width) for grey, otherwise (height, width, samples). With two or four samples, the last one is the transparency.
    """
    with quiet_decodes(), _open(value, header) as image:
        if image.mode.startswith(("I", "F")):
            levels = np.asarray(image)
            return levels.view(np.uint32) if image.mode == "I" and header.sample_bits == 32 and not header.is_signed else levels
        arguments = image.tile[0].args
        raw_mode = str(arguments[0] if isinstance(arguments, tuple) else arguments)
        if raw_mode == "LA;16B":
            # Pillow would drop the lower byte of each 16-bit sample. A pixel has two samples, so read its four bytes as one RGBA pixel.
            return _read_bytes(image, "RGBA").view(">u2")
        if ";16" not in raw_mode or image.mode not in ("RGB", "RGBA"):
            raise unsupported(f"pixels of the kind {image.mode} with {header.sample_bits} bits per sample are not supported")
    upper = _read_again(value, header, raw_mode)
    lower = _read_again(value, header, raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]])
    return upper.astype(np.uint16) << 8 | lower


def _open(value: bytes, header: FormatHeader) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(value), formats=(header.format,))


def _read_again(value: bytes, header: FormatHeader, raw_mode: str) -> npt.NDArray[np.uint8]:
    with quiet_decodes(), _open(value, header) as image:
        return _read_bytes(image, raw_mode)


def _read_bytes(image: ImageFile.ImageFile, raw_mode: str) -> npt.NDArray[np.uint8]:
    """Returns the pixels of `image`, read with `raw_mode` instead of the raw mode that Pillow has chosen."""
    image.tile = [tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode) for tile in image.tile]
    image.load()
    return np.asarray(image)
