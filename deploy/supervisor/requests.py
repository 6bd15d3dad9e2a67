"""SIGTERM and Ctrl-C: the first asks for an orderly stop, a second one for an end at once."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequests:
    """Counts the requests to stop; make it in the main thread."""

    def __init__(self) -> None:
        self._count = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)

    def asked(self) -> bool:
        return self._count > 0

    def insisted(self) -> bool:
        return self._count > 1

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._count += 1
