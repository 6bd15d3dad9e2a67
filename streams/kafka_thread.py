"""A thread that reads from Kafka for as long as a process runs, and begins again after each failure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kafka.errors import KafkaError

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_MAX_STOP_S = 5.0


class KafkaThread:
    """Calls `follow` in a thread of its own, until `stop` is called.

    `follow` reads from Kafka and returns soon after `is_stopping` became True. If it raises KafkaError or OSError, `failure` is logged as a
    warning with the reason, and `follow` is called again after a second.
    """

    def __init__(self, name: str, follow: Callable[[], None], failure: str) -> None:
        self._follow = follow
        self._failure = failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for its end for at most 5 s."""
        self._stopping.set()
        self._thread.join(_MAX_STOP_S)

    def _run(self) -> None:
        while not self.is_stopping:
            try:
                self._follow()
            except (KafkaError, OSError) as error:
                log.warning("%s Reading is tried again. Reason: %r", self._failure, error)
                self._stopping.wait(_RETRY_S)
