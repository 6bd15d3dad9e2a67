"""Finds faults of a line's camera in the statistics of its latest pictures and in their absence. Pure: the time is passed in."""

from __future__ import annotations

from collections import deque
from statistics import median

from models.inference.drift import PictureStatistics
from models.registry.manifest import DriftReference

FROZEN, DARK, BRIGHT, BLURRED, GAP = "frozen", "dark", "bright", "blurred", "gap"
STATES = (FROZEN, DARK, BRIGHT, BLURRED, GAP)

# So many equal pictures in a row mean that the camera is frozen. Noise alone makes two real pictures of one casting differ.
_FROZEN_PICTURES = 5
# The median of so many pictures is compared, so that one unusual part does not look like a fault of the camera.
_MEDIAN_PICTURES = 8
# A picture is too dark below this share of the reference's 1st percentile of brightness.
_DARK_SHARE = 0.6
# A picture is too bright beyond this share of the way from the reference's 99th percentile of brightness to white.
_BRIGHT_SHARE = 0.4
# A picture is blurred below this share of the reference's 1st percentile of sharpness.
_BLURRED_SHARE = 0.5
# Limits of the mean grey level for a version without a reference.
_DARK_LEVEL, _BRIGHT_LEVEL = 30.0, 225.0
# A gap in the pictures is this many times longer than the mean interval of the latest pictures.
_GAP_INTERVALS = 20
_MIN_GAP_S = 30.0
# A line without pictures for longer than this beyond the shortest gap is taken to be stopped.
_MAX_GAP_S = 3600.0


class CameraCondition:
    """The latest pictures of one line's camera. Times are seconds on one clock that only goes forward."""

    def __init__(self) -> None:
        self._statistics: deque[PictureStatistics] = deque(maxlen=_MEDIAN_PICTURES)
        self._times_s: deque[float] = deque(maxlen=_GAP_INTERVALS)
        self._equal_pictures = 0

    def add(self, at_s: float, statistics: PictureStatistics) -> None:
        """Adds the statistics of the next picture, which was taken at the time `at_s`."""
        is_equal = bool(self._statistics) and self._statistics[-1].checksum == statistics.checksum
        self._equal_pictures = self._equal_pictures + 1 if is_equal else 1
        self._statistics.append(statistics)
        self._times_s.append(at_s)

    def find_faults(self, now_s: float, reference: DriftReference | None) -> dict[str, str]:
        """Returns the faults by state (`frozen`, `dark`, `bright`, `blurred`, `gap`), each described in words; empty without a fault.

        Without a reference blur is never reported, and fixed limits of brightness are used.
        """
        faults: dict[str, str] = {}
        if gap := self._describe_gap(now_s):
            faults[GAP] = gap
        if self._equal_pictures >= _FROZEN_PICTURES:
            faults[FROZEN] = f"the last {self._equal_pictures} pictures are the same, pixel by pixel"
        if len(self._statistics) < _MEDIAN_PICTURES:
            return faults
        faults |= self._find_light_faults(reference)
        # Dark and overexposed pictures are never sharp, so only one fault is reported for one cause.
        if reference is not None and faults.keys().isdisjoint((DARK, BRIGHT)):
            sharpness = median(one.sharpness for one in self._statistics)
            limit = _BLURRED_SHARE * reference.sharpness.low
            if sharpness < limit:
                faults[BLURRED] = f"the last {_MEDIAN_PICTURES} pictures have a sharpness of {sharpness:.1f}, expected at least {limit:.1f}"
        return faults

    def _find_light_faults(self, reference: DriftReference | None) -> dict[str, str]:
        brightness = median(one.brightness for one in self._statistics)
        dark, bright = _DARK_LEVEL, _BRIGHT_LEVEL
        if reference is not None:
            dark = _DARK_SHARE * reference.brightness.low
            bright = reference.brightness.high + _BRIGHT_SHARE * (255 - reference.brightness.high)
        measured = f"the last {_MEDIAN_PICTURES} pictures have a mean grey of {brightness:.0f}"
        faults = {}
        if brightness < dark:
            faults[DARK] = f"{measured}, expected at least {dark:.0f}"
        if brightness > bright:
            faults[BRIGHT] = f"{measured}, expected at most {bright:.0f}"
        return faults

    def _describe_gap(self, now_s: float) -> str:
        if len(self._times_s) < 2:
            return ""
        interval_s = (self._times_s[-1] - self._times_s[0]) / (len(self._times_s) - 1)
        limit_s, silent_s = max(_MIN_GAP_S, _GAP_INTERVALS * interval_s), now_s - self._times_s[-1]
        if limit_s < silent_s < limit_s + _MAX_GAP_S:
            return f"no picture for {silent_s:.0f} s; before that one came every {interval_s:.1f} s"
        return ""
