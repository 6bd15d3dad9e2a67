"""Limits the number of connections of the station's server, and the time that a client has for sending a request or reading an answer.

uvicorn has none of these limits. The module `station.middleware` limits the time in which the body of a request must arrive.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from streams.server_limits import HEADER_TIME_S, Connection, ConnectionLimits

# After this time without a request, uvicorn closes a connection.
KEEP_ALIVE_S = 20
# If a client reads a large answer slowly, the send buffer becomes full, and the station must wait. If the client reads nothing for 30 s,
# the station closes the connection.
_READ_PAUSE_S = 30.0
# The station also closes the connection of a client that reads fewer bytes a second than this, only later.
_READ_BYTES_PER_S = 2**14


class LimitedProtocol(H11Protocol):
    """A connection to the station. It is closed if the client sends the header of a request or reads an answer too slowly."""

    def __init__(
        self,
        limits: ConnectionLimits,
        *args: Any,
        header_time_s: float = HEADER_TIME_S,
        read_pause_s: float = _READ_PAUSE_S,
        read_bytes_per_s: float = _READ_BYTES_PER_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._header_time_s = header_time_s
        self._read_pause_s = read_pause_s
        self._read_bytes_per_s = read_bytes_per_s
        # How many seconds the station still waits for a slow client. At 0, the station closes the connection.
        self._wait_left_s = read_pause_s
        # The time at which the send buffer became full, and the number of bytes in the buffer at that time.
        self._paused_at_s = 0.0
        self._unread_bytes = 0
        self._place: Connection | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._place = self._limits.add(self.client[0] if self.client else "", transport.abort)
        if self._place is None:
            transport.abort()
            return
        self._header_timer = self.loop.call_later(self._header_time_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._place is not None:
            self._place.close()
        self._cancel_header_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_header_timer()
            if self._place is not None:
                self._place.is_idle = False

    def on_response_complete(self) -> None:
        # Normally, uvicorn closes an idle connection after KEEP_ALIVE_S. This timer aborts the connection if uvicorn has not closed it,
        # or if the client sends the header of its next request too slowly.
        self._cancel_header_timer()
        self._header_timer = self.loop.call_later(KEEP_ALIVE_S + self._header_time_s, self.transport.abort)
        if self._place is not None:
            self._place.is_idle = True
        self._wait_left_s = self._read_pause_s
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._paused_at_s, self._unread_bytes = self.loop.time(), self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(self._wait_left_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
            read_bytes = self._unread_bytes - self.transport.get_write_buffer_size()
            left_s = self._wait_left_s - (self.loop.time() - self._paused_at_s) + read_bytes / self._read_bytes_per_s
            self._wait_left_s = min(self._read_pause_s, max(0.0, left_s))
        super().resume_writing()

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
