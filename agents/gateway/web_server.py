"""Serves the gateway's web application, and limits the connections of each client."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from streams.errors import SettingsError
from streams.port_holder import describe_holder
from streams.server_limits import Connection, ConnectionLimits

_MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_ADDRESS = 32
# If no complete request header arrives within this time, the connection is closed. The time is long enough for a camera that sends a
# picture every 15 s.
_KEEP_ALIVE_S = 20.0


class _LimitedConnection(web.RequestHandler):
    """A connection of the gateway. The number of open connections is limited, in total and for each client."""

    __slots__ = ("_limits", "place")

    def __init__(self, limits: ConnectionLimits, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._limits = limits
        self.place: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername") or ("",)
        self.place = self._limits.add(peer[0], transport.abort)
        if self.place is None:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.place is not None:
            self.place.close()
        super().connection_lost(exc)


class _LimitedRunner(web.AppRunner):
    """Runs an aiohttp application, and limits the connections of its clients."""

    def __init__(self, app: web.Application, limits: ConnectionLimits) -> None:
        # With `handler_cancellation`, aiohttp cancels the handler of a request if the sender closes its connection. The handler then frees
        # the memory of the picture.
        super().__init__(app, shutdown_timeout=2, handler_cancellation=True)
        self._limits = limits

    @property
    def server(self) -> Callable[[], _LimitedConnection] | None:  # type: ignore[override]
        """The function that aiohttp calls to serve a new connection, or None before the runner is set up."""
        server = super().server
        if server is None:
            return None
        loop = asyncio.get_running_loop()
        # aiohttp must not unpack compressed bodies, because it sets no limit for their size. `read_picture` unpacks them with a limit.
        options: dict[str, Any] = {"loop": loop, "access_log": None, "auto_decompress": False, "keepalive_timeout": _KEEP_ALIVE_S}
        return lambda: _LimitedConnection(self._limits, server, **options)


@web.middleware
async def mark_busy(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Marks a connection as busy while a request runs on it. Only idle connections are closed to make room for new ones."""
    place = request.protocol.place if isinstance(request.protocol, _LimitedConnection) else None
    if place is None:
        return await handler(request)
    place.is_idle = False
    try:
        return await handler(request)
    finally:
        place.is_idle = True


async def start_site(
    app: web.Application, host: str, port: int, max_per_address: int = MAX_CONNECTIONS_PER_ADDRESS
) -> tuple[web.AppRunner, str]:
    """Serves `app` and returns its runner and its address, such as `http://127.0.0.1:18080`. For port 0 the system chooses a free port.

    A client address can have `max_per_address` connections. The middlewares of `app` must contain `mark_busy`. Raises SettingsError if the
    port is in use.
    """
    runner = _LimitedRunner(app, ConnectionLimits(max_per_address, _MAX_CONNECTIONS))
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        holder = f" by {describe_holder(port)}" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(f"gateway.port: expected {host}:{port} to be free, found it in use{holder}: {error.strerror}") from None
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"
