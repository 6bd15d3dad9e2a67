"""One log of all processes: every line after its role's name; a JSON line stays JSON behind it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO

_KEPT = 20


class Journal:
    """Writes lines to `files` and keeps the supervisor's own latest warnings for the view. Thread-safe."""

    def __init__(self, *files: IO[str], width: int = 12) -> None:
        self._files = files
        self._width = width
        self._lock = threading.Lock()
        self._warnings: deque[tuple[float, str]] = deque(maxlen=_KEPT)

    def of(self, role: str) -> Callable[[str], None]:
        """What takes the lines of one role."""
        return lambda line: self._write(role, line)

    def news(self, count: int, for_s: float) -> list[str]:
        """The latest warnings that are no older than `for_s`, at most `count`."""
        since = time.monotonic() - for_s
        return [sentence for at, sentence in list(self._warnings) if at >= since][-count:]

    def warn(self, sentence: str) -> None:
        """A sentence of the supervisor itself that an operator should see."""
        self._warnings.append((time.monotonic(), sentence))
        self.say(sentence)

    def say(self, sentence: str) -> None:
        """A sentence of the supervisor itself."""
        now = datetime.now(UTC)
        self._write("supervisor", f"{now.isoformat(timespec='seconds').replace('+00:00', 'Z')} {sentence}")

    def _write(self, role: str, line: str) -> None:
        with self._lock:
            for file in self._files:
                file.write(f"{role:<{self._width}} | {line}\n")
                file.flush()
