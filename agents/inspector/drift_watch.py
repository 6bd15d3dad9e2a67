"""Is each line's camera well, and does the version in force still see what it was made for: from delivered pictures to metrics and log.

Seen on the event loop after the delivery, at most ten pictures of a line a second: a busy line's pictures show its camera no better
than some of them. Judged once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from agents.inspector.judging import Judged
from models.inference.camera_condition import GAP, STATES, CameraCondition
from models.inference.drift import MIN_PICTURES, bin_shares, compute_prediction_drift, compute_stability_index, measure_picture
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.registry import Version
from models.registry.manifest import DriftReference
from streams import metrics

log = logging.getLogger(__name__)

WINDOW = 500  # pictures that are held against the reference
PROBABILITY, BRIGHTNESS, SHARPNESS = "defect-probability", "brightness", "sharpness"
OF = (PROBABILITY, BRIGHTNESS, SHARPNESS)
_LOOKED_EVERY_S = 0.1
_JUDGED_EVERY_S = 1.0
_COMPARED_EVERY = 10  # times of judging


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


@dataclass
class LineDrift:
    """The latest pictures of one line, as the version that judged them takes and calls them; another version begins anew."""

    version: str = ""
    reference: DriftReference | None = None
    camera: CameraCondition = field(default_factory=CameraCondition)
    brightness: deque[float] = field(default_factory=_window)
    sharpness: deque[float] = field(default_factory=_window)
    probability: deque[float] = field(default_factory=_window)
    wrong: dict[str, str] = field(default_factory=dict)
    looked_s: float = -math.inf

    def see(self, at_s: float, judged: Judged, version: Version) -> None:
        """The next picture; one that could not be read says nothing about the camera but that it lives."""
        if version.name != self.version:
            self.version, self.reference = version.name, version.manifest.reference
            self.brightness, self.sharpness, self.probability = _window(), _window(), _window()
        picture = judged.decoded.picture
        if at_s - self.looked_s < _LOOKED_EVERY_S or not isinstance(picture, DecodedPicture):
            return
        self.looked_s = at_s
        seen = measure_picture(picture.pixels)
        self.camera.add(at_s, seen)
        self.brightness.append(seen.brightness)
        self.sharpness.append(seen.sharpness)
        if isinstance(judged.opinion, Prediction):
            self.probability.append(judged.opinion.defect_probability)

    def indices(self) -> dict[str, float]:
        """Stability indices by what they are of; none without a reference, nor of a few pictures."""
        reference = self.reference
        if reference is None or min(len(self.brightness), len(self.probability)) < MIN_PICTURES:
            return {}
        return {
            PROBABILITY: compute_prediction_drift(reference, list(self.probability)),
            BRIGHTNESS: compute_stability_index(reference.brightness.shares, bin_shares(list(self.brightness), reference.brightness.edges)),
            SHARPNESS: compute_stability_index(reference.sharpness.shares, bin_shares(list(self.sharpness), reference.sharpness.edges)),
        }


class DriftWatch:
    """Watches `lines` from the first picture of each on. Lines whose pictures people bring have no camera: leave them out."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = {line: LineDrift() for line in lines}
        self._closed = asyncio.Event()
        for line in self._lines:
            # `gap` begins with the first picture: a worker that never had the line knows of no gap.
            for state in set(STATES) - {GAP}:
                metrics.camera_state.labels(line, state).set(0)
            for what in OF:
                metrics.drift_psi.labels(line, what).set(math.nan)

    def see(self, judged: Judged, version: Version, at_s: float) -> None:
        """A picture whose verdict is out; `at_s` on the monotonic clock."""
        line = self._lines.get(judged.decoded.arrival.part.line)
        if line is not None:
            line.see(at_s, judged, version)

    def judge(self, now_s: float) -> None:
        """Shows what is wrong with the cameras, and says what has changed."""
        for name, line in self._lines.items():
            if not line.version:
                continue
            wrong = line.camera.find_faults(now_s, line.reference)
            for state in STATES:
                metrics.camera_state.labels(name, state).set(state in wrong)
                if state in wrong and state not in line.wrong:
                    log.warning("%s: camera %s: %s", name, state, wrong[state], extra={"line": name})
                if state in line.wrong and state not in wrong:
                    log.info("%s: camera no longer %s", name, state, extra={"line": name})
            line.wrong = wrong

    def compare(self) -> None:
        """Shows how far pictures and answers are from the reference."""
        for name, line in self._lines.items():
            indices = line.indices()
            for what in OF:
                metrics.drift_psi.labels(name, what).set(indices.get(what, math.nan))

    def close(self) -> None:
        """Ends `run`."""
        self._closed.set()

    async def run(self) -> None:
        """Judges every second, compares every ten, until closed."""
        turn = 0
        while not self._closed.is_set():
            self.judge(time.monotonic())
            turn += 1
            if turn % _COMPARED_EVERY == 0:
                self.compare()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _JUDGED_EVERY_S)
