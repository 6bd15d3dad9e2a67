"""The command `castline gateway`, which runs the gateway until SIGTERM, and its subcommands for a camera."""

from __future__ import annotations

from pathlib import Path

import click

from agents.gateway.gateway import Gateway, select_lines
from deploy.cli import gateway_try
from streams.logs import configure_logs
from streams.settings import load_settings


@click.group("gateway", invoke_without_command=True)
@click.option("--line", "lines", multiple=True, metavar="NAME", help="Serve only this line. The option may be given more than once.")
@click.pass_context
def command(ctx: click.Context, lines: tuple[str, ...]) -> int | None:
    """Take pictures from the cameras of the lines, give each a part id, and send it to Kafka.

    Without --line the gateway serves all lines that have a camera. While Kafka is unavailable the pictures wait in gateway.spool_dir, and
    they are sent after a restart too. /readyz reports ready while Kafka accepts pictures and the spool has room.
    """
    if ctx.invoked_subcommand is not None:
        return None
    file: Path | None = ctx.obj
    settings = load_settings(file)
    selected_lines = select_lines(settings, lines)
    configure_logs(settings.service, "gateway")
    return Gateway(settings, selected_lines).run()


command.add_command(gateway_try.command)
