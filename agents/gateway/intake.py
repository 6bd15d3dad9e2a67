"""From a camera's frame to a picture in the spool: checked, identified, answered."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from agents.gateway.camera import Camera, Frame, RefusedError, Taken
from agents.gateway.matcher import Matched, Matcher
from agents.gateway.spool import Picture, Spool
from streams import metrics
from streams.errors import CastlineError, SpoolFullError
from streams.identity import PartId, sniff_content_type
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

EMPTY = "empty"
TOO_LARGE = "too-large"
SPOOL_FULL = "spool-full"
# Longest that a part waits for its picture before it is counted as unmatched; its verdict would be late by far.
_KEEP_PARTS_S = 10.0
_REPORTS_REMEMBERED = 10_000


def check(frame: Frame, max_bytes: int) -> Picture:
    """The frame as a picture: its size within bounds, its content type as its bytes say, its checksum and a trace.

    Raises RefusedError: `empty` or `too-large`. Nothing else is judged here: a hostile picture is the inspector's.
    """
    size = len(frame.value)
    if not size:
        raise RefusedError(EMPTY, "expected a picture, received no bytes")
    if size > max_bytes:
        raise RefusedError(TOO_LARGE, f"expected at most {max_bytes} bytes, received {size}")
    # W3C trace context: version 00, sampled.
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    return Picture(
        frame.value, frame.captured_at, sniff_content_type(frame.value), hashlib.sha256(frame.value).hexdigest(), trace, frame.truth
    )


@dataclass(frozen=True)
class _Offer:
    camera: Camera
    frame: Frame
    picture: Picture


def part_mark(part: PartId) -> str:
    """What the spool remembers a board's part under."""
    return f"part:{part.run}:{part.part}"


class Intake:
    """One line's way from camera to spool. Thread-safe; `took` is called after each picture that was stored."""

    def __init__(
        self,
        camera: CameraSettings,
        max_bytes: int,
        spool: Spool,
        took: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._line = spool.line
        self._max_bytes = max_bytes
        self._spool = spool
        self._took = took
        self._clock = clock
        self._lock = threading.Lock()
        self._turned_away = 0  # since the spool got full
        self._reported: OrderedDict[PartId, None] = OrderedDict()
        window_s = camera.match_window_s
        self._matcher: Matcher[_Offer, PartId] | None = None
        if camera.trigger == "board":
            self._matcher = Matcher(window_s, wait_s=window_s, keep_s=max(_KEEP_PARTS_S, 2 * window_s))

    def offer(self, camera: Camera, frame: Frame) -> None:
        """Takes the frame in or refuses it; `camera` is told which, now or when its part is known."""
        metrics.pictures_received.labels(self._line).inc()
        try:
            picture = check(frame, self._max_bytes)
            self._say_wrong_type(frame, picture)
            repeated = self._repeat(frame, picture)
            if self._matcher is None or frame.part is not None or repeated:
                self._take(_Offer(camera, frame, picture), frame.part)
                return
        except RefusedError as error:
            self._refuse(camera, frame, error, error.reason)
            return
        with self._lock:
            now_s = self._clock()
            decisions = self._matcher.add_picture(_Offer(camera, frame, picture), frame.captured_at.timestamp(), now_s)
        self._carry_out(decisions)

    def report(self, part: PartId, captured_at: datetime) -> bool:
        """The board counted `part`; False when that was reported before."""
        if self._matcher is None:
            raise ValueError(f"the camera of {self._line} is not triggered by a board")
        with self._lock:
            if part in self._reported or self._spool.known(part_mark(part)):
                return False
            self._reported[part] = None
            if len(self._reported) > _REPORTS_REMEMBERED:
                self._reported.popitem(last=False)
            decisions = self._matcher.add_part(part, captured_at.timestamp(), self._clock())
        self._carry_out(decisions)
        return True

    def taken(self, part: PartId) -> bool:
        """Whether the board's part has its picture."""
        return self._spool.known(part_mark(part)) is not None

    def decide(self) -> None:
        """Lets go of pictures and parts that have waited long enough. Call it some times a second."""
        if self._matcher is not None:
            with self._lock:
                decisions = self._matcher.decide(self._clock())
            self._carry_out(decisions)

    def drain(self) -> None:
        """Takes in what still waits for a part; for the end of the process."""
        if self._matcher is not None:
            with self._lock:
                decisions = self._matcher.drain()
            self._carry_out(decisions)

    def _repeat(self, frame: Frame, picture: Picture) -> bool:
        known = self._spool.known(frame.mark) if frame.mark else None
        if known and known[1] != picture.sha256:
            raise RefusedError("key-reused", f"expected the picture of part {known[0]} again under this key, received another")
        return known is not None

    def _say_wrong_type(self, frame: Frame, picture: Picture) -> None:
        declared = frame.content_type.split(";")[0].strip().lower()
        if declared and declared != picture.content_type:
            log.info("expected %s on %s as declared, its bytes are %s", declared, self._line, picture.content_type)

    def _carry_out(self, decisions: Sequence[Matched[_Offer, PartId]]) -> None:
        for decision in decisions:
            if decision.picture is None:
                metrics.unmatched_parts.labels(self._line).inc()
                log.warning("no picture came for the part", extra={"part": str(decision.part)})
            else:
                self._take(decision.picture, decision.part)

    def _take(self, offer: _Offer, part: PartId | None) -> None:
        frame, matched = offer.frame, self._matcher is None or part is not None
        marks = [mark for mark in (frame.mark, part_mark(part) if part else "") if mark]
        try:
            taken = self._spool.accept(offer.picture, marks, part)
        except SpoolFullError as error:
            self._say_full(error)
            self._refuse(offer.camera, frame, error, SPOOL_FULL)
            return
        self._say_full(None)
        if not matched and not taken.repeated:
            metrics.unmatched_pictures.labels(self._line).inc()
            log.warning(
                "no part was reported near the picture's time: it goes under the gateway's own run", extra={"part": str(taken.part)}
            )
        log.debug("taken: %d bytes", len(frame.value), extra={"part": str(taken.part)})
        self._took()
        offer.camera.done(frame, Taken(taken.part, taken.repeated, matched))

    def _say_full(self, error: SpoolFullError | None) -> None:
        """Once when the spool gets full and once when it has room again, however many pictures are refused between."""
        if error and not self._turned_away:
            log.error("pictures of %s are refused: %s", self._line, error)
        elif not error and self._turned_away:
            log.warning("pictures of %s are taken again; %d were refused", self._line, self._turned_away)
        self._turned_away = self._turned_away + 1 if error else 0

    def _refuse(self, camera: Camera, frame: Frame, error: CastlineError, reason: str) -> None:
        metrics.pictures_refused.labels(self._line, reason).inc()
        log.log(logging.DEBUG if reason == SPOOL_FULL else logging.WARNING, "picture refused on %s: %s", self._line, error)
        camera.refused(frame, error)
