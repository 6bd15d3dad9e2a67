"""`castline gateway`: from cameras to Kafka, until SIGTERM."""

from __future__ import annotations

from pathlib import Path

import click

from agents.gateway.gateway import Gateway, chosen_lines
from streams.logs import configure_logs
from streams.settings import load_settings


@click.command("gateway")
@click.option("--line", "lines", multiple=True, metavar="NAME", help="Only this line; may be given more than once.")
@click.pass_obj
def command(file: Path | None, lines: tuple[str, ...]) -> int:
    """Take pictures from the lines' cameras, give each its identity, and send it to Kafka.

    Without --line: all lines that have a camera. Pictures wait in gateway.spool_dir while Kafka is away, and a restart
    goes on with them. Ready (/readyz) when Kafka takes pictures and the spool has room.
    """
    settings = load_settings(file)
    chosen = chosen_lines(settings, lines)
    configure_logs(settings.service, "gateway")
    return Gateway(settings, chosen).run()
