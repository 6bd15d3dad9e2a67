"""The runbook as a dashboard: what to do stands where the alert leads, without another server."""

from __future__ import annotations

from dashboards.alerts.alert import Alert
from dashboards.alerts.catalogue import ALERTS, GROUPS
from dashboards.panels import RUNBOOK, Page, words


def markdown(alert: Alert) -> str:
    """One alert's page, without its heading."""
    book = alert.runbook
    parts = (("Meaning", book.meaning), ("Impact", book.impact), ("First look", book.first_look), ("Fix", book.fix))
    return "\n\n".join(f"**{title}.** {text}" for title, text in parts)


PAGE = Page(
    RUNBOOK,
    "Castline: runbook",
    "What each alert means and what to do about it.",
    tuple(words(alert.name, f"`{alert.severity}` after {alert.lasting}\n\n{markdown(alert)}") for alert in ALERTS),
    lines=False,
)


def as_page() -> str:
    """The same as one page of Markdown."""
    parts = [
        "# Runbook",
        "<!-- Written by `python -m dashboards.generate` from dashboards/alerts; changes made here are lost. -->",
        "What each alert means and what to do about it; the same stands in Grafana as the dashboard `Castline: runbook`. "
        "`critical` calls a person now, `warning` waits for the next shift's start.",
    ]
    for group, alerts in GROUPS.items():
        parts.append(f"## {group.removeprefix('castline-').capitalize()}")
        for alert in alerts:
            parts += [
                f"### {alert.slug}",
                f"`{alert.name}`, {alert.severity}, after {alert.lasting}. Panel: {alert.page}, “{alert.question}”",
            ]
            parts += [markdown(alert)]
    return "\n\n".join(parts) + "\n"
