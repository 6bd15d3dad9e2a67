"""Serves the station's pages: runs the web server uvicorn with the station's middleware and Django, until SIGTERM arrives."""

from __future__ import annotations

import errno
import logging
import resource
import signal
import socket
import threading
import time
import warnings
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from django.core.asgi import get_asgi_application
from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from django.utils import timezone

from station.accounts.audit_log import keep_shipping
from station.archive.database import find_database_fault
from station.configuration import MAX_FORM_BYTES, current_settings
from station.golden_parts.golden_checks import update_golden_metrics
from station.http_protocol import KEEP_ALIVE_S, LimitedProtocol
from station.live.live_consumer import get_live_consumer, stop_live_consumer
from station.middleware import AsgiApplication, BodyLimitMiddleware, RequestQueueMiddleware, stopping
from station.pictures.signed_urls import SignedUrlMiddleware
from station.reviews.queue import update_metrics
from streams.errors import SettingsError
from streams.health import ProcessHealth
from streams.port_holder import describe_holder
from streams.server_limits import ConnectionLimits
from streams.settings import StationSettings
from streams.supervision import SupervisedThread

log = logging.getLogger(__name__)

# Most connections are idle, so this limit can be high. RequestQueueMiddleware limits how many requests run at the same time.
_MAX_CONNECTIONS = 4000
_OTHER_OPEN_FILES = 1000
_FORM_OVERHEAD_BYTES = 2**18
_DATABASE_CHECK_S = 2.0
_QUEUE_METRICS_S = 15.0


def make_application() -> AsgiApplication:
    """Returns the whole station as an ASGI application. Call `station.configuration.configure` before this function."""
    station = current_settings().station
    return BodyLimitMiddleware(
        RequestQueueMiddleware(SignedUrlMiddleware(get_asgi_application()), station.proxies, station.trusted_proxies),
        form_bytes=MAX_FORM_BYTES + _FORM_OVERHEAD_BYTES,
        upload_bytes=station.upload_bytes + _FORM_OVERHEAD_BYTES,
        proxies=station.proxies,
        trusted_proxies=station.trusted_proxies,
    )


def open_socket() -> socket.socket:
    """Returns a listening socket at station.host and station.port.

    Raises SettingsError if the port is in use or the address does not belong to this machine.
    """
    station = current_settings().station
    listening = socket.socket(socket.AF_INET6 if ":" in station.host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((station.host, station.port))
        # uvicorn would call listen() only later. Call listen() now, so that an error stops the start of the station.
        listening.listen()
    except OSError as error:
        listening.close()
        holder = f" The port is in use by {describe_holder(station.port)}." if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(
            f"station.port: cannot listen at {station.host}:{station.port}: {error.strerror}.{holder} "
            "Choose a free port and an address of this machine."
        ) from None
    return listening


class _HealthReportingServer(uvicorn.Server):
    """A uvicorn server that tells `health` when the station is ready and when the station stops.

    `stop_requested` is set if SIGTERM comes before uvicorn handles signals. The server then stops directly after its start.
    """

    def __init__(self, config: uvicorn.Config, health: ProcessHealth, stop_requested: threading.Event) -> None:
        super().__init__(config)
        self._health = health
        self._stop_requested = stop_requested

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._health.set_ready()
        if self._stop_requested.is_set():
            self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        stopping.set()
        self._health.set_not_ready("stopping")
        super().handle_exit(sig, frame)


def serve_pages(listening: socket.socket, health: ProcessHealth, stop_requested: threading.Event) -> None:
    """Serves all pages on the socket `listening` until SIGTERM. Must be called from the main thread.

    After SIGTERM, running requests have `service.grace_s` seconds to finish.
    """
    settings = current_settings()
    _raise_open_file_limit(_MAX_CONNECTIONS)
    # Load all pages now, so that an error in their code stops the start and not the first request.
    _ = get_resolver().url_patterns
    # Django warns that it reads a whole static file into memory. Ignore this warning, because the station's static files are small.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    config = uvicorn.Config(
        make_application(),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # uvicorn must not read the headers of proxies, because station.accounts.log_in reads them.
        proxy_headers=False,
        http=_make_protocol_class(settings.station),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(settings.service.grace_s)),
    )
    SupervisedThread("database", partial(_check_database, health), stopping).start()
    SupervisedThread("audit log", keep_shipping, stopping).start()
    get_live_consumer()
    _HealthReportingServer(config, health, stop_requested).run([listening])
    stop_live_consumer()


def _make_protocol_class(station: StationSettings) -> type[LimitedProtocol]:
    # Behind a proxy, all connections come from the proxy's address. So only the proxy can limit the connections of each client.
    per_address = _MAX_CONNECTIONS if station.proxies else station.connections_per_address
    limits = ConnectionLimits(per_address, _MAX_CONNECTIONS)

    class StationProtocol(LimitedProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(limits, *args, **kwargs)

    return StationProtocol


def _raise_open_file_limit(connections: int) -> None:
    """Raises the limit of open files, because the usual limit of 1,024 is too low for 4,000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_OPEN_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_database(health: ProcessHealth) -> None:
    """Regularly checks whether the database answers, and reports a fault to `health`. Also updates metrics from the database."""
    updated_at = float("-inf")
    while not stopping.wait(_DATABASE_CHECK_S):
        health.set_problem(find_database_fault(), "database")
        if time.monotonic() - updated_at < _QUEUE_METRICS_S:
            continue
        try:
            update_metrics(current_settings(), timezone.now())
            update_golden_metrics(current_settings(), timezone.now())
            updated_at = time.monotonic()
        except (DatabaseError, InterfaceError) as error:
            log.warning(
                "the metrics of the review queue and of golden parts are not updated, because the database does not answer: %s", error
            )
            connection.close()
