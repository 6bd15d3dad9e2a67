"""`castline station`: the pages that people work with, and the accounts to work with them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path

import click

from deploy.supervisor.priority import lower_priority
from streams.errors import SettingsError
from streams.garbage_collector import garbage_collector_paused
from streams.health import HealthServer, InstanceSlot, ProcessHealth, ProgressWatchdog
from streams.logs import configure_logs
from streams.settings import Settings, load_settings

log = logging.getLogger(__name__)
ROLE = "station"
PASSWORD_VARIABLE = "STATION_PASSWORD"


@click.group("station", invoke_without_command=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz; 0 takes a free one.")
@click.option("--no-migrate", is_flag=True, help="Refuse to start when the database's tables are not up to date, instead of changing them.")
@click.pass_context
def command(ctx: click.Context, port: int, no_migrate: bool) -> int | None:
    """Serve the pages at station.host and station.port, until SIGTERM.

    The database's tables are made or brought up to date first. While the database is away the station waits and says so;
    /readyz is 503. It takes processor time that the workers do not want. Pages are served without TLS: where they leave
    this machine, put a proxy that speaks TLS before them and set station.behind_tls. The first administrator is made by
    `castline station account`.
    """
    if ctx.invoked_subcommand is not None:
        return None
    settings = load_settings(ctx.obj)
    configure_logs(settings.service, ROLE)
    lower_priority()
    if settings.service.log_level != "debug":
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
    asked = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: asked.set())
    slot = InstanceSlot(settings.service.run_dir, ROLE)
    health = ProcessHealth(ROLE, ProgressWatchdog(settings.service.stall_s))
    with HealthServer(health, settings.service, str(slot), port) as pages:
        log.info("%s serves its health at %s", slot, pages.address)
        return _serve(settings, health, asked, migrate=not no_migrate)


def _serve(settings: Settings, health: ProcessHealth, asked: threading.Event, migrate: bool) -> int:
    with garbage_collector_paused():
        from station.configuration import configure

        configure(settings)
        from station.archive.tables import prepare, wait_for_database
        from station.serving import listen, serve

    def say(why: str) -> None:
        health.set_not_ready(why)
        log.warning(why)

    with listen() as pages:
        health.set_not_ready("waiting for the database")
        if not wait_for_database(say, asked.wait):
            return 0
        prepare(migrate)
        host, port = pages.getsockname()[:2]
        log.info("the station is at http://%s:%d/", host, port)
        serve(pages, health, asked)
    return 0


@command.command("migrate")
@click.pass_obj
def migrate(file: Path | None) -> None:
    """Make the database's tables, or bring them up to date. Idempotent."""
    _open(file)
    from station.archive.tables import prepare

    for name in prepare() or ["as declared"]:
        click.echo(name)


@command.command("account")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["operator", "reviewer", "engineer", "administrator"]), required=True, help="What the account may do."
)
@click.option(
    "--password-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File whose first line is the password."
)
@click.pass_obj
def account(file: Path | None, name: str, role: str, password_file: Path | None) -> None:
    """Make the account NAME, or give it another role and password; it may log in.

    The password is taken from --password-file, else from STATION_PASSWORD where that is set, else asked for.
    """
    _open(file)
    from station.accounts.access import create_or_update_account
    from station.archive.tables import prepare

    prepare()
    given = password_file.read_text(encoding="utf-8").split("\n")[0] if password_file else os.environ.get(PASSWORD_VARIABLE)
    password = given or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    click.echo(f"{name}: {create_or_update_account(name, role, password)}, {role}")


def _open(file: Path | None) -> None:
    """Makes this process one of the station's. Raises SettingsError: when the database does not answer."""
    from station.configuration import configure

    configure(load_settings(file))
    from station.archive.tables import complaint

    if why := complaint():
        raise SettingsError(f"station.database: {why}")
