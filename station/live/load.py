"""How much the machine has to do: on one that works for the lines, the live pages are content with less."""

from __future__ import annotations

import os

_BUSY = 0.9  # of the processors, in the mean of a minute


def machine_is_busy() -> bool:
    """Whether about as many threads run or wait for a processor as there are."""
    return os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1)
