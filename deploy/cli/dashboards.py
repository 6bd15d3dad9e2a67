"""The command `castline dashboards`: writes Castline's dashboards and alerts to Grafana, or shows how Grafana's copies differ from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dashboards.grafana import Grafana
    from dashboards.provisioning import ResourceDiff

# The names of these environment variables do not begin with CASTLINE_, because Castline refuses an unknown variable CASTLINE_….
TOKEN_VARIABLE, WEBHOOK_VARIABLE = "GRAFANA_TOKEN", "GRAFANA_ALERT_WEBHOOK"


def _connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--no-alerts",
            is_flag=True,
            help="Write no alert rules to Grafana, and remove Castline's rules from it. Choose this if an Alertmanager sends the alerts.",
        ),
        click.option("--datasource-uid", default="", help="Use the existing data source with this uid instead of creating one."),
        click.option(
            "--prometheus",
            default="http://prometheus:9090",
            show_default=True,
            help="Address of Prometheus, as the Grafana server sees it.",
        ),
        click.option(
            "--ca-file",
            default="",
            help="File of certificates to trust. Needed if the operating system does not trust Grafana's certificate.",
        ),
        click.option("--url", required=True, help="Address of Grafana, with its path if it has one, for instance https://host/grafana."),
    ):
        function = option(function)
    return function


@click.group("dashboards")
def command() -> None:
    """Write Castline's dashboards and alerts to a Grafana server, or compare them. Dashboards and alerts of other people stay unchanged.

    The environment variable GRAFANA_TOKEN must hold the token of a Grafana service account. Grafana sends alerts to the address in
    GRAFANA_ALERT_WEBHOOK.
    """


@command.command("push")
@_connection_options
@click.option("--dry-run", is_flag=True, help="Only show what would change, and change nothing.")
def push(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool, dry_run: bool) -> None:
    """Bring Castline's dashboards and alerts in Grafana up to date.

    The command first shows what it will change. If Grafana refuses a change, the command undoes all changes.
    """
    from dashboards.provisioning import apply_changes

    grafana, changes = _plan(url, ca_file, prometheus, datasource_uid, no_alerts)
    _show(changes)
    if not dry_run:
        apply_changes(grafana, changes, click.echo)


@command.command("check")
@_connection_options
def check(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool) -> int:
    """Show how Grafana's dashboards and alerts differ from Castline's. The exit status is 1 if they differ."""
    _, changes = _plan(url, ca_file, prometheus, datasource_uid, no_alerts)
    _show(changes)
    return int(any(change.action != "keep" for change in changes))


@command.command("pull")
@_connection_options
@click.option("--into", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write the JSON files into.")
def pull(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool, into: Path) -> None:
    """Save Castline's dashboards and alerts from Grafana as files. The files include the changes that people made by hand in Grafana."""
    _, changes = _plan(url, ca_file, prometheus, datasource_uid, no_alerts)
    for change in changes:
        # Contact points are not saved, because their addresses are secrets.
        if change.before is not None and change.kind.name != "contact point":
            file = into / change.kind.name.replace(" ", "-") / f"{change.uid}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(change.before.content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
            click.echo(str(file))


def _plan(url: str, ca_file: str, prometheus: str, datasource_uid: str, no_alerts: bool) -> tuple[Grafana, list[ResourceDiff]]:
    from dashboards.grafana import Grafana
    from dashboards.provisioning import ProvisioningOptions, list_desired, plan_changes

    options = ProvisioningOptions(prometheus, datasource_uid, os.environ.get(WEBHOOK_VARIABLE, ""), not no_alerts)
    grafana = Grafana(url, os.environ.get(TOKEN_VARIABLE, ""), ca_file=ca_file)
    return grafana, plan_changes(grafana, list_desired(options))


def _show(changes: list[ResourceDiff]) -> None:
    for change in changes:
        if change.action != "keep":
            click.echo(f"{change.action} {change.kind.name} {change.uid}")
            for line in change.format_lines() if change.action == "update" else ():
                click.echo(f"    {line}")
    counts = {action: sum(change.action == action for change in changes) for action in ("create", "update", "remove", "keep")}
    click.echo(", ".join(f"{count} to {action}" for action, count in counts.items()))
