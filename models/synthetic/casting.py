"""One rendered casting: its picture, its defects and their pixels, the same for the same seed and number."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from models.synthetic.defects import VISIBLE, Kind, draw
from models.synthetic.surface import surface
from models.synthetic.view import Field, Generator, View, clouds

SIDE_PX = 300  # as the pictures of the real line
JPEG_QUALITY = 92
OFTEN_TOGETHER = (0.5, 0.32, 0.18)  # one, two, three kinds on a defective casting
OFTEN = {
    Kind.BLOW_HOLE: 0.16,
    Kind.SHRINKAGE: 0.12,
    Kind.COLD_SHUT: 0.12,
    Kind.CHIPPING: 0.24,
    Kind.FLASH: 0.26,
    Kind.SCRATCH: 0.1,
}


@dataclass(frozen=True, slots=True)
class Casting:
    """`pixels` and `mask` have shape (SIDE_PX, SIDE_PX), uint8; the mask's values are those of `Kind`, 0 where all is well."""

    number: int
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    kinds: tuple[Kind, ...]

    @property
    def ok(self) -> bool:
        """Whether it is a good one."""
        return not self.kinds

    def jpeg(self) -> bytes:
        """The picture as a camera sends it."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()


def series(count: int, seed: int, defect_share: float = 0.5) -> Iterator[Casting]:
    """`count` castings, numbered from 0, of which about `defect_share` are defective."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield render(rng, _kinds(rng, defect_share), number)


def render(rng: Generator, kinds: tuple[Kind, ...], number: int = 0) -> Casting:
    """A casting with one defect of each of `kinds`; with none of them a good one; all else is the same."""
    camera = rng.spawn(1)[0]  # of its own, so that it does not depend on how much chance the defects take
    view = View.drawn(rng, SIDE_PX)
    image = surface(view, rng)
    _harmless(image, view, rng)
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for kind in kinds:
        mask[draw(kind, image, view, rng) > VISIBLE] = kind
    return Casting(number, _photographed(image, camera), mask, kinds)


def _kinds(rng: Generator, defect_share: float) -> tuple[Kind, ...]:
    """None, or one to three kinds: of the real defective castings half have more than one, and most have a spoiled rim."""
    if rng.random() >= defect_share:
        return ()
    count = int(rng.choice(len(OFTEN_TOGETHER), p=OFTEN_TOGETHER)) + 1
    chosen = rng.choice(list(OFTEN), count, replace=False, p=list(OFTEN.values()))
    return tuple(sorted(Kind(int(kind)) for kind in chosen))


def _harmless(image: Field, view: View, rng: Generator) -> None:
    """What is no defect and must not be taken for one: stains on the plate, dust on the belt."""
    distance, _ = view.plate
    if rng.random() < 0.5:
        stain = np.clip(clouds(rng, view.side_px, 9) - 0.5, 0, 1)
        image -= rng.uniform(8, 30) * stain * view.inside(distance, 0.97) * (distance > 0.68)
    for _ in range(int(rng.poisson(2))):
        row, column = rng.integers(2, view.side_px - 2, 2)
        if distance[row, column] > 1.12:
            image[row : row + rng.integers(1, 3), column : column + rng.integers(1, 3)] -= rng.uniform(15, 50)


def _photographed(image: Field, rng: Generator) -> npt.NDArray[np.uint8]:
    """What the camera makes of it: exposure, a lens not quite sharp, noise."""
    bright = 128 + (image - 128) * rng.uniform(0.85, 1.12) + rng.normal(0, 9)
    soft = Image.fromarray(np.clip(bright, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    noisy = np.asarray(soft, np.float32) + rng.normal(0, rng.uniform(1, 3), image.shape)
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
