"""All alerts and recorded series; which alert silences which; and their form for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from dashboards.alerts import camera, gates, parts, pipeline, quality, reviews
from dashboards.alerts.alert import Alert
from dashboards.alerts.recording import RECORDINGS

GROUPS: dict[str, tuple[Alert, ...]] = {
    "castline-parts": parts.ALERTS,
    "castline-gates": gates.ALERTS,
    "castline-pipeline": pipeline.ALERTS,
    "castline-quality": quality.ALERTS,
    "castline-cameras": camera.ALERTS,
    "castline-reviews": reviews.ALERTS,
}
ALERTS: tuple[Alert, ...] = tuple(alert for group in GROUPS.values() for alert in group)


@dataclass(frozen=True)
class Inhibition:
    """While `source` fires, the `targets` with the same labels `equal` call nobody: they are its consequences."""

    source: str
    targets: tuple[str, ...]
    equal: tuple[str, ...]


INHIBITIONS: tuple[Inhibition, ...] = (
    Inhibition("NoInspector", ("LineSilent", "VerdictsTooOld", "LagGrowing", "PartsWithoutVerdict", "PartsPassUnseen"), ("plant",)),
    Inhibition("LineSilent", ("PartsWithoutVerdict", "PicturesUnmatched", "CameraGap"), ("plant", "line")),
    Inhibition("CameraFrozen", ("VerdictsDrift", "PicturesDrift"), ("plant", "line")),
    Inhibition("CameraDarkOrBright", ("VerdictsDrift", "PicturesDrift", "NetworksDisagree", "ReviewShareHigh"), ("plant", "line")),
    Inhibition("CameraBlurred", ("VerdictsDrift", "PicturesDrift", "NetworksDisagree", "ReviewShareHigh"), ("plant", "line")),
    Inhibition("GateNotAnswering", ("PartsWithoutVerdict", "GateLinkNoisy", "PartReportsFail"), ("plant", "line")),
    Inhibition("ProcessDown", ("ProcessNotReady", "WorkerStalled"), ("plant", "instance_name")),
    Inhibition("WorkerStalled", ("ProcessNotReady", "EventLoopBlocked"), ("plant", "instance_name")),
    Inhibition("ErrorBudgetBurnsFast", ("ErrorBudgetBurnsSlowly",), ("plant", "line")),
    Inhibition("PartsPassUnseen", ("PartsWithoutVerdict",), ("plant", "line")),
)


def labels(alert: Alert) -> dict[str, str]:
    return {"severity": alert.severity, "service": "castline"}


def notes(alert: Alert, panel_link: str, runbook_link: str) -> dict[str, str]:
    """The links are addresses below Grafana's own."""
    return {"summary": alert.summary, "description": alert.runbook.meaning, "dashboard": panel_link, "runbook": runbook_link}


def prometheus_rules(links: dict[str, tuple[str, str]]) -> str:
    """The rules file. `links`: panel and runbook by alert."""
    recordings = [{"record": one.name, "expr": one.expression} for one in RECORDINGS]
    groups: list[dict[str, Any]] = [{"name": "castline-recorded", "rules": recordings}]
    for name, alerts in GROUPS.items():
        groups.append({"name": name, "rules": [_rule(alert, *links[alert.name]) for alert in alerts]})
    head = "# Written by `python -m dashboards.generate` from dashboards/alerts; changes made here are lost.\n"
    return head + yaml.safe_dump({"groups": groups}, sort_keys=False, width=150, allow_unicode=True)


def _rule(alert: Alert, panel_link: str, runbook_link: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasting,
        "labels": labels(alert),
        "annotations": notes(alert, panel_link, runbook_link),
    }
