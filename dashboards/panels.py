"""A dashboard as a list of questions: what a panel asks, how its answer is shown, and how a page is laid out.

Pure: builds Grafana's JSON by its own typed builders, in the oldest schema they have, which Grafana 9.3 and later load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, text, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import text as text_model

DATASOURCE = "castline-prometheus"
TAG = "castline"
COLUMNS = 24
RUNBOOK = "castline-runbook"

GOOD, WORRY, BAD, NEUTRAL = "green", "orange", "red", "blue"
Steps = tuple[tuple[float | None, str], ...]


def rising(worry: float, bad: float) -> Steps:
    """Good while low."""
    return ((None, GOOD), (worry, WORRY), (bad, BAD))


def falling(bad: float, worry: float) -> Steps:
    """Good while high."""
    return ((None, BAD), (bad, WORRY), (worry, GOOD))


PLAIN: Steps = ((None, NEUTRAL),)


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called in the legend."""

    expression: str
    legend: str = "{{line}}"


@dataclass(frozen=True)
class Panel:
    """One question. `kind` is `trend`, `number` or `words`; `why` is what the answer is for; `alerts` are those that lead here."""

    kind: str
    question: str
    queries: tuple[Query, ...]
    unit: str
    why: str
    steps: Steps
    width: int
    height: int
    alerts: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Page:
    """One dashboard. Without `lines` its panels look at whole plants only."""

    uid: str
    title: str
    about: str
    panels: tuple[Panel, ...]
    lines: bool = True
    span: str = "now-1h"

    def place(self, question: str) -> int:
        """The id of the panel that asks `question`. Raises KeyError: when none does."""
        for number, panel in enumerate(self.panels, 1):
            if panel.question == question:
                return number
        raise KeyError(f"{self.title} has no panel {question!r}")


def trend(
    question: str,
    *queries: str | Query,
    unit: str,
    why: str,
    steps: Steps = PLAIN,
    alerts: tuple[str, ...] = (),
    width: int = 12,
) -> Panel:
    """An answer over time."""
    return Panel("trend", question, tuple(_query(one) for one in queries), unit, why, steps, width, 8, alerts)


def number(
    question: str,
    *queries: str | Query,
    unit: str,
    why: str,
    steps: Steps,
    alerts: tuple[str, ...] = (),
    width: int = 6,
) -> Panel:
    """An answer as it is now, coloured by its threshold."""
    return Panel("number", question, tuple(_query(one) for one in queries), unit, why, steps, width, 5, alerts)


def words(title: str, markdown: str, height: int = 8, width: int = 12) -> Panel:
    """Text, in Markdown."""
    return Panel("words", title, (), "", "", PLAIN, width, height, words=markdown)


def laid_out(panels: Sequence[Panel]) -> Iterator[tuple[Panel, model.GridPos]]:
    """From left to right, and on below the highest of a row when the row is full."""
    x = y = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, height = 0, y + height, 0
        yield panel, model.GridPos(h=panel.height, w=panel.width, x=x, y=y)
        x, height = x + panel.width, max(height, panel.height)


def document(page: Page, runbook_places: dict[str, int]) -> dict[str, Any]:
    """Grafana's JSON of `page`. `runbook_places`: the panel of the runbook's dashboard by alert."""
    built = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.about)
        .tags([TAG])
        .timezone("browser")
        .refresh("10s")
        .time(page.span, "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(dashboard.DashboardLink("Castline").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).include_vars(True).keep_time(True))
    )
    built.with_variable(_variable("plant", "label_values(castline_process_ready, plant)"))
    if page.lines:
        built.with_variable(_variable("line", 'label_values(castline_verdict_deadline_seconds{plant=~"$plant"}, line)'))
    for place, (panel, position) in enumerate(laid_out(page.panels), 1):
        built.with_panel(_builder(panel, runbook_places).id(place).grid_pos(position))
    found: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    return found


def runbook_link(place: int) -> str:
    """The address of an alert's heading, below Grafana's own."""
    return f"/d/{RUNBOOK}?viewPanel={place}"


def _query(one: str | Query) -> Query:
    return one if isinstance(one, Query) else Query(one)


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(_source())
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Matches a series without the label, too: a Prometheus of one plant need not name it.
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )


def _source() -> model.DataSourceRef:
    return model.DataSourceRef(type_val="prometheus", uid=DATASOURCE)


def _builder(panel: Panel, runbook_places: dict[str, int]) -> Any:
    if panel.kind == "words":
        return text.Panel().title(panel.question).description("What to do.").mode(text_model.TextMode.MARKDOWN).content(panel.words)
    built: Any
    if panel.kind == "number":
        built = (
            stat.Panel()
            .color_mode(common.BigValueColorMode.BACKGROUND)
            .graph_mode(common.BigValueGraphMode.NONE)
            .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
            .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        )
    else:
        built = (
            timeseries.Panel()
            .line_width(1)
            .fill_opacity(8)
            .legend(
                common_builders.VizLegendOptions()
                .show_legend(True)
                .placement(common.LegendPlacement.BOTTOM)
                .display_mode(common.LegendDisplayMode.LIST)
                .calcs([])
            )
            .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        )
        if panel.steps != PLAIN:
            built.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED))
    built.title(panel.question).description(panel.why).unit(panel.unit).datasource(_source())
    steps = [model.Threshold(value=value, color=colour) for value, colour in panel.steps]
    built.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend).datasource(_source())
        built.with_target(target.instant() if panel.kind == "number" else target.range())
    if panel.alerts:
        built.links(
            [
                dashboard.DashboardLink(f"Runbook: {name}").type(model.DashboardLinkType.LINK).url(_there(name, runbook_places))
                for name in panel.alerts
            ]
        )
    return built


def _there(alert: str, runbook_places: dict[str, int]) -> str:
    return runbook_link(runbook_places[alert])
