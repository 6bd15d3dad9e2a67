"""The events that a board stores until the host acknowledges them. See firmware/PROTOCOL.md, "Events"."""

from __future__ import annotations

from dataclasses import dataclass

# An event is sent again if it is not acknowledged within this time.
REPEAT_US = 1_000_000
# The board repeats at most this many events in each period of REPEAT_US: the oldest ones without an acknowledgement.
MAX_REPEATED_EVENTS = 4
# After the board has sent a stored event, it waits at least this long before it sends the next one.
EVENT_INTERVAL_US = 10_000


@dataclass
class StoredEvent:
    """A stored event with its number `event` and the other `fields` of its frame.

    - `confirmed`: a field of GATE events: 1 if the chute's eye has seen the part, 0 if not. None if the field is absent or not known yet.
    - `is_awaited`: True while the part is on its way to the chute's eye. During this time, the event is not sent.
    - `sent_us`: the time at which the event was last sent, or None if it was not sent since the last HELLO.
    """

    event: int
    name: str
    fields: tuple[str, ...]
    sent_us: int | None = None
    confirmed: int | None = None
    is_awaited: bool = False


class EventRing:
    """The stored events of a board, at most `size`.

    If the ring is full, a new event is dropped. Its number is not used for another event, so the host sees a gap in the numbers.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lost = 0
        self.unreported = 0
        self._events: list[StoredEvent] = []
        self._next_number = 0
        self._next_send_us = 0

    @property
    def pending(self) -> int:
        """The number of events that are not acknowledged."""
        return len(self._events)

    @property
    def pending_names(self) -> list[str]:
        """The names of the events that are not acknowledged, oldest first."""
        return [event.name for event in self._events]

    @property
    def is_full(self) -> bool:
        """True if the ring is full, so that the next event will be dropped."""
        return len(self._events) >= self.size

    def add(self, name: str, *fields: object, confirmed: int | None = None, is_awaited: bool = False) -> int:
        """Stores an event and returns its number. If there is no room, the event is counted as lost."""
        number, self._next_number = self._next_number, (self._next_number + 1) % 65536
        if self.is_full:
            self.lost += 1
            self.unreported += 1
            return number
        texts = tuple(str(field) for field in fields)
        self._events.append(StoredEvent(number, name, texts, confirmed=confirmed, is_awaited=is_awaited))
        return number

    def confirm(self, number: int, is_seen: bool) -> int:
        """Completes a GATE event that waits for the eye in the chute. `is_seen` says whether this eye has seen the part.

        Returns the number of the part, or 0 if the event was lost.
        """
        for event in self._events:
            if event.event == number:
                event.confirmed, event.is_awaited = int(is_seen), False
                return int(event.fields[2])
        return 0

    def acknowledge(self, number: int) -> None:
        """Deletes an event that the host has acknowledged. Older events stay. Does nothing if the event was deleted before."""
        index = next((index for index, event in enumerate(self._events) if event.event == number), None)
        if index is not None:
            del self._events[index]

    def set_run(self, run: int) -> None:
        """Writes a new run number into the second field of all stored GATE events."""
        for event in self._events:
            if event.name == "GATE":
                event.fields = (event.fields[0], str(run), *event.fields[2:])

    def send_all_again(self) -> None:
        """Lets `take_due` return all stored events again. Called after HELLO, because a new host must get all events."""
        for event in self._events:
            event.sent_us = None

    def take_due(self, now_us: int) -> StoredEvent | None:
        """Returns the next event to send, and marks the event as sent. Returns None if no event is due yet."""
        if now_us < self._next_send_us:
            return None
        pending = [event for event in self._events if not event.is_awaited]
        due = next((event for event in pending if event.sent_us is None), None) or next(
            (event for event in pending[:MAX_REPEATED_EVENTS] if event.sent_us is not None and now_us - event.sent_us >= REPEAT_US), None
        )
        if due is not None:
            due.sent_us = now_us
            self._next_send_us = now_us + EVENT_INTERVAL_US
        return due
