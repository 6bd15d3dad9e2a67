"""Describes a role, which is one process of the plant: what it runs, when it is ready, and how it is restarted and stopped."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deploy.supervisor.prober import Prober, ProbeResult, find_target
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
    """The process is ready once it has printed a line that begins with `start`.

    If `run_dir` is given, the supervisor reads the health pages of the process until the line is printed. The pages say if the process
    waits, for example for Kafka.
    """

    start: str
    run_dir: Path | None = None

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        if process.has_printed(self.start):
            prober.remove(process.pid)
            return True
        if self.run_dir is not None:
            _find_pages(self.run_dir, process, prober)
        return False


@dataclass(frozen=True)
class FileExists:
    """The process is ready once `path` exists, for example the serial port of a simulated board."""

    path: Path

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        return self.path.exists()


@dataclass(frozen=True)
class PageReady:
    """The process is ready once its page /readyz says so. The address of the page is in a file in `run_dir`/targets."""

    run_dir: Path

    def is_ready(self, process: ChildProcess, prober: Prober) -> bool:
        result = _find_pages(self.run_dir, process, prober)
        return result is not None and result.is_ready


def _find_pages(run_dir: Path, process: ChildProcess, prober: Prober) -> ProbeResult | None:
    """Returns the last result from the health pages of the process. If there is no answer, looks for a new address of the pages."""
    result = prober.result(process.pid)
    if (result is None or result.silent_since is not None) and (address := find_target(run_dir, process.pid)):
        prober.add(process.pid, address)
    return result


@dataclass(frozen=True)
class RestartPolicy:
    """Decides when a process that died is started again.

    - `first_s`: the wait after the second death in a row. After the first death there is no wait. Each further death doubles the wait.
    - `longest_s`: the longest wait. The supervisor also waits this long if the same process already runs on another machine.
    - `steady_s`: if a process was ready for at least this many seconds, its earlier deaths no longer count.
    - `give_up_after`: the supervisor gives up after more than this number of deaths in a row. With None, it never gives up.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    steady_s: float = 10.0
    give_up_after: int | None = None


@dataclass(frozen=True)
class Role:
    """A process that the supervisor keeps running.

    - `stage`: the roles of stage 0 start first. The roles of stage 1 start when all roles of stage 0 are ready, and so on.
    - `stop_order`: the roles with the lowest number stop first.
    - `grace_s`: time from SIGTERM to SIGKILL.
    - `slow_start_s`: the process is restarted if it is not ready after this many seconds. The time starts again from 0 after a wait for
      Kafka, for the database or for free disk space.
    - `is_one_shot`: if True, the process does one job and ends with status 0. It runs again after a role of a lower stage was restarted.
    - `is_essential`: if True, the plant stops if the process ends with status 3 (wrong settings) before it is ready.
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
    """Returns the command `castline ARGUMENTS` of this installation. It does not search PATH."""
    script = Path(sys.executable).with_name("castline")
    entry = [str(script)] if script.exists() else ["-c", "from deploy.cli.main import main; main()"]
    return (sys.executable, *entry, *arguments)
