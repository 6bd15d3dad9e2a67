"""Serves the station's pages until asked to stop."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import threading
import time
import warnings
from types import FrameType

import uvicorn
from django.db import DatabaseError, InterfaceError, connection
from django.urls import get_resolver
from django.utils import timezone

from station.archive.tables import complaint
from station.asgi import application, stopping
from station.configuration import castline
from station.live import watching
from station.reviews.queue import update_metrics
from streams.errors import SettingsError
from streams.health import ProcessHealth

log = logging.getLogger(__name__)

# Connections, most of them idle: those above are told to come again. Requests in hand are far fewer, see `station.asgi`.
_MOST_CONNECTIONS = 4000
_OTHER_FILES = 1000  # databases of the requests in hand, Kafka, pictures
_LOOK_EVERY_S = 2.0
_COUNT_EVERY_S = 15.0


def listen() -> socket.socket:
    """The socket of the pages. Raises SettingsError: when the address is taken or not this machine's."""
    station = castline().station
    found = socket.socket(socket.AF_INET6 if ":" in station.host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((station.host, station.port))
        found.listen()  # uvicorn says how many may wait
    except OSError as error:
        found.close()
        raise SettingsError(
            f"station.port: expected {station.host}:{station.port} to be free and this machine's, it is not: {error.strerror}"
        ) from None
    return found


class _Server(uvicorn.Server):
    """Uvicorn's server, which tells `health` when it takes requests and when it does no more."""

    def __init__(self, config: uvicorn.Config, health: ProcessHealth, asked: threading.Event) -> None:
        super().__init__(config)
        self._health = health
        self._asked = asked

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._health.set_ready()
        if self._asked.is_set():  # before uvicorn heard signals
            self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        stopping.set()
        self._health.set_not_ready("stopping")
        super().handle_exit(sig, frame)


def serve(pages: socket.socket, health: ProcessHealth, asked: threading.Event) -> None:
    """Serves on `pages` until SIGTERM, then gives open requests the time of `service.grace_s`. For the main thread."""
    settings = castline()
    _allow_files(_MOST_CONNECTIONS)
    # Read now: what is broken in a page's module ends the start, not the first request.
    _ = get_resolver().url_patterns
    # WhiteNoise hands files over as plain iterators, which Django reads at once: right for files as small as ours.
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
    config = uvicorn.Config(
        application(),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Where a request comes from and whether by TLS is read in one place, by our own settings.
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=max(1, int(settings.service.grace_s)),
    )
    threading.Thread(target=_watch, args=(health,), name="database", daemon=True).start()
    watching.watch()
    _Server(config, health, asked).run([pages])
    watching.stop()


def _allow_files(connections: int) -> None:
    """As many open files as the connections need, or as many as this user may have: at a login's usual 1,024 accepting would stop."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _watch(health: ProcessHealth) -> None:
    """Whether the database answers, for /readyz; and how long the review queue is, for /metrics."""
    renewed_at = float("-inf")
    while not stopping.wait(_LOOK_EVERY_S):
        health.set_problem(complaint(), "database")
        if time.monotonic() - renewed_at < _COUNT_EVERY_S:
            continue
        try:
            update_metrics(castline(), timezone.now())
            renewed_at = time.monotonic()
        except (DatabaseError, InterfaceError) as error:
            log.warning("the review queue cannot be counted now: %s", error)
            connection.close()
