"""Finds free ports on loopback."""

from __future__ import annotations

import random
import socket

# The range lies below the ports of outgoing connections (from 32768 on Linux, from 49152 by IANA), because an outgoing connection
# could take a port between its choice and its use.
_FIRST, _LAST = 20_000, 32_000
# Random, so that two processes that look for a port at the same moment find different ones.
_random = random.SystemRandom()


def free_ports(count: int = 1) -> int:
    """Returns the first of `count` consecutive loopback ports that are free now."""
    while True:
        first = _random.randrange(_FIRST, _LAST - count)
        if all(is_free(first + step) for step in range(count)):
            return first


def is_free(port: int) -> bool:
    """Returns whether a server could listen on loopback `port` now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
