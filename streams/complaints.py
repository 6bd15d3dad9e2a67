"""The complaints of a camera: sentences that tell a person on the page /healthz what is wrong with the camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# A complaint about an event, such as a lost picture, disappears this many seconds after the last such event.
_EVENT_SHOWN_S = 600.0


class Complaints:
    """The current complaints of a camera. Thread-safe. `clock` returns monotonic seconds.

    A complaint is a sentence about a `topic`, a short word such as "cleaning". Each topic has at most one complaint.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Maps each topic to its complaint and the time at which the complaint expires. The complaint about a lasting problem never expires.
        self._texts: dict[str, tuple[str, float]] = {}

    def set(self, topic: str, text: str) -> None:
        """Sets the complaint about a lasting problem, such as a missing folder. An empty `text` removes the complaint.

        A new complaint about a `topic` replaces the old one.
        """
        with self._lock:
            if text:
                self._texts[topic] = (text, float("inf"))
            else:
                self._texts.pop(topic, None)

    def add_event(self, topic: str, text: str) -> None:
        """Sets the complaint about an event, such as a lost picture.

        The complaint disappears ten minutes after the last event with this `topic`.
        """
        with self._lock:
            self._texts[topic] = (text, self._clock() + _EVENT_SHOWN_S)

    def find(self, topic: str) -> str:
        """Returns the complaint about `topic`. If the topic has no complaint, or if the complaint has expired, returns ""."""
        with self._lock:
            text, expires_s = self._texts.get(topic, ("", 0.0))
        return text if expires_s > self._clock() else ""

    def list_texts(self) -> list[str]:
        """Returns the sentences of all complaints that have not expired, sorted by topic."""
        now_s = self._clock()
        with self._lock:
            self._texts = {topic: found for topic, found in self._texts.items() if found[1] > now_s}
            return [self._texts[topic][0] for topic in sorted(self._texts)]
