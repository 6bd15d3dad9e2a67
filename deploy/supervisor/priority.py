"""Sets the scheduling priority of a process: a high priority for sorters, a low priority for localiser and station."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)

GATE_NICENESS = -10
# If a process of niceness 19 and a worker of niceness 0 share a processor, the process gets about a sixtieth of the processor time.
LOWEST_NICENESS = 19


def raise_priority() -> bool:
    """Raises the priority of this thread, and of threads that it starts later, because a gate must move in time.

    Returns False if the user may not raise the priority. The setting `Nice=-10` of a systemd unit has the same effect.

    Two delays were measured while 20 other programs kept two processors busy: from the verdict in the sorter to the write on the serial
    port, and from this write to the answer of a simulated board. Their 99th percentiles were 1,225 ms and 660 ms at normal priority, and
    7.5 ms and 20 ms at raised priority.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, GATE_NICENESS)
    except PermissionError:
        log.info("The user may not raise the priority of this process, so it runs at the normal priority.")
        return False
    return True


def lower_priority(niceness: int = LOWEST_NICENESS) -> None:
    """Lowers the priority of this process, so that the inspectors get the processor time that they need for verdicts.

    The priority is never raised: if the process has a higher niceness already, nothing changes.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
