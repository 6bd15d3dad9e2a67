"""Decodes uploaded pictures in a separate process. Its memory and time are limited, and it can be killed.

The separate process runs this module as its program. It reads requests from its standard input and writes answers to standard output:

    request   header `_REQUEST`, then the bytes of the picture
    answer    header `_ANSWER`, then the pixels, or the reason and the message of a refusal as JSON

The process imports neither TensorFlow nor a Kafka client. It gets only the environment variables that Python needs, so a malicious picture
finds no password there. The process ends when its standard input is closed, which also happens if its parent process is killed.
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

# Fields of a request: bytes of the picture, side in pixels, largest accepted picture in bytes and in pixels, `depth_bits` or 0 for None.
_REQUEST = struct.Struct("!QIQQI")
# Fields of an answer: whether the picture was decoded, number of bytes that follow, width and height of the upright original in pixels.
_ANSWER = struct.Struct("!?QII")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_STOP_S = 5.0


class DecoderProcess:
    """Decodes pictures in a separate process. Starts the process for the first picture, and again after it was killed. Thread-safe.

    `memory_bytes` is the memory that one picture may take in addition to the memory of the idle process. `time_s` is the longest time
    from a request to its answer, in seconds.
    """

    def __init__(self, memory_bytes: int, time_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._time_s = time_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process id of the separate process, or None if it is not running."""
        return self._process.pid if self._process else None

    def decode_picture(self, value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None = None) -> DecodedPicture:
        """Returns the same as `decoder.decode_picture` and raises the same PictureErrors, but decodes in the separate process.

        Also raises PictureError with the reason `decoder-limits` if decoding needs more memory or time than allowed.
        """
        if len(value) > limits.max_bytes:  # refused by its length, without copying it to the process
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
                # NumPy may use only one thread, because the stacks of further threads would count against the memory limit.
                env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            # The process writes one byte when it is ready. Waiting for it keeps the start of the process out of the time limit.
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
        found = (
            f"it took more than {self._time_s:g} s" if is_timeout else f"its process ended; it may use at most {self._memory_bytes} bytes"
        )
        return PictureError(
            RefusalReason.DECODER_LIMITS,
            f"The picture could not be decoded within the limits for uploads: {found}. Upload a smaller picture, or raise upload_time_s or "
            "upload_memory_bytes in [pictures].",
        )


def _kill(process: subprocess.Popen[bytes], killed: threading.Event) -> None:
    killed.set()
    process.kill()


def _close(pipe: object) -> None:
    """Closes a pipe to a process that has ended, and discards the bytes that were not written yet."""
    with suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


def _request_decode(
    process: subprocess.Popen[bytes], value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None
) -> DecodedPicture:
    """Sends a picture to the separate process and returns the decoded picture.

    Raises PictureError if the process refuses the picture, and OSError or EOFError if the process has ended.
    """
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
    """Reads pictures from `requests` and writes decoded pictures or refusals to `answers`, until `requests` ends."""
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
    """Ends this process when its parent process has ended, even while a picture is being decoded."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_memory(memory_bytes: int) -> None:
    """Limits the address space of this process to its present size plus `memory_bytes`, and turns off core dumps."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes, used_bytes + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Runs the separate process. Its only command-line argument is the memory that one picture may take, in bytes."""
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    _warm_up()
    _limit_memory(int(sys.argv[1]))
    sys.stdout.buffer.write(b"!")
    sys.stdout.buffer.flush()
    serve(sys.stdin.buffer, sys.stdout.buffer)


def _warm_up() -> None:
    """Loads the format plug-ins of Pillow, so that their memory does not count as memory of the first picture."""
    from PIL import Image

    Image.preinit()


if __name__ == "__main__":
    main()
