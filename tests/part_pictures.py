"""Pictures that show no whole casting: empty scenes, other things, and castings of which a part is missing, hidden or blurred."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.uint8]
Maker = Callable[[np.random.Generator, Pixels], Pixels]
BELT_LEVELS = (110.0, 200.0)


def to_pixels(levels: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return pixels


def draw_belt(rng: np.random.Generator, side_px: int) -> npt.NDArray[np.float64]:
    """Grey levels of an unevenly lit belt with grain."""
    slope = np.linspace(-1, 1, side_px)
    clouds = np.asarray(Image.fromarray(rng.normal(0, 6, (8, 8)).astype(np.float32)).resize((side_px, side_px), Image.Resampling.BICUBIC))
    levels: npt.NDArray[np.float64] = (
        rng.uniform(*BELT_LEVELS) + rng.normal(0, 11) * slope + rng.normal(0, 11) * slope[:, None] + clouds + rng.normal(0, 2, clouds.shape)
    )
    return levels


def polar(rng: np.random.Generator, side_px: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distance from a point near the centre, in radii of a usual part, and angle of each pixel, as a tilted camera sees them."""
    rows, columns = np.mgrid[:side_px, :side_px]
    x, y = columns - side_px / 2 - rng.normal(0, 3), (rows - side_px / 2 - rng.normal(0, 3)) / rng.uniform(0.9, 1)
    return np.hypot(x, y) / (rng.uniform(0.38, 0.44) * side_px), np.arctan2(y, x)


def discs(*rings: tuple[float, float]) -> Maker:
    """Makes pictures of discs, one upon the other, each with a radius and a grey level."""

    def make(rng: np.random.Generator, good: Pixels) -> Pixels:
        image, (distance, angle) = draw_belt(rng, good.shape[0]), polar(rng, good.shape[0])
        for radius, level in rings:
            image = np.where(distance < radius, level + 15 * np.cos(angle), image)
        return to_pixels(image + rng.normal(0, 2, image.shape))

    return make


def polygon(corners: int) -> Maker:
    """Makes pictures of a plate with `corners` corners, with a dark hole and a hub."""

    def make(rng: np.random.Generator, good: Pixels) -> Pixels:
        side_px = good.shape[0]
        image = Image.fromarray(to_pixels(draw_belt(rng, side_px)))
        pen, turn, middle = ImageDraw.Draw(image), rng.uniform(0, np.pi), side_px / 2
        angles = turn + np.arange(corners) * 2 * np.pi / corners
        pen.polygon([(middle + 0.42 * side_px * np.cos(angle), middle + 0.42 * side_px * np.sin(angle)) for angle in angles], fill=170)
        for share, level in ((0.22, 25), (0.11, 180)):
            pen.ellipse(
                [middle - share * side_px, middle - share * side_px, middle + share * side_px, middle + share * side_px], fill=level
            )
        return np.asarray(image)

    return make


def make_hand(rng: np.random.Generator, good: Pixels) -> Pixels:
    side_px = good.shape[0]
    image = Image.fromarray(to_pixels(draw_belt(rng, side_px)))
    pen, middle, first = ImageDraw.Draw(image), rng.uniform(0.4, 0.6, 2) * side_px, rng.uniform(0, 6)
    level = int(rng.uniform(40, 90))
    pen.ellipse([*(middle - 0.17 * side_px), *(middle + 0.17 * side_px)], fill=level)
    for finger in range(5):
        tip = middle + 0.38 * side_px * np.array([np.cos(first + 0.38 * finger), np.sin(first + 0.38 * finger)])
        pen.line([*middle, *tip], fill=level, width=side_px // 14)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


def make_text(rng: np.random.Generator, good: Pixels) -> Pixels:
    image = Image.fromarray(to_pixels(draw_belt(rng, good.shape[0])))
    for row in range(4, good.shape[0], 14):
        ImageDraw.Draw(image).text((4, row), "".join(map(chr, rng.integers(48, 122, 24))), fill=20)
    return np.asarray(image)


def make_gear(rng: np.random.Generator, good: Pixels) -> Pixels:
    image, (distance, angle) = draw_belt(rng, good.shape[0]), polar(rng, good.shape[0])
    return to_pixels(np.where(distance < 0.28, 30, np.where(distance < 1 + 0.08 * np.sign(np.sin(16 * angle)), 160, image)))


def make_wheel(rng: np.random.Generator, good: Pixels) -> Pixels:
    image, (distance, angle) = draw_belt(rng, good.shape[0]), polar(rng, good.shape[0])
    is_metal = (distance > 0.8) | (distance < 0.25) | (np.cos(5 * angle) > 0.3)
    return to_pixels(np.where(distance < 1, np.where(is_metal, 165, 25), image))


def shift(pixels: Pixels, share: float, angle: float) -> Pixels:
    """Moves the picture by `share` of its side. The belt at its edge fills the gap."""
    side_px = pixels.shape[0]
    right, down = round(share * side_px * np.cos(angle)), round(share * side_px * np.sin(angle))
    padded = np.pad(pixels, side_px, mode="edge")
    return padded[side_px - down : 2 * side_px - down, side_px - right : 2 * side_px - right]


def shifted(share: float) -> Maker:
    return lambda rng, good: shift(good, share, rng.integers(4) * np.pi / 2)


def hide_half(level: int | None) -> Maker:
    """Covers half of the picture with a grey level, or with the level of the belt."""

    def make(rng: np.random.Generator, good: Pixels) -> Pixels:
        covered = np.array(np.rot90(good, int(rng.integers(4))))
        covered[:, good.shape[0] // 2 :] = np.median(good[:6]) if level is None else level
        return covered

    return make


def blurred(radius_px: float) -> Maker:
    return lambda rng, good: np.asarray(Image.fromarray(good).filter(ImageFilter.GaussianBlur(radius_px)))


def zoom(pixels: Pixels, factor: float) -> Pixels:
    """Shows the scene `factor` times as large. The belt fills what a smaller scene leaves free."""
    side_px = pixels.shape[0]
    scaled = np.asarray(Image.fromarray(pixels).resize((round(side_px * factor),) * 2, Image.Resampling.BILINEAR))
    if factor >= 1:
        first = (scaled.shape[0] - side_px) // 2
        return scaled[first : first + side_px, first : first + side_px]
    before = (side_px - scaled.shape[0]) // 2
    return np.pad(scaled, (before, side_px - scaled.shape[0] - before), mode="edge")


def zoomed(factor: float) -> Maker:
    return lambda rng, good: zoom(good, factor)


def two_parts(rng: np.random.Generator, good: Pixels) -> Pixels:
    small = zoom(good, 0.5)
    return np.hstack([small[:, good.shape[0] // 4 : -good.shape[0] // 4]] * 2)[:, : good.shape[0]]


def stripes(rng: np.random.Generator, good: Pixels) -> Pixels:
    along = np.arange(good.shape[0])
    return to_pixels(128 + 100 * np.sign(np.sin((along * rng.normal(0, 1) + along[:, None] * rng.normal(0, 1)) * rng.uniform(0.2, 0.6))))


# Each kind of picture by its name. A maker gets a picture of a good part and returns a picture of the same size without a whole part.
NO_PART_KINDS: dict[str, Maker] = {
    "black": lambda rng, good: to_pixels(np.abs(rng.normal(0, 2, good.shape))),
    "white": lambda rng, good: to_pixels(253 + rng.normal(0, 2, good.shape)),
    "grey": lambda rng, good: to_pixels(128 + rng.normal(0, 2, good.shape)),
    "noise": lambda rng, good: rng.integers(0, 256, good.shape, dtype=np.uint8),
    "clouds": lambda rng, good: np.asarray(
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).resize(good.shape, Image.Resampling.BICUBIC)
    ),
    "gradient": lambda rng, good: to_pixels(np.linspace(0, 255, good.shape[0]) * np.linspace(0.2, 1, good.shape[0])[:, None]),
    "vignette": lambda rng, good: to_pixels(40 + 120 * polar(rng, good.shape[0])[0]),
    "empty belt": lambda rng, good: to_pixels(draw_belt(rng, good.shape[0])),
    "ribbed belt": lambda rng, good: to_pixels(
        draw_belt(rng, good.shape[0]) + 40 * np.sin(np.arange(good.shape[0]) * rng.uniform(0.2, 0.7))
    ),
    "stripes": stripes,
    "text": make_text,
    "hand": make_hand,
}
OTHER_PART_KINDS: dict[str, Maker] = {
    "washer": discs((1, 170), (0.5, 35)),
    "washer on a light belt": discs((1, 110), (0.5, 190)),
    "ring": discs((1, 80), (0.85, 30)),
    "plain disc": discs((1, 120)),
    "black disc": discs((1, 15)),
    "disc with a small hub": discs((1, 170), (0.3, 25), (0.2, 180)),
    "disc with a wide cavity": discs((1, 170), (0.85, 25), (0.3, 180), (0.2, 120)),
    "target": discs((1, 170), (0.86, 25), (0.72, 170), (0.58, 25), (0.44, 170), (0.3, 25), (0.15, 170)),
    "gear": make_gear,
    "wheel with spokes": make_wheel,
    **{f"polygon with {corners} corners": polygon(corners) for corners in (3, 4, 6, 8)},
}
DAMAGED_VIEW_KINDS: dict[str, Maker] = {
    **{f"shifted by {share:.0%}": shifted(share) for share in (0.2, 0.3, 0.4, 0.5, 0.6)},
    "half black": hide_half(0),
    "half white": hide_half(255),
    "half hidden": hide_half(None),
    "blurred": blurred(6),
    "strongly blurred": blurred(10),
    "two parts": two_parts,
    "much too small": zoomed(0.4),
    "too small": zoomed(0.55),
    "too large": zoomed(1.6),
    "much too large": zoomed(2.5),
    "negative": lambda rng, good: 255 - good,
}
ALL_KINDS = {**NO_PART_KINDS, **OTHER_PART_KINDS, **DAMAGED_VIEW_KINDS}


def make_pictures(kind: str, good: Sequence[Pixels], count: int, seed: int = 3) -> list[Pixels]:
    """Returns `count` pictures of one of ALL_KINDS, made from some of the pictures `good`."""
    rng = np.random.default_rng([seed, list(ALL_KINDS).index(kind)])
    return [np.ascontiguousarray(ALL_KINDS[kind](rng, good[int(rng.integers(len(good)))])) for _ in range(count)]
