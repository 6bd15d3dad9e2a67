"""Updates Castline's resources in a Grafana server: data source, folder, contact point, alert rules and dashboards.

Castline changes only its own resources, which have fixed uids. If Grafana refuses one change, Castline undoes the earlier ones.
"""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboards.catalogue import ALERT_GROUPS, build_dashboards, find_panel_id, make_annotations
from dashboards.grafana import Grafana, GrafanaError
from dashboards.panels import DATASOURCE_UID, TAG
from dashboards.rules import Alert

FOLDER_UID = "castline"
UID_PREFIX = "castline-"
CONTACT_POINT_UID = "castline-contact"
MAX_DIFF_LINES = 30

Content = dict[str, Any]


@dataclass(frozen=True)
class ActualResource:
    """A resource as it is stored in Grafana.

    `content` is compared with the resource that the code describes. `raw` is Grafana's whole answer. It contains the version number that an
    update must send.
    """

    uid: str
    content: Content
    raw: Content


class ResourceKind(ABC):
    """Reads, compares, writes and removes Grafana's resources of one kind. `name` is the kind's name in messages."""

    name = ""

    @abstractmethod
    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        """Returns the resource, or None if Grafana does not have it."""

    @abstractmethod
    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        """Creates the resource if `before` is None, else updates it.

        Grafana refuses the update if somebody has changed the resource since `before` was read.
        """

    @abstractmethod
    def remove(self, grafana: Grafana, uid: str) -> None:
        """Deletes the resource."""

    def list_owned(self, grafana: Grafana) -> list[str]:
        """Returns the uids of Castline's own resources of this kind. Castline never removes any other resource."""
        return []

    def is_same(self, actual: Content, desired: Content) -> bool:
        """Returns whether Grafana's content equals the desired one. Keys that the server added do not count as a difference."""
        return contains(actual, desired)


def contains(actual: object, desired: object) -> bool:
    """Returns whether `actual` has all keys and values of `desired`. Further keys of `actual` do not count as a difference."""
    if isinstance(desired, dict):
        return isinstance(actual, dict) and all(contains(actual.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        return isinstance(actual, list) and len(actual) == len(desired) and all(map(contains, actual, desired))
    return actual == desired


class DataSourceKind(ResourceKind):
    """Reads and writes the data source that the panels query."""

    name = "data source"

    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        answer = grafana.get(f"/datasources/uid/{uid}")
        return ActualResource(uid, answer, answer) if answer else None

    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        if before is None:
            grafana.post("/datasources", content)
        else:
            version = {"version": before.raw["version"]} if "version" in before.raw else {}
            grafana.put(f"/datasources/uid/{before.uid}", {**content, **version})

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/datasources/uid/{uid}")


class FolderKind(ResourceKind):
    """Reads and writes the folder of the dashboards and alert rules."""

    name = "folder"

    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        answer = grafana.get(f"/folders/{uid}")
        return ActualResource(uid, {"uid": answer["uid"], "title": answer["title"]}, answer) if answer else None

    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        if before is None:
            grafana.post("/folders", content)
        else:
            grafana.put(f"/folders/{before.uid}", {"title": content["title"], "version": before.raw.get("version"), "overwrite": False})

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/folders/{uid}")


class DashboardKind(ResourceKind):
    """Reads and writes dashboards. The content includes the folder's uid, so that a dashboard in another folder counts as changed."""

    name = "dashboard"

    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        answer = grafana.get(f"/dashboards/uid/{uid}")
        if not answer:
            return None
        content = {key: value for key, value in answer["dashboard"].items() if key not in ("id", "version")}
        return ActualResource(uid, {**content, "folder": answer["meta"].get("folderUid", "")}, answer)

    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        document = {key: value for key, value in content.items() if key != "folder"}
        known = {"id": before.raw["dashboard"]["id"], "version": before.raw["dashboard"]["version"]} if before else {"id": None}
        body = {"dashboard": {**document, **known}, "folderUid": content["folder"], "message": "pushed by castline", "overwrite": False}
        grafana.post("/dashboards/db", body)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/dashboards/uid/{uid}")

    def list_owned(self, grafana: Grafana) -> list[str]:
        answers = grafana.get(f"/search?type=dash-db&tag={TAG}&limit=5000") or []
        return [answer["uid"] for answer in answers if answer.get("folderUid") == FOLDER_UID and answer["uid"].startswith(UID_PREFIX)]

    def is_same(self, actual: Content, desired: Content) -> bool:
        """Returns whether Grafana's dashboard equals the desired one.

        Grafana adds no keys to a dashboard. So an additional key comes from a person, and counts as a difference.
        """
        return _without_none(actual) == _without_none(desired)


class AlertRuleKind(ResourceKind):
    """Reads and writes the alert rules that Grafana evaluates."""

    name = "alert rule"

    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        answer = grafana.get(f"/v1/provisioning/alert-rules/{uid}")
        return ActualResource(uid, answer, answer) if answer else None

    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        if before is None:
            grafana.post("/v1/provisioning/alert-rules", content)
        else:
            grafana.put(f"/v1/provisioning/alert-rules/{before.uid}", content)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/v1/provisioning/alert-rules/{uid}")

    def list_owned(self, grafana: Grafana) -> list[str]:
        # An older Grafana cannot list its alert rules. From such a Grafana, Castline removes no old rules.
        answers = grafana.get("/v1/provisioning/alert-rules") or []
        return [answer["uid"] for answer in answers if answer.get("folderUID") == FOLDER_UID and answer["uid"].startswith(UID_PREFIX)]


class ContactPointKind(ResourceKind):
    """Reads and writes the webhook to which Grafana sends alerts. Its address is as secret as a password, so it is never shown."""

    name = "contact point"

    def read(self, grafana: Grafana, uid: str) -> ActualResource | None:
        answers = grafana.get("/v1/provisioning/contact-points") or []
        return next((ActualResource(uid, answer, answer) for answer in answers if answer.get("uid") == uid), None)

    def write(self, grafana: Grafana, content: Content, before: ActualResource | None) -> None:
        if before is None:
            grafana.post("/v1/provisioning/contact-points", content)
        else:
            grafana.put(f"/v1/provisioning/contact-points/{before.uid}", content)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/v1/provisioning/contact-points/{uid}")


@dataclass(frozen=True)
class ProvisioningOptions:
    """Options that say which resources a Grafana server gets.

    - `datasource_uid`: an existing data source. Empty: Castline creates one.
    - `webhook_url`: where alerts go. Empty: contact points stay as they are.
    - `with_alerts`: False for a site whose Alertmanager sends the alerts.
    """

    prometheus_url: str = "http://prometheus:9090"
    datasource_uid: str = ""
    webhook_url: str = ""
    with_alerts: bool = True


@dataclass(frozen=True)
class DesiredResource:
    """A resource that Grafana should have, such as a dashboard or an alert rule."""

    kind: ResourceKind
    uid: str
    content: Content


@dataclass(frozen=True)
class ResourceDiff:
    """The change of one resource.

    `before` is the resource that Grafana has, or None. `content` is what the resource should contain, or None if it is to be removed.
    """

    kind: ResourceKind
    uid: str
    action: Literal["create", "update", "remove", "keep"]
    before: ActualResource | None
    content: Content | None

    def format_lines(self) -> list[str]:
        """Returns at most MAX_DIFF_LINES lines in which Grafana's content and the desired one differ, and the number of further lines.

        Returns no lines for a contact point, because its address is secret.
        """
        if isinstance(self.kind, ContactPointKind):
            return []
        actual: object = self.before.content if self.before else {}
        if self.content is not None and not isinstance(self.kind, DashboardKind):
            # Do not compare the keys that Grafana itself adds to some resources.
            actual = _restrict(actual, self.content)
        diff = difflib.unified_diff(_to_lines(actual), _to_lines(self.content or {}), n=0, lineterm="")
        lines = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
        return lines if len(lines) <= MAX_DIFF_LINES else [*lines[:MAX_DIFF_LINES], f"and {len(lines) - MAX_DIFF_LINES} more lines"]


def list_desired(options: ProvisioningOptions) -> list[DesiredResource]:
    """Returns all resources that Grafana should have, in the order in which they are written.

    The resources that need the most permissions come first. So if the token lacks permissions, Grafana refuses before anything is changed.
    """
    desired: list[DesiredResource] = []
    if not options.datasource_uid:
        desired.append(DesiredResource(DataSourceKind(), DATASOURCE_UID, _datasource_content(options.prometheus_url)))
    desired.append(DesiredResource(FolderKind(), FOLDER_UID, {"uid": FOLDER_UID, "title": "Castline"}))
    if options.webhook_url:
        contact = {"uid": CONTACT_POINT_UID, "name": "castline", "type": "webhook", "settings": {"url": options.webhook_url}}
        desired.append(DesiredResource(ContactPointKind(), CONTACT_POINT_UID, contact))
    datasource_uid = options.datasource_uid or DATASOURCE_UID
    if options.with_alerts:
        desired += [
            DesiredResource(AlertRuleKind(), alert.uid, make_alert_rule(alert, group, datasource_uid))
            for group, alerts in ALERT_GROUPS.items()
            for alert in alerts
        ]
    for uid, document in build_dashboards().items():
        text = json.dumps(document).replace(f'"uid": "{DATASOURCE_UID}"', f'"uid": {json.dumps(datasource_uid)}')
        desired.append(DesiredResource(DashboardKind(), uid, {**json.loads(text), "folder": FOLDER_UID}))
    return desired


def make_alert_rule(alert: Alert, group: str, datasource_uid: str) -> Content:
    """Returns `alert` as a rule that Grafana evaluates. The rule fires for each series that the alert's expression returns."""
    annotations = {name: text.replace("$value", "$values.B.Value") for name, text in make_annotations(alert).items()}
    annotations |= {"__dashboardUid__": alert.dashboard_uid, "__panelId__": str(find_panel_id(alert))}
    return {
        "uid": alert.uid,
        "title": alert.name,
        "folderUID": FOLDER_UID,
        "ruleGroup": group,
        "condition": "C",
        "for": "0s" if alert.for_duration == "0m" else alert.for_duration,
        # The expression of an alert returns a series only if there is a problem. So no data means that all is well.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": alert.labels,
        "annotations": annotations,
        "data": [
            _rule_query("A", datasource_uid, {"expr": alert.expression, "instant": True, "refId": "A"}),
            _rule_query("B", "-100", {"type": "reduce", "expression": "A", "reducer": "last", "refId": "B"}),
            _rule_query("C", "-100", {"type": "math", "expression": "is_number($B)", "refId": "C"}),
        ],
    }


def plan_changes(grafana: Grafana, desired: Sequence[DesiredResource]) -> list[ResourceDiff]:
    """Returns the changes that Grafana needs, but changes nothing. Raises GrafanaError if Grafana refuses or does not answer."""
    grafana.expect_known_version()
    changes = []
    for resource in desired:
        before = resource.kind.read(grafana, resource.uid)
        if before is None:
            changes.append(ResourceDiff(resource.kind, resource.uid, "create", None, resource.content))
        else:
            is_same = resource.kind.is_same(before.content, resource.content)
            changes.append(ResourceDiff(resource.kind, resource.uid, "keep" if is_same else "update", before, resource.content))
    for kind in (AlertRuleKind(), DashboardKind()):
        desired_uids = {resource.uid for resource in desired if type(resource.kind) is type(kind)}
        for uid in sorted(set(kind.list_owned(grafana)) - desired_uids):
            changes.append(ResourceDiff(kind, uid, "remove", kind.read(grafana, uid), None))
    return changes


def apply_changes(grafana: Grafana, changes: Sequence[ResourceDiff], report: Callable[[str], None] = lambda line: None) -> None:
    """Makes all changes in their order. Calls `report` with a line of text after each change.

    If Grafana refuses a change, the changes that were already made are undone. Then GrafanaError is raised.
    """
    done: list[ResourceDiff] = []
    for change in changes:
        if change.action == "keep":
            continue
        try:
            if change.content is None:
                change.kind.remove(grafana, change.uid)
            else:
                change.kind.write(grafana, change.content, change.before)
        except GrafanaError as error:
            # Status 0 means that Grafana did not answer. Grafana may have made the change nevertheless. Therefore undo this change, too.
            remaining = _undo(grafana, done if error.status else [*done, change])
            outcome = f"These changes could not be undone: {', '.join(remaining)}." if remaining else "Nothing was changed."
            message = f"Cannot {change.action} the {change.kind.name} {change.uid}: {error} {outcome}"
            raise GrafanaError(message, error.status) from None
        done.append(change)
        report(f"{change.action}d {change.kind.name} {change.uid}")


def _undo(grafana: Grafana, done: Sequence[ResourceDiff]) -> list[str]:
    """Undoes changes, beginning with the last one. Returns the names of the resources that could not be restored."""
    remaining = []
    for change in reversed(done):
        try:
            current = change.kind.read(grafana, change.uid)
            if change.before is not None:
                # Each change raises the version number of the resource. An update must send the present number, `current`.
                change.kind.write(grafana, change.before.content, current)
            elif current is not None:
                change.kind.remove(grafana, change.uid)
        except GrafanaError:
            remaining.append(f"{change.kind.name} {change.uid}")
    return remaining


def _datasource_content(prometheus_url: str) -> Content:
    return {
        "uid": DATASOURCE_UID,
        "name": "Castline",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "jsonData": {"httpMethod": "POST", "timeInterval": "10s"},
    }


def _rule_query(name: str, datasource_uid: str, model: Content) -> Content:
    return {"refId": name, "datasourceUid": datasource_uid, "relativeTimeRange": {"from": 600, "to": 0}, "model": model}


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def _restrict(actual: object, desired: object) -> object:
    if isinstance(actual, dict) and isinstance(desired, dict):
        return {key: _restrict(actual[key], value) for key, value in desired.items() if key in actual}
    if isinstance(actual, list) and isinstance(desired, list) and len(actual) == len(desired):
        return [_restrict(one, other) for one, other in zip(actual, desired, strict=True)]
    return actual


def _to_lines(content: object) -> list[str]:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).splitlines() if content else []
