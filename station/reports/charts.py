"""The report's two pictures as numbers for an SVG: types of defect from the most to the fewest, and the hours. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from station.reports.tally import Tally

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 40, 14, 34
_WIDEST = 64  # a single type would else be a block as wide as the page


@dataclass(frozen=True)
class Bar:
    """A rectangle, with the words below and the number above it."""

    x: float
    y: float
    width: float
    height: float
    words: str
    number: str
    kind: str = ""

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def above(self) -> float:
        return self.y - 3


@dataclass(frozen=True)
class Chart:
    """Bars, and the points of a line over them."""

    bars: list[Bar]
    points: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    floor: int = HEIGHT - BOTTOM


def pareto(rows: Sequence[tuple[str, int, float]]) -> Chart:
    """Bars of how many, most first; the line is the share up to there, 0 to 1 over the chart's height."""
    if not rows:
        return Chart([])
    most, step, high = rows[0][1], (WIDTH - LEFT - RIGHT) / len(rows), HEIGHT - TOP - BOTTOM
    wide = min(step * 0.8, _WIDEST)
    bars, points = [], []
    for number, (kind, many, share) in enumerate(rows):
        tall = high * many / most
        x = LEFT + (number + 0.5) * step - wide / 2
        bar = Bar(round(x, 1), round(TOP + high - tall, 1), round(wide, 1), round(tall, 1), kind, str(many))
        bars.append(bar)
        points.append(f"{bar.middle:.1f},{TOP + high * (1 - share):.1f}")
    return Chart(bars, " ".join(points))


def by_hour(hours: Sequence[tuple[datetime, Tally]], zone: tzinfo) -> Chart:
    """For each hour its good, doubtful and bad parts, one over the other."""
    most = max((tally.parts for _, tally in hours), default=0)
    if not most:
        return Chart([])
    step, high = (WIDTH - LEFT - RIGHT) / len(hours), HEIGHT - TOP - BOTTOM
    bars = []
    for number, (begin, tally) in enumerate(hours):
        floor = TOP + float(high)
        words = f"{begin.astimezone(zone):%H}"
        for kind in ("ok", "review", "defect", "none"):
            tall = high * tally.labels[kind] / most
            if tall:
                floor -= tall
                bars.append(Bar(round(LEFT + number * step + 1, 1), round(floor, 1), round(step - 2, 1), round(tall, 1), "", "", kind))
        bars.append(Bar(round(LEFT + number * step + 1, 1), TOP + float(high), round(step - 2, 1), 0.0, words, "", "hour"))
    return Chart(bars)
