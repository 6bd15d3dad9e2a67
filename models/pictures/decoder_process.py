"""Decodes pictures from untrusted sources in a separate process with limited memory and time. The process gets no passwords.

standard input    a line with the JSON of `_Request`, then the picture
standard output   a line with the JSON of `_Answer`, then the pixels
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal

import numpy as np
import psutil

from models.pictures.decoder import DecodedPicture, PictureLimits, check_file_size, decode_picture
from models.pictures.display import EncodedPicture, encode_for_browser, encode_heat_map_layer, encode_thumbnail
from models.pictures.refusal import RefusalReason
from streams.errors import DecoderProcessError, PictureError

# Longest first line of an answer, in bytes. A longer line probably comes from a malicious picture.
_MAX_LINE = 4096
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_STOP_S = 5.0
_END_S = 1.0
_NICENESS = 19
_BUSY_FACTOR = 2
# If one of these signals ended the process, a library failed on the picture. It would fail on the same picture again.
_CRASHES = tuple(-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL))
# The exit status of the process if it has no memory to read a picture or to send its answer.
_OUT_OF_MEMORY = 3


@dataclass(frozen=True, slots=True)
class _Request:
    """The first line of a request to the separate process. The picture follows as `size_bytes` bytes.

    `side_px` is the side of the result, or 0 if `operation` needs none.
    """

    operation: Literal["decode", "decode with original", "browser", "thumbnail", "heat map"]
    size_bytes: int
    side_px: int
    max_bytes: int
    max_pixels: int
    depth_bits: int | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """The first line of an answer from the separate process. The pixels or the converted picture follow as `size_bytes` bytes.

    `content_type` is the type of a converted picture. If the picture is refused, `refusal` holds a reason and a message.
    """

    size_bytes: int = 0
    width_px: int = 0
    height_px: int = 0
    content_type: str = ""
    refusal: tuple[str, str] | None = None


class DecoderProcess:
    """Decodes pictures in a separate process, and starts a new process if the old one was killed. Thread-safe.

    - `memory_bytes`: the memory that one picture may take, in addition to the memory that the process needs when it is idle.
    - `time_s`: the longest processor time for one picture. If other programs keep the processors busy, the picture may take up to
      `_BUSY_FACTOR` times as long, because the process has the lowest priority.
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

    def decode_picture(
        self, value: bytes, side_px: int, limits: PictureLimits, depth_bits: int | None = None, keep_original: bool = False
    ) -> DecodedPicture:
        """Returns the same as `decoder.decode_picture`, but decodes in the separate process.

        Raises PictureError with the reason `decoder-limits` if decoding needs more memory or processor time than allowed, and
        DecoderProcessError if the process failed for another reason.
        """
        operation: Literal["decode", "decode with original"] = "decode with original" if keep_original else "decode"
        answer, content = self._ask(operation, value, side_px, limits, depth_bits)
        pixels = np.frombuffer(content, np.uint8, side_px * side_px).reshape(side_px, side_px)
        original = None
        if keep_original:
            original = np.frombuffer(content, np.uint8, offset=side_px * side_px).reshape(answer.height_px, answer.width_px)
        return DecodedPicture(pixels, answer.width_px, answer.height_px, original)

    def encode_for_browser(self, value: bytes, limits: PictureLimits, depth_bits: int | None = None) -> EncodedPicture:
        """Returns the same as `display.encode_for_browser`, but decodes in the separate process."""
        answer, content = self._ask("browser", value, 0, limits, depth_bits)
        return EncodedPicture(content, answer.content_type)

    def encode_thumbnail(self, value: bytes, limits: PictureLimits, side_px: int, depth_bits: int | None = None) -> EncodedPicture:
        """Returns the same as `display.encode_thumbnail`, but decodes in the separate process."""
        answer, content = self._ask("thumbnail", value, side_px, limits, depth_bits)
        return EncodedPicture(content, answer.content_type)

    def encode_heat_map_layer(self, value: bytes, limits: PictureLimits) -> EncodedPicture:
        """Returns the same as `display.encode_heat_map_layer`, but decodes in the separate process."""
        answer, content = self._ask("heat map", value, 0, limits, None)
        return EncodedPicture(content, answer.content_type)

    def abort(self) -> None:
        """Kills the separate process. If a method is decoding a picture at this moment, that method raises a PictureError."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Ends the separate process. The next picture starts a new one."""
        with self._lock:
            self._stop()

    def _ask(
        self,
        operation: Literal["decode", "decode with original", "browser", "thumbnail", "heat map"],
        value: bytes,
        side_px: int,
        limits: PictureLimits,
        depth_bits: int | None,
    ) -> tuple[_Answer, bytes]:
        """Returns the answer of the separate process, and the bytes that the process sends after the answer.

        Raises PictureError if the picture is refused, and DecoderProcessError if the process fails for another reason.
        """
        check_file_size(value, limits)  # The size is checked here, so that no huge picture is copied to the process.
        request = _Request(operation, len(value), side_px, limits.max_bytes, limits.max_pixels, depth_bits)
        with self._lock:
            try:
                process = self._start()
            except (OSError, EOFError) as error:
                self._stop()
                raise _describe_failure("it could not start") from error
            time_limit = _TimeLimit(process, self._time_s)
            try:
                answer, content = _send_request(process, request, value)
            except (OSError, EOFError, ValueError, TypeError) as error:
                failure = self._explain_death(process, time_limit)
                self._stop()
                raise failure from error
            finally:
                time_limit.end()
        if answer.refusal:
            raise PictureError(*answer.refusal)
        return answer, content

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
                # NumPy gets only one thread. Each further thread would need memory for its stack, and the memory is limited.
                env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            # Wait until the process is ready and writes one byte. Without the wait, the start of the process would count as time of the
            # first picture.
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

    def _explain_death(self, process: subprocess.Popen[bytes], time_limit: _TimeLimit) -> PictureError:
        """Returns a DecoderProcessError if another try can succeed, and a PictureError if the picture made the process fail."""
        if time_limit.is_used_up:
            found = f"it took more than {self._time_s:g} s"
        elif (exit_status := _find_exit_status(process)) is None or exit_status in (*_CRASHES, _OUT_OF_MEMORY):
            found = f"its process ended; it may use at most {self._memory_bytes} bytes"
        elif time_limit.is_starved:
            return _describe_failure(f"other programs left it too little processor time in {_BUSY_FACTOR * self._time_s:g} s")
        else:
            return _describe_failure("its process ended")
        return PictureError(
            RefusalReason.DECODER_LIMITS,
            f"The picture could not be decoded within the limits for uploads: {found}. Upload a smaller picture, or raise upload_time_s or "
            "upload_memory_bytes in [pictures].",
        )


class _TimeLimit:
    """Kills the process if it does not answer within about `time_s` seconds of processor time.

    If other programs keep the processors busy, the process is killed after `_BUSY_FACTOR` times `time_s` seconds at the latest.

    - `is_used_up`: true if the process was killed because it had used its processor time.
    - `is_starved`: true if the process was killed although it had not yet used its processor time, because other programs used it.
    """

    def __init__(self, process: subprocess.Popen[bytes], time_s: float) -> None:
        self.is_used_up = self.is_starved = False
        self._process = process
        self._time_s = time_s
        self._answered = threading.Event()
        threading.Thread(target=self._enforce, daemon=True).start()

    def end(self) -> None:
        """Stops the watch over the process, because the process has answered or ended."""
        self._answered.set()

    def _enforce(self) -> None:
        used_before_s = _processor_time_s(self._process)
        for _ in range(_BUSY_FACTOR):
            if self._answered.wait(self._time_s):
                return
            if _processor_time_s(self._process) - used_before_s > 0.8 * self._time_s:
                self.is_used_up = True
                break
        self.is_starved = not self.is_used_up
        self._process.kill()


def _describe_failure(found: str) -> DecoderProcessError:
    return DecoderProcessError(RefusalReason.DECODER_LIMITS, f"The picture could not be decoded: {found}. Try again in a moment.")


def _find_exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """Returns the exit status of a process that has closed its pipes, or None if the process still runs."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_END_S)
    return None


def _processor_time_s(process: subprocess.Popen[bytes]) -> float:
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _close(pipe: object) -> None:
    with suppress(OSError):
        pipe.close()  # type: ignore[attr-defined]


def _send_request(process: subprocess.Popen[bytes], request: _Request, value: bytes) -> tuple[_Answer, bytes]:
    """Sends a picture to the separate process, and returns its answer and the bytes after the answer.

    Raises OSError or EOFError if the process has ended, and ValueError or TypeError for a malformed answer.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(_encode_line(request))
    process.stdin.write(value)
    process.stdin.flush()
    line = process.stdout.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    answer = _Answer(**json.loads(line))
    return answer, _read_exactly(process.stdout, answer.size_bytes)


def _encode_line(message: _Request | _Answer) -> bytes:
    return json.dumps(asdict(message)).encode() + b"\n"


def _read_exactly(stream: IO[bytes] | None, size: int) -> bytes:
    assert stream is not None
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Reads requests from the pipe `requests` and answers them, until the other process closes the pipe.

    An answer holds a decoded picture, a converted picture or a refusal.

    Raises MemoryError if there is too little memory to read a picture or to send an answer.
    """
    while line := requests.readline():
        request = _Request(**json.loads(line))
        try:
            answer, content = _carry_out(request, requests.read(request.size_bytes))
        except PictureError as error:
            answer, content = _Answer(refusal=(error.reason, str(error))), b""
        answers.write(_encode_line(answer))
        answers.write(content)
        answers.flush()


def _carry_out(request: _Request, value: bytes) -> tuple[_Answer, bytes]:
    limits = PictureLimits(request.max_bytes, request.max_pixels)
    if request.operation in ("decode", "decode with original"):
        keep_original = request.operation == "decode with original"
        picture = decode_picture(value, request.side_px, limits, request.depth_bits, keep_original)
        content = picture.pixels.tobytes() + (b"" if picture.original is None else picture.original.tobytes())
        return _Answer(len(content), picture.width_px, picture.height_px), content
    if request.operation == "browser":
        encoded = encode_for_browser(value, limits, request.depth_bits)
    elif request.operation == "thumbnail":
        encoded = encode_thumbnail(value, limits, request.side_px, request.depth_bits)
    else:
        encoded = encode_heat_map_layer(value, limits)
    return _Answer(len(encoded.value), content_type=encoded.content_type), encoded.value


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
    # This process gets a low priority, so that it does not slow down the inspection of pictures from cameras.
    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    _warm_up()
    _limit_memory(int(sys.argv[1]))
    sys.stdout.buffer.write(b"!")
    sys.stdout.buffer.flush()
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except MemoryError:
        # After this error, the pipes may hold the rest of a picture or half an answer, so the next request could not be read correctly.
        # Therefore, the process ends.
        os._exit(_OUT_OF_MEMORY)


def _warm_up() -> None:
    """Loads the format plug-ins of Pillow before the memory limit is set, so that a picture can use all of the limit."""
    from PIL import Image

    Image.preinit()


if __name__ == "__main__":
    main()
