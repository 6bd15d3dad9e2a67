"""One line of the gateway without Kafka, for the tests of cameras and intake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from agents.gateway.intake import CameraFrame, GatewayCamera, Intake
from agents.gateway.spool import PictureReceipt, Spool, SpoolBudget
from streams.identity import PartId
from streams.settings import CameraSettings

# Start and end of a JPEG, with a comment as its only content.
JPEG_START = b"\xff\xd8\xff\xfe"
JPEG_END = b"\xff\xd9"


def make_jpeg(text: str) -> bytes:
    """Returns bytes with the structure of a JPEG, which hold `text` and no pixels."""
    comment = b"a picture of a casting" + text.encode()
    return JPEG_START + (len(comment) + 2).to_bytes(2) + comment + JPEG_END


JPEG = make_jpeg("")


def write_pictures(root: Path, *names: str) -> Path:
    """Writes files that have the structure of a JPEG and hold their name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_jpeg(name))
    return root


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Returns once `condition` returns True, and fails after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"the condition was not met within {timeout_s:.0f} s"
        time.sleep(0.02)


class CameraLine:
    """Runs a camera in a thread, with the real intake and spool of the line `line-1`."""

    def __init__(
        self, spool_dir: Path, settings: CameraSettings, max_bytes: int = 10_000, spool_bytes: int = 2**20, spool: Spool | None = None
    ) -> None:
        self.spool = spool or Spool(spool_dir, "line-1", SpoolBudget(spool_bytes))
        self.intake = Intake(settings, max_bytes, self.spool, on_stored=lambda: None)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._camera: GatewayCamera | None = None

    def start(self, camera: GatewayCamera) -> None:
        def run() -> None:
            for frame in camera.frames(self._stopping):
                self.intake.accept(frame)

        self._camera = camera
        self._thread = threading.Thread(target=run)
        self._thread.start()

    def accept(self, frame: CameraFrame) -> PictureReceipt:
        """Hands `frame` to the intake and returns its receipt, or raises the intake's error."""
        self.intake.accept(frame)
        return frame.receipt.result(0)

    def parts(self) -> list[PartId]:
        """The parts of all pictures in the spool, in order."""
        return [spooled.part for spooled in self.spool.read_after(0, 1000)]

    def complaints(self) -> str:
        """The complaints of the camera in one text."""
        assert self._camera is not None
        return "; ".join(self._camera.list_complaints())

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join(10)
            assert not self._thread.is_alive()
        self.spool.close()
