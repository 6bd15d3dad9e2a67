"""The intake of a line: checks the frames of a camera, finds their part ids and puts them into the spool."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Protocol, runtime_checkable

from agents.gateway.matcher import MatchDecision, Matcher
from agents.gateway.spool import CheckedPicture, PictureReceipt, Spool
from streams import metrics
from streams.errors import CastlineError, SpoolFullError
from streams.identity import PartId, sniff_content_type
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

# Reasons of refusals, which are also metric labels.
EMPTY = "empty"
TOO_LARGE = "too-large"
SPOOL_FULL = "spool-full"
KEY_REUSED = "key-reused"
NO_PICTURE = "no-picture"

# A part that has no picture after this time is counted as unmatched. A verdict for it would be much too late.
_PART_TIMEOUT_S = 10.0
_MAX_REMEMBERED_REPORTS = 10_000


class PictureRefusedError(CastlineError):
    """The gateway will never accept this picture. `reason` is a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """An encoded picture as a camera gave it, and the future in which the intake answers.

    `receipt` gets a PictureReceipt as soon as the picture is on disk. Otherwise it gets a SpoolFullError, after which the camera may offer
    the picture again, or a PictureRefusedError. `captured_at` is in UTC. `declared_type` is the camera's own statement of the content
    type, which is logged if it is wrong. `truth` is "ok" or "defect" for replayed pictures whose class is known. A picture with the same
    `idempotency_key` as an earlier one is not a new part. `part` is set by cameras that are triggered for each part.
    """

    value: bytes
    captured_at: datetime
    declared_type: str = ""
    truth: str | None = None
    idempotency_key: str = ""
    part: PartId | None = None
    receipt: Future[PictureReceipt] = field(default_factory=Future)


class GatewayCamera(Protocol):
    """A source of pictures."""

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        """Yields pictures as they arrive, and ends soon after `stopping` is set. Runs in a thread of its own.

        After an error the gateway calls the method again. The camera then goes on where it was.
        """

    def list_complaints(self) -> list[str]:
        """Returns sentences about what a person has to mend at the camera or its folder. They stand on /healthz."""


@runtime_checkable
class TriggeredCamera(Protocol):
    """A camera that takes one picture for each part that the board counts."""

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        """Asks for the picture of `part`. The future gets the receipt of that picture, a SpoolFullError or a PictureRefusedError."""


def check_picture(frame: CameraFrame, max_bytes: int) -> CheckedPicture:
    """Returns the picture of `frame` with its detected content type, its checksum and a new trace id.

    The bytes are not decoded, because hostile pictures are the inspector's task. Raises PictureRefusedError with the reason `empty` or
    `too-large`.
    """
    size = len(frame.value)
    if not size:
        raise PictureRefusedError(EMPTY, "expected a picture, received no bytes")
    if size > max_bytes:
        raise PictureRefusedError(TOO_LARGE, f"expected at most {max_bytes} bytes, received {size}")
    # The format is that of W3C Trace Context: version 00, trace id, span id, and 01 for "sampled".
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    content_type, sha256 = sniff_content_type(frame.value), hashlib.sha256(frame.value).hexdigest()
    return CheckedPicture(frame.value, frame.captured_at, content_type, sha256, trace, frame.truth)


def make_part_key(part: PartId) -> str:
    """Returns the idempotency key under which the spool stores the picture of a part that the board counted."""
    return f"part:{part.run}:{part.part}"


@dataclass(frozen=True)
class _PendingFrame:
    """A checked frame that waits for its part."""

    frame: CameraFrame
    picture: CheckedPicture


class Intake:
    """Accepts the frames and part reports of one line. Thread-safe.

    `on_stored` is called after each picture that was put into the spool. If the board counts the parts, frames wait for the report of their
    part, and `decide_due` must be called several times a second.
    """

    def __init__(
        self,
        camera: CameraSettings,
        max_bytes: int,
        spool: Spool,
        on_stored: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._line = spool.line
        self._max_bytes = max_bytes
        self._spool = spool
        self._on_stored = on_stored
        self._clock = clock
        self._lock = threading.Lock()
        # Pictures that were refused since the spool became full.
        self._refused_count = 0
        self._reported_parts: OrderedDict[PartId, None] = OrderedDict()
        window_s = camera.match_window_s
        self._matcher: Matcher[_PendingFrame, PartId] | None = None
        if camera.trigger == "board":
            self._matcher = Matcher(window_s, picture_timeout_s=window_s, part_timeout_s=max(_PART_TIMEOUT_S, 2 * window_s))

    def accept(self, frame: CameraFrame) -> None:
        """Stores or refuses `frame`, or keeps it until its part is known. The answer goes to `frame.receipt`."""
        metrics.pictures_received.labels(self._line).inc()
        try:
            picture = check_picture(frame, self._max_bytes)
            self._log_wrong_type(frame, picture)
            is_repeat = self._is_repeat(frame, picture)
            if self._matcher is None or frame.part is not None or is_repeat:
                self._store(_PendingFrame(frame, picture), frame.part)
                return
        except PictureRefusedError as error:
            self._refuse(frame, error, error.reason)
            return
        with self._lock:
            pending = _PendingFrame(frame, picture)
            decisions = self._matcher.add_picture(pending, frame.captured_at.timestamp(), self._clock())
        self._apply(decisions)

    def report_part(self, part: PartId, captured_at: datetime) -> bool:
        """Takes the report that the board counted `part` at `captured_at`. Returns False if the part was reported before."""
        if self._matcher is None:
            raise ValueError(f"the camera of {self._line} is not triggered by a board")
        with self._lock:
            if part in self._reported_parts or self.has_picture(part):
                return False
            self._reported_parts[part] = None
            if len(self._reported_parts) > _MAX_REMEMBERED_REPORTS:
                self._reported_parts.popitem(last=False)
            decisions = self._matcher.add_part(part, captured_at.timestamp(), self._clock())
        self._apply(decisions)
        return True

    def has_picture(self, part: PartId) -> bool:
        """Returns whether the picture of a part that the board counted is stored."""
        return self._spool.find_receipt(make_part_key(part)) is not None

    def decide_due(self) -> None:
        """Decides about pictures and parts that have waited long enough. Pictures are stored, parts without a picture are counted."""
        if self._matcher is not None:
            with self._lock:
                decisions = self._matcher.decide_due(self._clock())
            self._apply(decisions)

    def drain(self) -> None:
        """Stores all pictures that still wait for their part. Used when the process ends."""
        if self._matcher is not None:
            with self._lock:
                decisions = self._matcher.decide_all()
            self._apply(decisions)

    def _is_repeat(self, frame: CameraFrame, picture: CheckedPicture) -> bool:
        """Returns whether the frame was accepted before. Raises PictureRefusedError if its key was used for another picture."""
        receipt = self._spool.find_receipt(frame.idempotency_key) if frame.idempotency_key else None
        if receipt and receipt[1] != picture.sha256:
            raise PictureRefusedError(KEY_REUSED, f"expected the picture of part {receipt[0]} again under this key, received another")
        return receipt is not None

    def _log_wrong_type(self, frame: CameraFrame, picture: CheckedPicture) -> None:
        declared_type = frame.declared_type.split(";")[0].strip().lower()
        if declared_type and declared_type != picture.content_type:
            log.info("The camera of %s declares %s, but the picture is %s.", self._line, declared_type, picture.content_type)

    def _apply(self, decisions: Sequence[MatchDecision[_PendingFrame, PartId]]) -> None:
        for decision in decisions:
            if decision.picture is None:
                metrics.unmatched_parts.labels(self._line).inc()
                log.warning("No picture arrived for this part.", extra={"part": str(decision.part)})
            else:
                self._store(decision.picture, decision.part)

    def _store(self, pending: _PendingFrame, part: PartId | None) -> None:
        """Puts a picture into the spool under `part`, or under the next part of the gateway's own run, and answers its frame."""
        frame, is_matched = pending.frame, self._matcher is None or part is not None
        keys = [key for key in (frame.idempotency_key, make_part_key(part) if part else "") if key]
        try:
            stored = self._spool.accept(pending.picture, keys, part)
        except SpoolFullError as error:
            self._log_full_spool(error)
            self._refuse(frame, error, SPOOL_FULL)
            return
        self._log_full_spool(None)
        if not is_matched and not stored.is_repeat:
            metrics.unmatched_pictures.labels(self._line).inc()
            log.warning(
                "The board counted no part at the time of this picture. The picture gets a part id of the gateway's own run.",
                extra={"part": str(stored.part)},
            )
        log.debug("Stored a picture of %d bytes.", len(frame.value), extra={"part": str(stored.part)})
        self._on_stored()
        frame.receipt.set_result(PictureReceipt(stored.part, stored.is_repeat, is_matched))

    def _log_full_spool(self, error: SpoolFullError | None) -> None:
        """Logs once when the spool becomes full and once when it has room again, however many pictures are refused in between."""
        if error and not self._refused_count:
            log.error("Pictures of %s are refused: %s", self._line, error)
        elif not error and self._refused_count:
            log.warning("Pictures of %s are accepted again. %d pictures were refused.", self._line, self._refused_count)
        self._refused_count = self._refused_count + 1 if error else 0

    def _refuse(self, frame: CameraFrame, error: CastlineError, reason: str) -> None:
        metrics.pictures_refused.labels(self._line, reason).inc()
        log.log(logging.DEBUG if reason == SPOOL_FULL else logging.WARNING, "A picture of %s is refused: %s", self._line, error)
        frame.receipt.set_exception(error)
