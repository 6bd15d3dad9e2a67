"""Describes one process of the plant: its command, when it counts as ready, when it is restarted, when it is stopped."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.supervisor.prober import Prober, find_target
from deploy.supervisor.process import ChildProcess


class State(enum.StrEnum):
    """The state of a role.

    waiting --its stage begins--> starting --ready check passes--> ready --process dies--> backing off --wait is over--> starting
    any --stop--> stopping --process ends--> ended;  backing off --too many deaths--> given up;  starting --one-shot is done--> ended
    """

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    ENDED = "ended"
    GIVEN_UP = "given up"


class ReadyCheck(Protocol):
    """Decides whether a starting process is ready. The supervisor calls it ten times a second, so it must not block."""

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool: ...


@dataclass(frozen=True)
class LinePrinted:
    """The process is ready once it has printed a line that begins with `start`."""

    start: str

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        return process.has_printed(self.start)


@dataclass(frozen=True)
class FileExists:
    """The process is ready once `path` exists, for example the serial port of a simulated board."""

    path: Path

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        return self.path.exists()


@dataclass(frozen=True)
class PageReady:
    """The process is ready once its /readyz page says so. The process writes the page's address to `run_dir`/targets."""

    run_dir: Path

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        result = prober.result(process.pid)
        if result is None:
            if address := find_target(self.run_dir, process.pid):
                prober.add(process.pid, address)
            return False
        return result.is_ready


@dataclass(frozen=True)
class RestartPolicy:
    """When a process that died is started again.

    The first death waits `first_s` seconds, each further one twice as long, at most `longest_s`. A process that lived for `steady_s`
    starts again with `first_s`. After more than `give_up_after` deaths in a row it is given up; None means never.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    steady_s: float = 60.0
    give_up_after: int | None = None


@dataclass(frozen=True)
class Role:
    """A process that the supervisor keeps running.

    All roles of a lower `stage` are ready before those of a higher one start. Roles with a lower `stop_order` stop first, and roles
    with the same one stop together. The process is killed if it runs `grace_s` seconds after SIGTERM, and is started again if it is
    not ready `slow_start_s` seconds after its start. A role that `is_one_shot` ends by itself with status 0 and is ready only then.
    If a role that `is_essential` ends with exit status 3 before it was ever ready, the whole plant is given up, because its settings
    are wrong and nothing else can run.
    """

    name: str
    command: tuple[str, ...]
    ready_check: ReadyCheck
    stage: int
    stop_order: int
    grace_s: float = 10.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    is_one_shot: bool = False
    is_essential: bool = False
    slow_start_s: float = 120.0


def castline_command(*arguments: str) -> tuple[str, ...]:
    """Returns the command `castline ARGUMENTS` of this installation, whatever PATH says."""
    script = Path(sys.executable).with_name("castline")
    entry = [str(script)] if script.exists() else ["-c", "from deploy.cli.main import main; main()"]
    return (sys.executable, *entry, *arguments)
