"""Collects all dashboards and alerts, the rule groups and inhibitions, the runbook, and every PromQL expression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dashboards.pages import gates, kafka, line, pipeline, plant, quality
from dashboards.panels import RUNBOOK_UID, DashboardPage, build_dashboard, make_runbook_link, text_panel
from dashboards.rules import RECORDING_RULES, Alert, Inhibition

ALERT_GROUPS: dict[str, tuple[Alert, ...]] = {
    "castline-parts": line.ALERTS,
    "castline-gates": gates.ALERTS,
    "castline-pipeline": pipeline.ALERTS,
    "castline-quality": quality.MODEL_ALERTS,
    "castline-cameras": quality.CAMERA_ALERTS,
    "castline-reviews": quality.REVIEW_ALERTS,
    "castline-states": plant.STATE_ALERTS,
}
ALERTS: tuple[Alert, ...] = tuple(alert for group in ALERT_GROUPS.values() for alert in group)

INHIBITIONS: tuple[Inhibition, ...] = (
    Inhibition("NoInspector", ("LineSilent", "VerdictsTooOld", "LagGrowing", "PartsWithoutVerdict", "PartsPassUnseen"), ("plant",)),
    Inhibition("LineSilent", ("PartsWithoutVerdict", "PicturesUnmatched", "CameraGap"), ("plant", "line")),
    Inhibition("CameraFrozen", ("VerdictsDrift", "PicturesDrift"), ("plant", "line")),
    Inhibition("CameraDarkOrBright", ("VerdictsDrift", "PicturesDrift", "NetworksDisagree", "ReviewShareHigh"), ("plant", "line")),
    Inhibition("CameraBlurred", ("VerdictsDrift", "PicturesDrift", "NetworksDisagree", "ReviewShareHigh"), ("plant", "line")),
    Inhibition("GateNotAnswering", ("PartsWithoutVerdict", "GateLinkNoisy", "PartReportsFail"), ("plant", "line")),
    Inhibition("ProcessDown", ("ProcessNotReady", "WorkerStalled"), ("plant", "machine", "instance_name")),
    Inhibition("WorkerStalled", ("ProcessNotReady", "EventLoopBlocked"), ("plant", "machine", "instance_name")),
    Inhibition(
        "CameraLatencyUnknown", ("PartsWithoutVerdict", "PartsNotTracked", "PicturesUnmatched", "CameraLatencyDrifts"), ("plant", "line")
    ),
    Inhibition("CameraLatencyWrong", ("PartsWithoutVerdict", "PicturesUnmatched", "CameraLatencyDrifts"), ("plant", "line")),
    Inhibition("ErrorBudgetBurnsFast", ("ErrorBudgetBurnsSlowly",), ("plant", "line")),
    Inhibition("PartsPassUnseen", ("PartsWithoutVerdict",), ("plant", "line")),
    # The first alert of each Inhibition reports a cause, for example that no inspector is ready. While it fires, the alerts in brackets
    # stay silent, because they only report the effects of this cause.
    Inhibition("NoInspector", ("LineRunningBlind", "LineLate"), ("plant",)),
    Inhibition("LineSilent", ("LineRunningBlind", "LineCameraSilent"), ("plant", "line")),
    Inhibition("CameraDown", ("LineCameraSilent",), ("plant", "line")),
    Inhibition("GateNotAnswering", ("LineDisconnected",), ("plant", "line")),
    Inhibition("GateHeldSafe", ("LineGateHeld",), ("plant", "line")),
    Inhibition("VerdictsTooOld", ("LineLate",), ("plant", "line")),
)

RUNBOOK_PAGE = DashboardPage(
    RUNBOOK_UID,
    "Castline: runbook",
    "What each alert means and what to do about it.",
    tuple(text_panel(alert.name, f"`{alert.severity}` after {alert.for_duration}\n\n{alert.runbook.to_markdown()}") for alert in ALERTS),
    has_line_variable=False,
)
PAGES: tuple[DashboardPage, ...] = (plant.PAGE, line.PAGE, pipeline.PAGE, quality.PAGE, gates.PAGE, kafka.PAGE, RUNBOOK_PAGE)

# Metrics of Castline that no panel and no rule reads. Each key is a metric, and its value is the reason.
METRICS_WITHOUT_PANEL: dict[str, str] = {
    "castline_planned_stop_until_seconds": "The state planned-stop shows whether a stop is planned. `castline top` reads the time.",
    "castline_start_span_seconds": "The metric explains one start of a process. `castline bench restart` prints its values.",
}

_NO_SHADOW = "There is no value until a shadow version is chosen."
_NO_TIMED_CAMERA = "The gateway needs the latency of a camera only if it matches the camera's pictures and the board's parts by time."
_NO_HEAD = "Only a version with a segmentation head names types of defect."
_NO_DETAILS = "Only a version with a detail template searches for small defects."
_NO_ARCHIVIST = "The archivist exports the states. A plant may run without it."
_NO_STATION = "A plant may run without the station."
# Maps a query of a panel to the reason why it may return no series in a healthy plant. Queries of alerts are not listed.
EMPTY_IN_HEALTH: dict[str, str] = {
    "castline-pipeline: What could not be judged, and why?: {{role}}: {{kind}} without a valid signature": "A plant may run without keys.",
    f"castline-plant: {plant.STATES}: {{{{plant}}}} {{{{line}}}} {{{{state}}}}": _NO_ARCHIVIST,
    f"castline-quality: {quality.VERSIONS}: {{{{line}}}}: {{{{model}}}} on {{{{runtime}}}}, shadow": _NO_SHADOW,
    f"castline-quality: {quality.SHADOW}: {{{{line}}}} {{{{model}}}}": _NO_SHADOW,
    f"castline-quality: {quality.SHADOW}: {{{{line}}}} pictures a second dropped for lack of time": _NO_SHADOW,
    f"castline-pipeline: {pipeline.DEAD_LETTERS}: {{{{role}}}}: refused by Kafka": "Kafka refuses no record in health",
    f"castline-pipeline: {pipeline.DEAD_LETTERS}: {{{{role}}}}: {{{{kind}}}} skipped": "no record is invalid in health",
    **{
        f"castline-gates: {panel}: {{{{line}}}} {legend}": _NO_TIMED_CAMERA
        for panel, legends in (
            (
                gates.DISTANCE,
                (
                    "median, share of the spacing",
                    "99 %, share of the spacing",
                    "median of the last pictures, with its sign",
                    "99 %, in seconds",
                ),
            ),
            (gates.LATENCY, ("latency in use", "median distance of the last pictures", "latency unknown", "latency no longer right")),
        )
        for legend in legends
    },
    f"castline-quality: {quality.KINDS}: {{{{line}}}} {{{{kind}}}}": _NO_HEAD,
    f"castline-pipeline: {pipeline.FURTHER_WORK}: {{{{machine}}}} {{{{instance_name}}}} naming types of defect, 99 %": _NO_HEAD,
    f"castline-pipeline: {pipeline.FURTHER_WORK}: {{{{machine}}}} {{{{instance_name}}}} searching for small defects, 99 %": _NO_DETAILS,
    f"castline-pipeline: {pipeline.FURTHER_WORK}: {{{{line}}}} pictures a second not searched: {{{{reason}}}}": _NO_DETAILS,
    f"castline-quality: {quality.REVIEW_REASONS}: {{{{line}}}} {{{{reason}}}}": "A line may have no doubtful part for a while.",
    f"castline-quality: {quality.CAMERA}: {{{{line}}}} {{{{state}}}}": "The series begins when a camera is in trouble.",
    f"castline-quality: {quality.DRIFT}: {{{{line}}}} {{{{of}}}}": "There is no index until enough pictures have come.",
    f"castline-quality: {quality.REVIEWS}: {{{{state}}}} opinion, parts": _NO_STATION,
    f"castline-quality: {quality.REVIEWS}: age of the oldest, h": _NO_STATION,
    f"castline-quality: {quality.REVIEWS}: allowed age, h": _NO_STATION,
    f"castline-quality: {quality.GOLDEN_PARTS}: {{{{line}}}} wrong verdict": _NO_STATION,
    f"castline-quality: {quality.GOLDEN_PARTS}: {{{{line}}}} not shown in the last shift": _NO_STATION,
    f"castline-quality: {quality.REFUSED_VERSIONS}: {{{{line}}}} {{{{reason}}}}": "The series begins when a version is refused.",
}


@dataclass(frozen=True)
class PlacedExpression:
    """A PromQL expression with the name of the panel or rule that uses it."""

    place: str
    expression: str


def build_dashboards() -> dict[str, dict[str, Any]]:
    """Returns Grafana's JSON of every dashboard by its uid."""
    runbook_panel_ids = {alert.name: RUNBOOK_PAGE.panel_id(alert.name) for alert in ALERTS}
    return {page.uid: build_dashboard(page, runbook_panel_ids) for page in PAGES}


def find_page(uid: str) -> DashboardPage:
    """Returns the dashboard whose uid in Grafana is `uid`."""
    return next(page for page in PAGES if page.uid == uid)


def find_panel_id(alert: Alert) -> int:
    """Returns the number of the panel to which the alert links."""
    return find_page(alert.dashboard_uid).panel_id(alert.panel_title)


def make_annotations(alert: Alert) -> dict[str, str]:
    """Returns the alert's texts, with links to its panel and to the runbook. If the alert names a line, the panel shows only this line."""
    panel_link = f"/d/{alert.dashboard_uid}?viewPanel={find_panel_id(alert)}"
    if "$labels.line" in alert.summary:
        panel_link += "&var-plant={{ $labels.plant }}&var-line={{ $labels.line }}"
    return alert.annotations(panel_link, make_runbook_link(RUNBOOK_PAGE.panel_id(alert.name)))


def list_expressions() -> Iterator[PlacedExpression]:
    """Yields every expression of panels, recording rules and alerts."""
    for page in PAGES:
        for panel in page.panels:
            for query in panel.queries:
                yield PlacedExpression(f"{page.uid}: {panel.title}: {query.legend}", query.expression)
    for recording in RECORDING_RULES:
        yield PlacedExpression(f"recorded: {recording.name}", recording.expression)
    for alert in ALERTS:
        yield PlacedExpression(f"alert: {alert.name}", alert.expression)


def make_runbook_markdown() -> str:
    """Returns the runbook as one page of Markdown."""
    parts = [
        "# Runbook",
        "<!-- Written by `python -m dashboards.generate` from dashboards/pages; changes made here are lost. -->",
        "This page says what each alert means and what to do about it. Grafana shows the same text as the dashboard `Castline: runbook`.",
        "A `critical` alert calls a person at once. A `warning` waits for the start of the next shift.",
        "Many alerts name the safe action of a line. This is the setting `lines.gate.safe`. It says whether the board diverts a part "
        "that has no verdict, lets the part pass, or stops the belt.",
        "The objective is that 99.95 % of the parts have a verdict before they reach the gate, measured over 30 days. The remaining 0.05 % "
        "of the parts are the error budget.",
    ]
    for group, alerts in ALERT_GROUPS.items():
        parts.append(f"## {group.removeprefix('castline-').capitalize()}")
        for alert in alerts:
            delay = (
                f"when the problem has lasted for {alert.for_duration.replace('s', ' s').replace('m', ' min')}"
                if alert.for_duration != "0m"
                else "as soon as the problem begins"
            )
            parts += [
                f"### {alert.slug}",
                f"The alert `{alert.name}` has the severity `{alert.severity}` and fires {delay}. "
                f"The panel “{alert.panel_title}” on the dashboard “{find_page(alert.dashboard_uid).title}” shows the values that the "
                "alert checks.",
                alert.runbook.to_markdown(),
            ]
    return "\n\n".join(parts) + "\n"
