"""`castline dashboards`: dashboards and alerts of a Grafana, brought to what the code says or compared with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dashboards.desired import Wishes
    from dashboards.grafana import Grafana
    from dashboards.provisioning import Change

# Without the prefix of our settings: those refuse a name that they do not know.
TOKEN, WEBHOOK = "GRAFANA_TOKEN", "GRAFANA_ALERT_WEBHOOK"


def _connection(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--no-alerts", is_flag=True, help="The site's Alertmanager calls people: no alert rules in Grafana, and ours there are removed."
        ),
        click.option("--datasource-uid", default="", help="Use this data source, which is there already, instead of making one."),
        click.option("--prometheus", default="http://prometheus:9090", show_default=True, help="Prometheus' address as Grafana sees it."),
        click.option("--ca-file", default="", help="Certificates that sign Grafana's, where the system's own do not."),
        click.option("--url", required=True, help="Grafana's address, with its path where it has one: https://host/grafana."),
    ):
        function = option(function)
    return function


@click.group("dashboards")
def command() -> None:
    """Bring dashboards and alerts to a Grafana, or see what differs there.

    The token of a service account comes from GRAFANA_TOKEN; with GRAFANA_ALERT_WEBHOOK alerts get a contact point
    that calls it. Only what Castline owns is ever changed or removed: fixed uids in the folder `castline`.
    """


@command.command("push")
@_connection
@click.option("--dry-run", is_flag=True, help="Show the differences and change nothing.")
def push(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool, dry_run: bool) -> None:
    """Show what differs, then bring it to what the code says: all of it, or nothing when something is refused."""
    from dashboards.provisioning import apply

    grafana, changes = _changes(url, ca_file, _wishes(prometheus, datasource_uid, no_alerts))
    _show(changes)
    if not dry_run:
        apply(grafana, changes, click.echo)


@command.command("check")
@_connection
def check(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool) -> int:
    """Show what differs and change nothing. Exit status 1 when something does."""
    _, changes = _changes(url, ca_file, _wishes(prometheus, datasource_uid, no_alerts))
    _show(changes)
    return int(any(change.action != "keep" for change in changes))


@command.command("pull")
@_connection
@click.option(
    "--into", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder that the JSON files are written into."
)
def pull(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool, into: Path) -> None:
    """Write what the Grafana has of Castline's into files, to see in them what was changed by hand there."""
    _, changes = _changes(url, ca_file, _wishes(prometheus, datasource_uid, no_alerts))
    for change in changes:
        # A contact point's address is as good as a password.
        if change.before is not None and change.kind.name != "contact point":
            file = into / change.kind.name.replace(" ", "-") / f"{change.uid}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(change.before.content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
            click.echo(str(file))


def _wishes(prometheus: str, datasource: str, no_alerts: bool) -> Wishes:
    from dashboards.desired import Wishes

    return Wishes(prometheus, datasource, os.environ.get(WEBHOOK, ""), not no_alerts)


def _changes(url: str, ca_file: str, wishes: Wishes) -> tuple[Grafana, list[Change]]:
    from dashboards.desired import wanted
    from dashboards.grafana import Grafana
    from dashboards.provisioning import plan

    grafana = Grafana(url, os.environ.get(TOKEN, ""), ca_file=ca_file)
    return grafana, plan(grafana, wanted(wishes))


def _show(changes: list[Change]) -> None:
    for change in changes:
        if change.action != "keep":
            click.echo(f"{change.action} {change.kind.name} {change.uid}")
            for line in change.lines() if change.action == "update" else ():
                click.echo(f"    {line}")
    counts = {action: sum(change.action == action for change in changes) for action in ("create", "update", "remove", "keep")}
    click.echo(", ".join(f"{count} to {action}" for action, count in counts.items()))
