"""Says whether the memory of the roles grows, from the samples of a run.

The slope of a process is that of Theil and Sen: the median of the slopes between all pairs of points, which single jumps do not move. Each
point is the median of a minute. The 95 % interval comes from a moving-block bootstrap of the residuals, because the memory of a process
stays where it is for minutes, so neighbouring points say almost the same.

Memory is flat if the upper end of the interval is below 1 MiB an hour. A role that grows so slowly gains less than 200 MiB in a week, and
two hours cannot show less: the memory of an idle process changes by about that much. It grows if the lower end is above this limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.campaign_judge.findings import Findings, Kind
from tests.campaign_judge.recording import MemorySample

MIB = 2**20
FLAT_MIB_PER_HOUR = 1.0
# A process first fills its caches and its bounded buffers. So a quarter of a series, within these limits, does not count. The largest
# buffer is the sorter's memory of 4,096 parts of a line. At three castings a second it is full after 23 minutes.
WARM_UP_SHARE, LEAST_WARM_UP_S, MOST_WARM_UP_S = 0.25, 600.0, 1800.0
# A series that is shorter without the warm-up says nothing.
LEAST_SERIES_S = 900.0
_POINT_S = 60.0
_BLOCK_POINTS = 5
_BOOTSTRAPS = 2000

Points = NDArray[np.float64]


@dataclass(frozen=True)
class MemorySlope:
    """The growth of one process. `role` also names machine and slot. The slope and its 95 % interval are in MiB an hour."""

    role: str
    pid: int
    minutes: float
    size_mib: float
    slope: float
    low: float
    high: float

    @property
    def outcome(self) -> str:
        if self.high < FLAT_MIB_PER_HOUR:
            return "flat"
        return "grows" if self.low > FLAT_MIB_PER_HOUR else "not decided"


def find_slopes(samples: Sequence[MemorySample]) -> list[MemorySlope]:
    """Returns the slope of each process that lived long enough. A restarted process is a new series."""
    series: dict[tuple[str, int], list[MemorySample]] = defaultdict(list)
    for sample in samples:
        series[f"{sample.machine} {sample.role} {sample.slot}".strip(), sample.pid].append(sample)
    slopes = []
    for (role, pid), group in sorted(series.items()):
        times_s = np.array([sample.at for sample in group])
        sizes_mib = np.array([sample.rss_bytes for sample in group]) / MIB
        warm_up_s = min(MOST_WARM_UP_S, max(LEAST_WARM_UP_S, WARM_UP_SHARE * np.ptp(times_s)))
        is_warm = times_s >= times_s.min() + warm_up_s
        if is_warm.any() and np.ptp(times_s[is_warm]) >= LEAST_SERIES_S:
            slopes.append(_fit(role, pid, times_s[is_warm], sizes_mib[is_warm]))
    return slopes


def _fit(role: str, pid: int, times_s: Points, sizes_mib: Points) -> MemorySlope:
    minutes = np.floor((times_s - times_s.min()) / _POINT_S)
    hours = np.array([times_s[minutes == minute].mean() for minute in np.unique(minutes)]) / 3600
    sizes = np.array([np.median(sizes_mib[minutes == minute]) for minute in np.unique(minutes)])
    slope = _theil_sen(hours, sizes)
    residuals = sizes - slope * hours
    residuals -= np.median(residuals)
    chance = np.random.default_rng(1)
    blocks = -(-len(hours) // _BLOCK_POINTS)
    found = []
    for _ in range(_BOOTSTRAPS):
        begins = chance.integers(0, max(1, len(hours) - _BLOCK_POINTS + 1), blocks)
        drawn = np.concatenate([residuals[begin : begin + _BLOCK_POINTS] for begin in begins])[: len(hours)]
        found.append(_theil_sen(hours[: len(drawn)], slope * hours[: len(drawn)] + drawn))
    low, high = np.percentile(found, [2.5, 97.5])
    return MemorySlope(role, pid, float(np.ptp(times_s)) / 60, float(np.median(sizes)), slope, float(low), float(high))


def _theil_sen(hours: Points, sizes: Points) -> float:
    first, second = np.triu_indices(len(hours), 1)
    return float(np.median((sizes[second] - sizes[first]) / (hours[second] - hours[first])))


def judge_memory(slopes: Sequence[MemorySlope], must_be_flat: bool, findings: Findings) -> None:
    """Adds the processes that grow. With `must_be_flat`, a process that was not shown to be flat counts, too."""
    for slope in slopes:
        text = f"{slope.role} (process {slope.pid}): {slope.slope:+.2f} MiB an hour, 95 % interval {slope.low:+.2f} to {slope.high:+.2f}"
        if slope.outcome == "grows":
            findings.add(Kind.GROWING, text)
        elif slope.outcome != "flat" and must_be_flat:
            findings.add(Kind.NOT_FLAT, text)
    if must_be_flat and not slopes:
        findings.add(Kind.NOT_FLAT, "no process lived long enough to measure its memory")
