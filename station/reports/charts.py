"""Computes the SVG coordinates of the two charts in a report: the defects by type, and the parts by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from station.reports.report import PartCounters

WIDTH_PX, HEIGHT_PX = 640, 220
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 40, 40, 14, 34
_PLOT_WIDTH_PX = WIDTH_PX - LEFT_PX - RIGHT_PX
_PLOT_HEIGHT_PX = HEIGHT_PX - TOP_PX - BOTTOM_PX
_MAX_BAR_PX = 64


@dataclass(frozen=True)
class ChartBar:
    """A bar of a chart. `caption` is the text below the bar, and `number` is the text above the bar.

    In the chart of hours, `kind` is the verdict of the bar's parts, which decides the colour: `ok`, `review`, `defect`, or `none` for parts
    without a verdict. The kind `hour` is a bar without height, which only shows the hour. In the chart of defects, `kind` is empty.
    """

    x: float
    y: float
    width: float
    height: float
    caption: str
    number: str
    kind: str = ""

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def above(self) -> float:
        """The y coordinate of the number that is shown above the bar."""
        return self.y - 3


@dataclass(frozen=True)
class BarChart:
    """A bar chart. If `points` is not empty, the chart also has a line over the bars.

    `points` holds the points of this line as an SVG polyline needs them, for example "68.0,100.0 124.0,14.0".
    """

    bars: list[ChartBar]
    points: str = ""
    width: int = WIDTH_PX
    height: int = HEIGHT_PX
    floor: int = HEIGHT_PX - BOTTOM_PX


def make_pareto_chart(rows: Sequence[tuple[str, int, float]]) -> BarChart:
    """Returns a Pareto chart: a bar for each defect type, and a line for the cumulative share of all defects.

    Each of `rows` holds a defect type, the number of parts with this defect, and the cumulative share (0..1). The most frequent type comes
    first.
    """
    if not rows:
        return BarChart([])
    most, step = rows[0][1], _PLOT_WIDTH_PX / len(rows)
    width = min(step * 0.8, _MAX_BAR_PX)
    bars, points = [], []
    for index, (defect_type, count, share) in enumerate(rows):
        height = _PLOT_HEIGHT_PX * count / most
        x = LEFT_PX + (index + 0.5) * step - width / 2
        y = TOP_PX + _PLOT_HEIGHT_PX - height
        bar = ChartBar(round(x, 1), round(y, 1), round(width, 1), round(height, 1), defect_type, str(count))
        bars.append(bar)
        points.append(f"{bar.middle:.1f},{TOP_PX + _PLOT_HEIGHT_PX * (1 - share):.1f}")
    return BarChart(bars, " ".join(points))


def make_hourly_chart(hours: Sequence[tuple[datetime, PartCounters]], zone: tzinfo) -> BarChart:
    """Returns a chart with a stack of bars for each hour.

    From the bottom, a stack shows the parts with the verdicts `ok`, `review` and `defect`, and the parts without a verdict.
    """
    most = max((counters.parts for _, counters in hours), default=0)
    if not most:
        return BarChart([])
    step = _PLOT_WIDTH_PX / len(hours)
    bars = []
    for index, (begin, counters) in enumerate(hours):
        x, width = round(LEFT_PX + index * step + 1, 1), round(step - 2, 1)
        y = TOP_PX + float(_PLOT_HEIGHT_PX)
        for kind in ("ok", "review", "defect", "none"):
            height = _PLOT_HEIGHT_PX * counters.labels[kind] / most
            if height:
                y -= height
                bars.append(ChartBar(x, round(y, 1), width, round(height, 1), "", "", kind))
        bars.append(ChartBar(x, TOP_PX + float(_PLOT_HEIGHT_PX), width, 0.0, f"{begin.astimezone(zone):%H}", "", "hour"))
    return BarChart(bars)
