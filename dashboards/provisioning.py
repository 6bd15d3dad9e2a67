"""Brings a Grafana to what is wanted: first the differences, then all of them or none."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dashboards.desired import Wanted
from dashboards.grafana import Grafana, GrafanaError
from dashboards.resources import AlertRule, ContactPoint, Content, Dashboard, Kind, Thing

_MOST_LINES = 30


@dataclass(frozen=True)
class Change:
    """What is to be done about one thing. `before` is what is there, `content` what is wanted; None for nothing."""

    kind: Kind
    uid: str
    action: Literal["create", "update", "remove", "keep"]
    before: Thing | None
    content: Content | None

    def lines(self) -> list[str]:
        """The difference as a person reads it, shortened. Nothing of a contact point: its address is as good as a password."""
        if isinstance(self.kind, ContactPoint):
            return []
        wanted = self.content or {}
        # Of what is there only what Castline sets: the rest is the server's.
        there = (self.before.content if self.before else {}) if self.content is None or isinstance(self.kind, Dashboard) else _part(self)
        found = [
            line
            for line in difflib.unified_diff(_text(there), _text(wanted), n=0, lineterm="")
            if not line.startswith(("---", "+++", "@@"))
        ]
        return found if len(found) <= _MOST_LINES else [*found[:_MOST_LINES], f"and {len(found) - _MOST_LINES} more lines"]


def plan(grafana: Grafana, wanted: Sequence[Wanted]) -> list[Change]:
    """Reads everything, changes nothing. Raises GrafanaError."""
    grafana.expect_known_version()
    changes = []
    for one in wanted:
        before = one.kind.read(grafana, one.uid)
        if before is None:
            changes.append(Change(one.kind, one.uid, "create", None, one.content))
        else:
            same = one.kind.same(before.content, one.content)
            changes.append(Change(one.kind, one.uid, "keep" if same else "update", before, one.content))
    for kind in (AlertRule(), Dashboard()):
        uids = {one.uid for one in wanted if type(one.kind) is type(kind)}
        for uid in sorted(set(kind.owned(grafana)) - uids):
            changes.append(Change(kind, uid, "remove", kind.read(grafana, uid), None))
    return changes


def apply(grafana: Grafana, changes: Sequence[Change], tell: Callable[[str], None] = lambda _: None) -> None:
    """Does all changes. Raises GrafanaError: after what was done before the failure has been undone."""
    done: list[Change] = []
    for change in changes:
        if change.action == "keep":
            continue
        try:
            _do(grafana, change)
        except GrafanaError as error:
            # Without an answer nobody knows whether it was done.
            left = _undo(grafana, done if error.status else [*done, change])
            rest = f"; could not be undone: {', '.join(left)}" if left else "; nothing was changed"
            raise GrafanaError(f"{change.kind.name} {change.uid}: {error}{rest}", error.status) from None
        done.append(change)
        tell(f"{change.action}d {change.kind.name} {change.uid}")


def _do(grafana: Grafana, change: Change) -> None:
    if change.content is None:
        change.kind.remove(grafana, change.uid)
    else:
        change.kind.write(grafana, change.content, change.before)


def _undo(grafana: Grafana, done: Sequence[Change]) -> list[str]:
    """Puts back, the latest first; returns what could not be."""
    left = []
    for change in reversed(done):
        try:
            there = change.kind.read(grafana, change.uid)
            if change.before is not None:
                # Over what is there now: its version has grown by our own writing.
                change.kind.write(grafana, change.before.content, there)
            elif there is not None:
                change.kind.remove(grafana, change.uid)
        except GrafanaError:
            left.append(f"{change.kind.name} {change.uid}")
    return left


def _part(change: Change) -> object:
    return _like(change.before.content if change.before else {}, change.content)


def _like(found: object, wanted: object) -> object:
    """Of `found` what has a counterpart in `wanted`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return {key: _like(found[key], value) for key, value in wanted.items() if key in found}
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [_like(one, other) for one, other in zip(found, wanted, strict=True)]
    return found


def _text(content: object) -> list[str]:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).splitlines() if content else []
