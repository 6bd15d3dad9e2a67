"""Decodes pictures of strangers in a process of its own, which has bounds of memory and time and can be killed.

The process runs this module as its program. It reads requests from its standard input and writes answers to its standard output:

    request   header `_REQUEST`, then the bytes of the picture
    answer    header `_ANSWER`, then the pixels, or the reason and the message of a refusal as JSON

It imports neither TensorFlow nor Kafka's client, and gets no environment variables but those that Python needs, so that it knows no
password. It ends when its standard input closes, which happens also if its parent is killed.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.pictures.decoder import DecodedPicture, PictureLimits, decode_picture
from models.pictures.refusal import RefusalReason
from streams.errors import PictureError

# Bytes of the picture, side in px, largest picture in bytes and in pixels, bits of the camera or 0.
_REQUEST = struct.Struct("!QIQQI")
# Whether the picture was decoded, bytes that follow, width and height of the upright original in px.
_ANSWER = struct.Struct("!?QII")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_STOP_S = 5.0


class DecoderProcess:
    """A process that decodes pictures. It starts with the first picture, and again after it was killed. Thread-safe.

    `memory_bytes` is what a picture may take beyond the memory of the idle process, and `time_s` the time from request to answer.
    """

    def __init__(self, memory_bytes: int, time_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._time_s = time_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The number of the running process, or None if there is none."""
        return self._process.pid if self._process else None

    def decode_picture(self, value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None = None) -> DecodedPicture:
        """Returns the picture in `value` as `decoder.decode_picture` does, and raises the same PictureErrors.

        Raises PictureError with the reason `decoder-limits` if the process needs more memory or time than it may.
        """
        if len(value) > limits.max_bytes:  # refused here, so that the bytes need not be copied
            return decode_picture(value, side_px, limits, depth_bits)
        with self._lock:
            process = self._start()
            killed = threading.Event()
            timer = threading.Timer(self._time_s, _kill, (process, killed))
            timer.start()
            try:
                answer = _request_decode(process, value, side_px, limits, depth_bits)
            except (OSError, EOFError) as error:
                self._stop()
                raise self._explain_death(killed.is_set()) from error
            finally:
                timer.cancel()
        return answer

    def close(self) -> None:
        """Ends the process. A later picture starts it again."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._process is None:
            kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # One thread each, because the stacks of unused threads would count against the bound of memory.
                env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            # The first answer comes when the program has been loaded, so that its start does not count as decoding.
            _read_exactly(self._process.stdout, 1)
        return self._process

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(_STOP_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _close(pipe)
        self._process = None

    def _explain_death(self, is_timeout: bool) -> PictureError:
        found = f"it took more than {self._time_s:g} s" if is_timeout else f"its process ended, with at most {self._memory_bytes} bytes"
        return PictureError(
            RefusalReason.DECODER_LIMITS,
            f"The picture could not be decoded within the bounds for uploads: {found}. Upload a smaller picture, or raise upload_time_s or "
            "upload_memory_bytes in [pictures].",
        )


def _kill(process: subprocess.Popen[bytes], killed: threading.Event) -> None:
    killed.set()
    process.kill()


def _close(pipe: object) -> None:
    """Closes a pipe to a process that has ended. Bytes that could not be written any more are dropped."""
    with suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


def _request_decode(
    process: subprocess.Popen[bytes], value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None
) -> DecodedPicture:
    """Sends a picture and returns the answer. Raises PictureError for a refusal, and OSError or EOFError if the process has ended."""
    assert process.stdin is not None
    process.stdin.write(_REQUEST.pack(len(value), side_px, limits.max_bytes, limits.max_pixels, depth_bits or 0))
    process.stdin.write(value)
    process.stdin.flush()
    is_decoded, size, width_px, height_px = _ANSWER.unpack(_read_exactly(process.stdout, _ANSWER.size))
    content = _read_exactly(process.stdout, size)
    if not is_decoded:
        raise PictureError(*json.loads(content))
    return DecodedPicture(np.frombuffer(content, np.uint8).reshape(side_px, side_px), width_px, height_px)


def _read_exactly(stream: object, size: int) -> bytes:
    content: bytes = stream.read(size)  # type: ignore[attr-defined]
    if len(content) < size:
        raise EOFError
    return content


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until the stream of requests ends. This is the loop of the process."""
    while header := requests.read(_REQUEST.size):
        size, side_px, max_bytes, max_pixels, depth_bits = _REQUEST.unpack(header)
        value = requests.read(size)
        try:
            picture = decode_picture(value, side_px, PictureLimits(max_bytes, max_pixels), depth_bits or None)
        except PictureError as error:
            message = json.dumps([error.reason, str(error)]).encode()
            answers.write(_ANSWER.pack(False, len(message), 0, 0) + message)
        else:
            answers.write(_ANSWER.pack(True, picture.pixels.size, picture.width_px, picture.height_px) + picture.pixels.tobytes())
        answers.flush()


def _watch_parent(parent: int) -> None:
    """Ends this process when its parent has ended, also while a picture is being decoded."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_memory(memory_bytes: int) -> None:
    """Bounds the address space of this process to what it uses now plus `memory_bytes`."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes, used_bytes + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Reads requests from standard input and answers on standard output. The only argument is the memory limit in bytes."""
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    _warm_up()
    _limit_memory(int(sys.argv[1]))
    sys.stdout.buffer.write(b"!")
    sys.stdout.buffer.flush()
    serve(sys.stdin.buffer, sys.stdout.buffer)


def _warm_up() -> None:
    """Loads the plug-ins of Pillow before the memory is bounded."""
    from PIL import Image

    Image.preinit()


if __name__ == "__main__":
    main()
