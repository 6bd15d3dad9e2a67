"""A thread beside the archivist that looks after the kept pictures: fetches what is wanted, drops what is too old or too much."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from django.db import DatabaseError, InterfaceError, connection

from station.archive.shelf import Shelf
from streams.errors import CastlineError

log = logging.getLogger(__name__)

_IDLE_S = 0.5
_LONGEST_BACKOFF_S = 30.0


class Librarian:
    """Works until stopped. What fails is tried again later: the table tells what is still to be done."""

    def __init__(self, shelf: Shelf, sweep_s: float, trouble: Callable[[str], None]) -> None:
        """`trouble` is told what is wrong, and "" when it is over."""
        self._shelf = shelf
        self._sweep_s = sweep_s
        self._trouble = trouble
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="librarian", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Ends after the picture in hand."""
        self._stopping.set()
        self._thread.join(within_s)

    def _run(self) -> None:
        swept_at, pause_s = float("-inf"), _IDLE_S
        while not self._stopping.is_set():
            try:
                if time.monotonic() - swept_at >= self._sweep_s:
                    self._shelf.sweep(datetime.now(UTC))
                    swept_at = time.monotonic()
                done = self._shelf.fetch_wanted(lambda: not self._stopping.is_set())
            except (CastlineError, OSError, DatabaseError, InterfaceError) as error:
                connection.close()
                log.warning("pictures are not kept now: %s; next try in %.1f s", error, pause_s)
                self._trouble(f"pictures are not kept now: {error}")
                self._stopping.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_BACKOFF_S)
                continue
            self._trouble("")
            pause_s = _IDLE_S
            if not done:
                self._stopping.wait(_IDLE_S)
        connection.close()
