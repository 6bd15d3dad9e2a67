"""The command `castline gateway`, which runs the gateway until SIGTERM."""

from __future__ import annotations

from pathlib import Path

import click

from agents.gateway.gateway import Gateway, select_lines
from streams.logs import configure_logs
from streams.settings import load_settings


@click.command("gateway")
@click.option("--line", "lines", multiple=True, metavar="NAME", help="Serve only this line. The option may be given more than once.")
@click.pass_obj
def command(file: Path | None, lines: tuple[str, ...]) -> int:
    """Take pictures from the cameras of the lines, give each a part id, and send it to Kafka.

    Without --line the gateway serves all lines that have a camera. While Kafka is unavailable the pictures wait in gateway.spool_dir, and
    they are sent after a restart too. /readyz reports ready while Kafka accepts pictures and the spool has room.
    """
    settings = load_settings(file)
    selected_lines = select_lines(settings, lines)
    configure_logs(settings.service, "gateway")
    return Gateway(settings, selected_lines).run()
