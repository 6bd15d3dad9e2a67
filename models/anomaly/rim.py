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

# First, the program looks for the strongest edge around the outline. It searches three times, each time in a narrower band. If the radius
# is 100 px, the first band reaches 6 px to both sides of the outline.
BANDS = (0.06, 0.03, 0.015)
ANGLES = 720
# The program looks for the strongest edge on the rings around the centre. The strength of an edge is the difference between the grey
# levels of two rings that are this many pixels apart.
EDGE_RINGS = 5
# The grey levels are averaged over this many angles, so that texture is not mistaken for the rim.
SMOOTHED_ANGLES = 21
# The strongest edge can be a soft shadow inside the rim. So the program next looks for the outermost sharp edge, in four rounds.
# Each round moves the outline to the edges that it has found. Each row below belongs to one round, and has three numbers:
#   1. the width of the searched band on each side of the outline, as a share of the radius
#   2. the number of averaged angles
#   3. the least strength of an edge, as a share of the strongest edge in the same direction
SHARP_ROUNDS = ((0.03, 21, 0.4), (0.03, 31, 0.4), (0.012, 41, 1.0), (0.012, 41, 1.0))
SHARP_ANGLES = 2880
# The search for sharp edges compares the grey levels of two rings. The rings are this many pixels apart.
SHARP_RINGS = 2
# An edge is sharp if the grey level changes much at the edge, but little at a small distance from the edge. This distance is called the
# margin. The margin is this share of the radius, because a large part has softer shadows. It is at least 2 px and at most 4 px.
MARGIN_SHARE = 1 / 190
MARGIN_LIMITS_PX = (2, 4)
# In a blurred picture, the search for sharp edges finds only noise. So the median strength of the sharp edges is divided by the median
# strength of the strongest edges. If the quotient is below this limit, the outline stays at the strongest edges.
# In rendered pictures without blur, the quotient was at least 0.13. With a blur of 4 px, it was always below 0.1.
LEAST_SHARPNESS = 0.1
# The search for sharp edges covers a band on each side of the outline. The width of this band is at least this value times the margin (see
# MARGIN_SHARE). Example: with a margin of 4 px, the band is at least 10 px wide.
LEAST_BAND_MARGINS = 2.5
# A curve is fitted to the edges that were found near the rim. The fit is repeated this many times. Each time, edges far from the curve get
# less weight.
FIT_ROUNDS = 12
SHARPENING = 0.7
LEAST_DISTANCE_PX = 0.7
OUTLIER_DISTANCE = 1.5


def refine_outline(pixels: npt.NDArray[np.uint8], part: FoundPart) -> FoundPart:
    """Returns `part` with its outline moved to the rim. `pixels`, shape (rows, columns), is the picture in which `part` was found.

    The outline is moved to the outermost sharp edge. In a blurred picture, it is moved to the strongest edge.
    """
    strongest, step = _move_to_strongest_edge(pixels, part)
    sharpest, strength = _move_to_sharp_edge(pixels, strongest)
    return sharpest if strength >= LEAST_SHARPNESS * step else strongest


def _move_to_strongest_edge(pixels: npt.NDArray[np.uint8], part: FoundPart) -> tuple[FoundPart, float]:
    """Returns `part` with its outline moved to the strongest edge. Also returns the edge's median strength over all directions."""
    for band in BANDS:
        radius_px = _measure_radius(part)
        offsets, strength = _find_edges(pixels, part, radius_px, band)
        part = _move_outline(part, _fit_harmonics(offsets, strength, band / 2, LEAST_DISTANCE_PX / radius_px))
    return part, float(np.median(strength))


def _move_to_sharp_edge(pixels: npt.NDArray[np.uint8], part: FoundPart) -> tuple[FoundPart, float]:
    """Returns `part` with its outline moved to the outermost sharp edge. Also returns the edge's median strength over all directions."""
    for band, smoothed, least_share in SHARP_ROUNDS:
        radius_px = _measure_radius(part)
        margin = int(np.clip(MARGIN_SHARE * radius_px, *MARGIN_LIMITS_PX))
        wide = max(band, LEAST_BAND_MARGINS * margin / radius_px)
        offsets, strength = _find_sharp_edges(pixels, part, wide, margin, smoothed, least_share)
        part = _move_outline(part, _fit_harmonics(offsets, strength, wide / 2, LEAST_DISTANCE_PX / radius_px))
    return part, float(np.median(strength))


def _measure_radius(part: FoundPart) -> float:
    return float(np.sqrt(part.semi_major_px * part.semi_minor_px))


def _find_edges(pixels: npt.NDArray[np.uint8], part: FoundPart, radius_px: float, band: float) -> tuple[FloatArray, FloatArray]:
    """Finds the strongest edge in each direction. Returns its distance from the outline, as a share of the radius, and its strength."""
    grid = PolarGrid(max(2 * EDGE_RINGS, round(2 * band * radius_px) + 1), ANGLES, 1 - band, 1 + band)
    grey, _ = grid.unwrap(pixels, part)
    grey = uniform_filter1d(grey, SMOOTHED_ANGLES, axis=1, mode="wrap")
    edges = np.abs(grey[EDGE_RINGS:] - grey[:-EDGE_RINGS])
    strongest = edges.argmax(axis=0)
    radii = (grid.radii[EDGE_RINGS:] + grid.radii[:-EDGE_RINGS]) / 2
    return radii[strongest] - 1, edges[strongest, np.arange(ANGLES)]


def _find_sharp_edges(
    pixels: npt.NDArray[np.uint8], part: FoundPart, band: float, margin: int, smoothed: int, least_share: float
) -> tuple[FloatArray, FloatArray]:
    """Finds the outermost sharp edge in each direction. Returns its distance from the outline, as a share of the radius, and its strength.

    An edge counts only if its strength is at least `least_share` times the largest strength in the same direction.
    """
    grid = PolarGrid(round(2 * band * _measure_radius(part)) + 1, SHARP_ANGLES, 1 - band, 1 + band)
    grey, _ = grid.unwrap(pixels, part)
    grey = uniform_filter1d(grey, smoothed, axis=1, mode="wrap")
    steps = grey[SHARP_RINGS:] - grey[:-SHARP_RINGS]
    beside = (steps[2 * margin :] + steps[: -2 * margin]) / 2
    edges = np.abs(steps[margin:-margin] - beside)
    outermost = len(edges) - 1 - (edges >= least_share * edges.max(axis=0))[::-1].argmax(axis=0)
    radii = (grid.radii[SHARP_RINGS:] + grid.radii[:-SHARP_RINGS])[margin:-margin] / 2
    return radii[outermost] - 1, edges[outermost, np.arange(SHARP_ANGLES)]


def _fit_harmonics(offsets: FloatArray, strength: FloatArray, first_distance: float, least_distance: float) -> npt.NDArray[np.float64]:
    """Fits a curve to the edges that were found around the outline. Returns how the outline must change: its size, place and shape.

    The result has five numbers: one for size, two for place and two for shape. `offsets` says how far each edge is from the outline. Edges
    far from the curve have little weight.
    Source: graduated non-convexity (Blake, Zisserman, Visual Reconstruction, 1987).
    """
    turn = np.arange(len(offsets)) * (2 * np.pi / len(offsets))
    curves = np.stack([np.ones(len(offsets)), np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)], axis=1)
    harmonics = np.zeros(curves.shape[1])
    harmonics[0] = np.median(offsets)
    near = first_distance
    for _ in range(FIT_ROUNDS):
        distance = offsets - curves @ harmonics
        root = strength / (1 + np.square(distance / (OUTLIER_DISTANCE * near)))
        harmonics = np.linalg.lstsq(curves * root[:, None], offsets * root, rcond=None)[0]
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
