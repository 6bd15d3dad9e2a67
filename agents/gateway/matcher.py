"""Finds out which picture shows which of the parts that the board has counted, by their times alone.

A picture belongs to the part that is nearest in time, if it is within the window and nearer than half of the time to the next part.
Pictures and parts are not counted against each other, so a lost picture or a lost part report affects only its own part and shifts no
other.

```
parts     |--------A--------|--------B--------|      A and B reach half of the time to their neighbours, at most the window
pictures           a              ?       b          a shows A, b shows B; `?` is nearest to B, which has a picture: unmatched
```

A picture that is nearer than half of the smallest recent spacing of parts is matched at once. A picture that is further away waits for a
while, because the report of its part may be late. The first picture waits as well, because no spacing is known yet.

If all parts are reported in order, no picture is matched to the wrong part as long as the clocks of camera and board differ by less than a
quarter of the spacing. If a part report was lost, its picture can be matched to a neighbour only if the neighbour's picture was lost too
and the belt runs unevenly.

All times are seconds of one clock. The module has no clock of its own and no input or output.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Picture = TypeVar("Picture")
Part = TypeVar("Part")

# The smallest of this many recent spacings tells how close parts follow each other on the belt.
_RECENT_SPACINGS = 32


@dataclass(frozen=True)
class MatchDecision(Generic[Picture, Part]):
    """A picture with its part. `part` is None for an unmatched picture, and `picture` is None for an unmatched part."""

    picture: Picture | None
    part: Part | None


@dataclass(frozen=True)
class _PendingItem(Generic[Picture]):
    """A picture or part that waits for its counterpart until `expires_s`."""

    time_s: float
    expires_s: float
    item: Picture


class Matcher(Generic[Picture, Part]):
    """Matches pictures and parts that arrive in any order. Each picture and each part comes out in exactly one decision.

    `window_s` is the longest time between a part and its picture. A picture waits at most `picture_timeout_s` for the report of its part,
    and a part waits at most `part_timeout_s` for its picture. If more than `max_pictures` wait, the oldest ones are decided as unmatched.
    """

    def __init__(self, window_s: float, picture_timeout_s: float, part_timeout_s: float, max_pictures: int = 256) -> None:
        self._window_s = window_s
        self._picture_timeout_s = picture_timeout_s
        self._part_timeout_s = part_timeout_s
        self._max_pictures = max_pictures
        # The rising times of all known parts, including matched ones.
        self._part_times: list[float] = []
        # The parts without a picture, by time.
        self._pending_parts: dict[float, _PendingItem[Part]] = {}
        # The pictures without a decision, in the order of arrival.
        self._pending_pictures: list[_PendingItem[Picture]] = []
        self._spacings: deque[float] = deque(maxlen=_RECENT_SPACINGS)

    @property
    def pending_pictures(self) -> int:
        """The number of pictures without a decision."""
        return len(self._pending_pictures)

    def add_part(self, part: Part, time_s: float, now_s: float) -> list[MatchDecision[Picture, Part]]:
        """Adds a part that the board counted at `time_s`, and returns the decisions that are due."""
        while self._is_part_time(time_s):
            time_s += (
                1e-6  # Two parts that were counted in the same microsecond need different times, because the time is the key of a part.
            )
        index = bisect_left(self._part_times, time_s)
        neighbours = self._part_times[max(0, index - 1) : index + 1]
        if neighbours:
            self._spacings.append(min(abs(neighbour - time_s) for neighbour in neighbours))
        insort(self._part_times, time_s)
        self._pending_parts[time_s] = _PendingItem(time_s, now_s + self._part_timeout_s, part)
        return self.decide_due(now_s)

    def add_picture(self, picture: Picture, time_s: float, now_s: float) -> list[MatchDecision[Picture, Part]]:
        """Adds a picture that was taken at `time_s`, and returns the decisions that are due."""
        self._pending_pictures.append(_PendingItem(time_s, now_s + self._picture_timeout_s, picture))
        return self.decide_due(now_s)

    def decide_due(self, now_s: float) -> list[MatchDecision[Picture, Part]]:
        """Returns all decisions that are due at `now_s`. Call it at least four times in `picture_timeout_s`."""
        decisions: list[MatchDecision[Picture, Part]] = []
        undecided: list[_PendingItem[Picture]] = []
        # The nearest picture is decided first. If two pictures are near one part, the nearer one gets it.
        for pending in sorted(self._pending_pictures, key=self._distance_s):
            is_expired = now_s >= pending.expires_s
            if (part := self._match(pending, is_final=is_expired)) is not None:
                decisions.append(MatchDecision(pending.item, part.item))
            elif is_expired:
                decisions.append(MatchDecision(pending.item, None))
            else:
                undecided.append(pending)
        undecided.sort(key=lambda pending: pending.expires_s)
        while len(undecided) > self._max_pictures:
            decisions.append(MatchDecision(undecided.pop(0).item, None))
        self._pending_pictures = undecided
        return decisions + self._expire_parts(now_s)

    def decide_all(self) -> list[MatchDecision[Picture, Part]]:
        """Decides all pictures and parts with what is known now. Used when the process ends."""
        return self.decide_due(float("inf"))

    def _distance_s(self, picture: _PendingItem[Picture]) -> float:
        nearest_s = self._find_nearest(picture.time_s)
        return abs(nearest_s - picture.time_s) if nearest_s is not None else float("inf")

    def _match(self, picture: _PendingItem[Picture], is_final: bool) -> _PendingItem[Part] | None:
        """Returns the part of a picture and removes it from the pending ones. Returns None if no part fits, or not yet."""
        nearest_s = self._find_nearest(picture.time_s)
        if nearest_s is None or nearest_s not in self._pending_parts:
            return None  # If the nearest part has a picture already, the next nearest one would be a neighbour of the right part.
        distance_s = abs(nearest_s - picture.time_s)
        if distance_s > self._window_s:
            return None
        if not is_final and distance_s >= min(self._spacings, default=0.0) / 2:
            return None
        return self._pending_parts.pop(nearest_s) if distance_s < self._reach_s(nearest_s) else None

    def _reach_s(self, time_s: float) -> float:
        """Returns half of the time from the part at `time_s` to its nearest neighbour."""
        index = bisect_left(self._part_times, time_s)
        gaps = [time_s - self._part_times[index - 1]] if index else []
        if index + 1 < len(self._part_times):
            gaps.append(self._part_times[index + 1] - time_s)
        return min(gaps, default=float("inf")) / 2

    def _find_nearest(self, time_s: float) -> float | None:
        index = bisect_left(self._part_times, time_s)
        neighbours = self._part_times[max(0, index - 1) : index + 1]
        return min(neighbours, key=lambda neighbour: abs(neighbour - time_s), default=None)

    def _is_part_time(self, time_s: float) -> bool:
        index = bisect_left(self._part_times, time_s)
        return index < len(self._part_times) and self._part_times[index] == time_s

    def _expire_parts(self, now_s: float) -> list[MatchDecision[Picture, Part]]:
        expired = [part for part in self._pending_parts.values() if now_s >= part.expires_s]
        for part in expired:
            del self._pending_parts[part.time_s]
        # The times of matched parts are still needed for the reach of their neighbours. The oldest ones are dropped by number, not by age.
        surplus = len(self._part_times) - 4 * _RECENT_SPACINGS - len(self._pending_parts)
        if surplus > 0:
            self._part_times = [
                time_s for index, time_s in enumerate(self._part_times) if index >= surplus or time_s in self._pending_parts
            ]
        return [MatchDecision(None, part.item) for part in expired]
