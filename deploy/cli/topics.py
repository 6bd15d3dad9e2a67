"""The command `castline topics`: creates the topics that the lines of the settings need, or compares them with the topics on Kafka."""

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
from streams.kafka import find_unknown_host, make_client_arguments
from streams.settings import Settings, load_settings


@click.group("topics")
def command() -> None:
    """Create or describe the topics that the production lines need. The settings name these lines."""
    # SIGTERM ends this command at once, even while it waits for a broker.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@command.command("create")
@click.pass_obj
def create(file: Path | None) -> None:
    """Create missing topics and partitions, and set how long Kafka keeps records. A second call changes nothing."""
    settings = load_settings(file)
    with _open_admin(settings) as admin:
        for change in topics.create_topics(admin, settings):
            click.echo(f"{change.name}: {change.description}")


@command.command("describe")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def describe(file: Path | None, as_json: bool) -> int:
    """Show for each topic what the settings ask for and what Kafka has.

    The exit status is 1 if a topic is missing or has too few partitions.
    """
    settings = load_settings(file)
    specs = topics.declare_topics(settings, topics.compute_max_bytes(settings))
    with _open_admin(settings) as admin:
        present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(None)}
        configs = topics.read_topic_configs(admin, [spec.name for spec in specs if spec.name in present])
    if as_json:
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
        click.echo(json.dumps(rows, indent=2))
    else:
        for spec in specs:
            declared_configs = ", ".join(f"{name}={value}" for name, value in spec.configs.items())
            click.echo(f"{spec.name}: {present.get(spec.name, 0)} of {spec.partitions} partitions; {declared_configs}")
    return int(any(present.get(spec.name, 0) < spec.partitions for spec in specs))


@contextmanager
def _open_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    try:
        admin = KafkaAdminClient(**make_client_arguments(settings, "topics"), bootstrap_timeout_ms=15000)
    except (KafkaError, OSError) as error:
        raise SettingsError(
            f"Kafka does not answer at {settings.bootstrap}: {error}. Start the broker, or correct kafka.bootstrap in the settings."
        ) from None
    try:
        if problem := find_unknown_host(admin):
            raise SettingsError(problem)
        yield admin
    except KafkaError as error:
        raise SettingsError(
            f"Kafka at {settings.bootstrap} refused to read or change its topics: {error}. Check the permissions of Castline's Kafka user."
        ) from None
    finally:
        admin.close()
