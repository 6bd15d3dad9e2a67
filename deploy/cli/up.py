"""The command `castline up`: runs the processes that castline.toml asks for on this machine, and restarts a process that fails."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.errors import CastlineError, SettingsError
from streams.settings import DEFAULT_FILE, FILE_VARIABLE, Settings, find_settings_file, load_settings

if TYPE_CHECKING:
    from deploy.supervisor import LogFile


@click.command("up")
@click.option(
    "--inspectors", default=1, show_default=True, type=click.IntRange(1, 64), help="Number of inspector processes on this machine."
)
@click.option("--no-station", is_flag=True, help="Run neither the archivist nor the station on this machine.")
@click.option(
    "--log",
    "log_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also append the log of all processes to this file. When the file has 64 MiB, it is renamed to FILE.1, and a new file begins. "
    "Follow the log with `tail -F FILE`.",
)
@click.pass_obj
def command(file: Path | None, inspectors: int, no_station: bool, log_file: Path | None) -> int:
    """Create the topics and run broker, inspectors, gateway, sorters, localiser, archivist and station until SIGTERM or Ctrl-C.

    Some processes run only if the settings need them: the broker if kafka.bootstrap is `embedded`, the gateway if a line has a camera, the
    localiser if inspector.localise is true. Each board gets its own sorter.

    A process that ends, stays unhealthy or no longer answers is started again at once. If it fails again before it was ready for 10 s,
    `castline up` waits up to 30 s before each new start.

    The first Ctrl-C stops the processes one after the other, so that each can finish its work. A second Ctrl-C kills all processes.

    The exit status is 1 if there was no memory for a thread, and 3 if the settings, the model version or the broker's data are wrong.
    """
    from deploy.kafka.disk_guard import release_reserve
    from deploy.supervisor import Journal, RestartPolicy, StopRequests, Supervisor
    from deploy.supervisor.plant_roles import plant_roles
    from streams.health import InstanceSlot, remove_stale_targets
    from streams.private_files import refuse_exposed_files
    from streams.supervision import end_if_a_thread_cannot_begin

    end_if_a_thread_cannot_begin()
    settings = load_settings(file)
    refuse_exposed_files(settings, find_settings_file(file))
    _check_plant(settings)
    if settings.kafka.bootstrap == "embedded":
        with suppress(OSError):
            release_reserve(settings.broker.data_dir)
    slot = InstanceSlot(settings.service.run_dir, "up")
    if slot.number > 1:
        raise SettingsError(
            f"Another `castline up` runs with the same service.run_dir, {settings.service.run_dir}. Stop it, or set another folder."
        )
    remove_stale_targets(settings.service.run_dir)
    requests = StopRequests()
    with ExitStack() as stack:
        stack.callback(slot.release)
        journal = Journal(sys.stdout, *([stack.enter_context(_open_log(log_file))] if log_file is not None else []))
        for warning in _missing_devices(settings):
            journal.warn(warning)
        supervisor = Supervisor(plant_roles(_settings_file(file), settings, inspectors, RestartPolicy(), station=not no_station), journal)
        stack.callback(supervisor.kill_all)
        journal.inform(f"starting {', '.join(supervisor.processes)}")
        is_announced = False

        def is_finished() -> bool:
            nonlocal is_announced
            if supervisor.all_ready and not is_announced:
                is_announced = True
                journal.inform(f"all processes are ready; lines: {', '.join(line.name for line in settings.lines)}")
            return requests.is_stop_requested()

        supervisor.run(until=is_finished)
        journal.inform(f"stopping: {supervisor.failure}" if supervisor.failure else "stopping")
        supervisor.stop(requests.is_kill_requested)
        if supervisor.failure:
            raise CastlineError(supervisor.failure)
    return 0


def _check_plant(settings: Settings) -> None:
    """Raises CastlineError if the settings or the model version are wrong, because then the processes would fail again and again."""
    from models.registry import open_plant_registry

    if not settings.lines:
        raise SettingsError("The settings define no production line. Add at least one [[lines]] section.")
    if settings.kafka.bootstrap == "embedded" and settings.kafka.security != "plaintext":
        raise SettingsError(
            f"kafka.security is {settings.kafka.security}, but the embedded broker protects its connections itself (broker.access). Remove "
            "kafka.security, or name another broker in kafka.bootstrap."
        )
    open_plant_registry(settings).open_version(settings.model.version)


def _missing_devices(settings: Settings) -> list[str]:
    """Returns a warning for each missing board, and for each missing folder of a camera.

    A missing device is no error, because a person can connect the device after the start.
    """
    warnings = []
    for line in settings.lines:
        if line.gate and not Path(line.gate.port).exists():
            warnings.append(f"{line.name}: there is no board at {line.gate.port}; the sorter tries again until the board answers")
        if line.camera and line.camera.path and not line.camera.path.is_dir():
            warnings.append(f"{line.name}: the folder of the camera's pictures, {line.camera.path}, does not exist")
    return warnings


def _settings_file(file: Path | None) -> Path | None:
    """Returns the absolute path of the settings file, or None if all settings come from environment variables."""
    chosen = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else DEFAULT_FILE)
    return chosen.resolve() if chosen.exists() else None


def _open_log(file: Path) -> LogFile:
    from deploy.supervisor import LogFile

    try:
        return LogFile(file)
    except OSError as error:
        raise SettingsError(f"Cannot append to {file}: {error.strerror}. Choose another --log.") from None
