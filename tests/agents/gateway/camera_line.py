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

JPEG = b"\xff\xd8\xff\xe0 a picture of a casting"


def write_pictures(root: Path, *names: str) -> Path:
    """Writes files that begin like a JPEG and end with their name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(JPEG + name.encode())
    return root


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Returns once `condition` returns True, and fails after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"the condition was not met within {timeout_s:.0f} s"
        time.sleep(0.02)


class CameraLine:
    """Runs a camera in a thread, with the real intake and spool of the line `line-1`."""

    def __init__(self, spool_dir: Path, settings: CameraSettings, max_bytes: int = 10_000, spool_bytes: int = 2**20) -> None:
        self.spool = Spool(spool_dir, "line-1", SpoolBudget(spool_bytes))
        self.intake = Intake(settings, max_bytes, self.spool, on_stored=lambda: None)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, camera: GatewayCamera) -> None:
        def run() -> None:
            for frame in camera.frames(self._stopping):
                self.intake.accept(frame)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def accept(self, frame: CameraFrame) -> PictureReceipt:
        """Hands `frame` to the intake and returns its receipt, or raises the intake's error."""
        self.intake.accept(frame)
        return frame.receipt.result(0)

    def parts(self) -> list[PartId]:
        """The parts of all pictures in the spool, in order."""
        return [spooled.part for spooled in self.spool.read_after(0, 1000)]

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join(10)
            assert not self._thread.is_alive()
        self.spool.close()
