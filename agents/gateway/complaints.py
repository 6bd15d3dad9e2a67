"""The complaints of a camera: sentences about what is wrong with it, which the page /healthz shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# An event, such as a lost picture, is shown for this time after it happened last.
_EVENT_SHOWN_S = 600.0


class Complaints:
    """Holds one sentence for each topic. Thread-safe. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Sentence and time of expiry of each topic. The expiry is infinite for a condition that lasts until it is cleared.
        self._texts: dict[str, tuple[str, float]] = {}

    def set(self, topic: str, text: str) -> None:
        """Sets the sentence of a condition, or removes it if `text` is ""."""
        with self._lock:
            if text:
                self._texts[topic] = (text, float("inf"))
            else:
                self._texts.pop(topic, None)

    def add_event(self, topic: str, text: str) -> None:
        """Sets the sentence of an event. It disappears ten minutes after the last event of its topic."""
        with self._lock:
            self._texts[topic] = (text, self._clock() + _EVENT_SHOWN_S)

    def list_texts(self) -> list[str]:
        """Returns the sentences that hold now, in the order of their topics."""
        now_s = self._clock()
        with self._lock:
            self._texts = {topic: found for topic, found in self._texts.items() if found[1] > now_s}
            return [self._texts[topic][0] for topic in sorted(self._texts)]
