"""Monitors the camera of each line for faults, and its pictures and predictions for drift.

A model version contains reference values: what pictures and probabilities it expects. Drift is a difference from these values. At most ten
pictures of each line are measured in a second.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from agents.inspector.background_loop import BackgroundLoop
from agents.inspector.judging import JudgedImage
from models.inference.camera_condition import GAP, STATES, CameraCondition
from models.inference.drift import MIN_PICTURES, bin_shares, compute_prediction_drift, compute_stability_index, measure_picture
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from models.registry.manifest import DriftReference
from streams import metrics

log = logging.getLogger(__name__)

# Drift is measured on this many of the latest pictures of a line.
WINDOW_PICTURES = 500
# The quantities whose drift is measured. The words are values of the label `of` of the metric `castline_drift_psi`.
PROBABILITY, BRIGHTNESS, SHARPNESS = "defect-probability", "brightness", "sharpness"
DRIFT_QUANTITIES = (PROBABILITY, BRIGHTNESS, SHARPNESS)
_MEASURE_INTERVAL_S = 0.1
_STATE_INTERVAL_S = 1.0
# The camera states are updated every second. The drift is computed only at every tenth of these updates.
_STATES_PER_DRIFT = 10


def _make_window() -> deque[float]:
    return deque(maxlen=WINDOW_PICTURES)


@dataclass
class LineMonitor:
    """The measurements of one line.

    When another model version begins to judge the line, the measurements for drift are deleted, because each version has its own reference
    values.
    """

    version: str = ""
    reference: DriftReference | None = None
    camera: CameraCondition = field(default_factory=CameraCondition)
    brightness: deque[float] = field(default_factory=_make_window)
    sharpness: deque[float] = field(default_factory=_make_window)
    probability: deque[float] = field(default_factory=_make_window)
    faults: dict[str, str] = field(default_factory=dict)
    measured_s: float = -math.inf

    def add(self, at_s: float, judged: JudgedImage, version: Version) -> None:
        """Adds an image that `version` has judged at `at_s` (monotonic seconds).

        Ignores an undecodable image, and an image less than 0.1 s after the last one.
        """
        if version.name != self.version:
            self.version, self.reference = version.name, version.manifest.reference
            self.brightness, self.sharpness, self.probability = _make_window(), _make_window(), _make_window()
        picture = judged.decoded.picture
        if at_s - self.measured_s < _MEASURE_INTERVAL_S or not isinstance(picture, DecodedPicture):
            return
        self.measured_s = at_s
        statistics = measure_picture(picture.pixels)
        self.camera.add(at_s, statistics)
        self.brightness.append(statistics.brightness)
        self.sharpness.append(statistics.sharpness)
        if isinstance(judged.prediction, Prediction) and judged.prediction.defect_probability is not None:
            self.probability.append(judged.prediction.defect_probability)

    def compute_drift(self) -> dict[str, float]:
        """Returns the population stability index of each of DRIFT_QUANTITIES.

        The result is empty if the model version has no reference values, or if too few pictures were measured.
        """
        reference = self.reference
        if reference is None or len(self.brightness) < MIN_PICTURES:
            return {}
        indices = {
            BRIGHTNESS: compute_stability_index(reference.brightness.shares, bin_shares(list(self.brightness), reference.brightness.edges)),
            SHARPNESS: compute_stability_index(reference.sharpness.shares, bin_shares(list(self.sharpness), reference.sharpness.edges)),
        }
        if reference.good is not None and reference.bad is not None:
            if len(self.probability) < MIN_PICTURES:
                return {}
            indices[PROBABILITY] = compute_prediction_drift(reference, list(self.probability))
        return indices


class DriftMonitor:
    """Monitors the cameras and the drift of `lines`. Leave out lines to which people upload pictures, because they have no camera."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = {line: LineMonitor() for line in lines}
        self._loop = BackgroundLoop()
        for line in self._lines:
            # The state `gap` means that the camera sends no pictures. Perhaps another worker gets the pictures of this line. Then only
            # that worker knows whether pictures come. So the metric of `gap` is not set to 0 here.
            for state in set(STATES) - {GAP}:
                metrics.camera_state.labels(line, state).set(0)
            for quantity in DRIFT_QUANTITIES:
                metrics.drift_psi.labels(line, quantity).set(math.nan)

    def add(self, judged: JudgedImage, version: Version, at_s: float) -> None:
        """Adds an image whose verdict was delivered. `at_s` is the current time in monotonic seconds. Ignores images of other lines."""
        line = self._lines.get(judged.decoded.record.part.line)
        if line is not None:
            line.add(at_s, judged, version)

    def update_camera_states(self, now_s: float) -> None:
        """Sets the metrics of the camera states, and logs each fault when it begins and when it ends."""
        for name, line in self._lines.items():
            if not line.version:
                continue
            faults = line.camera.find_faults(now_s, line.reference)
            for state in STATES:
                metrics.camera_state.labels(name, state).set(state in faults)
                if state in faults and state not in line.faults:
                    log.warning("The camera of %s is in the state %s: %s", name, state, faults[state], extra={"line": name})
                if state in line.faults and state not in faults:
                    log.info("The camera of %s is no longer in the state %s.", name, state, extra={"line": name})
            line.faults = faults

    def update_drift(self) -> None:
        """Sets the metric `castline_drift_psi` of each line.

        The value is NaN if the model version has no reference values, or if there are too few pictures.
        """
        for name, line in self._lines.items():
            indices = line.compute_drift()
            for quantity in DRIFT_QUANTITIES:
                metrics.drift_psi.labels(name, quantity).set(indices.get(quantity, math.nan))

    def close(self) -> None:
        """Ends the loop of `run`."""
        self._loop.close()

    async def run(self) -> None:
        """Updates the metrics of camera states and drift until `close` is called."""
        updates = 0
        while not self._loop.is_closed:
            self.update_camera_states(time.monotonic())
            updates += 1
            if updates % _STATES_PER_DRIFT == 0:
                self.update_drift()
            await self._loop.wait(_STATE_INTERVAL_S)
