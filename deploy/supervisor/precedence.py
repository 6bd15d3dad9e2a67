"""Who goes first on a computer that has too little: the processes that a casting's time at the gate hangs on, people's pages last."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)

NICENESS = -10
LAST = 19  # a share of a sixtieth of a processor that is wanted by a worker too


def take_precedence() -> bool:
    """Of this thread and those that it starts; False where the user may not (then `Nice=-10` in the service's unit does it).

    Measured with some 20 programs wanting two processors, p99: from a verdict in the sorter's hand until it is written to the port
    1,225 ms without and 7.5 ms with precedence, from there to the answer of a simulated board 660 ms and 20 ms.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    except PermissionError:
        log.info("runs with the priority of everything else: the user may not raise it")
        return False
    return True


def stand_back() -> None:
    """Of this process and its threads: what keeps and shows records takes time that no verdict wants. Anybody may."""
    os.setpriority(os.PRIO_PROCESS, 0, LAST)
