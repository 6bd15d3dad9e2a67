"""`castline broker`: the embedded Apache Kafka, until SIGTERM."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from deploy.kafka.broker import EmbeddedBroker
from deploy.kafka.broker_archive import make_archive
from deploy.kafka.kafka_jars import kafka_jars
from streams.errors import BrokerError
from streams.settings import load_settings


@click.command("broker")
@click.option("--fetch-only", is_flag=True, help="Download and verify the jars, make the start-up archive, then end.")
@click.pass_obj
def command(file: Path | None, fetch_only: bool) -> int:
    """Run Apache Kafka 4 on this machine: KRaft, loopback, data in broker.data_dir.

    Prints `Kafka ready at HOST:PORT` when clients are answered. SIGTERM and Ctrl-C stop it cleanly; it starts again on
    the same data. Exit status 3 when the port is in use or the data folder is damaged or another cluster's.
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
    broker.start(give_up=stopping.is_set)
    if not stopping.is_set():
        click.echo(f"Kafka ready at {broker.address}")
    while not stopping.wait(0.2):
        if (status := broker.poll()) is not None:
            click.echo(
                f"castline: the broker ended by itself with status {status}; see {settings.broker.data_dir / 'broker.log'}", err=True
            )
            return 1
    # Kafka flushes its logs on SIGTERM; killing it early costs a recovery at the next start, not data.
    broker.stop(max(settings.service.grace_s, 20))
    return 0


def _prepare_archive() -> None:
    try:
        click.echo(f"start-up archive of the broker: {make_archive()}")
    except BrokerError as error:  # it saves time and nothing else
        click.echo(f"castline: the broker will start without its archive, in twice the time: {error}", err=True)
