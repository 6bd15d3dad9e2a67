"""Writes the output of all processes of one machine into one log."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

_WARNINGS = 20


class LogOutput(Protocol):
    """A place for the lines of the journal, such as standard output or a `LogFile`."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class Journal:
    """Writes the output of all processes to all `files`. Each line begins with the name of the process's role. Thread-safe.

    Keeps the latest 20 warnings of the supervisor for the live view of the demo. While a file cannot be written, for example because the
    disk is full, its lines are dropped and counted.
    """

    def __init__(self, *files: LogOutput, width: int = 12) -> None:
        self._files = files
        self._width = width
        self._lock = threading.Lock()
        # For each file, the number of lines lost since the last successful write.
        self._dropped = [0] * len(files)
        self._warnings: deque[tuple[float, str]] = deque(maxlen=_WARNINGS)

    def writer(self, role: str) -> Callable[[str], None]:
        """Returns a function that takes one line of the output of `role` and writes it to the journal."""
        return lambda line: self._write(role, line)

    def latest_warnings(self, count: int, for_s: float) -> list[str]:
        """Returns the newest warnings of the last `for_s` seconds, at most `count`. The newest warning comes last."""
        since = time.monotonic() - for_s
        return [sentence for at, sentence in list(self._warnings) if at >= since][-count:]

    def warn(self, sentence: str) -> None:
        """Writes a warning of the supervisor, with the time in UTC, and keeps it for `latest_warnings`."""
        self._warnings.append((time.monotonic(), sentence))
        self.inform(sentence)

    def inform(self, sentence: str) -> None:
        """Writes a message of the supervisor, with the time in UTC."""
        now = datetime.now(UTC)
        self._write("supervisor", f"{now.isoformat(timespec='seconds').replace('+00:00', 'Z')} {sentence}")

    def _write(self, role: str, line: str) -> None:
        with self._lock:
            for index, file in enumerate(self._files):
                try:
                    if lost := self._dropped[index]:
                        file.write(f"{'supervisor':<{self._width}} | {lost} lines are missing here, because they could not be written.\n")
                    file.write(f"{role:<{self._width}} | {line}\n")
                    file.flush()
                except OSError:
                    self._dropped[index] += 1
                else:
                    self._dropped[index] = 0
