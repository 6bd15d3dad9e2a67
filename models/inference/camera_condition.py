"""Finds faults of a line's camera from the statistics and the times of its latest pictures. Reads no clock; callers pass the time."""

from __future__ import annotations

from collections import deque
from statistics import median

from models.inference.drift import PictureStatistics
from models.registry.manifest import DriftReference

FROZEN, DARK, BRIGHT, BLURRED, GAP = "frozen", "dark", "bright", "blurred", "gap"
STATES = (FROZEN, DARK, BRIGHT, BLURRED, GAP)

# The camera is frozen if this many pictures in a row are equal. Because of noise, two real pictures of one casting always differ.
_FROZEN_PICTURES = 5
# The median of this many pictures is compared with the limits, so that one unusual part does not look like a fault of the camera.
_MEDIAN_PICTURES = 8
# Pictures are too dark if their brightness is below a limit. The limit is this share of the brightness that 99 % of the reference pictures
# exceed.
_DARK_SHARE = 0.6
# Pictures are too bright if their brightness is above a limit between the brightest reference pictures and white (255). Example: only 1 %
# of the reference pictures are brighter than 155. The limit is then 155 + 0.4 * (255 - 155) = 195.
_BRIGHT_SHARE = 0.4
# Pictures are blurred if their sharpness is below a limit. The limit is this share of the sharpness that 99 % of the reference pictures
# exceed.
_BLURRED_SHARE = 0.5
# The lowest and the highest normal brightness (mean grey level, 0..255) if the version has no drift reference.
_DARK_LEVEL, _BRIGHT_LEVEL = 30.0, 225.0
# If no picture comes for a long time, a gap is reported. A long time means 20 times the usual interval between pictures, but at least 30 s.
_GAP_INTERVALS = 20
_MIN_GAP_S = 30.0
# If a gap lasts longer than this time, the gap is no longer reported as a fault, because the line probably stands still.
_MAX_GAP_S = 3600.0


class CameraCondition:
    """Holds the statistics of the latest pictures of one line's camera. All times are seconds of the same monotonic clock."""

    def __init__(self) -> None:
        self._statistics: deque[PictureStatistics] = deque(maxlen=_MEDIAN_PICTURES)
        self._times_s: deque[float] = deque(maxlen=_GAP_INTERVALS)
        self._equal_pictures = 0

    def add(self, at_s: float, statistics: PictureStatistics) -> None:
        """Adds the statistics of the next picture, which came at the time `at_s`."""
        is_equal = bool(self._statistics) and self._statistics[-1].checksum == statistics.checksum
        self._equal_pictures = self._equal_pictures + 1 if is_equal else 1
        self._statistics.append(statistics)
        self._times_s.append(at_s)

    def find_faults(self, now_s: float, reference: DriftReference | None) -> dict[str, str]:
        """Returns a description of each present fault of the camera, by its state (`frozen`, `dark`, `bright`, `blurred`, `gap`).

        Without a `reference`, blur is not measured, and the limits of brightness are fixed.
        """
        faults: dict[str, str] = {}
        if gap := self._describe_gap(now_s):
            faults[GAP] = gap
        if self._equal_pictures >= _FROZEN_PICTURES:
            faults[FROZEN] = f"the last {self._equal_pictures} pictures are the same, pixel by pixel"
        if len(self._statistics) < _MEDIAN_PICTURES:
            return faults
        faults |= self._find_light_faults(reference)
        # Dark and overexposed pictures are never sharp. So the blur of such pictures is not reported as another fault.
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
            return f"no picture for {silent_s:.0f} s; before that, one came every {interval_s:.1f} s"
        return ""
