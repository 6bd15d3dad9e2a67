"""Which picture shows which of the board's parts, decided by time alone.

A picture belongs to the part nearest in time, when it is nearer to that part than half the way to the next part, and
within the window. Nothing is counted through: a lost picture or a lost report costs its own part and shifts no other.

```
parts     |--------A--------|--------B--------|      reach of A and B: half the time between them, at most the window
pictures           a              ?       b          a is A's, b is B's; `?` is nearest to B, which has its picture: unmatched
```

A picture that is nearer than half the smallest spacing seen lately is matched at once. A looser one waits for a while,
since the part that it really shows may not have been reported yet; so does the very first, when no spacing is known.
With every part reported, in order, no picture goes to another's part as long as camera and board differ by less than a
quarter of the spacing. A picture whose own report was lost may go to a neighbour's part only if that one's picture was
lost too and the belt runs unevenly.

Times are seconds on one clock. Pure: no clock of its own, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Picture = TypeVar("Picture")
Part = TypeVar("Part")

# Spacings that are looked back on to tell how close parts come on this belt.
_SPACINGS = 32


@dataclass(frozen=True)
class Matched(Generic[Picture, Part]):
    """A decision. `part` is None for an unmatched picture, `picture` for an unmatched part."""

    picture: Picture | None
    part: Part | None


@dataclass(frozen=True)
class _Waiting(Generic[Picture]):
    time_s: float
    until_s: float
    item: Picture


class Matcher(Generic[Picture, Part]):
    """Pictures and parts go in, in any order; decisions come out. Each of either comes out exactly once.

    `window_s`: longest time between a part and its picture. `wait_s`: longest that a picture waits for its part's
    report. `keep_s`: longest that a part waits for its picture, and is remembered for its neighbours' sake.
    """

    def __init__(self, window_s: float, wait_s: float, keep_s: float, most_waiting: int = 256) -> None:
        self._window_s = window_s
        self._wait_s = wait_s
        self._keep_s = keep_s
        self._most_waiting = most_waiting
        self._times: list[float] = []  # of all parts known, rising, also of those matched
        self._parts: dict[float, _Waiting[Part]] = {}  # unmatched, by time
        self._pictures: list[_Waiting[Picture]] = []  # by arrival
        self._spacings: deque[float] = deque(maxlen=_SPACINGS)

    @property
    def waiting_pictures(self) -> int:
        return len(self._pictures)

    def add_part(self, part: Part, time_s: float, now_s: float) -> list[Matched[Picture, Part]]:
        """A part was counted at `time_s`."""
        while self._at(time_s):
            time_s += 1e-6  # two parts in one microsecond are still two
        place = bisect_left(self._times, time_s)
        around = self._times[max(0, place - 1) : place + 1]
        if around:
            self._spacings.append(min(abs(known - time_s) for known in around))
        insort(self._times, time_s)
        self._parts[time_s] = _Waiting(time_s, now_s + self._keep_s, part)
        return self.decide(now_s)

    def add_picture(self, picture: Picture, time_s: float, now_s: float) -> list[Matched[Picture, Part]]:
        """A picture was taken at `time_s`."""
        self._pictures.append(_Waiting(time_s, now_s + self._wait_s, picture))
        return self.decide(now_s)

    def decide(self, now_s: float) -> list[Matched[Picture, Part]]:
        """All decisions that are due at `now_s`. Call it at least every `wait_s` / 4."""
        decided: list[Matched[Picture, Part]] = []
        still: list[_Waiting[Picture]] = []
        # The nearest first: where two pictures want one part, the nearer has it.
        for waiting in sorted(self._pictures, key=self._distance):
            over = now_s >= waiting.until_s
            if (part := self._claim(waiting, final=over)) is not None:
                decided.append(Matched(waiting.item, part.item))
            elif over:
                decided.append(Matched(waiting.item, None))
            else:
                still.append(waiting)
        still.sort(key=lambda waiting: waiting.until_s)
        while len(still) > self._most_waiting:
            decided.append(Matched(still.pop(0).item, None))
        self._pictures = still
        return decided + self._forget(now_s)

    def drain(self) -> list[Matched[Picture, Part]]:
        """Decides all pictures now, as well as can be; for the end of the process."""
        return self.decide(float("inf"))

    def _distance(self, waiting: _Waiting[Picture]) -> float:
        nearest = self._nearest(waiting.time_s)
        return abs(nearest - waiting.time_s) if nearest is not None else float("inf")

    def _claim(self, waiting: _Waiting[Picture], final: bool) -> _Waiting[Part] | None:
        nearest = self._nearest(waiting.time_s)
        if nearest is None or nearest not in self._parts:
            return None  # none known, or the nearest has its picture: the next best would be a neighbour's
        away_s = abs(nearest - waiting.time_s)
        if away_s > self._window_s:
            return None
        if not final and away_s >= min(self._spacings, default=0.0) / 2:
            return None
        return self._parts.pop(nearest) if away_s < self._reach_s(nearest) else None

    def _reach_s(self, time_s: float) -> float:
        place = bisect_left(self._times, time_s)
        gaps = [time_s - self._times[place - 1]] if place else []
        if place + 1 < len(self._times):
            gaps.append(self._times[place + 1] - time_s)
        return min(gaps, default=float("inf")) / 2

    def _nearest(self, time_s: float) -> float | None:
        place = bisect_left(self._times, time_s)
        around = self._times[max(0, place - 1) : place + 1]
        return min(around, key=lambda known: abs(known - time_s), default=None)

    def _at(self, time_s: float) -> bool:
        place = bisect_left(self._times, time_s)
        return place < len(self._times) and self._times[place] == time_s

    def _forget(self, now_s: float) -> list[Matched[Picture, Part]]:
        gone = [waiting for waiting in self._parts.values() if now_s >= waiting.until_s]
        for waiting in gone:
            del self._parts[waiting.time_s]
        # Matched parts are remembered a while for the reach of their neighbours, by number rather than by clock.
        surplus = len(self._times) - 4 * _SPACINGS - len(self._parts)
        if surplus > 0:
            self._times = [time_s for place, time_s in enumerate(self._times) if place >= surplus or time_s in self._parts]
        return [Matched(None, waiting.item) for waiting in gone]
