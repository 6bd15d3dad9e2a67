"""The command line `castline`: one subcommand a module of `deploy/cli`, loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from streams.errors import CastlineError
from streams.garbage_collector import garbage_collector_paused

# Name, and the line that the help shows; the module is deploy.cli.<name>, its object `command`.
COMMANDS = {
    "demo": "Three lines photographed, judged and sorted over a real Kafka.",
    "up": "Run the roles that castline.toml names on this machine.",
    "settings": "Check, show or describe the settings.",
    "broker": "The embedded Apache Kafka.",
    "topics": "Create or describe the topics.",
    "gateway": "From cameras to Kafka.",
    "inspector": "From pictures to verdicts.",
    "sorter": "From verdicts to gates.",
    "archivist": "From records to the database, and the pictures worth keeping.",
    "station": "The pages that people work with.",
    "trace": "One part's whole story.",
    "dead-letters": "What could not be judged, and why.",
    "top": "The live view of a running plant, from its metrics.",
    "metrics": "List the metrics; configure a Prometheus that collects them.",
    "dashboards": "Bring dashboards and alerts to a Grafana, or see what differs there.",
    "board": "Talk to a line's board, or simulate one.",
    "render": "Draw castings with known defects.",
    "train": "Train a model version on folders of pictures.",
    "evaluate": "Judge folders of pictures and compare with their labels.",
    "experiment": "Tables of many trainings: layers, voters, folds.",
    "models": "List, show, verify and choose model versions.",
    "replay": "Kept pictures judged again by another version.",
    "bench": "Measure the pipeline against the bare model.",
}

EXIT_CODES = """Exit codes: 0 done; 1 the work was done and what it found is bad (a part lost, a gate moved twice, a check failed);
2 the command line is wrong; 3 the settings, a file or a machine's state is at fault, nothing was done; 130 interrupted."""


class LazyGroup(click.Group):
    """Imports a subcommand's module when it is called: `castline --help` needs no TensorFlow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with garbage_collector_paused():
            command: click.Command = importlib.import_module(f"deploy.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="castline")
@click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file; else CASTLINE_SETTINGS_FILE, else castline.toml where it exists.",
)
@click.pass_context
def castline(ctx: click.Context, file: Path | None) -> None:
    """Watches every casting on every line of a foundry and takes the bad ones off the belt."""
    ctx.obj = file


def main() -> None:
    """Entry of the installed command: errors of ours become one sentence and exit code 3."""
    try:
        outcome: Any = castline.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except CastlineError as error:
        click.echo(f"castline: {error}", err=True)
        sys.exit(3)
    sys.exit(outcome if isinstance(outcome, int) else 0)
