"""What a camera is to the gateway, and what a picture is before it has an identity."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Protocol, runtime_checkable

from streams.errors import CastlineError
from streams.identity import PartId

NO_PICTURE = "no-picture"


class RefusedError(CastlineError):
    """The gateway will never take this picture. `reason` is a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Frame:
    """One encoded picture as the camera gave it. Compared by identity: two equal pictures are two frames."""

    value: bytes
    captured_at: datetime  # UTC
    content_type: str = ""  # as declared; checked against the bytes, never trusted
    truth: str | None = None  # "ok" or "defect", known for replays only
    mark: str = ""  # the camera's own name for this very picture; a repeat of it is no new part
    part: PartId | None = None  # known to cameras that are triggered part by part


@dataclass(frozen=True)
class Taken:
    """A picture that is safe on disk, and the part it will be for ever."""

    part: PartId
    repeated: bool = False  # taken before under the same mark
    matched: bool = True  # False: the board's part was not found, the part is of the gateway's own run


class Camera(Protocol):
    """Gives pictures, and is told what became of each.

    `frames` runs in a thread of its own. `done` and `refused` come later, from any thread, once for each frame.
    """

    def frames(self, stopping: Event) -> Iterator[Frame]:
        """Pictures as they come; ends soon after `stopping` is set."""

    def done(self, frame: Frame, taken: Taken) -> None:
        """The picture is safe: the camera may forget it."""

    def refused(self, frame: Frame, error: CastlineError) -> None:
        """SpoolFullError: not now, keep it if you can. RefusedError: never."""


@runtime_checkable
class Triggered(Protocol):
    """A camera that takes its picture when it is told of a part."""

    def trigger(self, part: PartId, captured_at: datetime) -> Future[Taken]:
        """The coming picture's answer; fails with SpoolFullError or RefusedError."""
