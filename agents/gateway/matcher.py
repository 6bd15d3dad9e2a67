"""Finds the part that each picture shows by comparing their times. First, the latency of the camera is subtracted from the picture's time.

```
parts     |--------A--------|--------B--------|
pictures           a    ?            b b2            a gets A, b gets B; `?` and b2 get no part
```

The nearest part matches if the time between it and the picture is less than a quarter of the time between two parts. `intake.py` passes
the pictures and parts of a line to `Matcher`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar

from agents.gateway.latency import ASSIGNED_SHARE
from streams.identity import PartId

Picture = TypeVar("Picture")

# If the report of a part was lost, the gap between two parts is unknown. In this case, the smallest of the last 32 gaps is used.
_RECENT_GAPS = 32
# The matcher keeps this many of the latest parts. So a picture that was delayed for minutes still finds its part. The sorter keeps the same
# number of part reports for the gateway.
_KEPT_PARTS = 2048
# A late picture can be a sign that the camera's clock is wrong. But if this many late pictures in a row fit their parts and are equally
# late, their delay counts as normal.
_MIN_FITTING = 8
# During an outage of the network, pictures cannot arrive. After the outage, the pictures arrive together, at most this many seconds apart.
_BURST_S = 0.5
# To find out whether pictures arrived together, the matcher compares a picture with at most this many of the newest pictures.
_RECENT_ARRIVALS = 64
# The report of a part may arrive up to 0.1 s after the part was counted.
_REPORT_DELAY_S = 0.1


@dataclass(frozen=True)
class MatchDecision(Generic[Picture]):
    """Says which part a picture shows, or that a part is missed.

    - `picture`: None for a missed part. Its picture has not come in time, but may still come.
    - `part`: None for a picture that shows no part of the board.
    - `offset_s`: the time of the picture, minus the latency, minus the time of the nearest part. In seconds.
    - `spacing_s`: the gap before or after the nearest part, whichever is smaller. In seconds.
    """

    picture: Picture | None
    part: PartId | None
    offset_s: float | None = field(default=None, compare=False)
    spacing_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _WaitingPicture(Generic[Picture]):
    """A picture of `size` bytes that waits until the matcher knows its part. Times are in seconds.

    - `time_s`: the time of the picture minus the latency.
    - `expires_s`: when the wait usually ends. The wait is longer if new reports of the board can still decide which part the picture shows.
    - `late_age_s`: the time of arrival minus `time_s`. None if the picture is not later than usual.
    - `arrived_s`: the time of arrival, if it is used as the time of the picture. Otherwise None.
    - `is_copy`: True if the camera has sent the picture again. Then `time_s` is the time at which the first copy arrived.
    """

    time_s: float
    expires_s: float
    picture: Picture
    size: int = 0
    late_age_s: float | None = None
    arrived_s: float | None = None
    is_copy: bool = False


@dataclass
class _KnownPart:
    """A part that the board has reported.

    If the part has no picture at `expires_s`, the part counts as missed. A picture that comes later is still assigned to the part.
    """

    time_s: float
    part: PartId
    reported_s: float
    expires_s: float
    has_picture: bool = False
    is_missed: bool = False

    @property
    def is_waiting(self) -> bool:
        return not self.has_picture and not self.is_missed

    def is_followed_by(self, later: _KnownPart) -> bool:
        """Returns whether `later` is the next part of the same run.

        Returns False for the first part of a new run. Perhaps the board counted more parts before its reset and did not report them.
        """
        return (later.part.run, later.part.part) == (self.part.run, self.part.part + 1)


@dataclass(frozen=True)
class _Gap:
    """The time between two neighbouring parts. `is_exact` is False if only the shortest possible time is known."""

    seconds: float
    is_exact: bool


class Matcher(Generic[Picture]):
    """Matches pictures and parts that arrive in any order.

    - `window_s`: how long a picture waits for its part.
    - `part_timeout_s`: how long a part waits for its picture.
    - `max_pictures`, `max_bytes`: limits for the waiting pictures. If a limit is exceeded, the oldest pictures get no part.
    """

    def __init__(self, window_s: float, part_timeout_s: float, max_pictures: int = 256, max_bytes: int = 2**25) -> None:
        self._window_s = window_s
        self.part_timeout_s = part_timeout_s
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        # All reported parts, the earliest first. Some of them have a picture already.
        self._parts: list[_KnownPart] = []
        # The pictures that wait for a decision, in the order of arrival.
        self._pictures: list[_WaitingPicture[Picture]] = []
        self._recent_gaps: deque[float] = deque(maxlen=_RECENT_GAPS)
        # Some pictures come without a time from the camera. For each of the last such pictures, the list holds the time of arrival minus
        # the latency. For a picture that the camera has sent several times, this is the arrival of the first copy.
        self._arrivals: deque[float] = deque(maxlen=_RECENT_ARRIVALS)
        # The latest time that `_arrivals` had to drop because it was full.
        self._forgotten_arrival_s = float("-inf")
        # The ages of the last matched pictures that were not late. The age of a picture is its time of arrival minus `time_s`, the expected
        # time of its part. An age can be negative if the clock of the sorter's machine is ahead.
        self._recent_ages: deque[float] = deque(maxlen=_RECENT_GAPS)
        # The age of the last late picture that fits no part, or None. The age of a picture is its time of arrival minus `time_s`. Pictures
        # of about the same age get no part, because perhaps the camera's clock is wrong.
        self._doubted_age_s: float | None = None
        # How often the matcher has doubted the camera's clock so far.
        self._doubts = 0
        # The number of pictures that got no part because of the latest doubt.
        self._refused_count = 0
        # The age of the last matched picture if the picture was late, otherwise None. The age is the time of arrival minus `time_s`.
        self._fitting_age_s: float | None = None
        # The number of late pictures in a row that were matched and were about equally late.
        self._fitting_count = 0

    @property
    def pending_pictures(self) -> int:
        """The number of pictures that wait for a decision."""
        return len(self._pictures)

    @property
    def doubt(self) -> int:
        """The number of the current doubt about the camera's clock: 1 for the first doubt, 2 for the second. 0 if there is no doubt now.

        A doubt begins when a late picture fits no part, because the camera's clock is perhaps wrong. During the doubt, other pictures that
        are about equally late get no part.
        """
        return 0 if self._doubted_age_s is None else self._doubts

    @property
    def refused_count(self) -> int:
        """The number of pictures that got no part because of the current doubt about the camera's clock."""
        return 0 if self._doubted_age_s is None else self._refused_count

    def end_doubt(self) -> None:
        """Ends the doubt about the camera's clock. Call this method if new pictures have proved that the latency is right.

        From now on, the delay of these pictures counts as normal.
        """
        if self._doubted_age_s is not None:
            self._pictures = [replace(waiting, late_age_s=None) if self._is_doubted(waiting) else waiting for waiting in self._pictures]
            self._recent_ages.clear()
            self._recent_ages.append(self._doubted_age_s)
            self._doubted_age_s = None

    def add_part(self, part: PartId, time_s: float, now_s: float) -> list[MatchDecision[Picture]]:
        """Adds a part that the board counted at `time_s`, and returns the decisions that are due."""
        known = _KnownPart(time_s, part, now_s, now_s + self.part_timeout_s)
        index = bisect_right(self._parts, (time_s, part), key=lambda other: (other.time_s, other.part))
        self._parts.insert(index, known)
        for earlier, later in pairwise(self._parts[max(0, index - 1) : index + 2]):
            if earlier.is_followed_by(later):
                self._recent_gaps.append(later.time_s - earlier.time_s)
        return self.decide_due(now_s)

    def add_arrival(self, time_s: float) -> None:
        """Adds the arrival of a picture. Call this method only for a picture that cannot be matched now.

        When the camera sends the picture again, call `add_picture` for the copy.

        `time_s` is the time of arrival minus the latency.
        """
        if len(self._arrivals) == _RECENT_ARRIVALS:
            self._forgotten_arrival_s = max(self._forgotten_arrival_s, self._arrivals[0])
        self._arrivals.append(time_s)

    def _knows_arrival(self, time_s: float) -> bool:
        """Returns whether the matcher remembers the arrival of a first copy, and all arrivals that may be its rivals.

        The first copy and a rival can arrive up to `_BURST_S` before or after their part.
        """
        return time_s in self._arrivals and time_s - self._forgotten_arrival_s > 2 * _BURST_S

    def add_picture(
        self, picture: Picture, time_s: float, now_s: float, size: int = 0, *, is_arrival: bool = False, is_copy: bool = False
    ) -> list[MatchDecision[Picture]]:
        """Adds a picture of `size` bytes and returns the decisions that are due.

        - `time_s`: the picture's time minus the latency.
        - `is_arrival`: True if the picture's time is its time of arrival, and not a time from the camera.
        - `is_copy`: True if `add_arrival` was called for an earlier copy of this picture. `time_s` must be the same as in that call. If the
          matcher has forgotten this arrival or one of its rivals, the copy gets no part.

        A picture whose time is in the future gets no part, because the board counts a part before the camera takes its picture.

        Pictures come late after an outage of the network, or because the camera's clock is wrong. After an outage, they arrive together, so
        each picture is less late than the picture before it. With a wrong clock, all pictures are equally late. So after a late picture
        that fits no part, other pictures that are equally late get no part either.
        """
        late_age_s = None
        if is_copy and not self._knows_arrival(time_s):
            return [MatchDecision(picture, None), *self.decide_due(now_s)]
        if self._recent_ages and not is_copy:
            usual_s, age_s = median(self._recent_ages), now_s - time_s
            if age_s < min(0.0, usual_s) - self._reach_s:
                return [MatchDecision(picture, None), *self.decide_due(now_s)]
            late_age_s = age_s if age_s > usual_s + self._reach_s else None
            if late_age_s is None or not self._is_near(late_age_s, self._doubted_age_s):
                self._doubted_age_s = None
        if is_arrival and not is_copy:
            self.add_arrival(time_s)
        arrived_s = now_s if is_arrival else None
        self._pictures.append(_WaitingPicture(time_s, now_s + self._window_s, picture, size, late_age_s, arrived_s, is_copy))
        return self.decide_due(now_s)

    def decide_due(self, now_s: float, *, is_ending: bool = False) -> list[MatchDecision[Picture]]:
        """Returns all decisions that are due at `now_s`. Call it several times a second.

        If `is_ending` is True, all pictures and parts that still wait are decided, because the process ends.
        """
        decisions: list[MatchDecision[Picture]] = []
        undecided: list[_WaitingPicture[Picture]] = []
        # If two pictures are near the same part, the nearer picture gets the part.
        for waiting in sorted(self._pictures, key=self._distance_s):
            is_over = now_s >= waiting.expires_s and not self._may_be_proved_by_silence(waiting, now_s)
            follows_doubt = self._follows_a_doubt(waiting)
            decision: MatchDecision[Picture] | None
            if self._is_doubted(waiting) or (follows_doubt and is_ending):
                decision = MatchDecision(waiting.picture, None)
                self._refused_count += 1
            else:
                decision = None if follows_doubt else self._decide_alone(waiting, now_s, is_final=is_ending or is_over)
            if decision is None:
                undecided.append(waiting)
            else:
                decisions.append(decision)
                self._follow_age(waiting, is_matched=decision.part is not None)
        undecided.sort(key=lambda waiting: waiting.expires_s)
        surplus = max(0, len(undecided) - self._max_pictures)
        waiting_bytes = sum(waiting.size for waiting in undecided[surplus:])
        while waiting_bytes > self._max_bytes:
            waiting_bytes -= undecided[surplus].size
            surplus += 1
        self._pictures = undecided[surplus:]
        decisions += [MatchDecision(waiting.picture, None) for waiting in undecided[:surplus]]
        return decisions + self._expire_parts(float("inf") if is_ending else now_s)

    def release_pictures(self) -> list[MatchDecision[Picture]]:
        """Decides that no waiting picture belongs to a counted part. Returns one decision for each of these pictures.

        Call this method if the latency of the camera was wrong, because the times of the waiting pictures are then wrong, too.
        """
        pictures, self._pictures = self._pictures, []
        self._recent_ages.clear()
        self._arrivals.clear()
        self._forgotten_arrival_s = float("-inf")
        self._doubted_age_s = self._fitting_age_s = None
        return [MatchDecision(waiting.picture, None) for waiting in pictures]

    def forget(self) -> list[MatchDecision[Picture]]:
        """Forgets all parts and pictures. Call this method after a clock was set, because the stored times are then wrong.

        Returns the decisions: each waiting picture gets no part, and each waiting part gets no picture.
        """
        decisions = [*self.release_pictures(), *self._expire_parts(float("inf"))]
        self._parts.clear()
        self._recent_gaps.clear()
        return decisions

    @property
    def _reach_s(self) -> float:
        """The longest time in seconds between the arrival of a part at photo-eye 1 and the capture of its picture.

        Two late pictures are equally late if their delays differ by less than this time.
        """
        return ASSIGNED_SHARE * max(self._recent_gaps, default=float("inf"))

    def _is_near(self, age_s: float, other_s: float | None) -> bool:
        return other_s is not None and abs(age_s - other_s) < self._reach_s

    def _is_doubted(self, waiting: _WaitingPicture[Picture]) -> bool:
        return waiting.late_age_s is not None and self._is_near(waiting.late_age_s, self._doubted_age_s)

    def _follows_a_doubt(self, waiting: _WaitingPicture[Picture]) -> bool:
        """Returns whether `waiting` must wait for the decision about an earlier picture that is equally late.

        If the earlier picture fits no part, the camera's clock is perhaps wrong, and `waiting` gets no part either.
        """
        if waiting.late_age_s is None:
            return False
        low_s, high_s = waiting.late_age_s - self._reach_s, waiting.late_age_s + self._reach_s
        return any(
            other.late_age_s is not None and other.expires_s < waiting.expires_s and low_s < other.late_age_s < high_s
            for other in self._pictures
        )

    def _follow_age(self, waiting: _WaitingPicture[Picture], is_matched: bool) -> None:
        """Remembers how late a picture is.

        If the gateway could not assign a late picture to a casting, it assigns none of the next pictures that are about equally late. A
        copy is late because the camera has sent it again, so its age says nothing about other pictures.
        """
        if waiting.is_copy:
            return
        age_s = waiting.late_age_s
        if age_s is None:
            if is_matched:
                self._recent_ages.append(waiting.expires_s - self._window_s - waiting.time_s)
                self._fitting_age_s = None
        elif is_matched:
            self._fitting_count = self._fitting_count + 1 if self._is_near(age_s, self._fitting_age_s) else 1
            self._fitting_age_s = age_s
        elif self._fitting_count < _MIN_FITTING or not self._is_near(age_s, self._fitting_age_s):
            if not self._is_near(age_s, self._doubted_age_s):
                self._doubts += 1
                self._refused_count = 0
            self._doubted_age_s = age_s

    def _decide_alone(self, waiting: _WaitingPicture[Picture], now_s: float, is_final: bool) -> MatchDecision[Picture] | None:
        """Decides which part a picture shows. Returns None if the picture must still wait.

        Some pictures have only a time of arrival. After an outage of the network, many pictures arrive together, so their times of arrival
        do not show their parts. Such a picture gets no part if another picture arrived at almost the same time, or fits the same part.
        """
        if waiting.arrived_s is None:
            return self._decide(waiting, now_s, is_final)
        reach_s = min(ASSIGNED_SHARE * median(self._recent_gaps), _BURST_S) if self._recent_gaps else _BURST_S
        index = self._find_nearest(waiting.time_s)
        part_s = waiting.time_s if index is None else self._parts[index].time_s
        is_near_part = abs(part_s - waiting.time_s) < reach_s
        rivals = sum(
            abs(other_s - waiting.time_s) < reach_s or (is_near_part and abs(other_s - part_s) < reach_s) for other_s in self._arrivals
        )
        if rivals > 1:  # `rivals` counts the picture itself, too.
            return MatchDecision(waiting.picture, None)
        # A rival can still arrive.
        if now_s - waiting.arrived_s < min(reach_s + max(0.0, part_s - waiting.time_s), _BURST_S, self._window_s):
            return MatchDecision(waiting.picture, None) if is_final else None
        return self._decide(waiting, now_s, is_final)

    def _decide(self, waiting: _WaitingPicture[Picture], now_s: float, is_final: bool) -> MatchDecision[Picture] | None:
        """Decides which part a picture shows. Returns None if the picture must still wait."""
        index = self._find_nearest(waiting.time_s)
        if index is None:
            return MatchDecision(waiting.picture, None) if is_final else None
        nearest = self._parts[index]
        offset_s = waiting.time_s - nearest.time_s
        before, after = self._gap_before(index), self._gap_after(index, now_s)
        at_picture, other = (before, after) if offset_s < 0 else (after, before)
        reach_s = ASSIGNED_SHARE * min(self._bound_at_picture(at_picture), self._bound_on_other_side(other, is_final))
        # The spacing is the smaller of the gaps before and after the part. If only one gap is known, the spacing is this gap.
        spacing_s = min((gap.seconds for gap in (before, after) if gap.is_exact), default=float("inf"))
        located = (offset_s, spacing_s) if spacing_s < float("inf") else (None, None)
        # A part gets only one picture. If the nearest part has a picture already, the waiting picture gets no part.
        if not nearest.has_picture and abs(offset_s) < reach_s and abs(offset_s) <= self._window_s:
            nearest.has_picture = True
            return MatchDecision(waiting.picture, nearest.part, *located)
        # If the gap between the parts before and after the picture is exact, the board has counted no other part between them. A picture
        # that is far from the nearest part then shows no part.
        is_far = at_picture.is_exact and abs(offset_s) >= ASSIGNED_SHARE * spacing_s
        if is_far or (is_final and before.is_exact and after.is_exact):
            return MatchDecision(waiting.picture, None, *located)
        return MatchDecision(waiting.picture, None) if is_final else None

    def _may_be_proved_by_silence(self, waiting: _WaitingPicture[Picture], now_s: float) -> bool:
        """Returns whether the picture should wait longer, because perhaps it shows the newest part.

        If the board counts no other part during the wait, no other part can be nearer to the picture.
        """
        newest = self._parts[-1] if self._parts else None
        if newest is None or not newest.is_waiting or not 0 <= waiting.time_s - newest.time_s <= self._window_s:
            return False
        needed_s = (waiting.time_s - newest.time_s) / ASSIGNED_SHARE
        silence = self._gap_after(len(self._parts) - 1, now_s)
        return silence.seconds <= needed_s < min(self._recent_gaps, default=float("inf"))

    def _bound_at_picture(self, gap: _Gap) -> float:
        # `gap` is the time between the parts before and after the picture. If it is not exact, there was perhaps another part between these
        # parts. So the returned gap is not longer than the shortest recent gap between two parts.
        return gap.seconds if gap.is_exact else min(gap.seconds, min(self._recent_gaps, default=float("inf")))

    def _bound_on_other_side(self, gap: _Gap, is_final: bool) -> float:
        # If the picture was taken after its nearest part, `gap` is the time from the part before to the nearest part. If the picture was
        # taken before its nearest part, `gap` is the time from the nearest part to the next one. If `gap` is not exact, the real gap is
        # perhaps longer. When the matcher decides for good, it then expects at least the shortest recent gap.
        return max(gap.seconds, min(self._recent_gaps, default=0.0)) if is_final and not gap.is_exact else gap.seconds

    def _gap_before(self, index: int) -> _Gap:
        part = self._parts[index]
        if index:
            return self._gap_between(self._parts[index - 1], part)
        return _Gap(float("inf"), True) if part.part.part == 1 else _Gap(0.0, False)

    def _gap_after(self, index: int, now_s: float) -> _Gap:
        part = self._parts[index]
        if index + 1 == len(self._parts):
            return _Gap(max(0.0, now_s - part.reported_s - _REPORT_DELAY_S), False)
        return self._gap_between(part, self._parts[index + 1])

    def _gap_between(self, earlier: _KnownPart, later: _KnownPart) -> _Gap:
        gap_s = later.time_s - earlier.time_s
        if earlier.is_followed_by(later):
            return _Gap(gap_s, True)
        # Perhaps the board has counted other castings between these two parts and has not reported them. So the gap is not exact, and the
        # shortest possible gap is returned: 0, or after a reset of the board at most the shortest recent gap.
        is_after_reset = later.part.run != earlier.part.run and later.part.part == 1
        return _Gap(min(gap_s, min(self._recent_gaps, default=0.0)) if is_after_reset else 0.0, False)

    def _distance_s(self, waiting: _WaitingPicture[Picture]) -> float:
        index = self._find_nearest(waiting.time_s)
        return float("inf") if index is None else abs(self._parts[index].time_s - waiting.time_s)

    def _find_index(self, time_s: float) -> int:
        return bisect_left(self._parts, time_s, key=lambda known: known.time_s)

    def _find_nearest(self, time_s: float) -> int | None:
        index = self._find_index(time_s)
        neighbours = range(max(0, index - 1), min(index + 1, len(self._parts)))
        return min(neighbours, key=lambda neighbour: abs(self._parts[neighbour].time_s - time_s), default=None)

    def _expire_parts(self, now_s: float) -> list[MatchDecision[Picture]]:
        waiting = [known for known in self._parts if not known.has_picture and not known.is_missed]
        expired = [known for known in waiting if now_s >= known.expires_s]
        for known in expired:
            known.is_missed = True
        surplus = len(self._parts) - _KEPT_PARTS - (len(waiting) - len(expired))
        if surplus > 0:
            self._parts = [known for index, known in enumerate(self._parts) if index >= surplus or known.is_waiting]
        return [MatchDecision(None, known.part) for known in expired]
