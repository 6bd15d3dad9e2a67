"""Explains one picture: draws what a model version found in it, side by side, with the verdict below."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from models.anomaly.memory_autoencoder import MemoryAutoencoder
from models.anomaly.scorer import scale_scores
from models.anomaly.version_scorers import VersionScorer
from models.inference.defect_locator import DefectLocator
from models.inference.ensemble import Ensemble, inspect_picture, judge_pictures
from models.inference.heat_map import DefectMap, HeatBox, crop_to_picture
from models.inference.soft_vote import Prediction
from models.pictures.decoder import DecodedPicture
from models.pictures.display import overlay_heat_map
from models.pictures.part_finder import FoundPart, PartCheck, find_part

_MAX_COLUMNS = 4
_PANEL_IN = 3.6
_OUTLINE_COLOUR, _BOX_COLOUR = "#00a0ff", "#ffb000"
_BOX_TEXT: dict[str, Any] = {"color": _BOX_COLOUR, "fontsize": 8, "clip_on": True, "bbox": {"facecolor": "black", "pad": 1, "linewidth": 0}}


@dataclass(frozen=True)
class Explanation:
    """The result of judging one picture, with everything that was found in it.

    The picture and the residuals are squares of `side_px` pixels, as the networks see them.

    - `prediction`: None if the picture does not show the whole part.
    - `part`: the outline of the part, or None if no part was found.
    - `residuals`: the residual map of each scorer that has learned from good parts alone, 0..1, with the cut-off at 0.5.
    - `rebuilt`: the picture as the autoencoder rebuilds it, or None without an autoencoder.
    - `defects`: the heat map of the original picture, without the margins that made the picture square, or None.
    - `boxes`: boxes around defects, in pixels of the original picture.
    """

    version: str
    threshold: float
    picture: DecodedPicture
    check: PartCheck | None
    part: FoundPart | None
    prediction: Prediction | None
    rebuilt: npt.NDArray[np.float32] | None
    residuals: dict[str, npt.NDArray[np.float32]]
    defects: DefectMap | None
    boxes: tuple[HeatBox, ...]

    @property
    def label(self) -> str:
        """The label that the version gives to the picture: ok, defect or review."""
        return self.prediction.label if self.prediction else "review"

    @property
    def reason(self) -> str:
        """The reason for the label `review`, or "" for another label."""
        if self.prediction:
            return self.prediction.reason
        return self.check.reason if self.check else ""

    def describe(self) -> str:
        """Returns the verdict in one line of text: label, reason, defect probability, threshold, votes and scores."""
        facts = [f"version {self.version}", f"label {self.label}"]
        if self.reason:
            facts.append(f"reason {self.reason}")
        if self.prediction and self.prediction.defect_probability is not None:
            facts.append(f"defect probability {self.prediction.defect_probability:.4f} (threshold {self.threshold:.4f})")
        if self.prediction and self.prediction.votes:
            facts.append("votes " + ", ".join(f"{name} {vote:.3f}" for name, vote in self.prediction.votes.items()))
        if self.prediction and self.prediction.scores:
            facts.append("scores " + ", ".join(f"{name} {score:.3f}" for name, score in self.prediction.scores.items()) + " (cut-off 0.5)")
        return "; ".join(facts)

    def draw(self) -> bytes:
        """Returns the explanation as a PNG file: one panel for each thing that the version found, and the verdict below."""
        pixels = self.picture.pixels
        panels = 4 + len(self.residuals) + (self.rebuilt is not None)
        rows = -(-panels // _MAX_COLUMNS)
        columns = -(-panels // rows)
        figure = Figure(figsize=(columns * _PANEL_IN, rows * (_PANEL_IN + 0.3) + 0.6), layout="constrained")
        places = iter(figure.subplots(rows, columns, squeeze=False).flat)
        _show(next(places), "picture, as the networks see it", pixels)
        _draw_part(_show(next(places), f"found part: {self._describe_part()}", pixels), self.part)
        if self.rebuilt is not None:
            _show(next(places), "reconstruction by the autoencoder", self.rebuilt, 0.0, 1.0)
        for name, residual in self.residuals.items():
            _show(next(places), f"residual of {name}\nred: above the cut-off", _mark_above_cut_off(pixels, residual))
        if self.defects is None:
            _show(next(places), "no heat map was made", pixels)
        else:
            shown = crop_to_picture(pixels, self.picture.width_px, self.picture.height_px)
            _show(next(places), f"heat map by {self.defects.method}", np.asarray(overlay_heat_map(shown, self.defects.heat)))
        self._draw_boxes(_show(next(places), f"boxes: {len(self.boxes)}", pixels))
        for unused in places:
            unused.axis("off")
        figure.supxlabel(self.describe(), fontsize=9, wrap=True)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def _describe_part(self) -> str:
        if self.check is None:
            return "not checked by this version" if self.part else "none"
        return self.check.reason or "whole"

    def _draw_boxes(self, axes: Axes) -> None:
        rows, columns = self.picture.area
        scale = len(self.picture.pixels) / max(self.picture.width_px, self.picture.height_px)
        for box in self.boxes:
            corner = (columns.start + box.left_px * scale - 0.5, rows.start + box.top_px * scale - 0.5)
            axes.add_patch(Rectangle(corner, box.width_px * scale, box.height_px * scale, fill=False, edgecolor=_BOX_COLOUR))
            axes.text(corner[0], corner[1] - 2, f"{box.kind} {box.score:.2f}".strip(), **_BOX_TEXT)


def explain_picture(ensemble: Ensemble, locator: DefectLocator | None, picture: DecodedPicture) -> Explanation:
    """Judges a picture as the inspector does, without the settings of a line, and collects what the version found.

    `locator` makes the heat map, or is None. If the version searches for small defects, `picture` must hold its original pixels.
    """
    pixels = picture.pixels
    inspected = inspect_picture(picture, ensemble)
    check = inspected.check
    part = check.part if check else find_part(pixels)
    (judged,) = judge_pictures([inspected], ensemble)
    prediction = judged if isinstance(judged, Prediction) else None
    defects: DefectMap | None = None
    boxes: list[HeatBox] = []
    if prediction is not None and locator is not None:
        defects = locator.locate(picture, prediction.label, prediction.scores)
        boxes = defects.find_boxes(picture.width_px, picture.height_px) if defects else []
    residuals = {opened.name: _compute_residual(opened, pixels) for opened in ensemble.scorers}
    autoencoders = [opened.scorer for opened in ensemble.scorers if isinstance(opened.scorer, MemoryAutoencoder)]
    rebuilt = autoencoders[0].rebuild(pixels, part) if autoencoders and part is not None else None
    return Explanation(
        ensemble.version_name, ensemble.threshold, picture, check, part, prediction, rebuilt, residuals, defects, tuple(boxes)
    )


def _compute_residual(opened: VersionScorer, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return scale_scores(opened.scorer.score(pixels[np.newaxis]).residuals[0], opened.cut_off)


def _mark_above_cut_off(pixels: npt.NDArray[np.uint8], residual: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns the picture with red places where the residual is above the cut-off. A larger residual gives a stronger red.

    If the residual is at least twice the cut-off, the place is fully red.
    """
    return np.asarray(overlay_heat_map(pixels, np.clip((residual - 0.5) * 6, 0, 1).astype(np.float32)))


def _show(axes: Axes, title: str, pixels: npt.NDArray[np.generic], low: float = 0, high: float = 255) -> Axes:
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")
    return axes


def _draw_part(axes: Axes, part: FoundPart | None) -> None:
    if part is not None:
        size = (2 * part.semi_major_px, 2 * part.semi_minor_px)
        centre = (part.centre_x_px, part.centre_y_px)
        axes.add_patch(
            Ellipse(centre, *size, angle=float(np.degrees(part.angle_rad)), fill=False, edgecolor=_OUTLINE_COLOUR, linewidth=1.5)
        )
