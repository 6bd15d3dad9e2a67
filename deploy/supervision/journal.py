"""One log of all processes: every line after its role's name; a JSON line stays JSON behind it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO

_KEPT = 200


class Journal:
    """Writes lines to `files` and keeps the supervisor's own last sentences for the view. Thread-safe."""

    def __init__(self, *files: IO[str], width: int = 12) -> None:
        self._files = files
        self._width = width
        self._lock = threading.Lock()
        self.sentences: deque[tuple[datetime, str]] = deque(maxlen=_KEPT)

    def of(self, role: str) -> Callable[[str], None]:
        """What takes the lines of one role."""
        return lambda line: self._write(role, line)

    def say(self, sentence: str) -> None:
        """A sentence of the supervisor itself."""
        now = datetime.now(UTC)
        self.sentences.append((now, sentence))
        self._write("supervisor", f"{now.isoformat(timespec='seconds').replace('+00:00', 'Z')} {sentence}")

    def _write(self, role: str, line: str) -> None:
        with self._lock:
            for file in self._files:
                file.write(f"{role:<{self._width}} | {line}\n")
                file.flush()
