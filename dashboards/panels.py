"""Describes panels and dashboards as data, and builds Grafana's JSON from them with Grafana's library `grafana_foundation_sdk`.

The JSON has the library's oldest schema, so Grafana 9.3 and later can load it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import text as text_model

DATASOURCE_UID = "castline-prometheus"
RUNBOOK_UID = "castline-runbook"
TAG = "castline"
COLUMNS = 24

GOOD, WARNING, BAD, NEUTRAL = "green", "orange", "red", "blue"
# Each pair is a lower bound and the colour of the values from this bound upwards. The lower bound of the first pair is None.
Thresholds = tuple[tuple[float | None, str], ...]
NO_THRESHOLDS: Thresholds = ((None, NEUTRAL),)


def rising(warning: float, bad: float) -> Thresholds:
    """Returns colour thresholds for a value that should be low: orange from `warning` upwards, and red from `bad` upwards."""
    return ((None, GOOD), (warning, WARNING), (bad, BAD))


def falling(bad: float, warning: float) -> Thresholds:
    """Returns colour thresholds for a value that should be high: orange below `warning`, and red below `bad`."""
    return ((None, BAD), (bad, WARNING), (warning, GOOD))


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and the legend of its series in the panel. Grafana replaces `{{line}}` in the legend by the line's name."""

    expression: str
    legend: str = "{{line}}"


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard.

    - `description`: what the values mean.
    - `alerts`: the alerts that link to this panel.
    - `markdown`: content of a text panel.
    - `width`, `height`: in cells of Grafana's grid.
    """

    kind: Literal["timeseries", "stat", "text"]
    title: str
    queries: tuple[Query, ...]
    unit: str
    description: str
    thresholds: Thresholds
    width: int
    height: int
    alerts: tuple[str, ...] = ()
    markdown: str = ""


@dataclass(frozen=True)
class DashboardPage:
    """A dashboard with its panels. `time_from` is the beginning of the time range, for instance "now-1h".

    With `has_line_variable`, the reader of the dashboard can choose the lines that it shows.
    """

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    has_line_variable: bool = True
    time_from: str = "now-1h"

    def panel_id(self, title: str) -> int:
        """Returns the number of the panel with this title, counted from 1. Raises KeyError if there is none."""
        for number, panel in enumerate(self.panels, 1):
            if panel.title == title:
                return number
        raise KeyError(f"The dashboard {self.title!r} has no panel {title!r}. Correct the title in the alert.")


def timeseries_panel(
    title: str,
    *queries: str | Query,
    unit: str,
    description: str,
    thresholds: Thresholds = NO_THRESHOLDS,
    alerts: tuple[str, ...] = (),
    width: int = 12,
) -> Panel:
    """Returns a panel that draws values over time."""
    return Panel("timeseries", title, tuple(map(_as_query, queries)), unit, description, thresholds, width, 8, alerts)


def stat_panel(
    title: str,
    *queries: str | Query,
    unit: str,
    description: str,
    thresholds: Thresholds,
    alerts: tuple[str, ...] = (),
    width: int = 6,
) -> Panel:
    """Returns a panel that shows the current values as large numbers. `thresholds` gives the colour of each value."""
    return Panel("stat", title, tuple(map(_as_query, queries)), unit, description, thresholds, width, 5, alerts)


def text_panel(title: str, markdown: str) -> Panel:
    """Returns a panel that shows text in Markdown."""
    return Panel("text", title, (), "", "", NO_THRESHOLDS, 12, 8, markdown=markdown)


def lay_out(panels: Sequence[Panel]) -> Iterator[tuple[Panel, model.GridPos]]:
    """Yields each panel with its position. Panels fill a row from left to right. The next row begins below the tallest panel."""
    x = y = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        yield panel, model.GridPos(h=panel.height, w=panel.width, x=x, y=y)
        x, height = x + panel.width, max(height, panel.height)


def build_dashboard(page: DashboardPage, runbook_panel_ids: dict[str, int]) -> dict[str, Any]:
    """Returns Grafana's JSON of `page`. `runbook_panel_ids` maps each alert to the number of its panel on the runbook's dashboard."""
    builder = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags([TAG])
        .timezone("browser")
        .refresh("10s")
        .time(page.time_from, "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(dashboard.DashboardLink("Castline").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).include_vars(True).keep_time(True))
    )
    builder.with_variable(_variable("plant", "label_values(castline_process_ready, plant)"))
    if page.has_line_variable:
        builder.with_variable(_variable("line", 'label_values(castline_verdict_deadline_seconds{plant=~"$plant"}, line)'))
    for panel_id, (panel, position) in enumerate(lay_out(page.panels), 1):
        builder.with_panel(_panel_builder(panel, runbook_panel_ids).id(panel_id).grid_pos(position))
    document: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    return document


def make_runbook_link(panel_id: int) -> str:
    """Returns the link to a panel of the runbook's dashboard, as a path below Grafana's address."""
    return f"/d/{RUNBOOK_UID}?viewPanel={panel_id}"


def _as_query(query: str | Query) -> Query:
    return query if isinstance(query, Query) else Query(query)


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(_datasource())
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # In the menus for plants and lines, "All" stands for the pattern `.*`. This pattern also matches series without the label `plant`,
        # for example the series of a Prometheus that watches only one plant.
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _datasource() -> model.DataSourceRef:
    return model.DataSourceRef(type_val="prometheus", uid=DATASOURCE_UID)


def _panel_builder(panel: Panel, runbook_panel_ids: dict[str, int]) -> Any:
    if panel.kind == "text":
        return text.Panel().title(panel.title).description("What to do.").mode(text_model.TextMode.MARKDOWN).content(panel.markdown)
    builder: Any = _stat_builder() if panel.kind == "stat" else _timeseries_builder(panel.thresholds != NO_THRESHOLDS)
    builder.title(panel.title).description(panel.description).unit(panel.unit).datasource(_datasource())
    steps = [model.Threshold(value=value, color=colour) for value, colour in panel.thresholds]
    builder.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend).datasource(_datasource())
        builder.with_target(target.instant() if panel.kind == "stat" else target.range())
    if panel.alerts:
        links = {f"Runbook: {name}": make_runbook_link(runbook_panel_ids[name]) for name in panel.alerts}
        builder.links([dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url) for title, url in links.items()])
    return builder


def _stat_builder() -> stat.Panel:
    return (
        stat.Panel()
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def _timeseries_builder(has_thresholds: bool) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .placement(common.LegendPlacement.BOTTOM)
        .display_mode(common.LegendDisplayMode.LIST)
        .calcs([])
    )
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    builder = timeseries.Panel().line_width(1).fill_opacity(8).legend(legend).tooltip(tooltip)
    if has_thresholds:
        builder.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED))
    return builder
