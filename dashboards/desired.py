"""What a Grafana is to have: data source, folder, contact point, alert rules, dashboards, in the order they are written.

What needs the most rights comes first, so that a token that may not is refused before anything was done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dashboards.alerts.alert import Alert
from dashboards.alerts.catalogue import GROUPS, labels, notes
from dashboards.catalogue import documents, links, panel_place
from dashboards.panels import DATASOURCE
from dashboards.resources import FOLDER, AlertRule, ContactPoint, Content, Dashboard, DataSource, Folder, Kind

_CONTACT = "castline-contact"


@dataclass(frozen=True)
class Wishes:
    """`datasource` is the uid of one that is there already; empty makes our own, which asks `prometheus`.

    `webhook` takes alerts; empty leaves contact points alone. Without `alerts` the site's Alertmanager calls people.
    """

    prometheus: str = "http://prometheus:9090"
    datasource: str = ""
    webhook: str = ""
    alerts: bool = True


@dataclass(frozen=True)
class Wanted:
    """One thing that is to be there."""

    kind: Kind
    uid: str
    content: Content


def wanted(wishes: Wishes) -> list[Wanted]:
    """Everything, in the order of writing."""
    found: list[Wanted] = []
    if not wishes.datasource:
        found.append(Wanted(DataSource(), DATASOURCE, _datasource(wishes.prometheus)))
    found.append(Wanted(Folder(), FOLDER, {"uid": FOLDER, "title": "Castline"}))
    if wishes.webhook:
        contact = {"uid": _CONTACT, "name": "castline", "type": "webhook", "settings": {"url": wishes.webhook}}
        found.append(Wanted(ContactPoint(), _CONTACT, contact))
    source = wishes.datasource or DATASOURCE
    if wishes.alerts:
        found += [
            Wanted(AlertRule(), alert.uid, grafana_rule(alert, group, source)) for group, alerts in GROUPS.items() for alert in alerts
        ]
    for uid, document in documents().items():
        shown = json.loads(json.dumps(document).replace(f'"uid": "{DATASOURCE}"', f'"uid": {json.dumps(source)}'))
        found.append(Wanted(Dashboard(), uid, {**shown, "folder": FOLDER}))
    return found


def _datasource(prometheus: str) -> Content:
    return {
        "uid": DATASOURCE,
        "name": "Castline",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
        "jsonData": {"httpMethod": "POST", "timeInterval": "10s"},
    }


def grafana_rule(alert: Alert, group: str, source: str) -> Content:
    """The alert as a rule that Grafana itself evaluates: it fires for every series that the expression returns, whatever its value."""
    panel, runbook = links(alert)
    told = {name: text.replace("$value", "$values.B.Value") for name, text in notes(alert, panel, runbook).items()}
    told |= {"__dashboardUid__": alert.page, "__panelId__": str(panel_place(alert))}
    return {
        "uid": alert.uid,
        "title": alert.name,
        "folderUID": FOLDER,
        "ruleGroup": group,
        "condition": "C",
        "for": "0s" if alert.lasting == "0m" else alert.lasting,
        "noDataState": "OK",  # an expression that returns nothing is health
        "execErrState": "Error",
        "labels": labels(alert),
        "annotations": told,
        "data": [
            _query("A", source, {"expr": alert.expression, "instant": True, "refId": "A"}),
            _query("B", "-100", {"type": "reduce", "expression": "A", "reducer": "last", "refId": "B"}),
            _query("C", "-100", {"type": "math", "expression": "is_number($B)", "refId": "C"}),
        ],
    }


def _query(name: str, source: str, model: Content) -> dict[str, Any]:
    return {"refId": name, "datasourceUid": source, "relativeTimeRange": {"from": 600, "to": 0}, "model": model}
