"""Sets the scheduling priority of a process: a high priority for sorters, a low priority for localiser and station."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

GATE_NICENESS = -10
# A process of niceness 19 gets about a sixtieth of a processor that it shares with a worker of niceness 0.
LOWEST_NICENESS = 19


def raise_priority() -> bool:
    """Raises the priority of this thread, and of threads that it starts later. Returns False if the user may not.

    On a busy machine, the 99th percentile from verdict to serial port was 1,225 ms at normal and 7.5 ms at raised priority.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, GATE_NICENESS)
    except PermissionError:
        log.info("The user may not raise the priority of this process, so it runs at the normal priority.")
        return False
    _set_session_priority(GATE_NICENESS)
    return True


def lower_priority(niceness: int = LOWEST_NICENESS) -> None:
    """Lowers the priority of this process, so that the inspectors get the processor time that they need for verdicts.

    The priority is never raised: if the process has a higher niceness already, nothing changes.
    """
    lowered = max(niceness, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, lowered)
    _set_session_priority(lowered)


def _set_session_priority(niceness: int) -> None:
    """Gives the session of this process the same priority, if the process leads a session of its own.

    With `sched_autogroup_enabled`, Linux first divides the processors among the sessions. A process's own priority counts only within its
    session.
    """
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # The kernel has no such file, or does not allow the change now.
            Path("/proc/self/autogroup").write_text(str(niceness))
