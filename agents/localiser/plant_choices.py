"""Holds the choices of people that the localiser needs: model versions, regions to inspect, and scales of pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from models.pictures.regions import Regions
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ModelChoices


class PlantChoices:
    """The newest records of the topics `castings.models` and `castings.lines`. A thread can read them while another thread replaces them.

    `default_version` is the model version of lines for which nobody has chosen a version.
    """

    def __init__(self, default_version: str) -> None:
        self._models = ModelChoices(default_version)
        self._lines = LiveSettingsByLine()
        self._followed: set[str] = set()

    @property
    def are_known(self) -> bool:
        """True if the topics `castings.models` and `castings.lines` have been read to their ends."""
        return self._followed == {"models", "lines"}

    def follow_models(self, choices: ModelChoices) -> None:
        """Replaces the chosen model versions."""
        self._models = choices
        self._followed.add("models")

    def follow_lines(self, settings: LiveSettingsByLine) -> None:
        """Replaces the regions and the scales of all lines."""
        self._lines = settings
        self._followed.add("lines")

    def find_versions(self, lines: Iterable[str]) -> set[str]:
        """Returns the names of the model versions that are chosen for `lines`."""
        return {self._models.find(line).version for line in lines}

    def find_mask(self, line: str, rows: int, columns: int) -> npt.NDArray[np.bool_] | None:
        """Returns the mask of the pixels that are inspected on `line`, shape (rows, columns), or None if people drew no regions."""
        regions = Regions.from_settings(self._lines.find(line))
        return None if regions is None else regions.make_mask(rows, columns)

    def find_scale(self, line: str) -> float | None:
        """Returns how many millimetres of the part one pixel of a picture of `line` shows, or None if the scale is not set."""
        live = self._lines.find(line)
        return None if live is None else live.mm_per_px
