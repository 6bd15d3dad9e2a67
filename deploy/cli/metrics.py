"""`castline metrics`: lists the metrics, and writes the configuration of a Prometheus server that collects them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from streams.errors import SettingsError
from streams.settings import load_settings

# The names of these environment variables do not begin with CASTLINE_. Castline takes each variable CASTLINE_… for a setting, and refuses
# unknown settings.
REMOTE_URL, REMOTE_TOKEN, REMOTE_USER = "REMOTE_WRITE_URL", "REMOTE_WRITE_TOKEN", "REMOTE_WRITE_USER"


@click.group("metrics")
def command() -> None:
    """List the metrics, or write the configuration of a Prometheus server that collects them."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_metrics(as_json: bool) -> None:
    """Show every metric with its type, labels and meaning."""
    from dashboards.promql import list_declared_metrics

    metrics = list_declared_metrics()
    if as_json:
        rows = [{"name": metric.name, "type": metric.kind, "labels": metric.labels, "meaning": metric.meaning} for metric in metrics]
        click.echo(json.dumps(rows, indent=2))
        return
    for metric in metrics:
        labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
        click.echo(f"{metric.name}{labels} {metric.kind}: {metric.meaning}")


@command.command("prometheus")
@click.option(
    "--plant",
    help="Name of the plant. Prometheus adds this name to all its series as the label `plant`.  [default: the setting service.site]",
)
@click.option(
    "--folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Write the configuration files into this folder."
)
@click.option(
    "--targets",
    multiple=True,
    help="Path pattern of further target files, such as those of another machine. Target files tell Prometheus which processes to read. "
    "You can repeat the option.",
)
@click.option("--alertmanager", default="", help="Send alerts to the Alertmanager at this host:port.")
@click.option(
    "--agent",
    is_flag=True,
    help="Configure Prometheus as an agent, which evaluates no rules and only sends samples to a hosted monitoring service.",
)
@click.pass_obj
def prometheus(file: Path | None, plant: str | None, folder: Path, targets: tuple[str, ...], alertmanager: str, agent: bool) -> None:
    """Write the files prometheus.yml, rules.yml and alertmanager.yml for the plant's Prometheus, and print how to start it.

    If the environment variables REMOTE_WRITE_URL and REMOTE_WRITE_TOKEN are set, Prometheus also sends all samples to a monitoring
    service. Set REMOTE_WRITE_USER too if the service needs a user name.
    """
    from dashboards.prometheus import RemoteWrite, ScrapeConfig, make_alertmanager_config, make_prometheus_config, make_rules

    settings = load_settings(file)
    url, token = os.environ.get(REMOTE_URL, ""), os.environ.get(REMOTE_TOKEN, "")
    _check_remote(url, token, agent)
    folder.mkdir(parents=True, exist_ok=True)
    token_file = folder / "remote-write.token"
    remote = RemoteWrite(url, str(token_file.resolve()), os.environ.get(REMOTE_USER, "")) if url else None
    if remote:
        with os.fdopen(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(token)
    else:
        token_file.unlink(missing_ok=True)
    own_targets = str(settings.service.run_dir.resolve() / "targets" / "*.json")
    config = ScrapeConfig(
        plant or settings.service.site, (own_targets, *targets), "" if agent else "rules.yml", "" if agent else alertmanager, remote
    )
    (folder / "prometheus.yml").write_text(make_prometheus_config(config))
    if not agent:
        (folder / "rules.yml").write_text(make_rules())
        (folder / "alertmanager.yml").write_text(make_alertmanager_config())
    # A Prometheus agent deletes samples after 24 hours. A normal Prometheus server deletes samples after 40 days, or earlier if they need
    # more than 20 GB.
    flags = (
        f"--enable-feature=agent --storage.agent.path={folder / 'kept'} --storage.agent.retention.max-time=24h"
        if agent
        else f"--storage.tsdb.path={folder / 'kept'} --storage.tsdb.retention.time=40d --storage.tsdb.retention.size=20GB"
    )
    click.echo(f"prometheus --config.file={folder / 'prometheus.yml'} {flags}")


def _check_remote(url: str, token: str, agent: bool) -> None:
    """Raises SettingsError if the environment variables for the monitoring service are incomplete, or if its address is not https.

    An address on this machine may also be http.
    """
    if bool(url) != bool(token):
        present, absent = (REMOTE_URL, REMOTE_TOKEN) if url else (REMOTE_TOKEN, REMOTE_URL)
        raise SettingsError(f"The environment has {present} without {absent}. Set both, or remove {present}.")
    if url and not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise SettingsError(f"{REMOTE_URL} is {url}. Give an https address, because every request carries the token.")
    if agent and not url:
        raise SettingsError(
            f"--agent needs {REMOTE_URL}, because an agent only sends its samples to this address. Set {REMOTE_URL}, or leave out --agent."
        )
