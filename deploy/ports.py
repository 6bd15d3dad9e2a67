"""Loopback ports that nobody listens at."""

from __future__ import annotations

import socket


def free_ports(count: int) -> int:
    """The first of `count` loopback ports in a row that are free now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        if first + count <= 65535 and all(is_free(first + step) for step in range(count)):
            return first


def is_free(port: int) -> bool:
    """Whether `port` can be listened at now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
