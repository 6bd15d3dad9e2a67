"""The command `castline broker`: runs the embedded Apache Kafka."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

import click

from deploy.cli.role_start import start_role
from deploy.kafka.broker import EmbeddedBroker
from deploy.kafka.broker_clock import BrokerClock
from deploy.kafka.disk_guard import DiskGuard, release_reserve
from deploy.kafka.java import kafka_jars
from deploy.kafka.startup_archive import make_archive
from streams.errors import BrokerError, BrokerStartError, PortInUseError
from streams.kafka_users import has_users
from streams.settings import Settings
from streams.worker_process import WorkerProcess, worker_process

log = logging.getLogger(__name__)


@click.command("broker")
@click.option("--fetch-only", is_flag=True, help="Download and verify Kafka's jars, and prepare a faster start. Do not start Kafka.")
@click.pass_obj
def command(file: Path | None, fetch_only: bool) -> int:
    """Run Apache Kafka 4 on this machine, with its data in broker.data_dir. Only programs on this machine can connect.

    Each role has a Kafka user with its own password and permissions. The passwords are files in the folder `passwords` of broker.data_dir.
    If an older release made the data folder, Kafka asks for no passwords until the setting broker.access is `roles`.

    Prints `Kafka ready at HOST:PORT` when Kafka serves clients.

    If another program uses the port, the broker waits until the port is free. A new broker, which has no data yet, ends instead.

    Exit codes: 1 Kafka ended or did not start in time, or there was no memory for a thread, 3 the data folder or the port cannot be used.
    """
    if fetch_only:
        click.echo(f"{len(kafka_jars())} jars of the broker in the cache, verified")
        _prepare_archive()
        return 0
    settings = start_role(file, "broker")
    with suppress(OSError):
        # If the disk is full, delete the reserve file, because this process must write a small file for its health pages. An error is
        # ignored here, because `has_room_to_start` reports the problem later.
        release_reserve(settings.broker.data_dir)
    with worker_process(settings, "broker", 0) as process:
        return _run(settings, process)


def _run(settings: Settings, process: WorkerProcess) -> int:
    """Starts Kafka when the disk has enough free space, and runs it until SIGTERM. Returns the exit status."""
    clock, stopping = BrokerClock(settings.broker.data_dir), process.stop_requested
    process.health.add_complaint_check(clock.find_problem)
    broker = EmbeddedBroker(settings, properties=clock.properties)
    guard = DiskGuard(settings, lambda problem: process.health.set_problem(problem, "disk"), broker.connect, clock)
    while not guard.has_room_to_start():
        if stopping.wait(1):
            return 0
    try:
        _start_when_port_is_free(broker, process)
    except BrokerStartError as error:
        # The supervisor and systemd start a process again if its exit status is 1, but not if the status is 3.
        click.echo(f"castline: {error}", err=True)
        return 1
    if not stopping.is_set():
        process.health.set_ready()
        if not has_users(settings.broker):
            log.warning(
                "The broker at %s is open: every program on this machine may read and write all topics. Set broker.access to `roles` when "
                "your own programs have their passwords. The page docs/kafka-access.md describes the steps.",
                broker.address,
            )
        click.echo(f"Kafka ready at {broker.address}")
    check_at_s = 0.0
    while not stopping.wait(0.2):
        if (status := broker.poll()) is not None:
            log_file = settings.broker.data_dir / "broker.log"
            click.echo(f"castline: The broker ended by itself with status {status}. Its log {log_file} says why.", err=True)
            return 1
        if time.monotonic() >= check_at_s:
            guard.check()
            broker.limit_log()
            check_at_s = time.monotonic() + 1
            if clock.check():
                click.echo(
                    "castline: The clock is right again. The broker must be started again, so that it deletes old records.", err=True
                )
                broker.stop(max(settings.service.grace_s, 20))
                return 1
    # After SIGTERM Kafka writes its logs to disk. If Kafka is killed earlier, the next start must recover the logs.
    broker.stop(max(settings.service.grace_s, 20))
    return 0


def _start_when_port_is_free(broker: EmbeddedBroker, process: WorkerProcess) -> None:
    """Starts the broker. If another program uses its port, waits until the port is free or SIGTERM comes.

    This process must not end while it waits, because `castline up` would then stop the whole plant. A broker that has no data yet does not
    wait: PortInUseError is raised.
    """
    problem = ""
    while not process.stop_requested.is_set():
        try:
            broker.start(is_cancelled=process.stop_requested.is_set)
            process.health.set_ready("port")
            return
        except PortInUseError as error:
            if not broker.has_data:
                raise
            if str(error) != problem:
                problem = str(error)
                log.warning("The broker waits for its port. %s", problem)
                process.health.set_problem(problem, "port")
        process.stop_requested.wait(1)


def _prepare_archive() -> None:
    try:
        click.echo(f"start-up archive of the broker: {make_archive()}")
    except BrokerError as error:
        # Without the start-up archive, Kafka only starts more slowly. So the command does not fail if the archive cannot be made.
        click.echo(f"castline: The broker will start without its start-up archive, in twice the time. {error}", err=True)
