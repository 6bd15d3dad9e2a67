"""Limits the number of concurrent requests, and the size and time of request bodies, before Django sees the requests.

`station.server` connects these layers: BodyLimitMiddleware -> RequestQueueMiddleware -> SignedUrlMiddleware -> Django.

A client is an IPv4 address, or the first 64 bits of an IPv6 address. If the station is behind proxies, the client is the address from which
the outermost proxy got the request.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

from streams.client_address import find_client_address
from streams.server_limits import compute_body_time_s, find_network

AsgiScope = MutableMapping[str, Any]
AsgiEvent = Mapping[str, Any]
AsgiReceive = Callable[[], Awaitable[AsgiEvent]]
AsgiSend = Callable[[AsgiEvent], Awaitable[None]]
AsgiApplication = Callable[[Any, AsgiReceive, AsgiSend], Awaitable[None]]

# This event is set when the process must end. It stops the event streams of the live pages, which would never end otherwise.
stopping = threading.Event()

API_PREFIX = "/api/"
_UPLOAD_PREFIXES = ("/uploads/", API_PREFIX)

# Largest number of requests that run at the same time. The event stream of a live page does not count, because it never ends.
_MAX_RUNNING = 160
_MAX_QUEUE_WAIT_S = 15.0
_MAX_QUEUED = 320
# One client can have 40 running requests, and 120 more in the queue. A browser sends six requests at once, and several people can share an
# IP address.
_MAX_CLIENT_RUNNING = 40
_MAX_CLIENT_QUEUED = 120
_LOG_IN_PATH = "/log-in/"
# One client can have two log-ins at the same time. The limit is low, because the station checks only one password at a time.
_MAX_CLIENT_LOG_INS = 2
_BUSY = "The station is busy: too many requests at once. Try again in a moment."
_RETRY_SOON = (b"retry-after", b"5")
# The request bodies of one client may use as much memory as two uploads of the largest allowed size.
_MAX_CLIENT_BODIES = 2
# The request bodies of all clients together may use as much memory as eight uploads of the largest allowed size.
_MAX_BODIES = 8


async def send_text_response(scope: AsgiScope, send: AsgiSend, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    """Answers a request with one sentence. The answer is JSON if the address begins with /api/, and plain text otherwise."""
    if scope["path"].startswith(API_PREFIX):
        content_type, body = b"application/json", json.dumps({"error": sentence}).encode()
    else:
        content_type, body = b"text/plain; charset=utf-8", f"{sentence}\n".encode()
    response_headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": response_headers})
    await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


def find_client(scope: AsgiScope, proxies: int, trusted_proxies: Sequence[str]) -> str:
    """Returns the IPv4 address of the client, or the /64 network of its IPv6 address. `proxies` and `trusted_proxies` are settings."""
    peer = (scope.get("client") or ("", 0))[0]
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return find_network(find_client_address(peer, b",".join(values).decode("latin-1"), proxies, trusted_proxies))


class RequestQueueMiddleware:
    """Limits how many requests run at the same time and how many wait in a queue, in total and for each client.

    If the queue is full, or a request waits longer than `max_wait_s`, the answer is status 503 with the header Retry-After.

    A request with a body enters the queue only when the whole body has arrived, so a slow upload does not delay other requests. An event
    stream never ends, so it counts as running only until its response begins.
    """

    def __init__(
        self,
        inner: AsgiApplication,
        proxies: int = 0,
        trusted_proxies: Sequence[str] = (),
        max_running: int = _MAX_RUNNING,
        max_queued: int = _MAX_QUEUED,
        max_wait_s: float = _MAX_QUEUE_WAIT_S,
        max_client_running: int = _MAX_CLIENT_RUNNING,
    ) -> None:
        self._inner = inner
        self._find_client = partial(find_client, proxies=proxies, trusted_proxies=trusted_proxies)
        self._running = asyncio.Semaphore(max_running)
        self._max_queued = max_queued
        self._queued = 0
        self._max_wait_s = max_wait_s
        self._max_client_running = max_client_running
        self._client_places: dict[str, _ClientPlaces] = {}
        self._log_ins: Counter[str] = Counter()

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        request = _QueuedRequest(self, self._find_client(scope), scope)
        if not _has_body(scope) and not await request.acquire():
            await _refuse(scope, send, 503, _BUSY, _RETRY_SOON)
            return

        async def receive_and_acquire() -> AsgiEvent:
            event = await receive()
            if event["type"] == "http.request" and not event.get("more_body", False) and not await request.acquire():
                return {"type": "http.disconnect"}
            return event

        async def send_and_release(event: AsgiEvent) -> None:
            await send(event)
            if event["type"] == "http.response.start" and _is_event_stream(event):
                request.release()

        try:
            await self._inner(scope, receive_and_acquire, send_and_release)
        finally:
            request.release()
        if request.is_refused:
            await _refuse(scope, send, 503, _BUSY, _RETRY_SOON)

    async def acquire(self, client: str) -> bool:
        """Waits until a request of `client` may run, then returns True. Returns False if a queue is full or the wait is too long."""
        places = self._client_places.get(client) or _ClientPlaces(asyncio.Semaphore(self._max_client_running))
        if (self._running.locked() and self._queued >= self._max_queued) or places.used >= self._max_client_running + _MAX_CLIENT_QUEUED:
            return False
        self._client_places[client] = places
        self._queued += 1
        places.used += 1
        acquired: list[asyncio.Semaphore] = []
        try:
            async with asyncio.timeout(self._max_wait_s):
                for semaphore in (places.running, self._running):
                    await semaphore.acquire()
                    acquired.append(semaphore)
        except TimeoutError:
            return False
        finally:
            self._queued -= 1
            if len(acquired) < 2:
                for semaphore in acquired:
                    semaphore.release()
                self._leave(client, places)
        return True

    def release(self, client: str) -> None:
        places = self._client_places[client]
        self._running.release()
        places.running.release()
        self._leave(client, places)

    def begin_log_in(self, client: str) -> bool:
        """Counts one more running log-in of `client` and returns True. If too many log-ins of `client` are running, returns False."""
        if self._log_ins[client] >= _MAX_CLIENT_LOG_INS:
            return False
        self._log_ins[client] += 1
        return True

    def end_log_in(self, client: str) -> None:
        self._log_ins[client] -= 1
        if not self._log_ins[client]:
            del self._log_ins[client]

    def _leave(self, client: str, places: _ClientPlaces) -> None:
        places.used -= 1
        if not places.used:
            del self._client_places[client]


class _ClientPlaces:
    """Counts the requests of one client: `used` is the number of running and queued requests.

    The semaphore `running` limits how many requests run at the same time.
    """

    def __init__(self, running: asyncio.Semaphore) -> None:
        self.running = running
        self.used = 0


class _QueuedRequest:
    def __init__(self, queue: RequestQueueMiddleware, client: str, scope: AsgiScope) -> None:
        self._queue = queue
        self._client = client
        self._is_log_in = scope.get("method") == "POST" and scope["path"] == _LOG_IN_PATH
        self._is_running = False
        self.is_refused = False

    async def acquire(self) -> bool:
        if self._is_running or self.is_refused:
            return self._is_running
        if self._is_log_in and not self._queue.begin_log_in(self._client):
            self.is_refused = True
            return False
        try:
            self._is_running = await self._queue.acquire(self._client)
        finally:
            if self._is_log_in and not self._is_running:
                self._queue.end_log_in(self._client)
        self.is_refused = not self._is_running
        return self._is_running

    def release(self) -> None:
        if not self._is_running:
            return
        self._is_running = False
        self._queue.release(self._client)
        if self._is_log_in:
            self._queue.end_log_in(self._client)


def _has_body(scope: AsgiScope) -> bool:
    # GET and HEAD requests enter the queue at once, because nobody reads their bodies. Otherwise, a client could avoid the queue: it could
    # announce a body in the header Content-Length and never send the body.
    if scope.get("method") in ("GET", "HEAD"):
        return False
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in scope["headers"])


def _is_event_stream(event: AsgiEvent) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in event["headers"])


class BodyBudget:
    """Counts how much memory the bodies of the running requests use: in total, and for each client."""

    def __init__(self, max_client_bytes: int, max_bytes: int) -> None:
        self._max_client_bytes = max_client_bytes
        self._max_bytes = max_bytes
        self._used_by_client: Counter[str] = Counter()
        self._used_bytes = 0

    def reserve(self, client: str, size: int) -> bool:
        """Reserves `size` bytes and returns True. If this would exceed the limit of the client or the total limit, returns False."""
        if self._used_bytes + size > self._max_bytes or self._used_by_client[client] + size > self._max_client_bytes:
            return False
        self._used_bytes += size
        self._used_by_client[client] += size
        return True

    def free(self, client: str, size: int) -> None:
        self._used_bytes -= size
        self._used_by_client[client] -= size
        if not self._used_by_client[client]:
            del self._used_by_client[client]


class BodyLimitMiddleware:
    """Refuses a request body that is too large (status 413), arrives too slowly (408), or for which no memory is left (503).

    Django reads the whole body before it checks who sent the request. So this middleware checks the body before Django reads it.
    """

    def __init__(
        self,
        inner: AsgiApplication,
        form_bytes: int,
        upload_bytes: int,
        proxies: int = 0,
        trusted_proxies: Sequence[str] = (),
        compute_time_s: Callable[[int], float] = compute_body_time_s,
    ) -> None:
        self._inner = inner
        self._form_bytes = form_bytes
        self._upload_bytes = upload_bytes
        self._find_client = partial(find_client, proxies=proxies, trusted_proxies=trusted_proxies)
        self._compute_time_s = compute_time_s
        self._budget = BodyBudget(_MAX_CLIENT_BODIES * upload_bytes, _MAX_BODIES * upload_bytes)

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        limit = self._upload_bytes if scope["path"].startswith(_UPLOAD_PREFIXES) else self._form_bytes
        body = _Body(self._budget, self._find_client(scope), limit, self._compute_time_s, receive)
        if _announced_bytes(scope["headers"]) > limit:
            await _refuse(scope, send, *body.too_large)
            return
        responded = False

        async def send_and_note(event: AsgiEvent) -> None:
            nonlocal responded
            responded = True
            await send(event)

        try:
            await self._inner(scope, body.receive, send_and_note)
        finally:
            body.free()
        if body.refusal and not responded:
            await _refuse(scope, send, *body.refusal)


class _Body:
    """The body of one request, as it arrives. `refusal` is the status and the reason if the body was refused."""

    def __init__(self, budget: BodyBudget, client: str, limit: int, compute_time_s: Callable[[int], float], receive: AsgiReceive) -> None:
        self._budget = budget
        self._client = client
        self._limit = limit
        self._compute_time_s = compute_time_s
        self._receive = receive
        self._began_s: float | None = None
        self._bytes = 0
        self._is_complete = False
        self.too_large = 413, f"Too large: a request to this address can have at most {limit // 1024} KiB."
        self.refusal: tuple[int, str] | None = None

    async def receive(self) -> AsgiEvent:
        # After the complete body, Django calls receive() again to wait until the client disconnects. This wait has no time limit.
        if self._is_complete:
            return await self._receive()
        if self.refusal:
            return {"type": "http.disconnect"}
        loop = asyncio.get_running_loop()
        self._began_s = self._began_s if self._began_s is not None else loop.time()
        allowed_s = self._compute_time_s(self._bytes)
        try:
            async with asyncio.timeout_at(self._began_s + allowed_s):
                event = await self._receive()
        except TimeoutError:
            return self._refuse(408, f"Too slow: the rest of this request did not come within {allowed_s:.0f} s.")
        if event["type"] != "http.request":
            return event
        size = len(event["body"])
        if self._bytes + size > self._limit:
            return self._refuse(*self.too_large)
        if not self._budget.reserve(self._client, size):
            return self._refuse(503, _BUSY)
        self._bytes += size
        self._is_complete = not event.get("more_body", False)
        return event

    def free(self) -> None:
        self._budget.free(self._client, self._bytes)
        self._bytes = 0

    def _refuse(self, status: int, reason: str) -> AsgiEvent:
        self.refusal = status, reason
        return {"type": "http.disconnect"}


def _announced_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    values = [value for name, value in headers if name == b"content-length"]
    return int(values[0]) if values and values[0].isdigit() else 0


async def _refuse(scope: AsgiScope, send: AsgiSend, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    await send_text_response(scope, send, status, sentence, (b"connection", b"close"), *headers)
