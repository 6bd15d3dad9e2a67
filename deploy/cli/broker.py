"""The command `castline broker`: runs the embedded Apache Kafka."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from deploy.kafka.broker import EmbeddedBroker
from deploy.kafka.java import kafka_jars
from deploy.kafka.startup_archive import make_archive
from streams.errors import BrokerError
from streams.settings import load_settings


@click.command("broker")
@click.option("--fetch-only", is_flag=True, help="Download and verify Kafka's jars, prepare a faster start of Kafka, and end.")
@click.pass_obj
def command(file: Path | None, fetch_only: bool) -> int:
    """Run Apache Kafka 4 on this machine, with its data in broker.data_dir. Only programs on this machine can connect.

    Prints `Kafka ready at HOST:PORT` when Kafka serves clients. The exit status is 3 if the port or the data folder cannot be used.
    """
    if fetch_only:
        click.echo(f"{len(kafka_jars())} jars of the broker in the cache, verified")
        _prepare_archive()
        return 0
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    settings = load_settings(file)
    broker = EmbeddedBroker(settings)
    broker.start(is_cancelled=stopping.is_set)
    if not stopping.is_set():
        click.echo(f"Kafka ready at {broker.address}")
    while not stopping.wait(0.2):
        if (status := broker.poll()) is not None:
            log = settings.broker.data_dir / "broker.log"
            click.echo(f"castline: The broker ended by itself with status {status}. Its log {log} says why.", err=True)
            return 1
    # After SIGTERM Kafka writes its logs to disk. If Kafka is killed earlier, the next start must recover the logs.
    broker.stop(max(settings.service.grace_s, 20))
    return 0


def _prepare_archive() -> None:
    try:
        click.echo(f"start-up archive of the broker: {make_archive()}")
    except BrokerError as error:
        # Without the start-up archive the broker only starts more slowly, so the command does not fail.
        click.echo(f"castline: The broker will start without its start-up archive, in twice the time. {error}", err=True)
