"""Limits the number of connections that a client can keep open, and the time in which a request must arrive.

The station, the gateway and the health pages use these limits, so that a client with many open connections cannot keep other clients out.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable

# A request's header must be complete this many seconds after the connection was opened.
HEADER_TIME_S = 10.0
# The time limit for the body of a request is 20 s, plus one second for each 32 KiB that have arrived. So a body of 1 MiB may take 52 s.
BODY_TIME_S = 20.0
BODY_BYTES_PER_S = 2**15
_IPV6_NETWORK_BITS = 64


def compute_body_time_s(received_bytes: int) -> float:
    """Returns the time limit for the body of a request, in seconds since the first byte. The limit grows with the bytes received so far."""
    return BODY_TIME_S + received_bytes / BODY_BYTES_PER_S


def find_network(address: str) -> str:
    """Returns the network that is treated as one client: an IPv4 address, or the first 64 bits of an IPv6 address.

    One machine can use all 2^64 addresses of its IPv6 network. A text that is not an address is returned as it is.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))


class Connection:
    """An open connection of a server. `is_idle` says whether the server still waits for a request on this connection."""

    def __init__(self, limits: ConnectionLimits, network: str, abort: Callable[[], None]) -> None:
        self._limits = limits
        self.network = network
        self.abort = abort
        self._is_idle = True

    @property
    def is_idle(self) -> bool:
        return self._is_idle

    @is_idle.setter
    def is_idle(self, is_idle: bool) -> None:
        self._is_idle = is_idle
        if is_idle:
            self._limits.note_idle(self)

    def close(self) -> None:
        """Notes that this connection is closed, so that it no longer counts as open. Further calls have no effect."""
        self._limits.remove(self)


class ConnectionLimits:
    """Counts the open connections of a server, in total and for each client network. Thread-safe.

    If a limit is reached, a new connection takes the place of the connection that has been idle for longest. So a client that holds many
    idle connections cannot keep other clients out.
    """

    def __init__(self, max_per_network: int, max_total: int) -> None:
        self._max_per_network = max_per_network
        self._max_total = max_total
        # The open connections. Among the idle connections, the one that has been idle for longest comes first.
        self._connections: dict[Connection, None] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, address: str, abort: Callable[[], None]) -> Connection | None:
        """Counts and returns a new connection from `address`. Returns None if a limit is reached and no idle connection can be closed.

        After None, the caller must refuse the new connection. `abort` must be a function that closes the new connection at once. It is
        called if a later connection takes the place of this connection.
        """
        network = find_network(address)
        with self._lock:
            loser = None
            if self._counts[network] >= self._max_per_network:
                loser = next((one for one in self._connections if one.network == network and one.is_idle), None)
            elif len(self._connections) >= self._max_total:
                loser = next((one for one in self._connections if one.is_idle), None)
            else:
                return self._insert(network, abort)
            if loser is None:
                return None
            self._delete(loser)
            added = self._insert(network, abort)
        loser.abort()
        return added

    def remove(self, connection: Connection) -> None:
        with self._lock:
            if connection in self._connections:
                self._delete(connection)

    def note_idle(self, connection: Connection) -> None:
        """Notes that `connection` has become idle, and moves it to the end of the open connections."""
        with self._lock:
            if connection in self._connections:
                del self._connections[connection]
                self._connections[connection] = None

    def _insert(self, network: str, abort: Callable[[], None]) -> Connection:
        connection = Connection(self, network, abort)
        self._connections[connection] = None
        self._counts[network] += 1
        return connection

    def _delete(self, connection: Connection) -> None:
        del self._connections[connection]
        self._counts[connection.network] -= 1
        if not self._counts[connection.network]:
            del self._counts[connection.network]
