"""The kinds of things that Castline keeps in a Grafana: how each is read, compared, written and removed.

What the server adds by itself is no difference; what a person changed is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from dashboards.grafana import Grafana
from dashboards.panels import TAG

FOLDER = "castline"
PREFIX = "castline-"
Content = dict[str, Any]


@dataclass(frozen=True)
class Thing:
    """One thing by its fixed uid. `raw` is what Grafana said of it, for writing and for putting it back."""

    uid: str
    content: Content
    raw: Content


class Kind(ABC):
    """`name` is what a person calls it."""

    name = ""

    @abstractmethod
    def read(self, grafana: Grafana, uid: str) -> Thing | None: ...

    @abstractmethod
    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        """Creates it, or changes `before`; refused when it is not what it was when it was read."""

    @abstractmethod
    def remove(self, grafana: Grafana, uid: str) -> None: ...

    def owned(self, grafana: Grafana) -> list[str]:
        """The uids of what is there and ours; only these are ever removed."""
        return []

    def same(self, found: Content, wanted: Content) -> bool:
        return covers(found, wanted)


def covers(found: object, wanted: object) -> bool:
    """Whether `found` is `wanted`, but for keys that the server added and keys whose value is nothing."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(covers(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(covers, found, wanted))
    return found == wanted


def _without_nothing(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nothing(inner) for key, inner in value.items() if inner is not None}
    return [_without_nothing(inner) for inner in value] if isinstance(value, list) else value


class DataSource(Kind):
    name = "data source"

    def read(self, grafana: Grafana, uid: str) -> Thing | None:
        found = grafana.get(f"/datasources/uid/{uid}")
        return Thing(uid, found, found) if found else None

    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        if before is None:
            grafana.post("/datasources", content)
        else:
            kept = {"version": before.raw["version"]} if "version" in before.raw else {}
            grafana.put(f"/datasources/uid/{before.uid}", {**content, **kept})

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/datasources/uid/{uid}")


class Folder(Kind):
    name = "folder"

    def read(self, grafana: Grafana, uid: str) -> Thing | None:
        found = grafana.get(f"/folders/{uid}")
        return Thing(uid, {"uid": found["uid"], "title": found["title"]}, found) if found else None

    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        if before is None:
            grafana.post("/folders", content)
        else:
            grafana.put(f"/folders/{before.uid}", {"title": content["title"], "version": before.raw.get("version"), "overwrite": False})

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/folders/{uid}")


class Dashboard(Kind):
    name = "dashboard"

    def read(self, grafana: Grafana, uid: str) -> Thing | None:
        found = grafana.get(f"/dashboards/uid/{uid}")
        if not found:
            return None
        content = {key: value for key, value in found["dashboard"].items() if key not in ("id", "version")}
        # One that was moved to another folder is another one.
        return Thing(uid, {**content, "folder": found["meta"].get("folderUid", "")}, found)

    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        shown = {key: value for key, value in content.items() if key != "folder"}
        known = {"id": before.raw["dashboard"]["id"], "version": before.raw["dashboard"]["version"]} if before else {"id": None}
        body = {"dashboard": {**shown, **known}, "folderUid": content["folder"], "message": "pushed by castline", "overwrite": False}
        grafana.post("/dashboards/db", body)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/dashboards/uid/{uid}")

    def owned(self, grafana: Grafana) -> list[str]:
        found = grafana.get(f"/search?type=dash-db&tag={TAG}&limit=5000") or []
        return [one["uid"] for one in found if one.get("folderUid") == FOLDER and one["uid"].startswith(PREFIX)]

    def same(self, found: Content, wanted: Content) -> bool:
        return _without_nothing(found) == _without_nothing(wanted)


class AlertRule(Kind):
    name = "alert rule"

    def read(self, grafana: Grafana, uid: str) -> Thing | None:
        found = grafana.get(f"/v1/provisioning/alert-rules/{uid}")
        return Thing(uid, found, found) if found else None

    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        if before is None:
            grafana.post("/v1/provisioning/alert-rules", content)
        else:
            grafana.put(f"/v1/provisioning/alert-rules/{before.uid}", content)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/v1/provisioning/alert-rules/{uid}")

    def owned(self, grafana: Grafana) -> list[str]:
        # Older servers have no list of all rules: then only those that are wanted are looked at.
        found = grafana.get("/v1/provisioning/alert-rules") or []
        return [one["uid"] for one in found if one.get("folderUID") == FOLDER and one["uid"].startswith(PREFIX)]


class ContactPoint(Kind):
    name = "contact point"

    def read(self, grafana: Grafana, uid: str) -> Thing | None:
        found = grafana.get("/v1/provisioning/contact-points") or []
        return next((Thing(uid, one, one) for one in found if one.get("uid") == uid), None)

    def write(self, grafana: Grafana, content: Content, before: Thing | None) -> None:
        if before is None:
            grafana.post("/v1/provisioning/contact-points", content)
        else:
            grafana.put(f"/v1/provisioning/contact-points/{before.uid}", content)

    def remove(self, grafana: Grafana, uid: str) -> None:
        grafana.delete(f"/v1/provisioning/contact-points/{uid}")
