"""Moves the outline of a round part exactly to the rim, in a picture of any size.

The part finder works on a picture of 160 px. In a large picture, its outline can be several pixels away from the rim.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.polar import FloatArray, PolarGrid, circle_to_ellipse
from models.pictures.part_finder import FoundPart

# The program looks for the rim three times, each time in a narrower band around the outline. For a radius of 100 px, the first band
# reaches 6 px from the outline.
BANDS = (0.06, 0.03, 0.015)
ANGLES = 720
# An edge is the difference of the grey levels of two rings that are this many pixels apart.
EDGE_RINGS = 5
# The grey levels are averaged over this many angles, so that texture is not mistaken for the rim.
SMOOTHED_ANGLES = 21
# The curve along the rim is fitted this many times. Each time, edges far from the curve get less weight.
FIT_ROUNDS = 12
SHARPENING = 0.7
LEAST_DISTANCE_PX = 0.7
OUTLIER_DISTANCE = 1.5

_TURN = np.arange(ANGLES) * (2 * np.pi / ANGLES)
_HARMONICS = np.stack([np.ones(ANGLES), np.cos(_TURN), np.sin(_TURN), np.cos(2 * _TURN), np.sin(2 * _TURN)], axis=1)


def refine_outline(pixels: npt.NDArray[np.uint8], part: FoundPart) -> FoundPart:
    """Returns `part` with its outline moved to the rim. `pixels`, shape (rows, columns), is the picture in which `part` was found."""
    for band in BANDS:
        radius_px = float(np.sqrt(part.semi_major_px * part.semi_minor_px))
        offsets, strength = _find_edges(pixels, part, radius_px, band)
        part = _move_outline(part, _fit_harmonics(offsets, strength, band / 2, LEAST_DISTANCE_PX / radius_px))
    return part


def _find_edges(pixels: npt.NDArray[np.uint8], part: FoundPart, radius_px: float, band: float) -> tuple[FloatArray, FloatArray]:
    """Finds the strongest edge in each direction. Returns its distances from the outline, as shares of the radius, and its strengths."""
    grid = PolarGrid(max(2 * EDGE_RINGS, round(2 * band * radius_px) + 1), ANGLES, 1 - band, 1 + band)
    grey, _ = grid.unwrap(pixels, part)
    grey = uniform_filter1d(grey, SMOOTHED_ANGLES, axis=1, mode="wrap")
    edges = np.abs(grey[EDGE_RINGS:] - grey[:-EDGE_RINGS])
    strongest = edges.argmax(axis=0)
    radii = (grid.radii[EDGE_RINGS:] + grid.radii[:-EDGE_RINGS]) / 2
    return radii[strongest] - 1, edges[strongest, np.arange(ANGLES)]


def _fit_harmonics(offsets: FloatArray, strength: FloatArray, first_distance: float, least_distance: float) -> npt.NDArray[np.float64]:
    """Fits a curve to the edges that were found around the outline. Returns five numbers: one for size, two for shift, two for shape.

    `offsets` says how far each edge is from the outline. Edges far from the curve have little weight.
    Source: graduated non-convexity (Blake, Zisserman, Visual Reconstruction, 1987).
    """
    harmonics = np.zeros(_HARMONICS.shape[1])
    harmonics[0] = np.median(offsets)
    near = first_distance
    for _ in range(FIT_ROUNDS):
        distance = offsets - _HARMONICS @ harmonics
        root = strength / (1 + np.square(distance / (OUTLIER_DISTANCE * near)))
        harmonics = np.linalg.lstsq(_HARMONICS * root[:, None], offsets * root, rcond=None)[0]
        near = max(SHARPENING * near, least_distance)
    return harmonics


def _move_outline(part: FoundPart, harmonics: npt.NDArray[np.float64]) -> FoundPart:
    size, shift, tilt = harmonics[0], harmonics[1:3], harmonics[3:5]
    matrix = circle_to_ellipse(part).astype(np.float64)
    centre = np.array((part.centre_x_px, part.centre_y_px)) + matrix @ shift
    stretched = matrix @ (np.eye(2) * (1 + size) + np.array(((tilt[0], tilt[1]), (tilt[1], -tilt[0]))))
    squares, axes = np.linalg.eigh(stretched @ stretched.T)
    angle = (np.arctan2(axes[1, 1], axes[0, 1]) + np.pi / 2) % np.pi - np.pi / 2
    return replace(
        part,
        centre_x_px=float(centre[0]),
        centre_y_px=float(centre[1]),
        semi_major_px=float(np.sqrt(squares[1])),
        semi_minor_px=float(np.sqrt(squares[0])),
        angle_rad=float(angle),
    )
