"""What is wrong with a line's camera, as far as its last pictures and their absence tell. Pure: the time is passed in."""

from __future__ import annotations

from collections import deque
from statistics import median

from models.inference.drift import Look
from models.registry.manifest import Reference

FROZEN, DARK, BRIGHT, BLURRED, GAP = "frozen", "dark", "bright", "blurred", "gap"
STATES = (FROZEN, DARK, BRIGHT, BLURRED, GAP)

_ALIKE = 5  # pictures without any difference: noise alone makes two pictures of one casting differ
_LATEST = 8  # pictures whose median counts, so that one odd part is no fault of the camera
_DARK = 0.6  # of what the darkest hundredth of the reference has
_BRIGHT = 0.4  # of the way from its brightest hundredth to white
_BLURRED = 0.5  # of what its most blurred hundredth has
_DARKEST, _BRIGHTEST = 30.0, 225.0  # where a version has no reference
_SPACINGS = 20  # a gap is this many times longer than the latest pictures lay apart,
_SHORTEST_GAP_S = 30.0  # but not shorter
_LONGEST_GAP_S = 3600.0  # after which the line is taken to stand


class Camera:
    """The latest pictures of one line. Times are seconds on any one clock that only goes forward."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque(maxlen=_LATEST)
        self._seen_s: deque[float] = deque(maxlen=_SPACINGS)
        self._alike = 0

    def see(self, at_s: float, seen: Look) -> None:
        """The next picture."""
        self._alike = self._alike + 1 if self._looks and self._looks[-1].mark == seen.mark else 1
        self._looks.append(seen)
        self._seen_s.append(at_s)

    def wrong(self, now_s: float, reference: Reference | None) -> dict[str, str]:
        """What is wrong, by state, in words; nothing in health. Blur is told only against a reference."""
        found: dict[str, str] = {}
        if gap := self._gap(now_s):
            found[GAP] = gap
        if self._alike >= _ALIKE:
            found[FROZEN] = f"the last {self._alike} pictures are the same, pixel by pixel"
        if len(self._looks) < _LATEST:
            return found
        brightness, sharpness = median(one.brightness for one in self._looks), median(one.sharpness for one in self._looks)
        dark, bright = _DARKEST, _BRIGHTEST
        if reference is not None:
            dark, bright = _DARK * reference.brightness.low, reference.brightness.high + _BRIGHT * (255 - reference.brightness.high)
        if brightness < dark:
            found[DARK] = f"the last {_LATEST} pictures have a mean grey of {brightness:.0f}, expected at least {dark:.0f}"
        if brightness > bright:
            found[BRIGHT] = f"the last {_LATEST} pictures have a mean grey of {brightness:.0f}, expected at most {bright:.0f}"
        # In the dark nothing is sharp: one reason is said, not two.
        if reference is not None and found.keys().isdisjoint((DARK, BRIGHT)):
            sharp = _BLURRED * reference.sharpness.low
            if sharpness < sharp:
                found[BLURRED] = f"the last {_LATEST} pictures have a sharpness of {sharpness:.1f}, expected at least {sharp:.1f}"
        return found

    def _gap(self, now_s: float) -> str:
        if len(self._seen_s) < 2:
            return ""
        spacing_s = (self._seen_s[-1] - self._seen_s[0]) / (len(self._seen_s) - 1)
        longest_s, silent_s = max(_SHORTEST_GAP_S, _SPACINGS * spacing_s), now_s - self._seen_s[-1]
        if longest_s < silent_s < longest_s + _LONGEST_GAP_S:
            return f"no picture for {silent_s:.0f} s, the latest lay {spacing_s:.1f} s apart"
        return ""
