"""`castline up`: the roles that castline.toml names on this machine, supervised."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from streams.errors import CastlineError, SettingsError
from streams.settings import DEFAULT_FILE, FILE_VARIABLE, Settings, load_settings


@click.command("up")
@click.option("--inspectors", default=1, show_default=True, type=click.IntRange(1, 64), help="Inspector processes on this machine.")
@click.option("--no-station", is_flag=True, help="Neither archive parts nor serve the station's pages on this machine.")
@click.option("--log", "log_file", type=click.Path(path_type=Path, dir_okay=False), help="Append the log to this file too.")
@click.pass_obj
def command(file: Path | None, inspectors: int, no_station: bool, log_file: Path | None) -> int:
    """Run broker, topics, inspectors, gateway, sorters, archivist and station until SIGTERM or Ctrl-C.

    The broker only where kafka.bootstrap is `embedded`, the gateway where a line has a camera, the sorter where a line has a
    gate. What dies or stays unhealthy is started again, later each time, at most 30 s; one log of all comes to standard
    output, every line after its role. A stop goes along the way of a picture; a second Ctrl-C stops at once.

    Exit status 3 when the settings, the model or the broker's data are at fault: nothing is left running.
    """
    from deploy.supervisor import Journal, RestartPolicy, StopRequests, Supervisor
    from deploy.supervisor.plant_roles import plant_roles
    from streams.health import InstanceSlot

    settings = load_settings(file)
    _refuse(settings)
    slot = InstanceSlot(settings.service.run_dir, "up")
    if slot.number > 1:
        raise SettingsError(f"service.run_dir: expected no other castline up on {settings.service.run_dir}, found one running")
    requests = StopRequests()
    with ExitStack() as stack:
        stack.callback(slot.release)
        files: list[TextIO] = [sys.stdout]
        if log_file is not None:
            files.append(stack.enter_context(_append(log_file)))
        journal = Journal(*files)
        for sentence in warnings(settings):
            journal.warn(sentence)
        supervisor = Supervisor(plant_roles(_named_file(file), settings, inspectors, RestartPolicy(), station=not no_station), journal)
        stack.callback(supervisor.kill_all)
        journal.inform(f"starting {', '.join(supervisor.processes)}")
        said = False

        def look() -> bool:
            nonlocal said
            if supervisor.all_ready and not said:
                said = True
                journal.inform(f"all is ready: {', '.join(line.name for line in settings.lines)}")
            return requests.is_stop_requested()

        supervisor.run(until=look)
        journal.inform(f"stopping: {supervisor.failure}" if supervisor.failure else "stopping")
        supervisor.stop(requests.is_kill_requested)
        if supervisor.failure:
            raise CastlineError(supervisor.failure)
    return 0


def _refuse(settings: Settings) -> None:
    """Raises CastlineError for what would only make every process fail again and again."""
    from models.registry.versions import load

    if not settings.lines:
        raise SettingsError("lines: expected at least one [[lines]] in the settings, found none")
    if settings.kafka.bootstrap == "embedded" and settings.kafka.security != "plaintext":
        raise SettingsError(f"kafka.security: expected plaintext with the embedded broker, found {settings.kafka.security}")
    load(settings.model.root, settings.model.version)


def warnings(settings: Settings) -> list[str]:
    """What is missing now and may come: a board not plugged in, a camera's folder not mounted."""
    found = []
    for line in settings.lines:
        if line.gate and not Path(line.gate.port).exists():
            found.append(f"{line.name}: no board at {line.gate.port}; the sorter tries again until it is there")
        if line.camera and line.camera.path and not line.camera.path.is_dir():
            found.append(f"{line.name}: no folder at {line.camera.path} for its camera's pictures")
    return found


def _named_file(file: Path | None) -> Path | None:
    # Each process is told the same file, wherever its name came from; with no file at all the environment says everything.
    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else DEFAULT_FILE)
    return named.resolve() if named.exists() else None


def _append(file: Path) -> TextIO:
    try:
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--log: expected a file to append to at {file}: {error.strerror}") from None
