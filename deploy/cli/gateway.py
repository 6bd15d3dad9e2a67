"""The command `castline gateway`: runs the gateway until SIGTERM. Its subcommands try out a camera and measure its latency."""

from __future__ import annotations

import click

from agents.gateway.gateway import Gateway, select_lines
from deploy.cli import gateway_measure, gateway_try
from deploy.cli.role_start import start_role


@click.group("gateway", invoke_without_command=True)
@click.option("--line", "lines", multiple=True, metavar="NAME", help="Serve only this line. You can repeat the option.")
@click.pass_context
def command(context: click.Context, lines: tuple[str, ...]) -> int:
    """Take pictures from the cameras of the lines, give each picture a part id, and send it to Kafka.

    Without --line the gateway serves all lines that have a camera. While Kafka is unavailable the pictures wait in the folder
    gateway.spool_dir.

    A damaged file of this folder is renamed to LINE.damaged-SECONDS, and a new file begins. Move the renamed file away when you have
    checked the disk. You may delete it, because no role reads it.
    """
    if context.invoked_subcommand is not None:
        if lines:
            raise click.UsageError(
                f"Leave out --line, and write the name of the line after `castline gateway {context.invoked_subcommand}`."
            )
        return 0
    settings = start_role(context.obj, "gateway")
    selected_lines = select_lines(settings, lines)
    return Gateway(settings, selected_lines).run()


command.add_command(gateway_measure.command)
command.add_command(gateway_try.command)
