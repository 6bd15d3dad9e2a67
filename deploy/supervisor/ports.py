"""Loopback ports that nobody listens at."""

from __future__ import annotations

import random
import socket

# Below the ports that systems give to outgoing connections (Linux from 32768, IANA from 49152), one of which could take a port between
# its choice and its use.
_FIRST, _LAST = 20_000, 32_000
_random = random.SystemRandom()  # processes that choose at the same moment choose differently


def free_ports(count: int = 1) -> int:
    """The first of `count` loopback ports in a row that are free now."""
    while True:
        first = _random.randrange(_FIRST, _LAST - count)
        if all(is_free(first + step) for step in range(count)):
            return first


def is_free(port: int) -> bool:
    """Whether `port` can be listened at now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
