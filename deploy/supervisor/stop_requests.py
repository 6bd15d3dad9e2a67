"""Counts the stop signals of this process. The first SIGTERM or Ctrl-C asks for an orderly stop, and the second kills at once."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequests:
    """Handles SIGTERM and SIGINT of this process. Make this object in the main thread."""

    def __init__(self) -> None:
        self._count = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def is_stop_requested(self) -> bool:
        """Returns whether at least one signal has arrived."""
        return self._count > 0

    def is_kill_requested(self) -> bool:
        """Returns whether a second signal has arrived."""
        return self._count > 1

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._count += 1
