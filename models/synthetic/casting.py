"""Renders pictures of castings, and for each picture a mask that shows the defects. The same seed gives the same pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from models.pictures.rendered_mark import RENDERED_COMMENT
from models.synthetic.defects import MIN_COVER, DefectKind, draw_defect
from models.synthetic.impeller import CameraView, Field, Generator, clouds, render_impeller

# The pictures have 300 x 300 pixels, like those in the data set of real impellers.
SIDE_PX = 300
JPEG_QUALITY = 92
KIND_COUNT_CHANCES = (0.5, 0.32, 0.18)
KIND_CHANCES = {
    DefectKind.BLOW_HOLE: 0.16,
    DefectKind.SHRINKAGE: 0.12,
    DefectKind.COLD_SHUT: 0.12,
    DefectKind.CHIPPING: 0.24,
    DefectKind.FLASH: 0.26,
    DefectKind.SCRATCH: 0.1,
}
OK_CLASS, DEFECT_CLASS, MASK_FOLDER = "ok_front", "def_front", "masks"


@dataclass(frozen=True, slots=True)
class RenderedCasting:
    """A rendered picture of a casting with its defects.

    `pixels` and `mask` have shape (SIDE_PX, SIDE_PX), uint8. A pixel of `mask` is the number of a DefectKind, or 0 without a defect.
    """

    number: int
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    kinds: tuple[DefectKind, ...]

    @property
    def is_ok(self) -> bool:
        """True if the casting has no defect."""
        return not self.kinds

    @property
    def class_name(self) -> str:
        """Name of the casting's class. The class folder in a data set has the same name."""
        return OK_CLASS if self.is_ok else DEFECT_CLASS

    def to_jpeg(self) -> bytes:
        """Returns the picture as the content of a JPEG file. The comment of the file says that the picture was rendered."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, comment=RENDERED_COMMENT)
        return buffer.getvalue()


def render_series(count: int, seed: int, defect_share: float = 0.5) -> Iterator[RenderedCasting]:
    """Yields `count` castings, numbered from 0. About `defect_share` of them are defective."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield render_casting(rng, _choose_kinds(rng, defect_share), number)


def render_casting(rng: Generator, kinds: tuple[DefectKind, ...], number: int = 0) -> RenderedCasting:
    """Returns a casting with one defect of each of `kinds`.

    Two calls with the same state of `rng` give the same casting, even if `kinds` differ. Only the defects are different.
    """
    # The camera has its own random generator, so a casting's defects do not change the exposure and the noise.
    camera_rng = rng.spawn(1)[0]
    view = CameraView.draw(rng, SIDE_PX)
    image = render_impeller(view, rng)
    _add_stains_and_dust(image, view, rng)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for kind in kinds:
        mask[draw_defect(kind, image, view, rng) > MIN_COVER] = kind
    return RenderedCasting(number, expose(image, camera_rng), mask, kinds)


def write_castings(
    folder: Path, count: int, seed: int, defect_share: float = 0.5, on_casting: Callable[[int, int], object] = lambda done, total: None
) -> dict[str, int]:
    """Writes `count` castings as a data set, and returns the number of castings of each class.

    - `ok_front/`, `def_front/`: JPEG pictures.
    - `masks/def_front/`: PNG masks.
    - `castings.csv`: the list of pictures.

    The same seed gives the same files. `on_casting` is called with the number of written castings and `count`.
    """
    counts = {OK_CLASS: 0, DEFECT_CLASS: 0}
    for name in (OK_CLASS, DEFECT_CLASS, f"{MASK_FOLDER}/{DEFECT_CLASS}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / "castings.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "class", "defects"])
        for casting in render_series(count, seed, defect_share):
            counts[casting.class_name] += 1
            path = f"{casting.class_name}/casting_{seed}_{casting.number:06d}.jpeg"
            (folder / path).write_bytes(casting.to_jpeg())
            if not casting.is_ok:
                Image.fromarray(casting.mask).save((folder / MASK_FOLDER / path).with_suffix(".png"))
            rows.writerow([path, casting.class_name, " + ".join(kind.text for kind in casting.kinds)])
            on_casting(casting.number + 1, count)
    return counts


def encode_jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Returns `pixels`, shape (rows, columns), as the content of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _choose_kinds(rng: Generator, defect_share: float) -> tuple[DefectKind, ...]:
    if rng.random() >= defect_share:
        return ()
    count = int(rng.choice(len(KIND_COUNT_CHANCES), p=KIND_COUNT_CHANCES)) + 1
    chosen = rng.choice(list(KIND_CHANCES), count, replace=False, p=list(KIND_CHANCES.values()))
    return tuple(sorted(DefectKind(int(kind)) for kind in chosen))


def _add_stains_and_dust(image: Field, view: CameraView, rng: Generator) -> None:
    """Draws harmless marks that a network must not take for defects: stains on the plate and dust on the belt."""
    distance, _ = view.plate
    if rng.random() < 0.5:
        stain = np.clip(clouds(rng, view.side_px, 9) - 0.5, 0, 1)
        image -= rng.uniform(8, 30) * stain * view.inside(distance, 0.97) * (distance > 0.68)
    for _ in range(int(rng.poisson(2))):
        row, column = rng.integers(2, view.side_px - 2, 2)
        if distance[row, column] > 1.12:
            image[row : row + rng.integers(1, 3), column : column + rng.integers(1, 3)] -= rng.uniform(15, 50)


def expose(image: Field, rng: Generator) -> npt.NDArray[np.uint8]:
    """Returns the picture that a camera would take of `image`, with random exposure, slight blur and noise."""
    bright = 128 + (image - 128) * rng.uniform(0.85, 1.12) + rng.normal(0, 9)
    soft = Image.fromarray(np.clip(bright, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    noisy = np.asarray(soft, np.float32) + rng.normal(0, rng.uniform(1, 3), image.shape)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
