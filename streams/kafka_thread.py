"""A thread that reads from Kafka for as long as a process runs, and begins again after each failure."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kafka.errors import KafkaError

from streams.operating_system import SYSTEM, OperatingSystem
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_MAX_STOP_S = 5.0


class KafkaThread:
    """Calls `follow` in a thread of its own, until `stop` is called.

    `follow` reads from Kafka, and must return soon after `is_stopping` has become True.

    If `follow` raises KafkaError or OSError, the thread logs the sentence `failure` with the reason, and calls `follow` again after a
    second. The same reason is logged only once until `report_success` is called. After any other error, the thread logs the traceback and
    calls `follow` again after a pause of 0.5 to 30 s.
    """

    def __init__(self, name: str, follow: Callable[[], None], failure: str, system: OperatingSystem = SYSTEM) -> None:
        self._follow = follow
        self._failure = failure
        self._logged_reason = ""
        self._stopping = system.make_event()
        self._thread = SupervisedThread(name, self._run, self._stopping, system=system)

    @property
    def is_stopping(self) -> bool:
        """True if `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for its end for at most 5 s."""
        self._stopping.set()
        self._thread.join(_MAX_STOP_S)

    def report_success(self) -> None:
        """Tells the thread that Kafka has answered. `follow` must call this method after each success.

        The same failure is logged again only after a success.
        """
        self._logged_reason = ""

    def _run(self) -> None:
        while not self.is_stopping:
            try:
                self._follow()
            except (KafkaError, OSError) as error:
                reason = repr(error)
                if reason != self._logged_reason:
                    log.warning("%s Reading is tried again. Reason: %s", self._failure, reason)
                self._logged_reason = reason
                self._stopping.wait(_RETRY_S)
