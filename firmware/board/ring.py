"""The ring of events that wait for the host's acknowledgement. See firmware/PROTOCOL.md, "Events"."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

REPEAT_US = 1_000_000
REPEATED_AT_A_TIME = 4
PACE_US = 10_000


@dataclass
class Kept:
    """An event, its fields after the number, and when it was last sent (None: not since the greeting)."""

    event: int
    name: str
    fields: tuple[str, ...]
    sent_us: int | None = None
    done: bool = False


class EventRing:
    """At most `size` events. A full ring drops the new one; its number is used up, so the gap names it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lost = 0
        self.unreported = 0
        self._kept: deque[Kept] = deque()
        self._next = 0
        self._paced_us = 0

    @property
    def pending(self) -> int:
        return sum(not kept.done for kept in self._kept)

    @property
    def pending_names(self) -> list[str]:
        return [kept.name for kept in self._kept if not kept.done]

    @property
    def full(self) -> bool:
        return len(self._kept) >= self.size

    def add(self, name: str, *fields: object) -> None:
        event, self._next = self._next, (self._next + 1) % 65536
        if self.full:
            self.lost += 1
            self.unreported += 1
            return
        self._kept.append(Kept(event, name, tuple(str(field) for field in fields)))

    def acknowledge(self, event: int) -> None:
        """Frees that one event; room is made when the oldest is free."""
        for kept in self._kept:
            if kept.event == event:
                kept.done = True
        while self._kept and self._kept[0].done:
            self._kept.popleft()

    def send_again(self) -> None:
        """A host has greeted: everything is new to it."""
        for kept in self._kept:
            kept.sent_us = None

    def due(self, now_us: int) -> Kept | None:
        """The next event to send, marked as sent; None when none is due or the pace forbids it."""
        if now_us < self._paced_us:
            return None
        waiting = [kept for kept in self._kept if not kept.done]
        chosen = next((kept for kept in waiting if kept.sent_us is None), None) or next(
            (kept for kept in waiting[:REPEATED_AT_A_TIME] if kept.sent_us is not None and now_us - kept.sent_us >= REPEAT_US), None
        )
        if chosen is not None:
            chosen.sent_us = now_us
            self._paced_us = now_us + PACE_US
        return chosen
