"""Measures whether the detail template finds small defects in large rendered pictures, and how much time and memory it needs."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.anomaly.detail_template import (
    DetailTemplate,
    RingMeasures,
    choose_detail_grid,
    cross_fit_detail_scores,
    learn_detail_template,
    measure_rings,
)
from models.anomaly.polar import PolarGrid
from models.anomaly.rim import refine_outline
from models.anomaly.scorer import AlarmShare, choose_cut_off
from models.evaluation.experiments.experiment import ExperimentFolder, ResultTable
from models.pictures.decoder import decode_picture
from models.pictures.part_finder import find_part
from models.registry.version_report import Proportion
from models.synthetic.casting import encode_jpeg
from models.synthetic.defects import DefectKind
from models.synthetic.large_casting import SMALL_KINDS, render_large_casting
from streams.errors import ModelError

ALARM_SHARE = 0.01
# The side of the reduced picture, which the decoder makes in addition to the full picture. This experiment does not use it.
NETWORK_SIDE_PX = 192
# The detail template points at a defect if the most suspicious point is near the defect: at most this many lengths of the defect away. For
# a defect of 1 mm, this is 2 mm.
POINTING_LENGTHS = 2.0
COLUMNS = ("kind", "length_mm", "score", "distance", "time_s")
NO_LIMIT_S = float("inf")


@dataclass(frozen=True, slots=True)
class SmallDefectResult:
    """The result of the detail template for one picture of a casting.

    - `is_alarm`: the score is above the cut-off.
    - `is_pointed_at`: the most suspicious point of the picture lies near the defect.
    - `kind`, `length_mm`: the defect. Both are None for a good casting.
    - `time_s`: processor time of the inspection.
    """

    kind: DefectKind | None
    length_mm: float | None
    is_alarm: bool
    is_pointed_at: bool
    time_s: float


@dataclass(frozen=True)
class SmallDefectExperiment:
    """Lets a detail template learn from `good` rendered castings, and tests it on `tested` other castings.

    Each tested casting is rendered and inspected without a defect. The first `defective` castings are also rendered and inspected with a
    defect of each kind and length. If `defective` is None, this is done with all tested castings.

    `side_px` is the side of the pictures, and `part_mm` is the diameter of the parts.
    """

    good: int
    tested: int
    side_px: int
    part_mm: float
    lengths_mm: tuple[float, ...]
    seed: int
    folder: Path
    defective: int | None = None

    def run(self, on_progress: Callable[[str, float, int], object]) -> ResultTable:
        """Renders the castings that have no result in the folder yet, and returns the table of the results.

        Raises ModelError if the part is too small in the pictures, or if the folder holds an experiment with other options.
        """
        folder, total = ExperimentFolder(self.folder), self.good + self.tested
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("good", "tested", "folder")}
        # Folders of earlier experiments do not contain the option `defective`. To accept such folders, options that are None are left out.
        chosen = {name: value for name, value in options.items() if value is not None}
        folder.claim({"experiment": "small-defects", "good": self.good, **chosen})
        for number in range(self.good):
            on_progress("good castings", number, total)
            if not folder.is_finished(f"good-{number}"):
                folder.save_result(f"good-{number}", asdict(self._measure(number)))
        stored: list[dict[str, Any]] = [dict(folder.load_result(f"good-{number}")) for number in range(self.good)]
        measures = [RingMeasures(**arrays) for arrays in stored]
        grid = self._make_grid()
        radius_px = grid.rings / (grid.outer - grid.inner)
        template = learn_detail_template(measures, grid, radius_px)
        castings = np.arange(self.good, dtype=np.int32)
        cut_off = choose_cut_off(cross_fit_detail_scores(measures, castings, grid, radius_px), castings, AlarmShare(ALARM_SHARE))
        for number in range(self.tested):
            on_progress("tested castings", self.good + number, total)
            if not folder.is_finished(f"tested-{number}"):
                folder.save_result(f"tested-{number}", self._test(template, number))
        results = [result for number in range(self.tested) for result in self._read(folder.load_result(f"tested-{number}"), cut_off.score)]
        on_progress("tested castings", total, total)
        return make_small_defect_table(self, results, measure_memory(template, self.side_px), cut_off.score)

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number])

    def _make_grid(self) -> PolarGrid:
        return choose_detail_grid(0.405 * self.side_px)

    def _measure(self, number: int) -> RingMeasures:
        pixels = _photograph(render_large_casting(self._rng(number), self.side_px, self.part_mm).expose(None, 0, self._rng(number))[0])
        part = find_part(pixels)
        if part is None:
            raise ModelError(f"No part was found in the rendered casting {number}. Choose larger pictures.")
        measured = measure_rings(pixels, refine_outline(pixels, part), self._make_grid())
        assert measured is not None
        return measured

    def _test(self, template: DetailTemplate, number: int) -> dict[str, npt.NDArray[Any]]:
        """Inspects the pictures of one casting. Returns an array for each column of the result.

        A picture without a defect has the kind 0 and the length 0.
        """
        casting = render_large_casting(self._rng(self.good + number), self.side_px, self.part_mm)
        rows = []
        is_defective = self.defective is None or number < self.defective
        defects = [(kind, length_mm) for length_mm in self.lengths_mm for kind in SMALL_KINDS] if is_defective else []
        for kind, length_mm in ((None, 0.0), *defects):
            pixels, defect = casting.expose(kind, length_mm, self._rng(self.good + number))
            pixels = _photograph(pixels)
            start_s = time.process_time()
            score = template.score(pixels, NO_LIMIT_S)
            time_s = time.process_time() - start_s
            distance = 0.0
            if defect:
                length_px = defect.length_mm / (self.part_mm / 2) * casting.view.radius_px
                distance = float(np.hypot(score.x_px - defect.x_px, score.y_px - defect.y_px)) / length_px
            rows.append((int(kind or 0), length_mm, score.score, distance, time_s))
        return dict(zip(COLUMNS, (np.array(column) for column in zip(*rows, strict=True)), strict=True))

    def _read(self, columns: dict[str, npt.NDArray[Any]], cut_off: float) -> list[SmallDefectResult]:
        return [
            SmallDefectResult(
                DefectKind(kind) if kind else None, length_mm if kind else None, score > cut_off, distance <= POINTING_LENGTHS, time_s
            )
            for kind, length_mm, score, distance, time_s in zip(*(columns[name].tolist() for name in COLUMNS), strict=True)
        ]


def _photograph(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns `pixels` after JPEG encoding and decoding, like a picture from a camera."""
    original = decode_picture(encode_jpeg(pixels), NETWORK_SIDE_PX, keep_original=True).original
    assert original is not None
    return original


def measure_memory(template: DetailTemplate, side_px: int) -> int:
    """Returns how many bytes of memory the inspection of one picture needs. The picture has `side_px` rows and columns.

    The memory of the picture itself does not count.
    """
    pixels = _photograph(render_large_casting(np.random.default_rng(0), side_px).expose(None, 0, np.random.default_rng(0))[0])
    tracemalloc.start()
    try:
        template.score(pixels, NO_LIMIT_S)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def make_small_defect_table(
    experiment: SmallDefectExperiment, results: Sequence[SmallDefectResult], memory_bytes: int, cut_off: float
) -> ResultTable:
    """Returns the table of the experiment. The first row is for good castings.

    For each length of a defect, the table has a row for each kind of defect and a row for all kinds together.
    """
    rows = [_make_row("none", "", [result for result in results if result.kind is None])]
    for length_mm in experiment.lengths_mm:
        of_length = [result for result in results if result.length_mm == length_mm]
        for kind in SMALL_KINDS:
            rows.append(_make_row(kind.text, f"{length_mm:g} mm", [result for result in of_length if result.kind == kind]))
        rows.append(_make_row("all kinds", f"{length_mm:g} mm", of_length))
    times_ms = [1000 * result.time_s for result in results]
    megapixels = experiment.side_px**2 / 1e6
    return ResultTable(
        f"Small defects in rendered pictures of {megapixels:.1f} megapixels, part of {experiment.part_mm:g} mm",
        ("defect", "length", "castings", "above the cut-off", "95 % interval", "pointed at"),
        tuple(rows),
        (
            f"The detail template learned from {experiment.good} other good castings. Its cut-off, {cut_off:.2f}, was chosen from them for "
            f"{ALARM_SHARE:.0%} false alarms.",
            f"The inspection of a picture takes {np.median(times_ms):.0f} ms of processor time (median; 99 % of the pictures take at most "
            f"{np.quantile(times_ms, 0.99):.0f} ms), and {memory_bytes / 1e6:.0f} MB of memory beside the picture.",
        ),
    )


def _make_row(name: str, length: str, results: Sequence[SmallDefectResult]) -> tuple[str, ...]:
    if not results:
        return (name, length, "0", "", "", "")
    share = Proportion.from_counts(sum(result.is_alarm for result in results), len(results))
    pointed = sum(result.is_alarm and result.is_pointed_at for result in results)
    is_good = results[0].kind is None
    return (
        name,
        length,
        str(len(results)),
        f"{share.value:.3f}",
        f"{share.low:.3f} to {share.high:.3f}",
        "" if is_good else f"{pointed / len(results):.3f}",
    )
