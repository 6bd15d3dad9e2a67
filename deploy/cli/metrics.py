"""`castline metrics`: what the processes measure, and the configuration of a Prometheus that collects it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from streams.errors import SettingsError
from streams.settings import load_settings

# Without the prefix of our settings: those refuse a name that they do not know.
REMOTE_URL, REMOTE_TOKEN, REMOTE_USER = "REMOTE_WRITE_URL", "REMOTE_WRITE_TOKEN", "REMOTE_WRITE_USER"


@click.group("metrics")
def command() -> None:
    """List the metrics, or write the configuration of a Prometheus that collects them."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def show(as_json: bool) -> None:
    """Show every metric with its type, labels and meaning."""
    from dashboards.inventory import declared

    found = declared()
    if as_json:
        click.echo(
            json.dumps([{"name": one.name, "type": one.kind, "labels": one.labels, "meaning": one.meaning} for one in found], indent=2)
        )
        return
    for one in found:
        click.echo(
            f"{one.name}{{{','.join(one.labels)}}} {one.kind}: {one.meaning}" if one.labels else f"{one.name} {one.kind}: {one.meaning}"
        )


@command.command("prometheus")
@click.option("--plant", required=True, help="Name of the plant: the label that its series bear in the one Grafana of all plants.")
@click.option("--folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder that the files are written into.")
@click.option("--targets", multiple=True, help="More target files, as a glob: other machines' run folders. May be given several times.")
@click.option("--alertmanager", default="", help="host:port of an Alertmanager.")
@click.option("--agent", is_flag=True, help="For agent mode: no rules, everything goes to the hosted stack.")
@click.pass_obj
def prometheus(file: Path | None, plant: str, folder: Path, targets: tuple[str, ...], alertmanager: str, agent: bool) -> None:
    """Write prometheus.yml, rules.yml and alertmanager.yml for the plant's Prometheus.

    With REMOTE_WRITE_URL and REMOTE_WRITE_TOKEN in the environment (and REMOTE_WRITE_USER where
    the hosted stack wants one) it sends there as well; the token goes into a file that only its owner may read.
    """
    from dashboards.generate import rules
    from dashboards.scraping import Remote, Scraping, alertmanager_config, prometheus_config

    settings = load_settings(file)
    url, token = os.environ.get(REMOTE_URL, ""), os.environ.get(REMOTE_TOKEN, "")
    if bool(url) != bool(token):
        raise SettingsError(f"expected both {REMOTE_URL} and {REMOTE_TOKEN} in the environment or neither, found one of them")
    if url and not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise SettingsError(f"{REMOTE_URL}: expected an https address, since the token goes with every request; found {url}")
    if agent and not url:
        raise SettingsError(f"--agent: expected {REMOTE_URL} in the environment, since an agent keeps nothing; found none")
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "remote-write.token"
    remote = Remote(url, str(secret.resolve()), os.environ.get(REMOTE_USER, "")) if url else None
    if remote:
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as kept:
            kept.write(token)
    else:
        secret.unlink(missing_ok=True)
    own = str(settings.service.run_dir.resolve() / "targets" / "*.json")
    scraping = Scraping(plant, (own, *targets), "" if agent else "rules.yml", "" if agent else alertmanager, remote)
    (folder / "prometheus.yml").write_text(prometheus_config(scraping))
    if not agent:
        (folder / "rules.yml").write_text(rules())
        (folder / "alertmanager.yml").write_text(alertmanager_config())
    # What cannot be sent waits on disk, no longer and no larger than this.
    flags = (
        f"--enable-feature=agent --storage.agent.path={folder / 'kept'} --storage.agent.retention.max-time=24h"
        if agent
        else f"--storage.tsdb.path={folder / 'kept'} --storage.tsdb.retention.time=40d --storage.tsdb.retention.size=20GB"
    )
    click.echo(f"prometheus --config.file={folder / 'prometheus.yml'} {flags}")
