"""Measures how well heat maps show where the defects are, by comparing them with masks.

    pictures + masks -> a heat map of each picture from each source -> figures of each source, for example the AUPRO

A source is any function from a picture to a heat map, for example Grad-CAM. A source must use the same scale for all its maps.

Masks and heat maps are compared on a grid whose longer side has 300 cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # no stubs among the locked packages

from models.anomaly.scorer import GoodOnlyScorer
from models.anomaly.version_scorers import open_scorers
from models.inference.defect_locator import CombinedMapper, HeatMapper, ResidualMapper
from models.inference.heat_map import HeatMap, crop_to_picture, find_boxes
from models.pictures.decoder import PictureLimits, decode_picture
from models.pictures.display import read_picture_header
from models.registry import Version
from models.registry.version_report import LocalisationFigures, LocalisationReport, Proportion
from models.training.labelled_pictures import LabelledFile
from models.training.marked_pictures import MIN_COVER, find_mask_key, list_masks, read_mask
from streams.errors import ModelError, PictureError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

# Heat maps and masks are compared on a grid with this many cells along its longer side. In a picture of 300 px, a cell is one pixel.
GRID_SIDE_PX = 300
# If the hottest cell of a heat map is at most this many cells away from a defect, the map points at the defect.
NEAR_PX = 8.0
# AUPRO counts false positive rates up to this limit, as in the paper that defines AUPRO.
AUPRO_LIMIT = 0.3
# AUPIMO counts false positive rates between these limits, as in the paper that defines AUPIMO.
AUPIMO_LOW, AUPIMO_HIGH = 1e-5, 1e-4
# At most 500 defective and 500 good pictures are compared, because the heat maps of 1000 pictures take 360 MB.
MAX_PICTURES = 500
# If more than half of the masks of good pictures show a defect, all masks are refused. Probably they mark the casting itself.
MAX_MARKED_GOOD = 0.5
GRAD_CAM = "grad-cam"
SEGMENTATION = "segmentation"
COMBINED = "segmentation+residual"
_NAMED_FILES = 3


@dataclass(frozen=True)
class HeatSource:
    """A way to make heat maps, for example Grad-CAM. `compute` turns pixels into a heat map, both of shape (side_px, side_px).

    Suspicious pixels have large values. The scale is free, but must be the same for all pictures.

    Boxes are drawn around pixels of at least `box_level`. None means half of the map's maximum.
    """

    name: str
    side_px: int
    compute: Callable[[Pixels], HeatMap]
    box_level: float | None = None


@dataclass(frozen=True)
class MaskedPicture:
    """A picture file and the mask of its defects. The mask of a good part is False everywhere.

    The mask has the shape of the heat maps, (rows, columns). `width_px` and `height_px` are the size of the picture, after the
    rotation that EXIF gives. `mask_path` is None for a good picture without a mask file.
    """

    file: LabelledFile
    mask: Mask
    width_px: int
    height_px: int
    mask_path: Path | None


@dataclass(frozen=True)
class MaskedPictures:
    """Pictures whose heat maps can be measured. `left_out` names the pictures and masks that cannot be used, and says why."""

    pictures: tuple[MaskedPicture, ...]
    left_out: tuple[str, ...]

    @property
    def defective(self) -> list[MaskedPicture]:
        """The pictures whose masks mark a defect."""
        return [picture for picture in self.pictures if picture.mask.any()]


def open_heat_sources(version: Version) -> list[HeatSource]:
    """Returns the sources of heat maps that `version` has. Takes a few seconds, because it loads TensorFlow.

    Raises ModelError if the version has none.
    """
    # TensorFlow is imported only here, because the metrics need NumPy alone.
    from models.inference.grad_cam import open_grad_cam
    from models.inference.segmentation import open_segmentation

    side_px = version.manifest.preprocessing.side_px
    segmentation, scorers = open_segmentation(version), open_scorers(version)
    mappers: list[tuple[str, HeatMapper | None]] = [(GRAD_CAM, open_grad_cam(version)), (SEGMENTATION, segmentation)]
    if segmentation is not None and scorers:
        mappers.append((COMBINED, CombinedMapper(segmentation, ResidualMapper(scorers[0]))))
    sources = [make_mapper_source(name, mapper, side_px) for name, mapper in mappers if mapper is not None]
    sources += [make_residual_source(opened.scorer) for opened in scorers]
    if not sources:
        raise ModelError(
            f"Version {version.name} makes no heat maps, because it has no AlexNet, no segmentation head and no scorer. Choose another "
            "version, or leave out the option --masks, with which the command measures heat maps."
        )
    return sources


def make_mapper_source(name: str, mapper: HeatMapper, side_px: int) -> HeatSource:
    """Returns a HeatSource that makes heat maps with `mapper`. The pictures must have the side `side_px`."""
    level = mapper.compute_defect_map(np.zeros((side_px, side_px), np.uint8)).box_level
    return HeatSource(name, side_px, lambda pixels: mapper.compute_defect_map(pixels).heat, level)


def make_residual_source(scorer: GoodOnlyScorer) -> HeatSource:
    """Returns a HeatSource whose heat maps are the residual maps of `scorer`."""
    return HeatSource(f"residual of {scorer.name}", scorer.side_px, lambda pixels: scorer.score(pixels[np.newaxis]).residuals[0])


def read_masked_pictures(
    files: Sequence[LabelledFile], masks_folder: Path, ok_class: str, part_values: Sequence[int] = (), limits: PictureLimits | None = None
) -> MaskedPictures:
    """Finds and reads the masks of `files`, which come from one folder or list of pictures.

    - The mask of `source/def_front/a.jpeg` is `masks_folder/def_front/a.png`, an 8-bit PNG of the picture's size.
    - In a mask, the values 0 and `part_values` mean no defect, and all other values mean a defect. Use `part_values` for masks that mark
      the casting itself, for example with 1.
    - Pictures of the class `ok_class` need no mask.
    - In the result, `left_out` lists the masks and defective pictures that cannot be used.

    Raises ModelError if no defective picture is left, if two pictures have the same mask, or if most masks of good pictures show defects.
    """
    limits = limits or PictureLimits()
    paths = list_masks(masks_folder)
    by_key: dict[str, LabelledFile] = {}
    for file in files:
        key = find_mask_key(file)
        if key in by_key and key in paths:
            raise ModelError(
                f"The mask {paths[key]} fits two pictures, {by_key[key].path} and {file.path}. Leave out one of these pictures. If the "
                "masks belong to only one data set, give only this data set."
            )
        by_key[key] = file
    reader = _MaskReader(ok_class, part_values, limits)
    for key, file in by_key.items():
        reader.add(file, paths.get(key))
    return reader.finish(masks_folder, [path for key, path in paths.items() if key not in by_key])


def evaluate_localisation(
    pictures: MaskedPictures,
    sources: Sequence[HeatSource],
    depth_bits: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> LocalisationReport:
    """Makes heat maps of all `pictures` with each source, and returns their figures.

    `depth_bits` is the setting of the line that made the pictures. `advance(1)` is called after each heat map, to show the progress.

    Raises ModelError if a heat map has a value that is not a finite number, or if a picture can no longer be read.
    """
    figures = {}
    for source in sources:
        heats = []
        for picture in pictures.pictures:
            heats.append(_compute_on_grid(source, picture, depth_bits))
            advance(1)
        figures[source.name] = measure_localisation(heats, [picture.mask for picture in pictures.pictures], source.box_level)
    return LocalisationReport(sources=figures, left_out=pictures.left_out)


def measure_localisation(heats: Sequence[HeatMap], masks: Sequence[Mask], box_level: float | None = None) -> LocalisationFigures:
    """Compares heat maps with masks of the same shapes. Returns measures such as the pixel AUROC. See `HeatSource` for `box_level`."""
    defective = [(heat, mask) for heat, mask in zip(heats, masks, strict=True) if mask.any()]
    pimo = compute_aupimo(heats, masks)
    return LocalisationFigures(
        defective=len(defective),
        good=len(masks) - len(defective),
        defects=sum(int(_label_defects(mask)[1]) for _, mask in defective),
        pixel_auroc=compute_pixel_auroc(heats, masks),
        aupro=compute_aupro(heats, masks),
        aupimo=None if pimo is None else float(np.mean(pimo)),
        pointing=Proportion.from_counts(sum(points_at_defect(heat, mask) for heat, mask in defective), len(defective)),
        box_iou=float(np.mean([compute_box_iou(heat, mask, box_level) for heat, mask in defective])) if defective else None,
    )


def compute_pixel_auroc(heats: Sequence[HeatMap], masks: Sequence[Mask]) -> float | None:
    """Returns the area under the ROC curve of all pixels of all pictures, 0..1. Defect pixels are the positive class.

    Large defects influence the result most. If all pixels are equally hot, the area is 0.5. Returns None if there is only one class.
    """
    background, levels = _pool(heats, masks, False), _pool(heats, masks, True)
    if not len(background) or not len(levels):
        return None
    return _area_under_curve(np.sort(background), levels, np.ones(len(levels)), 1.0)


def compute_aupro(heats: Sequence[HeatMap], masks: Sequence[Mask], limit: float = AUPRO_LIMIT) -> float | None:
    """Returns the AUPRO, 0..1: how much of each defect the heat maps find. Small and large defects count the same.

    The AUPRO is the mean share of a defect's pixels that are found, for false positive rates from 0 to `limit`.
    The false positive rate is the share of the pixels without a defect that are wrongly called a defect.

    A defect is a region of pixels that touch, also at corners. Returns None if no pixel or every pixel belongs to a defect.

    Source: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection Dataset", IJCV 129, 2021, section 5.
    """
    background, levels = _pool(heats, masks, False), _pool(heats, masks, True)
    if not len(background) or not len(levels):
        return None
    weights = np.concatenate([_weigh_defects(mask) for mask in masks])
    return _area_under_curve(np.sort(background), levels, weights, limit)


def compute_aupimo(
    heats: Sequence[HeatMap], masks: Sequence[Mask], low: float = AUPIMO_LOW, high: float = AUPIMO_HIGH
) -> FloatArray | None:
    """Returns the AUPIMO of each defective picture, 0..1, in the order of `masks`.

    Returns None if there are no good pictures or no defective pictures.

    The AUPIMO is the mean share of the defect pixels that are found, for false positive rates from `low` to `high` (logarithmic axis).
    The false positive rate is the share of pixels in good pictures that are wrongly called a defect.

    Source: Bertoldo, Ameln, Vaidya, Akcay, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
    BMVC 2024, equations 1 to 5. Difference: the curve is integrated exactly, and not at sampled thresholds.
    """
    good = [heat for heat, mask in zip(heats, masks, strict=True) if not mask.any()]
    defective = [heat[mask] for heat, mask in zip(heats, masks, strict=True) if mask.any()]
    if not good or not defective:
        return None
    thresholds, rates = _list_false_positives(good, high)
    # Between the false positive rates rates[k - 1] and rates[k], the threshold is thresholds[k]. Defect pixels above it are found.
    edges = np.log(np.clip(np.concatenate([[low], rates]), low, high))
    widths = np.diff(edges) / (np.log(high) - np.log(low))
    pimo = []
    for levels in defective:
        ordered = np.sort(levels)
        recalls = 1 - np.searchsorted(ordered, thresholds, side="right") / len(ordered)
        pimo.append(float(np.sum(widths * recalls)))
    return np.array(pimo)


def points_at_defect(heat: HeatMap, mask: Mask, max_distance: float = NEAR_PX) -> bool:
    """Returns whether the hottest pixel is at most `max_distance` pixels away from a defect.

    If several pixels are the hottest, the first in reading order counts. If all pixels are equally hot, the result is False.
    """
    if heat.min() == heat.max():
        return False
    distance = ndimage.distance_transform_edt(~mask)
    return bool(distance.flat[int(heat.argmax())] <= max_distance)


def compute_box_iou(heat: HeatMap, mask: Mask, box_level: float | None = None) -> float:
    """Returns the overlap (intersection over union) of the boxes in the heat map and the boxes around the defects, 0..1.

    `find_boxes` finds the boxes in the heat map. See `HeatSource` for `box_level`. Returns 0 if the heat map has no box.
    """
    found, drawn = np.zeros_like(mask), np.zeros_like(mask)
    rows, columns = heat.shape
    for box in find_boxes(heat, columns, rows, box_level):
        found[box.top_px : box.top_px + box.height_px, box.left_px : box.left_px + box.width_px] = True
    for spans in ndimage.find_objects(_label_defects(mask)[0]):
        drawn[spans] = True
    union = int((found | drawn).sum())
    return int((found & drawn).sum()) / union if union else 0.0


class _MaskReader:
    """Reads the masks of pictures, and collects the masks and pictures that cannot be used.

    `part_values` are the grey levels that mean the casting itself and not a defect.
    """

    def __init__(self, ok_class: str, part_values: Sequence[int], limits: PictureLimits) -> None:
        self._ok_class, self._part_values, self._limits = ok_class, part_values, limits
        self._defective: list[MaskedPicture] = []
        self._good: list[MaskedPicture] = []
        self._problems: dict[str, list[str]] = {}
        self._good_masks = 0
        self._marked_good: list[tuple[Path, set[int]]] = []

    def add(self, file: LabelledFile, mask_path: Path | None) -> None:
        """Reads the mask of `file`, if there is one. If the mask cannot be used, only this picture is left out."""
        is_good = file.class_name == self._ok_class
        if mask_path is None and not is_good:
            self._add_remark("defective pictures have no mask", str(file.path))
            return
        try:
            header = read_picture_header(file.path.read_bytes(), self._limits)
            levels = None if mask_path is None else read_mask(mask_path, self._limits)
        except (PictureError, OSError) as error:
            self._add_remark("masks cannot be used", f"{mask_path or file.path} ({error})")
            return
        size = header.width_px, header.height_px
        if levels is not None and levels.shape[::-1] != size:
            found, expected = (f"{width} x {height}" for width, height in (levels.shape[::-1], size))
            self._add_remark("masks have another size than their picture", f"{mask_path} ({found} instead of {expected} px)")
            return
        marks = np.zeros((1, 1), np.bool_) if levels is None else (levels != 0) & ~np.isin(levels, self._part_values)
        picture = MaskedPicture(file, _reduce_to_grid(marks, *size), *size, mask_path)
        if is_good:
            self._add_good(picture, set() if levels is None else set(np.unique(levels[marks]).tolist()))
        elif picture.mask.any():
            self._defective.append(picture)
        else:
            self._add_remark("masks of defective pictures show no defect", str(mask_path))

    def finish(self, masks_folder: Path, unused: Sequence[Path]) -> MaskedPictures:
        """Returns the pictures that can be compared with heat maps. `unused` are the masks that belong to no picture.

        Raises ModelError if no defective picture is left, or if most masks of good pictures show defects.
        """
        if self._good_masks and len(self._marked_good) / self._good_masks > MAX_MARKED_GOOD:
            values = sorted(set.intersection(*(values for _, values in self._marked_good)))
            advice = f"for example --part-value {values[0]}" if values else "or correct the masks"
            raise ModelError(
                f"The masks of {len(self._marked_good)} of {self._good_masks} good pictures show defects, for example "
                f"{self._marked_good[0][0]}. If a grey value marks the casting and not a defect, give this value with --part-value, "
                f"{advice}."
            )
        for path, _ in self._marked_good:
            self._add_remark("masks of good pictures show a defect", str(path))
        for path in unused:
            self._add_remark("masks fit no picture", str(path))
        left_out = tuple(_describe_problem(problem, names) for problem, names in self._problems.items())
        if not self._defective:
            raise ModelError(
                f"No defective picture can be compared with a mask from {masks_folder}. {' '.join(left_out)} A mask needs the "
                "size and the path of its picture: the mask of def_front/a.jpeg is def_front/a.png."
            )
        return MaskedPictures((*_thin(self._defective), *_thin(self._good)), left_out)

    def _add_good(self, picture: MaskedPicture, marked_values: set[int]) -> None:
        self._good_masks += picture.mask_path is not None
        if picture.mask_path is not None and marked_values:
            self._marked_good.append((picture.mask_path, marked_values))
        else:
            self._good.append(picture)

    def _add_remark(self, problem: str, name: str) -> None:
        self._problems.setdefault(problem, []).append(name)


def _describe_problem(problem: str, names: Sequence[str]) -> str:
    examples = ", ".join(names[:_NAMED_FILES])
    return f"Left out, because {problem}: {len(names)} ({examples}{', ...' if len(names) > _NAMED_FILES else ''})."


def _thin(pictures: Sequence[MaskedPicture]) -> list[MaskedPicture]:
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_PICTURES)).round().astype(int))
    return [pictures[index] for index in chosen]


def _reduce_to_grid(marks: Mask, width_px: int, height_px: int) -> Mask:
    """Reduces the mask `marks` to the cells of a grid. A cell is True if `marks` cover more than the share MIN_COVER of the cell.

    If there is no such cell, the most covered cells are True.
    """
    scale = GRID_SIDE_PX / max(width_px, height_px)
    size = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    cover = np.asarray(Image.fromarray(marks.astype(np.float32)).resize(size, Image.Resampling.BOX))
    mask = cover > MIN_COVER
    return mask if mask.any() or not marks.any() else cover == cover.max()


def _compute_on_grid(source: HeatSource, picture: MaskedPicture, depth_bits: int | None) -> HeatMap:
    """Returns the heat map of `picture`, resampled to the shape of its mask.

    Raises ModelError if the picture or its heat map cannot be used.
    """
    try:
        decoded = decode_picture(picture.file.path.read_bytes(), source.side_px, depth_bits=depth_bits)
    except (PictureError, OSError) as error:
        raise ModelError(f"{picture.file.path} cannot be read any more: {error}. Start again with files that do not change.") from error
    heat = source.compute(decoded.pixels)
    if heat.shape != decoded.pixels.shape or not np.isfinite(heat).all():
        raise ModelError(
            f"The heat map of {source.name} for {picture.file.path} has the shape {heat.shape} or values that are not finite. Train the "
            "version again."
        )
    cropped = crop_to_picture(heat, picture.width_px, picture.height_px).astype(np.float32)
    return np.asarray(Image.fromarray(cropped).resize(picture.mask.shape[::-1], Image.Resampling.BILINEAR))


def _pool(heats: Sequence[HeatMap], masks: Sequence[Mask], is_defect: bool) -> npt.NDArray[np.float32]:
    return np.concatenate([heat[mask == is_defect] for heat, mask in zip(heats, masks, strict=True)])


def _label_defects(mask: Mask) -> tuple[npt.NDArray[np.int32], int]:
    """Numbers the defects of a mask from 1. Returns the number of the defect at each pixel (0: none), and the number of defects."""
    labels, count = ndimage.label(mask, np.ones((3, 3), np.int8))
    return labels, int(count)


def _weigh_defects(mask: Mask) -> FloatArray:
    """Returns a weight for each defect pixel. The weights of each defect sum to 1, so all defects count the same."""
    labels = _label_defects(mask)[0][mask]
    weights: FloatArray = (1 / np.maximum(1, np.bincount(labels)))[labels]
    return weights


def _area_under_curve(background: npt.NDArray[np.float32], levels: npt.NDArray[np.float32], weights: FloatArray, limit: float) -> float:
    """Returns the area under a ROC curve for false positive rates from 0 to `limit`, divided by `limit`.

    - `background`: the sorted heat values of good pixels.
    - `levels`: the heat values of defect pixels.
    - `weights`: how much each defect pixel counts, in the order of `levels`.
    """
    values, places = np.unique(levels, return_inverse=True)
    sums = np.cumsum(np.bincount(places, weights)[::-1])
    heights = sums / sums[-1]
    # A good pixel can have exactly the same heat as a defect pixel. So the ROC curve has two points for each heat value of a defect pixel.
    # At the first point, good pixels with this heat are not false positives. At the second point, they are false positives.
    above, from_here = (1 - np.searchsorted(background, values[::-1], side=side) / len(background) for side in ("right", "left"))
    x = np.concatenate([[0.0], np.stack([above, from_here], axis=1).ravel(), [1.0]])
    y = np.concatenate([[0.0, 0.0], np.repeat(heights, 2)])
    width = np.diff(x)
    used = np.clip(limit - x[:-1], 0, width)
    slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    return float(np.sum(used * (y[:-1] + slope * used / 2)) / limit)


def _list_false_positives(good: Sequence[HeatMap], high: float) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Returns thresholds in descending order, and the mean false positive rate of the good pictures at each threshold.

    The list ends at the first threshold whose rate is at least `high`.
    """
    levels, weights = [], []
    for heat in good:
        # The list ends at the false positive rate `high`, so only the hottest pixels of each picture are needed. `count` is large enough
        # even if all false positives lie in the same picture.
        count = min(heat.size, int(np.ceil(high * len(good) * heat.size)) + 1)
        levels.append(np.partition(heat.ravel(), heat.size - count)[heat.size - count :])
        weights.append(np.full(count, 1 / (len(good) * heat.size)))
    values, places = np.unique(np.concatenate(levels), return_inverse=True)
    rates: FloatArray = np.cumsum(np.bincount(places, np.concatenate(weights))[::-1])
    last = int(np.argmax(rates >= high)) if (rates >= high).any() else len(rates) - 1
    return values[::-1][: last + 1], rates[: last + 1]
