"""`castline topics`: declares every topic with its partitions and keeping."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from streams import topics
from streams.errors import SettingsError
from streams.kafka import make_client_arguments
from streams.settings import Settings, load_settings


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    try:
        admin = KafkaAdminClient(**make_client_arguments(settings, "topics"), bootstrap_timeout_ms=15000)
    except (KafkaError, OSError) as error:
        raise SettingsError(f"expected Kafka at {settings.bootstrap}, found none: {error}") from None
    try:
        yield admin
    except KafkaError as error:
        raise SettingsError(f"Kafka at {settings.bootstrap} refused: {error}") from None
    finally:
        admin.close()


@click.group("topics")
def command() -> None:
    """Create or describe the topics that the settings' lines need."""
    # A hanging broker must not make the command deaf to SIGTERM.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@command.command("create")
@click.pass_obj
def create(file: Path | None) -> None:
    """Make the topics as declared; what exists stays, partitions are added, keeping is aligned. Idempotent."""
    settings = load_settings(file)
    with _admin(settings) as admin:
        for change in topics.create_topics(admin, settings):
            click.echo(f"{change.name}: {change.what}")


@command.command("describe")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def describe(file: Path | None, as_json: bool) -> int:
    """Show each topic as declared and as found. Exit status 1 when one is absent or has too few partitions."""
    settings = load_settings(file)
    specs = topics.declare_topics(settings)
    with _admin(settings) as admin:
        present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(None)}
        configs = topics.read_topic_configs(admin, [spec.name for spec in specs if spec.name in present])
    rows = [
        {
            "topic": spec.name,
            "partitions": spec.partitions,
            "found_partitions": present.get(spec.name, 0),
            "configs": spec.configs,
            "found_configs": {name: configs.get(spec.name, {}).get(name) for name in spec.configs},
        }
        for spec in specs
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row, spec in zip(rows, specs, strict=True):
            keeping = ", ".join(f"{name}={value}" for name, value in spec.configs.items())
            click.echo(f"{spec.name}: {row['found_partitions']} of {spec.partitions} partitions; {keeping}")
    return int(any(present.get(spec.name, 0) < spec.partitions for spec in specs))
