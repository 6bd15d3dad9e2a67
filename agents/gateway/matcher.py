"""Finds out which picture shows which of the parts that the board has counted, by their times and the numbers of the parts.

A picture belongs to the nearest part if its distance, after the latency of the camera is subtracted, is less than a quarter of the spacing
there. The spacing at a part is the smaller one of the gaps to its two neighbours. All other pictures are unmatched: no verdict is better
than the verdict of a neighbour. Pictures and parts are not counted against each other, so a lost picture or a lost report affects only its
own part and shifts no other.

```
parts     |--------A--------|--------B--------|      A and B reach a quarter of the spacing to both sides
pictures           a    ?            b b2            a shows A, b shows B; `?` is near no part, and b2 is near a part that has its picture
```

If a picture is earlier or later than its part by less than three quarters of the smaller gap beside it, it is never matched to a neighbour.

A picture waits until enough is known. If its nearest part is the newest one, the silence since the report of that part is a lower bound of
the gap behind it. If the numbers of the parts show that a report is missing, the picture waits for that report. When the time of a picture
is over, the smallest recent gap stands in for a gap that is still unknown.

All times are seconds of one clock. The module has no clock of its own and no input or output.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

from agents.gateway.latency import ASSIGNED_SHARE
from streams.identity import PartId

Picture = TypeVar("Picture")

# The smallest of this many recent gaps stands in for a gap that is unknown because a report was lost.
_RECENT_GAPS = 32
# The delay of reports varies by less than this, in seconds. During this time silence does not show that no part has come.
_REPORT_DELAY_S = 0.1


@dataclass(frozen=True)
class MatchDecision(Generic[Picture]):
    """A picture with its part. `part` is None for an unmatched picture, and `picture` is None for an unmatched part.

    `offset_s` is the signed distance of the picture to the nearest part, and `spacing_s` the spacing there as far as it is known. Both are
    None if a nearer part may exist, whose report is missing, or if no gap is known.
    """

    picture: Picture | None
    part: PartId | None
    offset_s: float | None = field(default=None, compare=False)
    spacing_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _WaitingPicture(Generic[Picture]):
    """A picture that waits for its part until `expires_s`."""

    time_s: float
    expires_s: float
    picture: Picture


@dataclass
class _KnownPart:
    """A part that was reported. It waits for its picture until `expires_s`, unless it has one."""

    time_s: float
    part: PartId
    reported_s: float
    expires_s: float
    is_waiting: bool = True

    def is_followed_by(self, later: _KnownPart) -> bool:
        """Returns whether no part can lie between this part and `later`. A new run begins with part 1."""
        if later.part.run == self.part.run:
            return later.part.part == self.part.part + 1
        return later.part.part == 1


@dataclass(frozen=True)
class _Gap:
    """The time between a part and its neighbour: exactly `seconds` if the neighbour is known, otherwise at least `seconds`."""

    seconds: float
    is_exact: bool


class Matcher(Generic[Picture]):
    """Matches pictures and parts that arrive in any order. Each picture and each part comes out in exactly one decision.

    A picture waits at most `window_s` for the report of its part, and `window_s` is also the longest distance between the two. A part waits
    at most `part_timeout_s` for its picture. If more than `max_pictures` wait, the oldest ones are decided as unmatched.
    """

    def __init__(self, window_s: float, part_timeout_s: float, max_pictures: int = 256) -> None:
        self._window_s = window_s
        self.part_timeout_s = part_timeout_s
        self._max_pictures = max_pictures
        # All known parts by rising time, including matched ones.
        self._parts: list[_KnownPart] = []
        # The pictures without a decision, in the order of arrival.
        self._pictures: list[_WaitingPicture[Picture]] = []
        self._recent_gaps: deque[float] = deque(maxlen=_RECENT_GAPS)

    @property
    def pending_pictures(self) -> int:
        """The number of pictures without a decision."""
        return len(self._pictures)

    def add_part(self, part: PartId, time_s: float, now_s: float) -> list[MatchDecision[Picture]]:
        """Adds a part that the board counted at `time_s`, and returns the decisions that are due."""
        known = _KnownPart(time_s, part, now_s, now_s + self.part_timeout_s)
        index = bisect_right(self._parts, (time_s, part), key=lambda other: (other.time_s, other.part))
        self._parts.insert(index, known)
        for earlier, later in pairwise(self._parts[max(0, index - 1) : index + 2]):
            if earlier.is_followed_by(later):
                self._recent_gaps.append(later.time_s - earlier.time_s)
        return self.decide_due(now_s)

    def add_picture(self, picture: Picture, time_s: float, now_s: float) -> list[MatchDecision[Picture]]:
        """Adds a picture whose part was counted at about `time_s`, and returns the decisions that are due."""
        self._pictures.append(_WaitingPicture(time_s, now_s + self._window_s, picture))
        return self.decide_due(now_s)

    def decide_due(self, now_s: float, *, is_ending: bool = False) -> list[MatchDecision[Picture]]:
        """Returns all decisions that are due at `now_s`. Call it several times a second.

        With `is_ending` all pictures and parts are decided with what is known now, because the process ends.
        """
        decisions: list[MatchDecision[Picture]] = []
        undecided: list[_WaitingPicture[Picture]] = []
        # The nearest picture is decided first. If two pictures are near one part, the nearer one gets it.
        for waiting in sorted(self._pictures, key=self._distance_s):
            decision = self._decide(waiting, now_s, is_final=is_ending or now_s >= waiting.expires_s)
            if decision is None:
                undecided.append(waiting)
            else:
                decisions.append(decision)
        undecided.sort(key=lambda waiting: waiting.expires_s)
        surplus = max(0, len(undecided) - self._max_pictures)
        self._pictures = undecided[surplus:]
        decisions += [MatchDecision(waiting.picture, None) for waiting in undecided[:surplus]]
        return decisions + self._expire_parts(float("inf") if is_ending else now_s)

    def release_pictures(self) -> list[MatchDecision[Picture]]:
        """Decides all waiting pictures as unmatched, because their times are no longer right."""
        pictures, self._pictures = self._pictures, []
        return [MatchDecision(waiting.picture, None) for waiting in pictures]

    def _decide(self, waiting: _WaitingPicture[Picture], now_s: float, is_final: bool) -> MatchDecision[Picture] | None:
        """Returns the decision about a picture, or None if it has to wait."""
        index = self._find_nearest(waiting.time_s)
        if index is None:
            return MatchDecision(waiting.picture, None) if is_final else None
        nearest = self._parts[index]
        offset_s = waiting.time_s - nearest.time_s
        before, after = self._gap_before(index), self._gap_after(index, now_s)
        reach_s = ASSIGNED_SHARE * min(self._bound(before, is_final), self._bound(after, is_final))
        # The spacing is at most as large as each gap that is known.
        spacing_s = min((gap.seconds for gap in (before, after) if gap.is_exact), default=float("inf"))
        located = (offset_s, spacing_s) if spacing_s < float("inf") else (None, None)
        # A part that has a picture already gets no other one, and its neighbours are too far away.
        if nearest.is_waiting and abs(offset_s) < reach_s and abs(offset_s) <= self._window_s:
            nearest.is_waiting = False
            return MatchDecision(waiting.picture, nearest.part, *located)
        # Between two known parts there is no other part that could be nearer.
        lies_between_known = (before if offset_s < 0 else after).is_exact
        is_far = lies_between_known and abs(offset_s) >= ASSIGNED_SHARE * spacing_s
        if is_far or (is_final and before.is_exact and after.is_exact):
            return MatchDecision(waiting.picture, None, *located)
        return MatchDecision(waiting.picture, None) if is_final else None

    def _bound(self, gap: _Gap, is_final: bool) -> float:
        """Returns the lower bound of a gap. When the time of a picture is over, a gap that is unknown counts as the smallest recent one."""
        return max(gap.seconds, min(self._recent_gaps, default=0.0)) if is_final and not gap.is_exact else gap.seconds

    def _gap_before(self, index: int) -> _Gap:
        part = self._parts[index]
        if index:
            earlier = self._parts[index - 1]
            return _Gap(part.time_s - earlier.time_s, True) if earlier.is_followed_by(part) else _Gap(0.0, False)
        return _Gap(float("inf"), True) if part.part.part == 1 else _Gap(0.0, False)

    def _gap_after(self, index: int, now_s: float) -> _Gap:
        part = self._parts[index]
        if index + 1 == len(self._parts):
            return _Gap(max(0.0, now_s - part.reported_s - _REPORT_DELAY_S), False)
        later = self._parts[index + 1]
        return _Gap(later.time_s - part.time_s, True) if part.is_followed_by(later) else _Gap(0.0, False)

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
        expired = [known for known in self._parts if known.is_waiting and now_s >= known.expires_s]
        for known in expired:
            known.is_waiting = False
        # The times of matched parts are still needed for the gaps of their neighbours. The oldest ones are dropped by number, not by age.
        surplus = len(self._parts) - 4 * _RECENT_GAPS - sum(known.is_waiting for known in self._parts)
        if surplus > 0:
            self._parts = [known for index, known in enumerate(self._parts) if index >= surplus or known.is_waiting]
        return [MatchDecision(None, known.part) for known in expired]
