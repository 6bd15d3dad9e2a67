"""The command `castline station`: serves the web pages. Its subcommands update the database and create accounts."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import click

from deploy.cli.role_start import start_role
from deploy.supervisor.priority import lower_priority
from streams.errors import SettingsError
from streams.garbage_collector import garbage_collector_paused
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.settings import Settings, load_settings

log = logging.getLogger(__name__)
ROLE = "station"
PASSWORD_VARIABLE = "STATION_PASSWORD"


@click.group("station", invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz. 0: any free port.")
@click.option("--no-migrate", is_flag=True, help="Exit with an error if the database's tables are out of date, instead of updating them.")
@click.pass_context
def command(ctx: click.Context, port: int, no_migrate: bool) -> int | None:
    """Serve the station's pages at station.host and station.port, until SIGTERM. `castline station account` creates the first
    administrator.

    If people open the pages from other machines, put a proxy with TLS in front and set station.behind_tls. The file
    deploy/packaging/proxy/castline.conf configures nginx.
    """
    if ctx.invoked_subcommand is not None:
        return None
    settings = start_role(ctx.obj, ROLE)
    lower_priority()
    if settings.service.log_level != "debug":
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
    stop_requested = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop_requested.set())
    slot = InstanceSlot(settings.service.run_dir, ROLE)
    health = ProcessHealth(ROLE, ProgressWatchdog(settings.service.stall_s))
    with HealthServer(health, settings.service, str(slot), port) as health_server:
        log.info("%s serves its health pages at %s", slot, health_server.address)
        return _serve(settings, health, stop_requested, migrate=not no_migrate)


def _serve(settings: Settings, health: ProcessHealth, stop_requested: threading.Event, migrate: bool) -> int:
    with garbage_collector_paused():
        from station.configuration import configure

        configure(settings)
        from station.accounts.oidc import check_library
        from station.archive.database import migrate_database, wait_for_database
        from station.server import open_socket, serve_pages

    check_library(settings.station.oidc)

    def report_fault(fault: str) -> None:
        health.set_waiting(fault)
        log.warning(fault)

    with open_socket() as listening:
        health.set_waiting("waiting for the database")
        if not wait_for_database(report_fault, stop_requested.wait):
            return 0
        migrate_database(apply=migrate)
        host, port = listening.getsockname()[:2]
        log.info("The station serves its pages at http://%s:%d/", host, port)
        serve_pages(listening, health, stop_requested)
    return 0


@command.command("migrate")
@click.pass_obj
def migrate(file: Path | None) -> None:
    """Create the tables of the database, or bring them up to date.

    Prints the names of the applied changes. Repeated calls change nothing.
    """
    configure_station(file)
    from station.archive.database import migrate_database

    for name in migrate_database() or ["The tables are up to date."]:
        click.echo(name)


@command.command("confirm-clock")
@click.pass_obj
def confirm_clock_command(file: Path | None) -> None:
    """Confirm that the clock of this machine is right, so that the archivist deletes old pictures and old parts again.

    While the archivist does not trust the clock, it keeps old pictures and old parts. Run the command on the machine of the archivist.
    """
    configure_station(file)
    from station.archive.database import migrate_database
    from station.archive.retention import confirm_clock

    migrate_database(apply=False)
    confirm_clock(now := datetime.now(UTC))
    click.echo(f"The clock is right: {now:%Y-%m-%d %H:%M:%S} UTC")


@command.command("account")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["operator", "reviewer", "engineer", "administrator"]),
    required=True,
    help="The role says what the account is allowed to do.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read the password from the first line of this file.",
)
@click.pass_obj
def account(file: Path | None, name: str, role: str, password_file: Path | None) -> None:
    """Create the account NAME. If the account exists, set its role and password, and allow it to log in again. If the password
    changes, the API tokens of the account become invalid.

    The password comes from --password-file or from the environment variable STATION_PASSWORD. Otherwise the command asks for a password.
    """
    configure_station(file)
    from station.accounts.access import create_or_update_account
    from station.archive.database import migrate_database

    migrate_database()
    given = password_file.read_text(encoding="utf-8").split("\n")[0] if password_file else os.environ.get(PASSWORD_VARIABLE)
    password = given or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    click.echo(f"{name}: {create_or_update_account(name, role, password)}, {role}")


@command.group("audit")
def audit() -> None:
    """Verify the audit log, or print it for an archive."""


@audit.command("verify")
@click.option(
    "--head",
    default="",
    help="Hash that an earlier verification has printed. The command checks that an entry of the log still has this hash.",
)
@click.pass_obj
def verify_audit(file: Path | None, head: str) -> int:
    """Verify the hashes of the audit log. The exit status is 1 if an entry was changed, removed or inserted.

    The hash of an entry also covers the hash of the entry before it. The command prints the hash of the newest entry. Note this hash in
    another place, and give it to a later verification with --head. The verification then also finds out if somebody has removed the newest
    entries, or has computed all hashes again.
    """
    configure_station(file)
    from station.accounts.audit_log import verify_chain
    from station.archive.database import migrate_database

    migrate_database(apply=False)
    report = verify_chain(head)
    for fault in report.faults:
        click.echo(fault, err=True)
    click.echo(f"{report.entries} entries, {len(report.faults)} faults, newest hash {report.head or 'none'}")
    return 1 if report.faults else 0


@audit.command("export")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Print only entries with a higher number than this.  [default: 0]")
@click.pass_obj
def export_audit(file: Path | None, after: int) -> None:
    """Print the entries of the audit log, one JSON object a line.

    A log server (setting station.audit_syslog) gets the same JSON objects.
    """
    configure_station(file)
    from station.accounts.audit_log import list_records
    from station.archive.database import migrate_database

    migrate_database(apply=False)
    for record in list_records(after):
        click.echo(json.dumps(record, sort_keys=True))


def configure_station(file: Path | None) -> None:
    """Configures Django with the settings in `file`. Raises SettingsError if the database does not answer."""
    from station.configuration import configure

    configure(load_settings(file))
    from station.archive.database import find_database_fault

    if fault := find_database_fault():
        raise SettingsError(f"station.database: {fault}")
