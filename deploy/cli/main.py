"""The command `castline`. The module of a subcommand, `deploy/cli/<name>.py`, is imported only when the subcommand is called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from streams.errors import CastlineError, DuplicateProcessError
from streams.garbage_collector import garbage_collector_paused
from streams.printable import make_printable
from streams.private_files import make_new_files_private
from streams.secrets import mask_secrets
from streams.settings import DEFAULT_FILE, FILE_VARIABLE, is_nothing_set

COMMANDS = {
    "demo": "Run a simulated foundry of three lines over a real Kafka, then audit the result.",
    "up": "Run the processes that castline.toml asks for on this machine.",
    "settings": "Check, show or describe the settings.",
    "broker": "Run the embedded Apache Kafka.",
    "topics": "Create or describe the topics.",
    "gateway": "Send the pictures of the cameras to Kafka.",
    "inspector": "Judge the pictures on Kafka and publish verdicts.",
    "sorter": "Send the verdicts of a line to the board that moves its gate.",
    "localiser": "Make heat maps, which show where suspicious parts are perhaps defective.",
    "archivist": "Write the history of every part to the database, and keep pictures.",
    "station": "Serve the web pages and manage their accounts.",
    "security": "Look for security problems of Castline on this machine.",
    "study": "Make agreement studies of people and the model, and show their results.",
    "trace": "Show everything that happened to one part.",
    "dead-letters": "List, save and send again the records that could not be processed.",
    "top": "Watch a running plant in the terminal.",
    "metrics": "List the metrics, or configure a Prometheus server that collects them.",
    "dashboards": "Write dashboards and alerts to Grafana, or compare them with Grafana's.",
    "board": "Send commands to the board of a line, or simulate a board.",
    "render": "Render pictures of castings with known defects.",
    "train": "Train a model version on folders of pictures.",
    "train-segmentation": "Teach a model version where defects are and of which kind.",
    "evaluate": "Judge labelled pictures with a model version and count its errors.",
    "explain": "Draw what a model version found in a picture.",
    "experiment": "Train many variants of the networks and print a table.",
    "models": "List, show, verify and choose model versions.",
    "lines": "Show and set what people choose for a line while it runs, such as its threshold.",
    "replay": "Judge pictures on Kafka again with another model version.",
    "bench": "Measure speed, latency and memory.",
}

# These commands write results that other people may need, such as a model version. The umask of the person who calls the command decides
# who may read the files. All other commands write files of the plant, which only their owner may read.
_COMMANDS_WITH_THE_USERS_UMASK = frozenset(
    {"metrics", "dashboards", "render", "train", "train-segmentation", "evaluate", "explain", "experiment", "models", "bench", "settings"}
)

# These commands need no plant. Every other command prints a warning if it finds no settings.
_COMMANDS_WITHOUT_A_PLANT = frozenset(
    {"demo", "render", "train", "train-segmentation", "evaluate", "explain", "experiment", "study", "bench", "metrics", "dashboards"}
)

EXIT_CODES = """Exit codes: 0 means done. 1 means that the command ran and the result is bad (a part lost, a gate moved twice, a check
failed). 2 means that the command line is wrong. 3 means that the settings, a file or the state of the machine is wrong and that the
command has changed nothing. 4 means that another machine already has the name or the work of this process. 130 means interrupted."""


class LazyGroup(click.Group):
    """A command group that imports only the subcommand that is called. So `castline --help` does not import TensorFlow."""

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
    help="Settings file. The default is the file in the environment variable CASTLINE_SETTINGS_FILE. If the variable is not set, it is "
    "castline.toml.",
)
@click.pass_context
def castline(ctx: click.Context, file: Path | None) -> None:
    """Watches every casting on every line of a foundry and takes the bad ones off the belt."""
    ctx.obj = file
    if ctx.invoked_subcommand not in _COMMANDS_WITHOUT_A_PLANT and is_nothing_set(file):
        click.echo(
            f"castline: There is no {DEFAULT_FILE} in {Path.cwd()}, and {FILE_VARIABLE} is not set, so the defaults of all settings apply. "
            "Use --settings, or castline-plant for the plant of the systemd unit.",
            err=True,
        )
    if ctx.invoked_subcommand not in _COMMANDS_WITH_THE_USERS_UMASK:
        make_new_files_private()


def main() -> None:
    """Runs the command line. A CastlineError becomes one sentence on standard error and exit code 3 or 4."""
    try:
        outcome: Any = castline.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except DuplicateProcessError as error:
        _print_error(error)
        sys.exit(DuplicateProcessError.EXIT_STATUS)
    except CastlineError as error:
        _print_error(error)
        sys.exit(3)
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _print_error(error: CastlineError) -> None:
    """Prints the message without secrets, and without characters that control a terminal, because part of it may come from a record."""
    text = mask_secrets(f"castline: {error}")
    click.echo("\n".join(map(make_printable, text.split("\n"))), err=True)
