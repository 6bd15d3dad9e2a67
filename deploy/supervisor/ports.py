"""Finds free ports on loopback."""

from __future__ import annotations

import random
import socket

# Ports from 32768 on are not used, because Linux uses them for outgoing connections.
_FIRST, _LAST = 20_000, 32_000
# Ports are chosen at random, so that two processes that search at the same time find different ports.
_random = random.SystemRandom()


def free_ports(count: int = 1) -> int:
    """Finds `count` consecutive free ports on loopback and returns the lowest of them."""
    while True:
        first = _random.randrange(_FIRST, _LAST - count)
        if all(is_free(first + step) for step in range(count)):
            return first


def is_free(port: int) -> bool:
    """Returns whether `port` on loopback is free, so that a server could listen there now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
