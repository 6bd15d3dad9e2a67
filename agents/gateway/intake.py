"""The intake of a line: checks the pictures of a camera, finds their part ids, and stores them in the spool."""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from typing import Protocol, runtime_checkable

from agents.gateway.camera_latency import CameraLatency, show_no_latency_needed
from agents.gateway.capture_time import is_plausible
from agents.gateway.matcher import MatchDecision, Matcher
from agents.gateway.spool import CheckedPicture, GroupCommit, PictureReceipt, Spool
from streams import metrics
from streams.clock_steps import ClockSteps
from streams.complaints import Complaints
from streams.errors import CastlineError, SpoolFullError
from streams.identity import PartId, sniff_content_type
from streams.operating_system import SYSTEM, OperatingSystem
from streams.settings import CameraSettings

log = logging.getLogger(__name__)

# The reasons for which a picture is refused. They are also values of the metric label `reason`.
EMPTY = "empty"
TOO_LARGE = "too-large"
SPOOL_FULL = "spool-full"
KEY_REUSED = "key-reused"
NO_PICTURE = "no-picture"
MEMORY_FULL = "memory-full"

# A part waits for its picture for at most 10 s plus the latency. A later picture would be too late for the gate.
_PART_TIMEOUT_S = 10.0
_MAX_REMEMBERED_REPORTS = 10_000
# The report of a part usually arrives within this time after the part was counted.
_SETTLING_S = 1.0
# If the disk refuses a picture, the intake remembers which part the picture shows. When the camera sends the picture again, it gets the
# same part. At most this many pictures are remembered.
_MAX_UNSTORED = 10_000
# The intake remembers at most this many pictures that came without a time. At two pictures a second, these are the pictures of the last
# eight minutes. A camera repeats a picture much sooner.
_MAX_UNTIMED = 1024
# A camera may send a picture several times before the gateway has answered. The gateway then answers the first copy, and at most this many
# of the newest copies. The camera no longer waits for an answer to the others.
_MAX_REPEATS = 16


class PictureRefusedError(CastlineError):
    """Raised for a picture that the gateway refuses. Sending the same picture again does not help.

    `reason` is one of a few fixed words such as `too-large`, because it is the label of a metric.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """An encoded picture as a camera gave it.

    - `receipt`: the future in which the intake answers with a PictureReceipt, PictureRefusedError or SpoolFullError.
    - `captured_at`: the time that the camera claims, in UTC. It may be wrong.
    - `declared_type`: the content type that the camera declares.
    - `truth`: "ok" or "defect" if a replayed picture's class is known.
    - `idempotency_key`: a second frame with the same key is a repeat.
    - `part`: the part for which the camera was triggered, or None if the camera is not triggered for each part.
    - `waited_s`: seconds since the picture has arrived completely, or None if unknown.
    - `transfer_s`: seconds from the beginning of the upload until the picture had arrived completely.
    - `is_arrival`: True if the camera gives no time. The intake then computes `captured_at` from the time of arrival.
    - `abandoned_sha256`: "" for an ordinary frame. If the sender closed its connection before the intake got the picture, `value` is
      empty, and this is the picture's checksum. With this checksum, the intake recognises the picture when it is sent again.
    """

    value: bytes
    captured_at: datetime
    declared_type: str = ""
    truth: str | None = None
    idempotency_key: str = ""
    part: PartId | None = None
    waited_s: float | None = 0.0
    transfer_s: float = 0.0
    is_arrival: bool = False
    abandoned_sha256: str = ""
    receipt: Future[PictureReceipt] = field(default_factory=Future)


class GatewayCamera(Protocol):
    """A source of pictures for one line."""

    def frames(self, stopping: Event) -> Iterator[CameraFrame]:
        """Yields pictures as they arrive, and ends soon after `stopping` is set. Runs in a thread of its own.

        After an error the gateway calls the method again. The camera then continues with the next picture.
        """

    def find_outage(self) -> str:
        """Returns why the gateway cannot reach the camera or its folder now, or "" if it can.

        The gateway opens the camera again by itself.
        """

    def list_complaints(self) -> list[str]:
        """Returns sentences about problems of the camera or its folder that a person has to solve. The page /healthz shows them."""


@runtime_checkable
class TriggeredCamera(Protocol):
    """A camera that takes one picture for each part that the board counts."""

    def trigger(self, part: PartId, captured_at: datetime) -> Future[PictureReceipt]:
        """Asks for the picture of `part`. The returned future gets the receipt, or raises SpoolFullError or PictureRefusedError."""


def check_picture(frame: CameraFrame, max_bytes: int) -> CheckedPicture:
    """Returns the picture of `frame` with its detected content type, its checksum and a new trace id. Decodes nothing.

    Raises PictureRefusedError with the reason `empty` or `too-large`.
    """
    size = len(frame.value)
    if not size:
        raise PictureRefusedError(EMPTY, "expected a picture, received no bytes")
    if size > max_bytes:
        raise PictureRefusedError(TOO_LARGE, f"expected at most {max_bytes} bytes, received {size}")
    # The header traceparent of W3C Trace Context: version 00, a trace id, a span id, and 01 for "sampled".
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    content_type, sha256 = sniff_content_type(frame.value), hashlib.sha256(frame.value).hexdigest()
    return CheckedPicture(frame.value, frame.captured_at, content_type, sha256, trace, frame.truth)


def make_part_key(part: PartId) -> str:
    """Returns the idempotency key under which the spool stores the picture of a part that the board counted."""
    return f"part:{part.run}:{part.part}"


def _make_copy_key(sha256: str, captured_at: datetime | None = None) -> str:
    """Returns the key of all copies of a picture without an idempotency key. `captured_at` is the time that the camera gave, or None."""
    return f"sha256:{sha256}:{captured_at.isoformat() if captured_at else ''}"


def _answer(receipt: Future[PictureReceipt], answer: PictureReceipt | BaseException) -> None:
    """Sets the answer in the future of a frame, unless the camera has cancelled the future or the future has an error already."""
    if receipt.done() or not receipt.set_running_or_notify_cancel():
        return
    if isinstance(answer, PictureReceipt):
        receipt.set_result(answer)
    else:
        receipt.set_exception(answer)


@dataclass(frozen=True)
class _PendingFrame:
    """A frame with its checked picture. The frame may have to wait until its part is known.

    All copies of a picture have the same `key`. If `key` is "", the intake does not look for copies.

    If `is_late_copy` is True, an earlier copy arrived, but was not matched. The times of the frame are then those of the earlier copy.

    If the matcher finds the part by the time of arrival, `arrived_at` is the time at which the first copy arrived. Otherwise it is None.
    """

    frame: CameraFrame
    picture: CheckedPicture
    key: str
    is_late_copy: bool = False
    arrived_at: datetime | None = None


@dataclass(frozen=True)
class _Repeats:
    """The repeats of a picture that arrived while the first copy waits for its answer.

    `sha256` is the checksum of the first copy. `receipts` holds the futures of the repeats.
    """

    sha256: str
    receipts: deque[Future[PictureReceipt]] = field(default_factory=lambda: deque(maxlen=_MAX_REPEATS))


class _FirstCopies:
    """Finds repeats of a picture that still waits for its answer. A repeat gets the answer of the first copy. Thread-safe.

    Without this class, the gateway could assign the part to a repeat, and no part to the first copy. The class sets no limit for the number
    of waiting pictures, because the matcher and the queue for the disk already limit this number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repeats: dict[str, _Repeats] = {}

    def begin(self, pending: _PendingFrame) -> bool:
        """Returns True if no copy of the picture waits for an answer. Otherwise the frame is a repeat, and `finish` sets its answer later.

        Raises PictureRefusedError if another picture waits under this key.
        """
        if not pending.key:
            return True
        with self._lock:
            if pending.key not in self._repeats:
                self._repeats[pending.key] = _Repeats(pending.picture.sha256)
                return True
            first = self._repeats[pending.key]
            if first.sha256 != pending.picture.sha256:
                raise PictureRefusedError(
                    KEY_REUSED, "expected the picture that waits under this idempotency key, received another picture; use a new key for it"
                )
            first.receipts.append(pending.frame.receipt)
            return False

    def finish(self, pending: _PendingFrame, answer: PictureReceipt | BaseException) -> None:
        """Sets the answer for a picture, and for the copies of this picture that arrived in the meantime.

        Call this method only if `begin` returned True for `pending`.
        """
        with self._lock:
            repeats = self._repeats.pop(pending.key, None)
        _answer(pending.frame.receipt, answer)
        for receipt in repeats.receipts if repeats else ():
            _answer(receipt, replace(answer, is_repeat=True) if isinstance(answer, PictureReceipt) else answer)


@dataclass(frozen=True)
class LatencyReport:
    """The latency of a line's camera, and the times of the last parts and pictures, in seconds since 1970.

    - `latency_s`: None if it is unknown.
    - `source`: where the latency comes from: "settings", "measured" or "".
    - `suspension`: why the latency is no longer trusted, or "".
    """

    line: str
    latency_s: float | None
    source: str
    suspension: str
    part_times: tuple[float, ...]
    picture_times: tuple[float, ...]


class Intake:
    """Accepts the frames and part reports of one line. Thread-safe.

    If a board counts the parts, each frame waits for the report of its part. Call `decide_due` several times a second.
    """

    def __init__(
        self,
        camera: CameraSettings,
        max_bytes: int,
        spool: Spool,
        on_stored: Callable[[], None],
        clock: Callable[[], float] = time.time,
        buffer_bytes: int = 2**25,
        steady_clock: Callable[[], float] | None = None,
        system: OperatingSystem = SYSTEM,
    ) -> None:
        """`on_stored` is called after each stored picture. `buffer_bytes` limits the pictures that wait for their parts or for the disk.

        `clock` is the clock of this machine, which a person or a program can set. `steady_clock` cannot be set. The intake compares the two
        clocks, to notice that `clock` was set. Without `steady_clock`, the intake cannot notice this.
        """
        self._line = spool.line
        self._commit = GroupCommit(spool, buffer_bytes, system)
        self._max_bytes = max_bytes
        self._spool = spool
        self._on_stored = on_stored
        self._clock = clock
        self._steps = ClockSteps(clock, steady_clock or clock)
        # Just after the clock of this machine was changed, the times of parts may be wrong. So parts that are reported before this time get
        # no picture.
        self._settled_s = 0.0
        self._lock = threading.Lock()
        # The number of pictures that were refused since the spool became full.
        self._refused_count = 0
        self._reported_parts: OrderedDict[PartId, None] = OrderedDict()
        # Pictures that are perhaps not on the disk, because the disk failed. When the camera sends such a picture again, the intake gives
        # it the same part as before. A value holds the SHA-256 of the picture and its part. All copies of a picture have the same key.
        self._unstored: OrderedDict[str, tuple[str, PictureReceipt]] = OrderedDict()
        self._first_copies = _FirstCopies()
        # Recent pictures that came without a time. The value is the time at which the first copy of the picture arrived. A later copy gets
        # this time. If a copy was stored or matched, or if the time is unknown, the value is None, and a later copy gets no part.
        self._untimed: OrderedDict[tuple[str, str], datetime | None] = OrderedDict()
        self._uses_arrival = camera.time_source == "arrival"
        self._complaints = Complaints(clock)
        window_s = camera.match_window_s
        self._part_timeout_s = max(_PART_TIMEOUT_S, 2 * window_s)
        self._matcher: Matcher[_PendingFrame] | None = None
        self._latency: CameraLatency | None = None
        if camera.trigger == "board":
            self._matcher = Matcher(window_s, part_timeout_s=self._part_timeout_s, max_bytes=buffer_bytes)
            # A camera may send a picture again that an earlier process has stored or refused.
            for key, sha256 in self._list_earlier_pictures():
                self._untimed[key or _make_copy_key(sha256), sha256] = None
        if camera.needs_latency:
            self._latency = CameraLatency(spool.line, camera.latency_s, spool.folder / f"{spool.line}.latency.json")
        else:
            show_no_latency_needed(spool.line)

    def accept(self, frame: CameraFrame) -> None:
        """Stores or refuses `frame`, or holds it until its part is known. The answer is set in `frame.receipt`."""
        if frame.abandoned_sha256:
            self._note_arrival(*self._check_time(frame), frame.abandoned_sha256)
            return
        metrics.pictures_received.labels(self._line).inc()
        frame, has_own_time = self._check_time(frame)
        try:
            picture = check_picture(frame, self._max_bytes)
            self._log_wrong_type(frame, picture)
            pending = _PendingFrame(frame, picture, self._make_key(frame, picture.sha256))
            is_first = self._first_copies.begin(pending)
        except PictureRefusedError as error:
            self._log_refusal(error, error.reason)
            _answer(frame.receipt, error)
            return
        if is_first:
            self._place(pending, has_own_time)

    def _make_key(self, frame: CameraFrame, sha256: str) -> str:
        # Many cameras send no idempotency key. So equal bytes show that a camera has sent a picture again. Pictures of two castings always
        # differ, because of the noise of the sensor.
        if frame.idempotency_key or self._matcher is None or frame.part is not None:
            return frame.idempotency_key
        return _make_copy_key(sha256, None if frame.is_arrival else frame.captured_at)

    def _place(self, pending: _PendingFrame, has_own_time: bool) -> None:
        """Stores or refuses a picture, or holds it until its part is known."""
        frame = pending.frame
        try:
            is_repeat = self._is_repeat(frame, pending.picture)
        except PictureRefusedError as error:
            self._refuse(pending, error, error.reason)
            return
        except SpoolFullError as error:
            self._note_arrival(frame, has_own_time, pending.picture.sha256)
            self._log_full_spool(error)
            self._refuse(pending, error, SPOOL_FULL)
            return
        except BaseException as error:
            self._first_copies.finish(pending, error)
            raise
        earlier = self._find_unstored(pending)
        if earlier and (earlier.is_matched or not self._can_be_matched(pending)):
            self._store(pending, earlier.part, earlier)
        elif self._matcher is None or self._latency is None or frame.part is not None or is_repeat:
            self._store(pending, frame.part)
        elif (timed := self._follow_first_copy(pending)) is None or not has_own_time:
            # The time of this picture is not reliable. So the picture is not matched by time, because it could get a wrong part.
            self._store(pending, None)
        else:
            self._apply(self._match(timed, self._matcher, self._latency))

    def _check_time(self, frame: CameraFrame) -> tuple[CameraFrame, bool]:
        """Replaces a frame's time by its time of arrival if the time is not plausible, or if the settings ask for the time of arrival.

        Returns the frame, and whether its time may be used to find its part.
        """
        arrived_at = datetime.fromtimestamp(self._clock() - (frame.waited_s or 0.0), UTC)
        if self._uses_arrival and frame.part is None:
            return replace(frame, captured_at=arrived_at, is_arrival=True), frame.waited_s is not None
        if frame.is_arrival:
            return replace(frame, captured_at=arrived_at - timedelta(seconds=frame.transfer_s)), frame.waited_s is not None
        if is_plausible(frame.captured_at, arrived_at):
            return frame, True
        metrics.picture_times_replaced.labels(self._line).inc()
        self._complaints.add_event(
            "clock",
            f"{self._line}: a picture has the time {frame.captured_at:%Y-%m-%d %H:%M}, which cannot be right, so the gateway used the time "
            'of arrival; set the clock of the camera or file server, best by NTP, or set lines.camera.time_source = "arrival"',
        )
        return replace(frame, captured_at=arrived_at), False

    def list_complaints(self) -> list[str]:
        """Returns sentences for the page /healthz that say what is wrong with the clock of the camera."""
        return self._complaints.list_texts()

    def _match(self, pending: _PendingFrame, matcher: Matcher[_PendingFrame], latency: CameraLatency) -> list[MatchDecision[_PendingFrame]]:
        """Adds a picture to the matcher, and returns the new decisions of the matcher. A decision says which part a picture shows.

        If the latency is unknown or not trusted, no picture is assigned to a part.
        """
        time_s = pending.frame.captured_at.timestamp()
        with self._lock:
            forgotten = self._follow_clock(matcher)
            latency.add_picture(time_s)
            if latency.usable_s is None:
                return [*forgotten, *matcher.release_pictures(), MatchDecision(pending, None)]
            decisions = matcher.add_picture(
                pending,
                time_s - latency.usable_s,
                self._clock(),
                len(pending.frame.value),
                is_arrival=pending.frame.is_arrival,
                is_copy=pending.is_late_copy,
            )
            return forgotten + self._check_latency(decisions, matcher)

    def _check_latency(
        self, decisions: list[MatchDecision[_PendingFrame]], matcher: Matcher[_PendingFrame]
    ) -> list[MatchDecision[_PendingFrame]]:
        """Checks the camera's latency with the delays of the pictures in `decisions`. Returns `decisions` unchanged.

        While the matcher doubts the camera's clock, some late pictures get no part. Its doubt ends here if the delays prove that the
        latency is right. The caller must hold the lock.
        """
        if self._latency is not None:
            for decision in decisions:
                if decision.offset_s is not None and decision.spacing_s is not None:
                    self._latency.add_offset(decision.offset_s, decision.spacing_s)
            if self._latency.can_end_doubt(matcher.doubt):
                matcher.end_doubt()
        return decisions

    def report_part(self, part: PartId, captured_at: datetime) -> bool:
        """Accepts the report that the board counted `part` at `captured_at`. Returns False if the part was reported before.

        Raises SpoolFullError if the disk of the spool fails. The report was then not accepted.
        """
        if self._matcher is None:
            raise ValueError(f"the camera of {self._line} is not triggered by a board")
        # The disk is read before the lock is taken, because all pictures and parts of the line wait for this lock.
        if self.has_picture(part):
            return False
        with self._lock:
            if part in self._reported_parts:
                return False
            forgotten = self._follow_clock(self._matcher)
            self._reported_parts[part] = None
            if len(self._reported_parts) > _MAX_REMEMBERED_REPORTS:
                self._reported_parts.popitem(last=False)
            if self._clock() < self._settled_s:
                decisions = [MatchDecision[_PendingFrame](None, part)]
            else:
                if self._latency is not None:
                    self._latency.add_part(captured_at.timestamp())
                    self._matcher.part_timeout_s = self._part_timeout_s + max(0.0, self._latency.value_s or 0.0)
                decisions = self._check_latency(self._matcher.add_part(part, captured_at.timestamp(), self._clock()), self._matcher)
        self._apply([*forgotten, *decisions])
        return True

    def read_latency(self) -> LatencyReport:
        """Returns the latency in use and the times of the last parts and pictures. `castline gateway measure` asks for them.

        Raises ValueError if the camera needs no latency.
        """
        if self._latency is None:
            raise ValueError(f"the camera of {self._line} needs no latency, because its pictures and parts are not matched by time")
        with self._lock:
            return LatencyReport(
                line=self._line,
                latency_s=self._latency.value_s,
                source=self._latency.source,
                suspension=self._latency.suspension,
                part_times=tuple(self._latency.history.parts),
                picture_times=tuple(self._latency.history.pictures),
            )

    def store_latency(self, latency_s: float, spacing_s: float) -> None:
        """Stores a measured latency. Waiting pictures are assigned to no part, because the earlier latency was perhaps wrong.

        Raises ValueError if the camera needs no latency, and OSError if the latency cannot be stored.
        """
        if self._latency is None or self._matcher is None:
            raise ValueError(f"the camera of {self._line} needs no latency, because its pictures and parts are not matched by time")
        with self._lock:
            self._latency.store_measured(latency_s, spacing_s)
            decisions = self._matcher.release_pictures()
        self._apply(decisions)

    def find_latency_problem(self) -> str:
        """Returns why pictures are not assigned to parts, and what to do about it, or "" if they are assigned."""
        if self._latency is None:
            return ""
        with self._lock:
            problem = self._latency.find_problem()
            refused_count = self._matcher.refused_count if self._matcher is not None else 0
            if problem or not refused_count:
                return problem
        return (
            f"{self._line}: the pictures come later than before, and one of them fits no part, so {refused_count} pictures were assigned "
            "to no part; an irregular gap between parts that proves the latency ends this; otherwise check the clock of the camera, then "
            f'run "castline gateway measure {self._line}" while parts pass'
        )

    def has_picture(self, part: PartId) -> bool:
        """Returns whether the picture of `part`, which the board counted, is already stored.

        Raises SpoolFullError if the disk of the spool fails.
        """
        return self._spool.find_receipt(make_part_key(part)) is not None

    def decide_due(self) -> None:
        """Decides about the pictures and parts that have waited long enough for each other.

        Stores the pictures. A part without a picture is counted in a metric.
        """
        self._decide()

    def drain(self) -> None:
        """Stores all pictures that still wait for their parts, because the process ends.

        Also stores the checksums of pictures that were not stored, because a camera may send such a picture again after the next start.
        """
        try:
            self._decide(is_ending=True)
        finally:
            self._store_refused_checksums()

    def _decide(self, is_ending: bool = False) -> None:
        if self._matcher is not None:
            with self._lock:
                forgotten = self._follow_clock(self._matcher)
                decisions = self._check_latency(self._matcher.decide_due(self._clock(), is_ending=is_ending), self._matcher)
            self._apply([*forgotten, *decisions])

    def _follow_clock(self, matcher: Matcher[_PendingFrame]) -> list[MatchDecision[_PendingFrame]]:
        """Forgets all waiting parts and pictures if the clock of this machine was set. Returns a decision for each of them.

        The times of parts are from this machine's clock, and the times of pictures are from the camera's clock. After this machine's clock
        was set, a picture could be assigned to a wrong part. The caller must hold the lock.
        """
        if not (step_s := self._steps.take_step_s()):
            return []
        log.warning("%s: the clock of this machine was set by %+.2f s.", self._line, step_s)
        self._settled_s = self._clock() + _SETTLING_S
        if self._latency is not None and not self._uses_arrival:
            self._latency.add_clock_step(step_s)
        return matcher.forget()

    def _is_repeat(self, frame: CameraFrame, picture: CheckedPicture) -> bool:
        """Returns whether the picture is already stored under the frame's idempotency key.

        Raises PictureRefusedError if another picture is stored under this key.
        """
        receipt = self._spool.find_receipt(frame.idempotency_key) if frame.idempotency_key else None
        if receipt and receipt[1] != picture.sha256:
            raise PictureRefusedError(
                KEY_REUSED,
                f"expected the picture of part {receipt[0]} under this idempotency key, received another picture; use a new key for it",
            )
        return receipt is not None

    def _list_earlier_pictures(self) -> list[tuple[str, str]]:
        try:
            return self._spool.list_newest_checksums(_MAX_UNTIMED)
        except SpoolFullError as error:
            self._log_forgotten_copies(error)
            return []

    def _store_refused_checksums(self) -> None:
        with self._lock:
            unstored = {(key, sha256) for key, (sha256, _) in self._unstored.items()}
            refused = [picture for picture, first_at in self._untimed.items() if first_at is not None or picture in unstored]
        if refused:
            try:
                self._spool.add_refused(refused)
            except SpoolFullError as error:
                self._log_forgotten_copies(error)

    def _log_forgotten_copies(self, error: SpoolFullError) -> None:
        log.error("%s: a picture that a camera sends again can get a wrong part, because %s", self._line, error)

    def _note_arrival(self, frame: CameraFrame, has_own_time: bool, sha256: str) -> None:
        """Remembers when a picture without a time arrived. The camera is expected to send the picture again, because it got no answer."""
        if self._matcher is None or self._latency is None or not frame.is_arrival:
            return
        key = (self._make_key(frame, sha256), sha256)
        with self._lock:
            if key in self._untimed:
                return
            self._remember_untimed(key, frame.captured_at if has_own_time else None)
            if has_own_time and self._latency.usable_s is not None:
                self._matcher.add_arrival(frame.captured_at.timestamp() - self._latency.usable_s)

    def _follow_first_copy(self, pending: _PendingFrame) -> _PendingFrame | None:
        """Returns a picture with the time at which its first copy arrived, or None if the picture must get no part.

        A camera repeats a picture if it gets no answer. The copy arrives later, so its own time could be that of a later casting.
        """
        if not pending.frame.is_arrival:
            return pending
        key = (pending.key, pending.picture.sha256)
        with self._lock:
            is_copy, first_at = key in self._untimed, self._untimed.get(key)
            self._remember_untimed(key, None)
        if not is_copy:
            return replace(pending, arrived_at=pending.frame.captured_at)
        if first_at is None:
            return None
        frame, picture = replace(pending.frame, captured_at=first_at), replace(pending.picture, captured_at=first_at)
        return replace(pending, frame=frame, picture=picture, is_late_copy=True, arrived_at=first_at)

    def _remember_untimed(self, key: tuple[str, str], first_at: datetime | None) -> None:
        """Remembers a picture without a time, and forgets the oldest one if there are too many. The caller must hold the lock."""
        self._untimed[key] = first_at
        self._untimed.move_to_end(key)
        if len(self._untimed) > _MAX_UNTIMED:
            self._untimed.popitem(last=False)

    def _log_wrong_type(self, frame: CameraFrame, picture: CheckedPicture) -> None:
        declared_type = frame.declared_type.split(";")[0].strip().lower()
        if declared_type and declared_type != picture.content_type:
            log.info(
                "The camera of %s declares the content type %s, but the picture is %s.", self._line, declared_type, picture.content_type
            )

    def _apply(self, decisions: Sequence[MatchDecision[_PendingFrame]]) -> None:
        # If the storing of a picture raises an error, the ExitStack still stores the other pictures. The ExitStack begins with the function
        # that was added last. So the pictures are added in reverse order.
        with ExitStack() as stack:
            for decision in reversed(decisions):
                if decision.picture is None:
                    metrics.unmatched_parts.labels(self._line).inc()
                    log.warning("No picture arrived for part %s, so it gets no verdict.", decision.part, extra={"part": str(decision.part)})
                else:
                    stack.callback(self._store, decision.picture, decision.part)

    def _find_unstored(self, pending: _PendingFrame) -> PictureReceipt | None:
        """Returns the receipt of an earlier attempt to store the same picture, if this attempt failed because of the disk.

        Returns None if there was no such attempt.
        """
        with self._lock:
            sha256, receipt = self._unstored.get(pending.key, ("", None))
        return receipt if sha256 == pending.picture.sha256 else None

    def _can_be_matched(self, pending: _PendingFrame) -> bool:
        """Returns whether the matcher can look for the part of a copy, because the arrival of its first copy is known."""
        with self._lock:
            return self._untimed.get((pending.key, pending.picture.sha256)) is not None

    def _remember_unstored(self, pending: _PendingFrame, part: PartId | None, is_matched: bool) -> None:
        """Remembers a picture that the disk has refused or perhaps lost. A later copy gets the same part.

        If the matcher has found no part, it looks again for the part of a later copy, because perhaps the disk has also refused the report
        of the part. If it finds none again, the copy gets the id that the gateway made for the first copy.
        """
        key, sha256 = pending.key, pending.picture.sha256
        with self._lock:
            if pending.arrived_at is not None and not is_matched:
                self._remember_untimed((key, sha256), pending.arrived_at)
            if part is not None and key:
                self._unstored[key] = sha256, PictureReceipt(part, is_matched=is_matched)
                if len(self._unstored) > _MAX_UNSTORED:
                    self._unstored.popitem(last=False)

    def _store(self, pending: _PendingFrame, part: PartId | None, earlier: PictureReceipt | None = None) -> None:
        """Stores a picture in the spool and sets the frame's receipt. If `part` is None, the spool makes the part id.

        `earlier` is the receipt of an earlier attempt to store the same picture, if this attempt failed because of the disk. Otherwise
        `earlier` is None.
        """
        frame = pending.frame
        if part is None and earlier is None and (earlier := self._find_unstored(pending)):
            part = earlier.part
        is_matched = earlier.is_matched if earlier else self._matcher is None or part is not None
        keys = [key for key in (frame.idempotency_key, make_part_key(part) if part else "") if key]
        if not keys and pending.key and frame.is_arrival:
            # After a restart, the intake recognises copies of this picture by the checksum in the receipt, and not by the receipt's key.
            # So the key only has to be unique.
            keys = [f"trace:{pending.picture.traceparent}"]
        try:
            stored = self._spool.accept(pending.picture, keys, part)
            if stored.is_repeat and not is_matched:
                is_matched = self.has_picture(stored.part)
            self._log_full_spool(None)
            if not is_matched and not stored.is_repeat and not earlier:
                metrics.unmatched_pictures.labels(self._line).inc()
                log.warning(
                    "A picture of %s was not assigned to a part of the board. It is stored under the gateway's own part id %s.",
                    self._line,
                    stored.part,
                    extra={"part": str(stored.part)},
                )
            log.debug("Stored the picture of part %s, %d bytes.", stored.part, len(frame.value), extra={"part": str(stored.part)})
            # The picture may go to Kafka before it is on the disk. The camera gets its receipt only when the picture is on the disk.
            self._on_stored()
            receipt = PictureReceipt(stored.part, stored.is_repeat, is_matched)
            self._commit.add(len(frame.value), partial(self._confirm, pending, receipt, keys))
        except SpoolFullError as error:
            self._remember_unstored(pending, part, is_matched)
            self._log_full_spool(error)
            self._refuse(pending, error, SPOOL_FULL)
        except BaseException as error:
            self._first_copies.finish(pending, error)
            raise

    def _confirm(self, pending: _PendingFrame, receipt: PictureReceipt, keys: Sequence[str], failure: OSError | None) -> None:
        """Tells the camera that its picture is on the disk. If the disk has failed, the camera must send the picture again."""
        if failure is None:
            with self._lock:
                self._unstored.pop(pending.key, None)
            self._first_copies.finish(pending, receipt)
            return
        try:
            # Perhaps the disk has lost the picture, so the camera sends it again. The spool must then not take it for a copy. So the spool
            # forgets all keys of the picture, also the key of its part, which is not always in `keys`.
            for key in {*keys, make_part_key(receipt.part)}:
                with suppress(sqlite3.Error, CastlineError):
                    self._spool.forget_key(key)
            self._remember_unstored(pending, receipt.part, receipt.is_matched)
            log.error("The picture of part %s may be lost, because the disk failed: %s. Check the disk.", receipt.part, failure)
            metrics.pictures_refused.labels(self._line, SPOOL_FULL).inc()
        finally:
            self._first_copies.finish(
                pending, SpoolFullError(f"the picture of part {receipt.part} cannot be written to the disk: {failure.strerror}")
            )

    def start(self) -> None:
        """Starts the thread that waits for the disk. Without this thread, `accept` itself waits for the disk."""
        self._commit.start()

    def stop(self, within_s: float) -> None:
        """Sends the receipts of all stored pictures to the cameras, and ends the thread. Waits for the disk for at most `within_s`."""
        self._commit.stop(within_s)

    @property
    def unconfirmed_count(self) -> int:
        """The number of pictures that were accepted, but are perhaps not on the disk yet. Their cameras have no receipts."""
        return self._commit.waiting_count

    def _log_full_spool(self, error: SpoolFullError | None) -> None:
        """Counts the pictures that the spool refuses because it is full. Logs the first refusal, and the first picture stored after it."""
        if error and not self._refused_count:
            log.error("Pictures of %s are refused, because the spool cannot store them: %s", self._line, error)
        elif not error and self._refused_count:
            log.warning(
                "The spool can store pictures of %s again. %d pictures were refused in the meantime.", self._line, self._refused_count
            )
        self._refused_count = self._refused_count + 1 if error else 0

    def _refuse(self, pending: _PendingFrame, error: CastlineError, reason: str) -> None:
        self._log_refusal(error, reason)
        self._first_copies.finish(pending, error)

    def _log_refusal(self, error: CastlineError, reason: str) -> None:
        metrics.pictures_refused.labels(self._line, reason).inc()
        log.log(logging.DEBUG if reason == SPOOL_FULL else logging.WARNING, "A picture of %s is refused: %s", self._line, error)
