"""The queue of a triggered camera: the parts that wait for their picture."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, Full, Queue

from agents.gateway.intake import NO_PICTURE, PictureRefusedError
from agents.gateway.spool import PictureReceipt
from streams.identity import PartId

# If more parts than this wait, the oldest part is no longer in front of the camera. A new picture would show another part.
_MAX_TRIGGERS = 256


@dataclass(frozen=True)
class Trigger:
    """A request for the picture of `part`. The board counted this part at `captured_at`.

    `receipt` is a future. The intake sets its result when the picture is in the spool.
    """

    part: PartId
    captured_at: datetime
    receipt: Future[PictureReceipt] = field(default_factory=Future)

    def refuse(self, message: str) -> None:
        """Ends the request: its future gets a PictureRefusedError, because there is no picture of this part."""
        self.receipt.set_exception(PictureRefusedError(NO_PICTURE, message))


class TriggerQueue:
    """A queue of at most 256 triggers, in the order of their arrival. Thread-safe."""

    def __init__(self) -> None:
        self._queue: Queue[Trigger] = Queue(_MAX_TRIGGERS)

    def put(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        """Adds a trigger and returns the future of its receipt. If the queue is full, the future has a PictureRefusedError."""
        trigger = Trigger(part, captured_at)
        try:
            self._queue.put_nowait(trigger)
        except Full:
            trigger.refuse(f"part {part} gets no picture, because {_MAX_TRIGGERS} parts already wait for theirs; check the camera")
        return trigger.receipt

    def get(self, timeout_s: float) -> Trigger | None:
        """Removes and returns the oldest trigger. Returns None if there is none for `timeout_s` seconds."""
        try:
            return self._queue.get(timeout=timeout_s)
        except Empty:
            return None
