"""The latency of one line's camera, from the settings or from a measurement.

The latency is the time from the count of a part at photo-eye 1 to the part's picture.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from agents.gateway.latency import DRIFT_SHARE, HIGHEST_LATENCY_S, LOWEST_LATENCY_S, LatencyMonitor, TimeHistory
from streams import metrics
from streams.atomic_file import write_atomically
from streams.clock_steps import LEAST_STEP_S

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _StoredLatency:
    """The content of the file in which the gateway keeps a measured latency. All latencies are in seconds.

    - `measured_s`: the measured latency, or None.
    - `suspended_s`: the latency that the gateway no longer trusts, or None. This latency can also come from the settings.
    - `suspension`: the reason why the gateway no longer trusts `suspended_s`, or "".
    """

    measured_s: float | None = None
    suspended_s: float | None = None
    suspension: str = ""

    @classmethod
    def read(cls, file: Path) -> _StoredLatency:
        """Reads `file`. If the file does not exist or is not valid, the result holds no latency."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            measured_s, suspended_s = (_read_latency(content.get(name)) for name in ("measured_s", "suspended_s"))
            return cls(measured_s, suspended_s, str(content.get("suspension", "")))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.error('The latency in %s cannot be read, so measure it again with "castline gateway measure": %s', file, error)
            return cls()

    def write(self, file: Path) -> None:
        """Writes this latency to `file` as JSON. Raises OSError if the file cannot be written."""
        write_atomically(file, json.dumps(vars(self)) + "\n")


def _read_latency(value: float | None) -> float | None:
    if value is not None and not LOWEST_LATENCY_S <= float(value) <= HIGHEST_LATENCY_S:
        raise ValueError(f"expected a latency between {LOWEST_LATENCY_S:g} and {HIGHEST_LATENCY_S:g} s, found {value}")
    return None if value is None else float(value)


def show_no_latency_needed(line: str) -> None:
    """Sets the latency metrics of `line` to values that raise no alert, because the camera of this line needs no latency."""
    metrics.camera_latency_known.labels(line).set(1)
    metrics.camera_latency_suspended.labels(line).set(0)
    metrics.camera_offset_share.labels(line).set(0)


class CameraLatency:
    """The latency of the camera of one line, in seconds. Not thread-safe.

    `set_s`, the latency from the settings, overrides a measured latency. `file` stores the measured latency for the next start.
    """

    def __init__(self, line: str, set_s: float | None, file: Path) -> None:
        self.line = line
        self.set_s = set_s
        self.history = TimeHistory()
        self._file = file
        self._stored = _StoredLatency.read(file)
        self._monitor: LatencyMonitor | None = None
        # The sum of the changes of this machine's clock, in seconds. After a change, the latency is not trusted until new pictures confirm
        # it. They also set this sum to 0.
        self._stepped_s = 0.0
        # The text of `suspension` before the clock of this machine was changed. If the clock is set back, this text is used again.
        self._earlier_suspension = ""
        # The matcher counts how often it has doubted the camera's clock. This is the count at the last call of `can_end_doubt`, or 0 if the
        # matcher had no doubt then.
        self._doubt = 0
        self._use_latency()

    @property
    def value_s(self) -> float | None:
        """The latency in use, or None if no latency was set or measured."""
        return self.set_s if self.set_s is not None else self._stored.measured_s

    @property
    def source(self) -> str:
        """The source of the latency in use: "settings", "measured", or "" if there is no latency."""
        if self.set_s is not None:
            return "settings"
        return "measured" if self._stored.measured_s is not None else ""

    @property
    def usable_s(self) -> float | None:
        """The latency to subtract from the time of a picture, in seconds, or None while it is unknown or no longer trusted."""
        return None if self._monitor is None or self._monitor.suspension else self._monitor.latency_s

    @property
    def suspension(self) -> str:
        """The reason why the latency in use is no longer trusted, or "" if it is trusted."""
        return self._monitor.suspension if self._monitor else ""

    @property
    def median_share(self) -> float:
        """The median delay of the last pictures, divided by the time between two parts (-0.5 to 0.5).

        Example: parts come every 2 s. If pictures come 0.1 s later than the latency in use predicts, the value is 0.05. If pictures come
        early, the value is negative.
        """
        return self._monitor.median_share if self._monitor else 0.0

    def find_problem(self) -> str:
        """Returns why the gateway assigns no pictures to parts, and what a person can do. Returns "" if it assigns pictures."""
        command = f"castline gateway measure {self.line}"
        if self._monitor is None:
            return (
                f"{self.line}: the latency of the camera is neither set nor measured, so no picture is assigned to a part; "
                f'run "{command}" while parts pass'
            )
        if self._monitor.suspension:
            return (
                f"{self.line}: the latency of {self._monitor.latency_s:.3f} s is no longer right, so no picture is assigned to a part: "
                f'{self._monitor.suspension}; check the clock of the camera, then run "{command}" while parts pass'
            )
        return ""

    def store_measured(self, latency_s: float, spacing_s: float) -> None:
        """Stores a measured latency. Raises OSError if the file cannot be written.

        If the settings contain a latency, the gateway continues to use the latency from the settings. If the measured latency is almost
        equal to it, the gateway trusts the latency from the settings again.
        """
        stored = _StoredLatency(latency_s)
        if self.set_s is not None and abs(self.set_s - latency_s) > DRIFT_SHARE * spacing_s:
            stored = replace(self._stored, measured_s=latency_s)
        stored.write(self._file)
        self._stored = stored
        self._use_latency()

    def add_part(self, time_s: float) -> None:
        """Adds a part that the board counted at `time_s`."""
        self.history.parts.append(time_s)
        if self._monitor:
            self._monitor.add_part(time_s)

    def add_picture(self, time_s: float) -> None:
        """Adds a picture that was taken at `time_s` by the camera's clock."""
        self.history.pictures.append(time_s)
        if self._monitor:
            self._monitor.add_picture(time_s)
            self._follow_suspension()

    def add_offset(self, offset_s: float, spacing_s: float) -> None:
        """Adds a picture that came `offset_s` seconds later than expected. After many large delays, the latency is no longer trusted.

        `spacing_s` is the time from the picture's part to the nearest other part, in seconds.
        """
        metrics.picture_distance_seconds.labels(self.line).observe(abs(offset_s))
        if spacing_s:
            metrics.picture_distance_share.labels(self.line).observe(abs(offset_s) / spacing_s)
        if self._monitor:
            self._monitor.add_offset(offset_s, spacing_s)
            metrics.camera_offset_seconds.labels(self.line).set(self._monitor.median_offset_s)
            metrics.camera_offset_share.labels(self.line).set(self._monitor.median_share)
            self._follow_suspension()

    def can_end_doubt(self, doubt: int) -> bool:
        """Returns True if the matcher doubts the camera's clock, and new pictures prove that the clock and the latency are right.

        Only pictures that came after the doubt began count as proof. `doubt` is the value of `Matcher.doubt`, which is 0 if the matcher
        has no doubt. Call this method after each call of the matcher.
        """
        if self._monitor is None:
            return False
        if doubt and doubt != self._doubt:
            self._monitor.forget_pictures()
        self._doubt = doubt
        return bool(doubt) and self._monitor.is_proved

    def add_clock_step(self, step_s: float) -> None:
        """Notes that the clock of this machine has jumped by `step_s` seconds, for example because a person has set the clock.

        The latency is then not trusted until new pictures confirm it. If the clock is set back by the same amount, a latency that was
        trusted before is trusted again.
        """
        self.history.parts.clear()
        self.history.pictures.clear()
        if self._monitor is None:
            return
        if not self._stepped_s:
            self._earlier_suspension = self._monitor.suspension
        self._stepped_s += step_s
        if abs(self._stepped_s) < LEAST_STEP_S:
            self._stepped_s = 0.0
            self._monitor.restart(self._earlier_suspension)
        else:
            self._monitor.restart(f"the clock of this machine was set by {self._stepped_s:+.2f} s")
        self._follow_suspension()

    def _use_latency(self) -> None:
        value_s = self.value_s
        if value_s != self._stored.suspended_s:
            self._stored = _StoredLatency(self._stored.measured_s)
        self._monitor = None if value_s is None else LatencyMonitor(value_s, self._stored.suspension)
        if not self.suspension:
            self._stepped_s = 0.0
        if self._monitor:
            # The new LatencyMonitor compares the times of pictures and parts. Some pictures that arrive next show parts that were counted
            # earlier. So it needs the times of these parts.
            for time_s in self.history.parts:
                self._monitor.add_part(time_s)
        self._show_state()

    def _follow_suspension(self) -> None:
        """Logs and stores whether the latency is trusted, if this has changed."""
        assert self._monitor is not None
        suspension = self._monitor.suspension
        if bool(suspension) == bool(self._stored.suspension):
            return
        if suspension:
            log.error("The gateway stops assigning pictures to parts. %s", self.find_problem())
        else:
            self._stepped_s = 0.0
            log.warning(
                "%s: the latency of %.3f s fits the last pictures again. The gateway assigns pictures to parts again.",
                self.line,
                self._monitor.latency_s,
            )
        suspended_s = self._monitor.latency_s if suspension else None
        self._stored = _StoredLatency(self._stored.measured_s, suspended_s, suspension)
        try:
            self._stored.write(self._file)
        except OSError as error:
            log.error("%s: the latency of the camera cannot be stored in %s: %s", self.line, self._file, error)
        self._show_state()

    def _show_state(self) -> None:
        value_s = self.value_s
        metrics.camera_latency_known.labels(self.line).set(value_s is not None)
        metrics.camera_latency_suspended.labels(self.line).set(bool(self.suspension))
        metrics.camera_offset_share.labels(self.line).set(self.median_share)
        if value_s is not None:
            metrics.camera_latency_seconds.labels(self.line).set(value_s)
