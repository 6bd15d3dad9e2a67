"""Computes from ten measured castings the settings that `castline board teach` proposes.

For each measured value, the estimate is the median over the castings. The spread is 1.4826 times the median absolute deviation. It
estimates the standard deviation, but a single wrong value hardly changes it.

A value is an outlier if its distance from the median is more than five spreads and more than 5 mm. The estimate and the spread are
computed again without the outliers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from deploy.cli.settings_file import Number
from streams.errors import GateError
from streams.settings import GateSettings

_MAD_TO_SPREAD = 1.4826
_OUTLIER_SPREADS, _LEAST_OUTLIER_MM = 5, 5.0
# The travel of a casting is its way from photo-eye 1 to photo-eye 2. `castline board teach` refuses castings whose travels differ too much,
# because such castings probably slip, or a photo-eye is loose. There are two limits:
# - At most 20 % of the travels may be outliers.
# - The spread of the travels may be at most 5 % of their median. A spread of up to 10 mm is always allowed.
_MAX_OUTLIER_SHARE, _MAX_SPREAD_SHARE, _LEAST_MAX_SPREAD_MM = 0.2, 0.05, 10.0
# The setting `window_mm` says how far from its expected place a part may reach photo-eye 2. The proposed value is six times the spread of
# the travel, but at least 15 mm. Without an encoder, it is also at least 2 % of the travel, because the belt's speed is less certain.
_WINDOW_SPREADS, _LEAST_WINDOW_MM, _TIMED_WINDOW_SHARE = 6, 15, 0.02


@dataclass(frozen=True)
class Estimate:
    """The median and the spread of measured values, without the outliers. `outliers` holds the indexes of the outliers in `values`."""

    values: tuple[float, ...]
    median: float
    spread: float
    outliers: tuple[int, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the median and the spread of `values`, computed without the outliers. `values` must not be empty."""
    centre, spread = _centre_and_spread(values)
    limit = max(_OUTLIER_SPREADS * spread, _LEAST_OUTLIER_MM)
    outliers = tuple(index for index, value in enumerate(values) if abs(value - centre) > limit)
    return Estimate(tuple(values), *_centre_and_spread([value for index, value in enumerate(values) if index not in outliers]), outliers)


def _centre_and_spread(values: Sequence[float]) -> tuple[float, float]:
    centre = median(values)
    return centre, _MAD_TO_SPREAD * median(abs(value - centre) for value in values)


@dataclass(frozen=True)
class LaneMeasurement:
    """The measured castings: their travel between the photo-eyes, the greatest length (0 if no length was measured), and their speed."""

    travel: Estimate
    longest_mm: float
    speed_mm_s: float


def evaluate(castings: Sequence[Mapping[str, int | str]], step_nm: int, gate: GateSettings) -> LaneMeasurement:
    """Computes travel, greatest length and speed from the measured castings. `step_nm` is the length of an encoder step: 0 without encoder.

    Raises GateError if the castings differ too much to learn from them.
    """

    def length_mm(casting: Mapping[str, int | str], what: str) -> float:
        steps, ms = int(casting[f"{what}_steps"]), int(casting[f"{what}_ms"])
        return steps * step_nm / 1e6 if step_nm else ms * gate.belt_mm_per_s / 1000

    travel = estimate([length_mm(casting, "travel") for casting in castings])
    if len(travel.outliers) > _MAX_OUTLIER_SHARE * len(castings) or travel.spread > max(
        _LEAST_MAX_SPREAD_MM, _MAX_SPREAD_SHARE * travel.median
    ):
        shown = ", ".join(f"{value:.0f}" for value in travel.values)
        raise GateError(
            f"The castings differ too much to learn from them. Between the photo-eyes, they moved by {shown} mm. Check that the castings "
            'do not slip, that the photo-eyes are fixed, and that the belt runs steadily. Then start "castline board teach" again. Nothing '
            "was written.",
            retriable=False,
        )
    speeds = [1000 * length_mm(casting, "travel") / int(casting["travel_ms"]) for casting in castings]
    lengths_mm = [length_mm(casting, "length") for index, casting in enumerate(castings) if index not in travel.outliers]
    return LaneMeasurement(travel, max(lengths_mm), median(speeds))


def propose_travel(measured: LaneMeasurement, gate: GateSettings, has_encoder: bool) -> dict[str, Number]:
    """Returns the settings that follow from the measured travel of the castings.

    - `travel_mm`, `eye_gap_mm`: the distance between the two photo-eyes. `eye_gap_mm` is changed only if it is already set.
    - `window_mm`: how far from its expected place a part may reach photo-eye 2.
    - `belt_mm_per_s`: the speed of the belt, only if the lane has an encoder.
    """
    travel_mm = round(measured.travel.median)
    window_mm = max(_LEAST_WINDOW_MM, math.ceil(_WINDOW_SPREADS * measured.travel.spread))
    if not has_encoder:
        window_mm = max(window_mm, math.ceil(_TIMED_WINDOW_SHARE * travel_mm))
    settings: dict[str, Number] = {"travel_mm": travel_mm, "board.window_mm": min(window_mm, travel_mm // 2, 500)}
    if "eye_gap_mm" in gate.board:
        settings["board.eye_gap_mm"] = travel_mm
    if has_encoder:
        settings["belt_mm_per_s"] = round(measured.speed_mm_s, 1)
    return settings


def propose_limits(measured: LaneMeasurement, used: Mapping[str, int | str], window_mm: Number, servo_ms: Number) -> dict[str, Number]:
    """Returns the settings `stuck_mm` and `spacing_mm` that suit the longest casting and the gate.

    - `stuck_mm`: if a photo-eye is blocked while the belt moves further than this, the board reports a fault. The value is several times
      the length of a casting.
    - `spacing_mm`: if two parts are closer than this, the board makes one decision about both. The value is long enough for the gate to
      return between two castings.
    """
    longest_mm = measured.longest_mm
    stuck_mm = max(50, 10 * math.ceil(max(3 * longest_mm, 2 * int(used["part_max_mm"])) / 10))
    return_mm = int(used["dwell_mm"]) + servo_ms / 1000 * measured.speed_mm_s
    spacing_mm = math.ceil(max(longest_mm + window_mm, return_mm))
    return {"board.stuck_mm": min(stuck_mm, 20000), "board.spacing_mm": min(spacing_mm, 2000)}
