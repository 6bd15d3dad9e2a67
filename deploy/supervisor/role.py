"""One process of the plant: what is run, when it counts as ready, when it is stopped."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.supervisor.backoff import Backoff
from deploy.supervisor.readiness import Gate


class State(enum.StrEnum):
    """Where a role stands.

    waiting --its stage comes--> starting --gate opens--> ready --death--> backing off --wait over--> starting
    any --stop--> stopping --death--> ended;  backing off --too many in a row--> given up;  starting --done, `once`--> ended
    """

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing off"
    STOPPING = "stopping"
    ENDED = "ended"
    GIVEN_UP = "given up"


@dataclass(frozen=True)
class Role:
    """What the supervisor runs. Roles of a lower `stage` are ready before those of a higher one start."""

    name: str
    command: tuple[str, ...]
    gate: Gate
    stage: int
    stops: int  # lower stops first; the same number stops together
    grace_s: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)
    once: bool = False  # it ends by itself with status 0, and only then is it ready
    essential: bool = False  # exit status 3 before it was ever ready: nothing can run, so nothing is retried
    slow_start_s: float = 120.0  # not ready for so long after its start: it is started again


def castline_command(*arguments: str) -> tuple[str, ...]:
    """The command line `castline ARGUMENTS` of this installation, whatever PATH says."""
    script = Path(sys.executable).with_name("castline")
    entry = [str(script)] if script.exists() else ["-c", "from deploy.cli.main import main; main()"]
    return (sys.executable, *entry, *arguments)
