"""Estimates the latency of a camera, and checks it while the line runs.

The latency is the time from the count of a part at photo-eye 1 to its picture.

If parts come at equal intervals, several latencies fit the pictures. Only an irregular gap between parts proves which latency is right:

```
parts                   A   B   C       D   E         the gap between C and D is longer
pictures                  a   b   c       d   e       taken half a spacing after their parts
latency 0.5 spacings      A   B   C       D   E       every picture has a part
latency 1.5 spacings      -   A   B       ?   D       no part fits picture d: wrong
```
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean, median

# The spacing is the time between two parts. A picture is assigned to the nearest part if the time between the picture and this part is
# less than a quarter of the spacing.
ASSIGNED_SHARE = 0.25
# A picture can come earlier or later than the latency predicts. If the difference is usually more than an eighth of the time between two
# parts, the latency should be measured again.
DRIFT_SHARE = 0.125

LOWEST_LATENCY_S = -60.0
HIGHEST_LATENCY_S = 60.0
# An estimate needs at least this many pictures and this many parts.
MIN_PICTURES = 10
# A picture fits a latency if its time minus the latency is close to the time of a part. Close means less than a fifth of the time between
# two parts.
_FIT_SHARE = 0.2
# A latency is accepted if at least 80 % of all pictures get a part, and also 80 % of the ten newest pictures.
_EXPLAINED_SHARE = 0.8
_NEWEST_PICTURES = 10
# The time of a picture minus the latency is the expected time of the picture's part. A latency is tested only if at least 70 % of the
# expected times lie between the times of the first and the last known part.
_KNOWN_SHARE = 0.7
# A picture has no nearest part if its expected time is before the first known part or after the last one. Two latencies are compared only
# if at least this many pictures have a nearest part with both of them.
_MIN_COMMON_PICTURES = 5
# A latency is better than another latency if it brings the pictures nearer to their parts, on average by at least 2 % of the time between
# two parts.
_NEARER_SHARE = 0.02
# A small gain of one latency over another can be chance. So the mean gain must also be at least five times its standard error.
_NEARER_ERRORS = 5.0
# Not every latency is examined, but only those that fit many pictures: at least half as many as the latency that fits the most pictures.
_CANDIDATE_SHARE = 0.5
_MAX_CANDIDATES = 1500

# If at least 7 of the last 12 pictures are too far from the time of any part, the latency is wrong. Pictures are then assigned to no part.
_WATCHED_PICTURES = 12
_TOO_MANY_FAR = 7
# After every eighth picture, the latency is estimated from the 16 newest pictures. If this estimate is not certain, the 48 newest
# pictures are used.
_ESTIMATE_EVERY = 8
_ESTIMATE_PICTURES = (16, 48)
_ESTIMATE_RANGE_SPACINGS = 4.5
_KEPT_PARTS = 2048
_KEPT_PICTURES = 128
# A measurement first estimates the latency from the newest 128 pictures. If the estimate is not certain, the measurement tries the newest
# 64 pictures, then 32, then 16.
_MEASURED_PICTURES = (128, 64, 32, 16)


@dataclass(frozen=True)
class LatencyEstimate:
    """The latency that best explains the times of the given pictures.

    - `latency_s`: None if no latency explains the times.
    - `problem`: why the latency cannot be used, or "".
    - `spread_s`: for nine of ten pictures, the nearest part is at most this many seconds away.
    - `spacing_s`: the median time between two parts.
    - `rival_s`: another latency that fits almost as well, or None.
    - `supporting_count`: number of pictures that fit `latency_s`, but not `rival_s`.
    """

    picture_count: int
    problem: str = ""
    latency_s: float | None = None
    spread_s: float = 0.0
    spacing_s: float = 0.0
    rival_s: float | None = None
    supporting_count: int = 0

    @property
    def is_certain(self) -> bool:
        return self.latency_s is not None and not self.problem


class _PartGrid:
    """Holds the sorted times of parts, and finds the part that is nearest to a given time."""

    def __init__(self, times: Sequence[float]) -> None:
        self.times = times
        self.spacing_s = median(later - earlier for earlier, later in pairwise(times))

    def locate(self, time_s: float) -> tuple[float, float] | None:
        """Returns the seconds from the nearest part to `time_s` (negative if `time_s` is earlier), and the spacing at this part in seconds.

        The spacing is the gap before or after the part, whichever is smaller. Returns None if `time_s` is clearly before the first part or
        clearly after the last part.
        """
        times = self.times
        index = bisect_left(times, time_s)
        if index == len(times) or (index and time_s - times[index - 1] <= times[index] - time_s):
            index -= 1
        offset_s = time_s - times[index]
        before_s = times[index] - times[index - 1] if index else float("inf")
        after_s = times[index + 1] - times[index] if index + 1 < len(times) else float("inf")
        spacing_s = max(min(before_s, after_s), 1e-6)
        is_outside = (offset_s < 0 and not index) or (offset_s > 0 and index + 1 == len(times))
        if is_outside and abs(offset_s) >= ASSIGNED_SHARE * spacing_s:
            return None
        return offset_s, spacing_s


@dataclass(frozen=True)
class _Candidate:
    """A possible latency. `shares` has one number for each picture: the time to the nearest part, divided by the spacing of the parts.

    Example: 0.1 s at a spacing of 0.5 s gives 0.2. A picture before the first part or after the last part has None.
    """

    latency_s: float
    shares: list[float | None]

    @property
    def known_shares(self) -> list[float]:
        return [share for share in self.shares if share is not None]

    @property
    def unexplained_count(self) -> int:
        return sum(share >= ASSIGNED_SHARE for share in self.known_shares)

    @property
    def rank(self) -> tuple[float, float]:
        """The key by which possible latencies are sorted. The best latency has the smallest key.

        The key has two numbers: the share of the pictures that get no part, and the mean distance of the pictures from their parts.
        """
        known = self.known_shares
        return self.unexplained_count / len(known), fmean(min(share, ASSIGNED_SHARE) for share in known)


def estimate_latency(
    part_times: Sequence[float],
    picture_times: Sequence[float],
    lowest_s: float = LOWEST_LATENCY_S,
    highest_s: float = HIGHEST_LATENCY_S,
) -> LatencyEstimate:
    """Returns the latency between `lowest_s` and `highest_s` that fits the most pictures.

    The times may be in any order. Some pictures may be missing, and a few may belong to no part.
    """
    parts, pictures = sorted(set(part_times)), sorted(picture_times)
    if len(parts) < MIN_PICTURES or len(pictures) < MIN_PICTURES:
        missing = f"{len(pictures)} pictures and {len(parts)} parts are known, and {MIN_PICTURES} of each are needed"
        return LatencyEstimate(len(pictures), missing)
    grid = _PartGrid(parts)
    candidates = sorted(_find_candidates(grid, pictures, lowest_s, highest_s), key=lambda candidate: candidate.rank)
    best = candidates[0] if candidates else None
    if best is None or not _explains(best):
        return LatencyEstimate(len(pictures), "no latency explains the times of the pictures", spacing_s=grid.spacing_s)
    offsets = sorted(abs(located[0]) for time_s in pictures if (located := grid.locate(time_s - best.latency_s)))
    spread_s = offsets[int(0.9 * (len(offsets) - 1))]
    rivals = [rival for rival in candidates[1:] if abs(rival.latency_s - best.latency_s) > ASSIGNED_SHARE * grid.spacing_s]
    comparisons = [comparison for rival in rivals if (comparison := _compare(best, rival)) is not None]
    if equals := [comparison.rival_s for comparison in comparisons if not comparison.is_decided]:
        nearest_s, next_s, *_ = sorted([best.latency_s, *equals], key=abs)
        problem = f"ambiguous: {nearest_s:.2f} s and {next_s:.2f} s fit the pictures equally well because the parts come at equal intervals"
        return LatencyEstimate(len(pictures), problem, nearest_s, spread_s, grid.spacing_s, next_s)
    weakest = min(comparisons, key=lambda comparison: comparison.supporting_count, default=None)
    rival_s, supporting_count = (weakest.rival_s, weakest.supporting_count) if weakest else (None, len(best.known_shares))
    return LatencyEstimate(len(pictures), "", best.latency_s, spread_s, grid.spacing_s, rival_s, supporting_count)


def estimate_from_newest(part_times: Sequence[float], picture_times: Sequence[float]) -> LatencyEstimate:
    """Estimates the latency from the newest 128 pictures, then from 64, 32 and 16, until an estimate is certain.

    The times must be in the order of arrival.
    """
    estimates = []
    for count in _MEASURED_PICTURES:
        estimates.append(estimate_latency(part_times, picture_times[-count:]))
        if estimates[-1].is_certain:
            return estimates[-1]
    return estimates[0]


def _find_candidates(grid: _PartGrid, pictures: Sequence[float], lowest_s: float, highest_s: float) -> Iterator[_Candidate]:
    """Yields the likely latencies. A latency of, for example, 2 s is likely if many pictures were taken about 2 s after a part."""
    width_s = grid.spacing_s / 8
    counts: Counter[int] = Counter()
    for time_s in pictures:
        first, end = bisect_left(grid.times, time_s - highest_s), bisect_right(grid.times, time_s - lowest_s)
        counts.update({int((time_s - part_s) // width_s) for part_s in grid.times[first:end]})
    scores = {bin_: count + counts[bin_ + 1] for bin_, count in counts.items()}
    least = _CANDIDATE_SHARE * max(scores.values(), default=0)
    chosen = [
        bin_ for bin_, score in scores.items() if score >= least and score >= scores.get(bin_ - 1, 0) and score >= scores.get(bin_ + 1, 0)
    ]
    seen: set[int] = set()
    for bin_ in sorted(chosen, key=lambda bin_: -scores[bin_])[:_MAX_CANDIDATES]:
        latency_s = _refine(grid, pictures, (bin_ + 1) * width_s)
        rounded = round(latency_s / width_s)
        if seen.isdisjoint((rounded - 1, rounded, rounded + 1)):
            seen.add(rounded)
            shares = [abs(located[0]) / located[1] if (located := grid.locate(time_s - latency_s)) else None for time_s in pictures]
            candidate = _Candidate(latency_s, shares)
            if len(candidate.known_shares) >= max(MIN_PICTURES, _KNOWN_SHARE * len(pictures)):
                yield candidate


def _refine(grid: _PartGrid, pictures: Sequence[float], latency_s: float) -> float:
    for _ in range(2):
        located = [found for time_s in pictures if (found := grid.locate(time_s - latency_s)) is not None]
        near = [offset_s for offset_s, spacing_s in located if abs(offset_s) < 0.4 * spacing_s]
        latency_s += median(near) if near else 0.0
    return latency_s


def _explains(candidate: _Candidate) -> bool:
    known = candidate.known_shares
    newest = known[-_NEWEST_PICTURES:]
    return all(sum(share < ASSIGNED_SHARE for share in shares) >= _EXPLAINED_SHARE * len(shares) for shares in (known, newest))


@dataclass(frozen=True)
class _Comparison:
    """The result of comparing the best latency with another latency, `rival_s`.

    - `is_decided`: True if the pictures show that `rival_s` is wrong.
    - `supporting_count`: number of pictures that fit the best latency, but not `rival_s`.
    """

    rival_s: float
    is_decided: bool
    supporting_count: int


def _compare(best: _Candidate, rival: _Candidate) -> _Comparison | None:
    """Compares the best latency with another latency, `rival`.

    A latency assigns each picture to its nearest part, if a part is near enough. The comparison uses the pictures that both latencies
    assign to a part. Returns None if there are fewer than five of them.
    """
    pairs = [(ours, theirs) for ours, theirs in zip(best.shares, rival.shares, strict=True) if ours is not None and theirs is not None]
    if len(pairs) < _MIN_COMMON_PICTURES:
        return None
    supporting = sum(_speaks_against(theirs, ours) for ours, theirs in pairs)
    opposing = sum(_speaks_against(ours, theirs) for ours, theirs in pairs)
    # `supporting` counts the pictures that fit only `best`, and `opposing` counts those that fit only `rival`. `rival` is wrong if
    # `supporting` is at least `needed`, a little more than twice `opposing`.
    needed = (1 if not best.unexplained_count else 2) + 2 * opposing
    return _Comparison(rival.latency_s, supporting >= needed or _is_nearer(pairs), supporting)


def _speaks_against(rival_share: float, share: float) -> bool:
    return share < _FIT_SHARE and rival_share >= max(ASSIGNED_SHARE, share + 0.15)


def _is_nearer(pairs: Sequence[tuple[float, float]]) -> bool:
    if len(pairs) < MIN_PICTURES:
        return False
    gains = [min(theirs, 0.5) - min(ours, 0.5) for ours, theirs in pairs]
    mean = fmean(gains)
    error = sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains))
    return mean >= _NEARER_SHARE and mean >= _NEARER_ERRORS * error


class TimeHistory:
    """The times of the last parts and pictures of one line: parts by the board's clock, pictures by the camera's clock."""

    def __init__(self) -> None:
        self.parts: deque[float] = deque(maxlen=_KEPT_PARTS)
        self.pictures: deque[float] = deque(maxlen=_KEPT_PICTURES)

    def estimate_near(self, latency_s: float) -> LatencyEstimate:
        """Estimates the latency from the last pictures and parts.

        The estimate differs from `latency_s` by at most 4.5 times the usual time between two parts.
        """
        parts = sorted(self.parts)
        gaps = [later - earlier for earlier, later in pairwise(parts[-max(_ESTIMATE_PICTURES) :])]
        reach_s = _ESTIMATE_RANGE_SPACINGS * (median(gaps) if gaps else 1.0)
        estimate = LatencyEstimate(0)
        for count in _ESTIMATE_PICTURES:
            pictures = list(self.pictures)[-count:]
            first = bisect_left(parts, min(pictures, default=0.0) - latency_s - 2 * reach_s)
            end = bisect_right(parts, max(pictures, default=0.0) - latency_s + 2 * reach_s)
            estimate = estimate_latency(parts[first:end], pictures, latency_s - reach_s, latency_s + reach_s)
            if estimate.is_certain:
                break
        return estimate


class LatencyMonitor:
    """Checks whether the latency in use fits the last pictures and parts. If the latency is wrong, `suspension` says why.

    Pictures get no part until `suspension` is "" again. It becomes "" when new pictures prove that the latency is right. Such a proof needs
    an irregular gap between parts, because several latencies fit parts at equal intervals.
    """

    def __init__(self, latency_s: float, suspension: str = "") -> None:
        self.latency_s = latency_s
        self.suspension = suspension
        self._history = TimeHistory()
        # For each of the last pictures, a pair of times in seconds. The first is the delay of the picture (see `median_offset_s`). The
        # second is the time between two parts.
        self._offsets: deque[tuple[float, float]] = deque(maxlen=_WATCHED_PICTURES)
        self._pictures_since_estimate = 0
        # True if the pictures since the last call of `forget_pictures` prove that the latency in use is right.
        self.is_proved = False

    @property
    def median_offset_s(self) -> float:
        """The median delay of the last pictures, in seconds. If there are no pictures, the value is 0.

        If pictures come 0.1 s later than the latency in use predicts, the value is 0.1. If pictures come early, the value is negative.
        """
        return median(offset_s for offset_s, _ in self._offsets) if self._offsets else 0.0

    @property
    def median_share(self) -> float:
        """The median delay of the last pictures, divided by the time between two parts (-0.5 to 0.5).

        Example: parts come every 2 s. If pictures come 0.1 s later than the latency in use predicts, the value is 0.05. If pictures come
        early, the value is negative.
        """
        return median(offset_s / spacing_s for offset_s, spacing_s in self._offsets) if self._offsets else 0.0

    def add_part(self, time_s: float) -> None:
        """Adds a part that the board counted at `time_s`."""
        self._history.parts.append(time_s)

    def add_picture(self, time_s: float) -> None:
        """Adds a picture that was taken at `time_s` by the camera's clock."""
        self._history.pictures.append(time_s)
        self._pictures_since_estimate += 1
        if self._pictures_since_estimate >= _ESTIMATE_EVERY:
            self._pictures_since_estimate = 0
            self._check_estimate()

    def add_offset(self, offset_s: float, spacing_s: float) -> None:
        """Adds a picture that came `offset_s` seconds later than expected. If most of the last pictures fit no part, sets `suspension`.

        `spacing_s` is the time from the picture's part to the nearest other part, in seconds.
        """
        self._offsets.append((offset_s, spacing_s))
        far = sum(abs(offset_s) >= ASSIGNED_SHARE * spacing_s for offset_s, spacing_s in self._offsets)
        if far >= _TOO_MANY_FAR:
            self._suspend(
                f"{far} of the last {len(self._offsets)} pictures are further from the nearest part than a quarter of the spacing "
                f"(median distance {self.median_offset_s:+.3f} s)"
            )

    def _check_estimate(self) -> None:
        estimate = self._history.estimate_near(self.latency_s)
        if not estimate.is_certain or estimate.latency_s is None:
            return
        error_s = abs(estimate.latency_s - self.latency_s)
        if error_s >= ASSIGNED_SHARE * estimate.spacing_s:
            self._suspend(f"the last pictures show a latency of {estimate.latency_s:.3f} s")
        elif error_s <= DRIFT_SHARE * estimate.spacing_s:
            self.suspension = ""
            self.is_proved = True

    def restart(self, suspension: str) -> None:
        """Forgets all parts and pictures, and sets `suspension`.

        Call this method after a clock was set, because the stored times are then wrong.
        """
        self._history.parts.clear()
        self.forget_pictures()
        self.suspension = suspension

    def _suspend(self, reason: str) -> None:
        if not self.suspension:
            # Deletes the earlier pictures, which made the latency look wrong. Only later pictures can prove that the latency is right.
            self.forget_pictures()
        self.suspension = reason

    def forget_pictures(self) -> None:
        """Forgets all pictures, so that only later pictures can prove the latency."""
        self.is_proved = False
        self._history.pictures.clear()
        self._offsets.clear()
        self._pictures_since_estimate = 0
