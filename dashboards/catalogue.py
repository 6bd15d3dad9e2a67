"""All dashboards, every expression that they and the rules read, and what of it is empty in health."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dashboards.alerts.alert import Alert
from dashboards.alerts.catalogue import ALERTS
from dashboards.alerts.recording import RECORDINGS
from dashboards.pages import gates, kafka, line, pipeline, plant, quality, runbook
from dashboards.panels import Page, document, runbook_link

PAGES: tuple[Page, ...] = (plant.PAGE, line.PAGE, pipeline.PAGE, quality.PAGE, gates.PAGE, kafka.PAGE, runbook.PAGE)

# Metrics of ours that no dashboard shows, and why.
UNSHOWN: dict[str, str] = {}

_NO_SHADOW = "until a shadow version is chosen there is none"
_NO_STATION = "a plant may run without the station"
# Queries that may return nothing while all is well, and why. Alerts are no part of it: in health none of them fires.
EMPTY_IN_HEALTH: dict[str, str] = {
    "castline-quality: Which version judges?: {{line}}: {{model}} on {{runtime}}, shadow": _NO_SHADOW,
    "castline-quality: Would the shadow version judge otherwise?: {{line}} {{model}}": _NO_SHADOW,
    "castline-quality: Would the shadow version judge otherwise?: {{line}} pictures a second it had no time for": _NO_SHADOW,
    "castline-quality: Why is a part left to a person?: {{line}} {{reason}}": "a line may have no doubt for a while",
    "castline-quality: Is a camera in trouble?: {{line}} {{state}}": "trouble is what makes it begin",
    "castline-quality: Are pictures and answers what the version was made for?: {{line}} {{of}}": "of few pictures there is no index yet",
    "castline-quality: Does anybody review?: {{state}} opinion, parts": _NO_STATION,
    "castline-quality: Does anybody review?: h that the oldest waits": _NO_STATION,
    "castline-quality: Does anybody review?: h that it may": _NO_STATION,
    "castline-quality: Was a chosen version refused?: {{line}} {{reason}}": "a refusal is what makes it begin",
}


@dataclass(frozen=True)
class Asked:
    """One expression, and where it stands."""

    where: str
    expression: str


def runbook_places() -> dict[str, int]:
    """The panel of each alert's page on the runbook's dashboard."""
    return {alert.name: runbook.PAGE.place(alert.name) for alert in ALERTS}


def documents() -> dict[str, dict[str, Any]]:
    """Grafana's JSON of every dashboard by uid."""
    places = runbook_places()
    return {page.uid: document(page, places) for page in PAGES}


def page_of(uid: str) -> Page:
    return next(page for page in PAGES if page.uid == uid)


def panel_place(alert: Alert) -> int:
    return page_of(alert.page).place(alert.question)


def links(alert: Alert) -> tuple[str, str]:
    """The panel that shows the alert's matter, for its line where it has one; and its page of the runbook."""
    panel = f"/d/{alert.page}?viewPanel={panel_place(alert)}"
    if "$labels.line" in alert.summary:
        panel += "&var-plant={{ $labels.plant }}&var-line={{ $labels.line }}"
    return panel, runbook_link(runbook.PAGE.place(alert.name))


def asked() -> Iterator[Asked]:
    """Every expression of panels and rules."""
    for page in PAGES:
        for panel in page.panels:
            for query in panel.queries:
                yield Asked(f"{page.uid}: {panel.question}: {query.legend}", query.expression)
    for recording in RECORDINGS:
        yield Asked(f"recorded: {recording.name}", recording.expression)
    for alert in ALERTS:
        yield Asked(f"alert: {alert.name}", alert.expression)
