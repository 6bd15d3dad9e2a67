"""Finds the casting in a picture. Checks whether the picture shows a whole casting of the kind that the line makes.

    picture -> dark cavity -> rays from its centre -> edges -> outline -> ellipse

The part must be round, such as an impeller, and must have a dark cavity around its centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs

from models.pictures.decoder import PictureArea
from models.pictures.part_reference import MAX_SIGNATURES, SIGNATURE_RINGS, PartReference, PartRefusal
from streams.errors import ModelError

__all__ = [
    "FoundPart",
    "PartCheck",
    "PartReference",
    "PartRefusal",
    "RememberingPartFinder",
    "check_part",
    "find_odd_pictures",
    "find_part",
    "learn_part_reference",
]

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Matrix = tuple[tuple[float, float], tuple[float, float]]

# A larger picture is reduced, so that its longer side has this many pixels. The rim is then found with an error below half a pixel.
SEARCH_SIDE_PX = 160
# A picture with fewer pixels than this on its longer side is enlarged, because the search would otherwise miss narrow rings of the part.
ENLARGED_BELOW_PX = 120
MIN_SIDE_PX = 48

# A pixel is dark if its grey level is below a limit. The limit is the darkest level, plus this share of the difference between the darkest
# level and the median. Example: with the darkest level 20, the median 120 and the share 0.3, the limit is 50. The second share is tried if
# no clear rim is found with the first.
DARK_SHARES = (0.3, 0.45)
GOOD_SUPPORT = 0.7
# A picture can contain a dark cavity only if its darkest grey levels are at least this much below its median grey level.
MIN_DARK_CONTRAST = 25
# A dark region that covers less than this share of the picture is not a cavity. A usual cavity covers 8 %.
MIN_CAVITY_SHARE = 0.003
# A dark region is a cavity only if it fills at least 25 % and at most 95 % of its bounding box. A disc fills 79 % of its box, but a shadow
# at the rim fills only 20 %.
CAVITY_FILL = (0.25, 0.95)
MIN_CAVITY_ASPECT = 0.6
MAX_CAVITIES = 4

# The rim's radius is from 1.2 to 4.5 times the cavity's radius.
RIM_RANGE = (1.2, 4.5)
MAX_RIM_SHARE = 0.62
RAYS = 48
MIN_EDGE = 6.0
# On each ray, edges that are weaker than this share of the strongest edge are ignored.
MIN_RELATIVE_EDGE = 0.2
# Largest distance between the centres of rim and cavity, as a share of the rim's radius. In real pictures, it was at most 0.1.
MAX_OFFSET = 0.15
# The tilt of an outline says how oval the outline is. A circle has the tilt 0. The tilts of rim and cavity differ by at most this value.
MAX_TILT_DIFFERENCE = 0.06
# The support of an outline is the share of rays that have an edge near the outline. The rim is the outermost outline that has at least
# 90 % of the highest support.
RIM_SUPPORT_SHARE = 0.9
MIN_SUPPORT = 0.35
SUPPORT_DISTANCE_PX = 2.0
# An outline has five terms: one for its size, two for its offset and two for its tilt. The cavity is found first, and the rim has nearly
# the same offset and tilt. So the outline of the rim is fitted to its edges and also to the terms of the cavity. These numbers are the
# weights of the cavity's five terms. Each edge has the weight 1.
PRIOR_RAYS = (0.0, 2.0, 2.0, 8.0, 8.0)

# A signature describes the surface of a part from the centre to 96 % of the radius. So the belt and thin excess metal at the rim do not
# count.
SIGNATURE_REACH = 0.96
SIGNATURE_ANGLES = 48
SECTORS = 8

# A part reference can be learned only if at least 8 pictures, and at least 80 % of the given pictures, show the same part.
MIN_PICTURES = 8
MIN_KEPT_SHARE = 0.8
ODD_DISTANCE = 0.3
ODD_NEIGHBOURS = 1
# A limit lies a little outside of the range that was measured on good parts. Example: for a range from 2 to 3, the limits are 1.9 and 3.1.
ROOM_SHARE = 0.1
LEAST_ROOM = {"size": 0.04, "aspect": 0.06, "overhang": 0.03, "offset": 0.02, "support": 0.05, "asymmetry": 0.2}
# A part is refused because of its rim only if less than 70 % of the rim is visible as an edge. With a higher limit, good parts would be
# refused, because sections of a good rim can be as grey as the belt.
ENOUGH_SUPPORT = 0.7
# The number `detail` says how sharp a picture is. A picture is blurred if its detail is below 90 % of the smallest detail among the good
# pictures.
DETAIL_SHARE = 0.9
# A part is unknown if its signature is too far from all signatures of good parts. The usual distance between good parts is measured, and
# multiplied by DISTANCE_FACTOR. The result is the limit, but the limit is at least 0.35 and at most 0.42. A smaller limit would refuse
# defective parts, and a larger limit would accept objects such as washers.
DISTANCE_FACTOR = 4.0
DISTANCE_RANGE = (0.35, 0.42)
# A part counts as wholly in view if at most this share of its radius lies outside the camera's picture. The decoder adds a margin to make
# the picture square, and this margin counts as outside.
IN_VIEW_OVERHANG = 0.02

_ANGLES = np.arange(RAYS) * (2 * np.pi / RAYS)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)]).astype(np.float32)
# The radius of an outline along a ray is a weighted sum of five functions (harmonics): one for size, two for offset and two for tilt. Each
# row holds the values of the five functions for one ray.
_HARMONICS = np.stack([np.ones(RAYS), np.cos(_ANGLES), np.sin(_ANGLES), np.cos(2 * _ANGLES), np.sin(2 * _ANGLES)], axis=1).astype(
    np.float32
)
_RAY = np.arange(RAYS)
_PRIOR = (np.diag(PRIOR_RAYS) + 1e-3 * np.eye(5)).astype(np.float32)


def _invert_harmonics(rays: int, terms: int) -> Floats:
    """Returns matrices, each of which computes the terms of an outline from its radii on `rays` of the 48 rays.

    Up to five terms (harmonics) describe an outline. The matrices compute the first `terms` of them. No two matrices use the same ray. For
    example, if `rays` is 6, matrix 0 uses the rays 0, 8, 16 and so on, and matrix 1 uses the rays 1, 9, 17 and so on.
    """
    step = RAYS // rays
    return np.stack([np.linalg.pinv(_HARMONICS[first::step, :terms]) for first in range(step)]).astype(np.float32)


_FROM_SIX_RAYS = _invert_harmonics(6, 5)
_FROM_FOUR_RAYS = _invert_harmonics(4, 3)

_RHO = ((np.arange(SIGNATURE_RINGS) + 0.5) * (SIGNATURE_REACH / SIGNATURE_RINGS)).astype(np.float32)
_TURNS = np.arange(SIGNATURE_ANGLES) * (2 * np.pi / SIGNATURE_ANGLES)
_TURN_COS, _TURN_SIN = np.cos(_TURNS).astype(np.float32), np.sin(_TURNS).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FoundPart:
    """The outline of a part: an ellipse, in pixels. Pixel (0, 0) has its centre at (0, 0).

    - `angle_rad`: direction of the longer axis, -pi/2..pi/2, clockwise from the x axis.
    - `rim_support`: share of the outline with an edge, 0..1.
    """

    centre_x_px: float
    centre_y_px: float
    semi_major_px: float
    semi_minor_px: float
    angle_rad: float
    rim_support: float = 1.0

    def scale(self, factor: float) -> FoundPart:
        """Returns the outline in a resized picture, which is `factor` times as wide and as high as the original."""
        return FoundPart(
            (self.centre_x_px + 0.5) * factor - 0.5,
            (self.centre_y_px + 0.5) * factor - 0.5,
            self.semi_major_px * factor,
            self.semi_minor_px * factor,
            self.angle_rad,
            self.rim_support,
        )


@dataclass(frozen=True, slots=True)
class PartCheck:
    """The result of checking a picture. `reason` is "" if the picture shows the whole part.

    - no-part: no rim around a dark cavity was found.
    - partly-in-view: a piece of the part is out of view.
    - unknown-part: the part looks different.
    """

    reason: Literal["", PartRefusal]
    part: FoundPart | None


@dataclass(frozen=True, slots=True)
class _Cavity:
    """The dark cavity of a part, in pixels. The 2 x 2 matrix `shape` maps a circle of the same area to the outline of the cavity."""

    x_px: float
    y_px: float
    radius_px: float
    shape: Matrix


@dataclass(frozen=True, slots=True)
class _Rays:
    """The edges on rays from the cavity's centre. A ray is measured at each of `radii`.

    - `step_x`, `step_y`, shape (RAYS,): the movement of one step along a ray, in pixels.
    - `strength`, `is_edge`, `is_visible`, shape (RAYS, radii): values of each point on a ray.
    - `least_edge`, shape (RAYS,): a point on the ray needs at least this strength to be an edge.
    """

    cavity: _Cavity
    step_x: Floats
    step_y: Floats
    radii: Floats
    strength: Floats
    is_edge: Flags
    is_visible: Flags
    least_edge: Floats

    def index(self, radii: Floats) -> npt.NDArray[np.intp]:
        result: npt.NDArray[np.intp] = np.rint(radii - self.radii[0]).astype(np.intp)
        return result


class _Area(NamedTuple):
    """The borders of the original picture in a resized picture, in pixels from its left edge and its top edge."""

    left: float
    top: float
    right: float
    bottom: float

    def measure_overhang(self, part: FoundPart, reach_x: float, reach_y: float) -> float:
        """Returns how far `part` extends beyond the area, on the side where it extends farthest. Returns 0 if the part lies inside.

        `reach_x` is the distance from the part's centre to its left or right edge, and `reach_y` the distance to its upper or lower edge.
        The result is a share of the distance on that side. For example, 0.5 means half of the distance from the centre to the edge.
        """
        return max(
            (self.left + reach_x - part.centre_x_px) / reach_x,
            (part.centre_x_px + reach_x - self.right + 1) / reach_x,
            (self.top + reach_y - part.centre_y_px) / reach_y,
            (part.centre_y_px + reach_y - self.bottom + 1) / reach_y,
            0.0,
        )


@dataclass(frozen=True, slots=True)
class _Measures:
    """The measures of a part in one picture. `PartReference` explains them and holds their limits.

    `square_overhang` is the overhang beyond the border of the padded square. Only references of older releases have a limit for it.
    """

    size: float
    aspect: float
    overhang: float
    square_overhang: float
    offset: float
    support: float
    asymmetry: float
    detail: float
    signature: Floats


def find_part(pixels: npt.NDArray[np.uint8]) -> FoundPart | None:
    """Returns the outline of the part in `pixels`, shape (rows, columns), or None if no part is seen. Thread-safe.

    If the picture shows several parts, the part with the largest cavity is found. Raises no exception.
    """
    small = _resize(pixels)
    part = _find_in_resized(small)
    return part.scale(max(pixels.shape) / max(small.shape)) if part else None


class RememberingPartFinder:
    """Finds parts as `find_part` does, and keeps the results, because a training needs the part in each picture several times."""

    def __init__(self) -> None:
        self._found: dict[bytes, FoundPart | None] = {}

    def __call__(self, picture: npt.NDArray[np.uint8]) -> FoundPart | None:
        """Returns the outline of the part in `picture`, shape (rows, columns), or None if no part is seen."""
        key = picture.tobytes()
        if key not in self._found:
            self._found[key] = find_part(picture)
        return self._found[key]


def check_part(pixels: npt.NDArray[np.uint8], reference: PartReference, area: PictureArea | None = None) -> PartCheck:
    """Checks whether `pixels`, shape (rows, columns), show the whole part that `reference` describes. Thread-safe.

    `area` says which rows and columns of `pixels` show the original picture. It is None if `pixels` have no margin.
    """
    small = _resize(pixels)
    found = _find_in_resized(small)
    if found is None:
        return PartCheck("no-part", None)
    part = found.scale(max(pixels.shape) / max(small.shape))
    measures = _measure(small, found, _scale_area(area, pixels, small))
    return PartCheck(_compare(measures, reference), part)


def learn_part_reference(pictures: Iterable[npt.NDArray[np.uint8]], areas: Iterable[PictureArea] | None = None) -> PartReference:
    """Learns a part reference from `pictures`, each of shape (rows, columns). Each picture should show a whole good part.

    `areas` holds for each picture the rows and columns that show the original picture. The rest is margin. None means that no picture has a
    margin.

    Raises ModelError if fewer than MIN_PICTURES pictures, or less than the share MIN_KEPT_SHARE, show the same part.
    """
    measured = [
        _measure_picture(pixels, area)
        for pixels, area in (((pixels, None) for pixels in pictures) if areas is None else zip(pictures, areas, strict=True))
    ]
    count, kept = len(measured), _drop_odd_pictures([one for one in measured if one is not None])
    if len(kept) < MIN_PICTURES or len(kept) < MIN_KEPT_SHARE * count:
        raise ModelError(
            f"Only {len(kept)} of {count} pictures of good parts show the same whole, round part with a dark cavity. At least "
            f"{MIN_PICTURES} pictures and {MIN_KEPT_SHARE:.0%} of all pictures must show it. Remove pictures of other parts, and add "
            "pictures of this part."
        )
    return _make_reference(kept)


def find_odd_pictures(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[bool]:
    """Returns for each picture whether it shows no part, or a different part than most pictures.

    Each picture has the shape (rows, columns). Two pictures show the same part if their signatures are similar.
    """
    # scipy is imported here because only a training needs scipy, and an inspector must start quickly.
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]  # no stubs

    measured = [_measure_picture(pixels) for pixels in pictures]
    found = [index for index, one in enumerate(measured) if one is not None]
    is_odd = [True] * len(measured)
    if found:
        signatures = np.stack([one.signature for one in measured if one is not None])
        _, group_of = connected_components(_distances(signatures, signatures) <= DISTANCE_RANGE[1])
        largest = np.bincount(group_of).argmax()
        for index, group in zip(found, group_of, strict=True):
            is_odd[index] = bool(group != largest)
    return is_odd


def _measure_picture(pixels: npt.NDArray[np.uint8], area: PictureArea | None = None) -> _Measures | None:
    small = _resize(pixels)
    part = _find_in_resized(small)
    return _measure(small, part, _scale_area(area, pixels, small)) if part is not None else None


def _scale_area(area: PictureArea | None, pixels: npt.NDArray[np.uint8], small: npt.NDArray[np.uint8]) -> _Area:
    """Converts `area` from the picture `pixels` to its resized copy `small`. If `area` is None, returns the whole area of `small`."""
    height, width = small.shape
    if area is None:
        return _Area(0, 0, width, height)
    (rows, columns), (high, wide) = area, pixels.shape
    return _Area(columns.start * width / wide, rows.start * height / high, columns.stop * width / wide, rows.stop * height / high)


def _resize(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    longer = max(pixels.shape)
    if ENLARGED_BELOW_PX <= longer <= SEARCH_SIDE_PX or min(pixels.shape) < MIN_SIDE_PX:
        return pixels
    height_px, width_px = (max(1, round(side * SEARCH_SIDE_PX / longer)) for side in pixels.shape)
    resample = Image.Resampling.BOX if longer > SEARCH_SIDE_PX else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(pixels).resize((width_px, height_px), resample))


def _find_in_resized(pixels: npt.NDArray[np.uint8]) -> FoundPart | None:
    best = None
    for dark_share in DARK_SHARES if min(pixels.shape) >= MIN_SIDE_PX else ():
        part = _find_around_cavity(pixels, dark_share)
        if part is not None and (best is None or part.rim_support > best.rim_support):
            best = part
        if best is not None and best.rim_support >= GOOD_SUPPORT:
            break
    return best


def _find_around_cavity(pixels: npt.NDArray[np.uint8], dark_share: float) -> FoundPart | None:
    cavity = _find_cavity(pixels, dark_share)
    rays = _trace_rays(pixels, cavity) if cavity is not None else None
    harmonics = _choose_outline(rays) if rays is not None else None
    return _fit_rim(rays, harmonics) if rays is not None and harmonics is not None else None


def _find_cavity(pixels: npt.NDArray[np.uint8], dark_share: float) -> _Cavity | None:
    """Returns the largest dark region with the shape of a cavity, or None. Works at half the resolution, which is enough."""
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    half = (pixels[:height:2, :width:2] >> 1) + (pixels[1:height:2, 1:width:2] >> 1)
    counts = np.bincount(half.ravel(), minlength=256).cumsum()
    darkest, median = (int(level) for level in np.searchsorted(counts, (0.02 * half.size, 0.5 * half.size)))
    if median - darkest < MIN_DARK_CONTRAST:
        return None
    is_dark = _erode(half < darkest + dark_share * (median - darkest))
    labels, count = ndimage.label(is_dark)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(labels)
    for label in np.argsort(areas[1:])[::-1][:MAX_CAVITIES] + 1:
        if areas[label] < MIN_CAVITY_SHARE * half.size:
            return None
        cavity = _describe_cavity(labels[boxes[label - 1]] == label, boxes[label - 1], half.shape)
        if cavity is not None:
            return cavity
    return None


def _erode(mask: Flags) -> Flags:
    """Returns the pixels of `mask` whose eight neighbours also belong to it. This cuts thin bridges between regions."""
    rows = mask.copy()
    rows[1:] &= mask[:-1]
    rows[:-1] &= mask[1:]
    eroded = rows.copy()
    eroded[:, 1:] &= rows[:, :-1]
    eroded[:, :-1] &= rows[:, 1:]
    return eroded


def _describe_cavity(mask: Flags, box: tuple[slice, slice], halved_shape: tuple[int, ...]) -> _Cavity | None:
    """Returns the cavity whose pixels are True in `mask`, or None if these pixels do not have the shape of a cavity.

    `mask` covers the rows and columns `box` of a reduced picture, which has the shape `halved_shape`. The result is in pixels of the full
    picture, which is twice as wide and twice as high.
    """
    fill = np.count_nonzero(mask) / mask.size
    if not CAVITY_FILL[0] <= fill <= CAVITY_FILL[1]:
        return None
    (y, ry, is_cut_y), (x, rx, is_cut_x) = (
        _complete(part.start, part.stop, side, across) for part, side, across in zip(box, halved_shape, mask.shape[::-1], strict=True)
    )
    if (is_cut_x and is_cut_y) or min(rx, ry) < MIN_CAVITY_ASPECT * max(rx, ry):
        return None
    shape = ((1.0, 0.0), (0.0, 1.0)) if is_cut_x or is_cut_y else _measure_tilt(mask)
    if shape is None:
        return None
    # One pixel is added to the measured radius, because `_erode` has removed one pixel at the border of the cavity.
    return _Cavity(2 * x - 0.5, 2 * y - 0.5, 2 * (math.sqrt(rx * ry) + 1), shape)


def _measure_tilt(mask: Flags) -> Matrix | None:
    """Returns the symmetric matrix that stretches a circle to the ellipse of `mask`, or None if the ellipse is too narrow for a cavity.

    The function computes the square root of a 2 x 2 matrix. Source: Levinger, Mathematics Magazine 53(4), 1980.
    """
    pixels = mask.astype(np.float32)
    rows, columns = np.arange(len(mask), dtype=np.float32), np.arange(mask.shape[1], dtype=np.float32)
    in_columns, in_rows = pixels.sum(axis=0), pixels.sum(axis=1)
    count = float(in_rows.sum())
    mean_x, mean_y = float(in_columns @ columns) / count, float(in_rows @ rows) / count
    columns -= np.float32(mean_x)
    rows -= np.float32(mean_y)
    xx, yy = float(in_columns @ (columns * columns)) / count, float(in_rows @ (rows * rows)) / count
    xy = float(rows @ pixels @ columns) / count
    middle, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    if middle <= spread or middle - spread < MIN_CAVITY_ASPECT**2 * (middle + spread):
        return None
    root = math.sqrt(middle**2 - spread**2)
    size = math.sqrt(root) * math.sqrt(2 * (middle + root))
    return ((xx + root) / size, xy / size), (xy / size, (yy + root) / size)


def _complete(start: int, stop: int, side: int, across: int) -> tuple[float, float, bool]:
    """Measures the cavity along one axis of the picture, even if the border of the picture cuts the cavity.

    Returns the middle of the cavity, half its length, and whether it is cut. The visible cavity goes from `start` to `stop` on this axis,
    and has the length `across` on the other axis. A cut cavity is taken to be round, so its full length is `across`.
    """
    is_cut = (start <= 1) != (stop >= side - 1) and stop - start < across
    if not is_cut:
        return (start + stop) / 2, (stop - start) / 2, False
    return (stop - across / 2 if start <= 1 else start + across / 2), across / 2, True


def _trace_rays(pixels: npt.NDArray[np.uint8], cavity: _Cavity) -> _Rays | None:
    """Measures edges along rays from the cavity's centre. Returns None if fewer than 8 points can be measured on a ray."""
    height, width = pixels.shape
    first, last = RIM_RANGE[0] * cavity.radius_px, min(RIM_RANGE[1] * cavity.radius_px, MAX_RIM_SHARE * max(height, width))
    radii = np.arange(first, last, 1, dtype=np.float32)
    if len(radii) < 8:
        return None
    step_x, step_y = np.array(cavity.shape, np.float32) @ _DIRECTIONS
    # `x` and `y` are unsigned, so a negative position becomes a very large number. Therefore, `x < width` is False on both sides of the
    # picture.
    x = (step_x[:, None] * radii + np.float32(cavity.x_px + 0.5 + width)).astype(np.uint32) - np.uint32(width)
    y = (step_y[:, None] * radii + np.float32(cavity.y_px + 0.5 + height)).astype(np.uint32) - np.uint32(height)
    is_visible = (x < width) & (y < height)
    y *= np.uint32(width)
    y += x
    y *= is_visible
    levels = pixels.ravel()[y].astype(np.float32)
    # The grey levels of each ray are added to those of the two rays beside it. This suppresses the texture of the belt, but not the rim.
    around = np.concatenate([levels[-1:], levels, levels[:1]])
    levels += around[:-2]
    levels += around[2:]
    pairs = levels[:, 1:] + levels[:, :-1]
    strength = np.zeros_like(levels)
    np.abs(pairs[:, 3:] - pairs[:, :-3], out=strength[:, 2:-2])
    strength *= np.float32(1 / 6)
    strength[:, :-2] *= is_visible[:, 2:]
    strongest = strength.max(axis=1)
    least = np.maximum(MIN_RELATIVE_EDGE * np.maximum(strongest, _median(strongest)), MIN_EDGE)
    is_edge = np.zeros_like(is_visible)
    inner = strength[:, 1:-1]
    is_edge[:, 1:-1] = (inner >= strength[:, :-2]) & (inner > strength[:, 2:]) & (inner > least[:, None])
    return _Rays(cavity, step_x, step_y, radii, strength, is_edge, is_visible, least)


def _median(values: Floats) -> Floats:
    """Returns the medians along the last axis. `np.median` takes 30 us for a few values, this function 3 us."""
    ordered = np.sort(values, axis=-1)
    count = values.shape[-1]
    result: Floats = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) * np.float32(0.5)
    return result


def _choose_outline(rays: _Rays) -> Floats | None:
    """Returns the outline of the rim as five terms of its radius (harmonics), shape (5,), or None if no outline is found.

    The rim has an edge on many rays. Rings farther inside can also have edges on many rays. So the outermost of these outlines is the rim.

    Source: RANSAC (Fischler and Bolles, Comm. ACM 24(6), 1981), but with fixed samples.
    """
    has_edge = rays.is_edge.any(axis=1)
    if np.count_nonzero(has_edge) < MIN_SUPPORT * RAYS:
        return None
    last = len(rays.radii) - 1
    outermost = last - rays.is_edge[:, ::-1].argmax(axis=1)
    others = rays.is_edge.copy()
    others[_RAY, outermost] = False
    second = np.where(others.any(axis=1), last - others[:, ::-1].argmax(axis=1), outermost)
    strongest = np.where(rays.is_edge, rays.strength, 0).argmax(axis=1)
    candidates = rays.radii[np.stack([outermost, second, strongest])]
    middle = _median(candidates[:, has_edge])
    candidates = np.where(has_edge, candidates, middle[:, None])
    outlines = np.zeros((3, len(_FROM_SIX_RAYS) + len(_FROM_FOUR_RAYS) + 1, 5), np.float32)
    outlines[:, : len(_FROM_SIX_RAYS)] = _solve_samples(_FROM_SIX_RAYS, candidates)
    outlines[:, len(_FROM_SIX_RAYS) : -1, :3] = _solve_samples(_FROM_FOUR_RAYS, candidates)
    outlines[:, -1, 0] = middle
    return _best_supported(rays, outlines.reshape(-1, 5))


def _solve_samples(inverses: Floats, candidates: Floats) -> Floats:
    """Computes outlines from samples. A sample is 4 or 6 edges on different rays from the centre.

    - `inverses`: a matrix for each sample (see `_invert_harmonics`).
    - `candidates`, shape (3, RAYS): the radii of three possible edges of the rim on each ray.

    Returns the outlines, shape (3, samples, terms). An outline from 4 edges has 3 terms: one for the size and two for the offset. An
    outline from 6 edges has 2 more terms, for the tilt.
    """
    samples, _, rays = inverses.shape
    radii = candidates.reshape(3, rays, samples).transpose(2, 1, 0)
    result: Floats = (inverses @ radii).transpose(2, 0, 1)
    return result


def _best_supported(rays: _Rays, outlines: Floats) -> Floats | None:
    """Returns the best of `outlines`, shape (n, 5), or None if no outline fits the cavity.

    The support of an outline is the share of rays with an edge near the outline. Of all outlines with nearly the highest support, the
    outermost is the best.
    """
    size = outlines[:, 0]
    is_possible = (np.hypot(outlines[:, 1], outlines[:, 2]) < MAX_OFFSET * size) & (
        np.hypot(outlines[:, 3], outlines[:, 4]) < MAX_TILT_DIFFERENCE * size
    )
    outlines = outlines[is_possible]
    if not len(outlines):
        return None
    index = rays.index(outlines @ _HARMONICS.T)
    is_inside = (index >= 0) & (index < len(rays.radii))
    index = np.minimum(np.maximum(index, 0), len(rays.radii) - 1)
    is_near_edge = rays.is_edge.copy()
    is_near_edge[:, 1:] |= rays.is_edge[:, :-1]
    is_near_edge[:, :-1] |= rays.is_edge[:, 1:]
    edges = np.count_nonzero(is_near_edge[_RAY, index] & is_inside, axis=1)
    visible = np.count_nonzero(rays.is_visible[_RAY, index] & is_inside, axis=1)
    # The support is the share of rays with an edge near the outline. A ray whose point on the outline lies outside the picture cannot have
    # an edge there, so it counts as half a ray.
    support = edges / (0.5 * (visible + RAYS))
    size = outlines[:, 0]
    outermost = np.where(support >= RIM_SUPPORT_SHARE * support.max(), size, -1).max()
    best: Floats = outlines[np.where(np.abs(size - outermost) < 0.05 * outermost, support, -1).argmax()]
    return best


def _fit_rim(rays: _Rays, harmonics: Floats) -> FoundPart | None:
    """Returns the ellipse of the rim, or None if too few rays have an edge near the rim. `harmonics` is a first, rough outline."""
    radii, last = rays.radii, len(rays.radii) - 1
    for distance in (5, 3):
        outline = _HARMONICS @ harmonics
        offsets = np.arange(-distance, distance + 1)
        index = np.minimum(np.maximum(rays.index(outline)[:, None] + offsets, 0), last)
        nearest = index[_RAY, (rays.strength[_RAY[:, None], index] * (1 - 0.5 * (offsets / (distance + 1)) ** 2)).argmax(axis=1)]
        residuals = radii[nearest] - outline
        is_used = (rays.strength[_RAY, nearest] > 0.7 * rays.least_edge) & (np.abs(residuals) <= distance + 0.5)
        harmonics = _fit_harmonics(radii[nearest], is_used / (1 + (residuals / 1.5) ** 2))
    edges = _refine_edges(rays, nearest)
    harmonics = _fit_harmonics(edges, is_used / (1 + (edges - _HARMONICS @ harmonics) ** 2))
    outline = _HARMONICS @ harmonics
    support = np.count_nonzero(is_used & (np.abs(edges - outline) < SUPPORT_DISTANCE_PX)) / RAYS
    if support < MIN_SUPPORT or outline.min() <= 0:
        return None
    return fit_ellipse(rays.cavity.x_px + rays.step_x * outline, rays.cavity.y_px + rays.step_y * outline, support)


def _fit_harmonics(radii: Floats, weights: npt.NDArray[np.floating]) -> Floats:
    """Returns the outline that fits `radii` best (weighted least squares), shape (5,).

    The five values are terms of the outline's radius (harmonics). Of outlines that fit almost equally well, the function prefers an outline
    with the centre and the tilt of the part's cavity.
    """
    weighted = _HARMONICS * weights[:, None].astype(np.float32)
    result: Floats = np.linalg.solve(weighted.T @ _HARMONICS + _PRIOR, weighted.T @ radii)
    return result


def _refine_edges(rays: _Rays, nearest: npt.NDArray[np.intp]) -> Floats:
    """Returns the radius of the edge on each ray, more precisely than one pixel. `nearest` holds the index of the edge's pixel on each ray.

    The edge is at the top of the parabola through the strengths of this pixel and of the pixels before and after it.
    """
    middle = np.minimum(np.maximum(nearest, 1), len(rays.radii) - 2)
    before, at, after = (rays.strength[_RAY, middle + step] for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    is_peak = curvature < -1e-3
    shift = np.where(is_peak, 0.5 * (before - after) / np.where(is_peak, curvature, 1), 0).clip(-0.6, 0.6)
    result: Floats = rays.radii[middle] + shift
    return result


def fit_ellipse(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating], rim_support: float = 1.0) -> FoundPart | None:
    """Returns the ellipse that fits the points (`x`, `y`) best, or None if no ellipse fits. The points must lie all around their mean.

    Solves a u^2 + b u v + c v^2 + d u + e v = 1 by least squares. u and v are measured from the mean of the points.
    """
    middle_x, middle_y = float(x.mean()), float(y.mean())
    u, v = x.astype(np.float64) - middle_x, y.astype(np.float64) - middle_y
    unit = math.sqrt(max(float(u @ u + v @ v) / len(u), 1e-12))
    u /= unit
    v /= unit
    terms = np.stack([u * u, u * v, v * v, u, v])
    try:
        a, b, c, d, e = np.linalg.solve(terms @ terms.T, terms.sum(axis=1)).tolist()
    except np.linalg.LinAlgError:
        return None
    determinant = b * b - 4 * a * c
    if determinant >= 0:
        return None
    centre_u, centre_v = (2 * c * d - b * e) / determinant, (2 * a * e - b * d) / determinant
    level = 1 + a * centre_u**2 + b * centre_u * centre_v + c * centre_v**2
    # The two eigenvalues of the matrix ((a, b / 2), (b / 2, c)) give the lengths of the ellipse's two half axes.
    middle, spread = (a + c) / 2, math.hypot((a - c) / 2, b / 2)
    if middle - spread <= 0 or level <= 0:
        return None
    major, minor = (unit * math.sqrt(level / value) for value in (middle - spread, middle + spread))
    angle = math.atan2(-b, c - a) / 2
    return FoundPart(centre_u * unit + middle_x, centre_v * unit + middle_y, major, minor, angle, rim_support)


def _measure(pixels: npt.NDArray[np.uint8], part: FoundPart, area: _Area) -> _Measures:
    height, width = pixels.shape
    cos, sin = math.cos(part.angle_rad), math.sin(part.angle_rad)
    major, minor = part.semi_major_px, part.semi_minor_px
    x = np.rint(part.centre_x_px + _RHO[:, None] * (major * cos * _TURN_COS - minor * sin * _TURN_SIN)).astype(np.int32)
    y = np.rint(part.centre_y_px + _RHO[:, None] * (major * sin * _TURN_COS + minor * cos * _TURN_SIN)).astype(np.int32)
    levels = pixels[np.minimum(np.maximum(y, 0), height - 1), np.minimum(np.maximum(x, 0), width - 1)].astype(np.float32)
    weights = _RHO / _RHO.sum()
    rings = levels.mean(axis=1)
    mean = float(weights @ rings)
    spread = math.sqrt(float(weights @ (rings - mean) ** 2)) + 1.0
    levels = (levels - mean) / spread
    rings = levels.mean(axis=1)
    sectors = levels.reshape(SIGNATURE_RINGS, SECTORS, -1).mean(axis=2) - rings[:, None]
    differences = np.sqrt(np.square(sectors).mean(axis=0))
    reach_x, reach_y = math.hypot(major * cos, minor * sin), math.hypot(major * sin, minor * cos)
    overhang, square = area.measure_overhang(part, reach_x, reach_y), _Area(0, 0, width, height)
    offset = math.hypot(part.centre_x_px - (area.left + area.right - 1) / 2, part.centre_y_px - (area.top + area.bottom - 1) / 2)
    return _Measures(
        size=math.sqrt(major * minor) / max(height, width),
        aspect=minor / major,
        overhang=overhang,
        square_overhang=overhang if area == square else square.measure_overhang(part, reach_x, reach_y),
        offset=offset / max(height, width),
        support=part.rim_support,
        # `differences` says how much the brightness of each of the 8 sectors differs from the whole part. The second largest difference is
        # used, because the sector with the largest one may contain a defect or a reflection.
        asymmetry=float(np.sort(differences)[-2]),
        detail=float(np.abs(levels[1:] - levels[:-1]).sum(axis=0).mean()),
        signature=np.concatenate([rings, levels.std(axis=1)]),
    )


def _compare(measures: _Measures, reference: PartReference) -> Literal["", "partly-in-view", "unknown-part"]:
    """Returns why a picture with these measures does not show the whole part of `reference`, or "" if it does."""
    # The rim of a large part may lie a little out of view. The part is refused only if it is also away from the middle.
    is_displaced = measures.overhang > IN_VIEW_OVERHANG and measures.offset > reference.most_offset
    overhang = measures.overhang if reference.border == "picture" else measures.square_overhang
    if overhang > reference.most_overhang or is_displaced:
        return "partly-in-view"
    return "" if _is_known(measures, reference) else "unknown-part"


def _is_known(measures: _Measures, reference: PartReference) -> bool:
    return (
        reference.least_size <= measures.size <= reference.most_size
        and measures.aspect >= reference.least_aspect
        and measures.support >= reference.least_support
        and measures.asymmetry <= reference.most_asymmetry
        and measures.detail >= reference.least_detail
        and float(_distances(measures.signature[None], reference.signature_array).min()) <= reference.most_distance
    )


def _distances(left: Floats, right: Floats) -> Floats:
    """Compares each row of `left` with each row of `right`. Returns root mean square differences, shape (len(left), len(right))."""
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1) - 2 * left @ right.T
    result: Floats = np.sqrt(np.maximum(squares, 0) / left.shape[1])
    return result


def _drop_odd_pictures(measured: list[_Measures]) -> list[_Measures]:
    """Returns `measured` without the odd pictures. A picture is odd if it differs from every other picture by more than ODD_DISTANCE."""
    if len(measured) <= ODD_NEIGHBOURS:
        return []
    signatures = np.stack([one.signature for one in measured])
    nearest = np.partition(_distances(signatures, signatures), ODD_NEIGHBOURS, axis=1)[:, ODD_NEIGHBOURS]
    return [one for one, distance in zip(measured, nearest, strict=True) if distance <= ODD_DISTANCE]


def _make_reference(measured: list[_Measures]) -> PartReference:
    signatures = np.stack([one.signature for one in measured])
    chosen = _choose_signatures(signatures)
    distances = _distances(signatures, signatures)
    np.fill_diagonal(distances, np.inf)
    usual = float(np.quantile(distances.min(axis=1), 0.99))

    def limits(name: str) -> tuple[float, float]:
        values = [float(getattr(one, name)) for one in measured]
        room = max(ROOM_SHARE * (max(values) - min(values)), LEAST_ROOM[name])
        return min(values) - room, max(values) + room

    return PartReference(
        pictures=len(measured),
        least_size=round(max(limits("size")[0], 0.01), 4),
        most_size=round(limits("size")[1], 4),
        least_aspect=round(max(limits("aspect")[0], 0), 4),
        border="picture",
        most_overhang=round(limits("overhang")[1], 4),
        most_offset=round(limits("offset")[1], 4),
        least_support=round(min(limits("support")[0], ENOUGH_SUPPORT), 4),
        most_asymmetry=round(limits("asymmetry")[1], 4),
        least_detail=round(DETAIL_SHARE * min(one.detail for one in measured), 4),
        most_distance=round(min(max(DISTANCE_FACTOR * usual, DISTANCE_RANGE[0]), DISTANCE_RANGE[1]), 4),
        signatures=tuple(tuple(round(float(value), 3) for value in signatures[index]) for index in chosen),
    )


def _choose_signatures(signatures: Floats) -> list[int]:
    """Returns the indices of at most MAX_SIGNATURES signatures.

    First, the signature nearest to the mean is chosen. Then, in each step, the signature farthest from all chosen signatures is added.
    """
    chosen = [int(_distances(signatures, signatures.mean(axis=0, keepdims=True))[:, 0].argmin())]
    nearest = _distances(signatures, signatures[chosen])[:, 0]
    while len(chosen) < min(MAX_SIGNATURES, len(signatures)) and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(signatures, signatures[chosen[-1:]])[:, 0])
    return chosen
