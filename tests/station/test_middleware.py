"""Limits before Django: the size and speed of request bodies, and the number of concurrent requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from station.middleware import BodyLimitMiddleware, RequestQueueMiddleware

AsgiEvents = list[dict[str, Any]]


def send_body(path: str, pieces: list[bytes], announced_bytes: int | None = None, stalls: bool = False) -> AsgiEvents:
    """Returns the response to a request whose body arrives in `pieces` and, with `stalls`, never ends.

    The application behind the middleware reads the whole body and answers 200.
    """
    response: AsgiEvents = []
    events = [{"type": "http.request", "body": piece, "more_body": stalls or index < len(pieces) - 1} for index, piece in enumerate(pieces)]

    async def receive() -> dict[str, Any]:
        if not events:
            await asyncio.Event().wait()
        return events.pop(0)

    async def send(event: Any) -> None:
        response.append(dict(event))

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (event := await receive())["type"] == "http.request":
            if not event["more_body"]:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                return

    headers = [] if announced_bytes is None else [(b"content-length", str(announced_bytes).encode())]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(BodyLimitMiddleware(application, form_bytes=100, upload_bytes=1000, max_pause_s=0.2)(scope, receive, send))
    return response


def test_a_body_that_is_announced_too_large_is_refused_unread() -> None:
    assert send_body("/log-in/", [b"x"], announced_bytes=101)[0]["status"] == 413
    assert send_body("/uploads/", [b"x"], announced_bytes=101)[0]["status"] == 200
    assert send_body("/uploads/", [b"x"], announced_bytes=1001)[0]["status"] == 413


def test_a_body_of_unknown_size_is_read_up_to_the_limit() -> None:
    assert send_body("/log-in/", [b"x" * 60, b"x" * 60])[0]["status"] == 413
    assert send_body("/log-in/", [b"x" * 60, b"x" * 40])[0]["status"] == 200


def test_a_body_that_stops_arriving_is_refused() -> None:
    response = send_body("/log-in/", [b"x" * 60], stalls=True)
    assert response[0]["status"] == 408
    assert b"did not come within" in response[1]["body"]


def test_the_api_gets_refusals_as_json_and_pages_get_text() -> None:
    start, body = send_body("/api/inspections", [b"x"], announced_bytes=1001)
    assert start["status"] == 413
    assert dict(start["headers"])[b"content-type"] == b"application/json"
    assert "at most" in json.loads(body["body"])["error"]
    start, body = send_body("/uploads/", [b"x"], announced_bytes=1001)
    assert dict(start["headers"])[b"content-type"].startswith(b"text/plain")
    assert body["body"].startswith(b"Too large")


async def send_six_requests(max_wait_s: float, refusals: int, max_queued: int = 100) -> tuple[list[int], int]:
    """Sends six requests, of which two may run at once. Returns the sorted statuses and how many requests ran at the same moment.

    With `refusals`, the running requests last until that many others were refused.
    """
    statuses: list[int] = []
    running, most_running = 0, 0
    finish = asyncio.Event()

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal running, most_running
        running += 1
        most_running = max(most_running, running)
        if refusals:
            await finish.wait()
        await asyncio.sleep(0)
        running -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            statuses.append(event["status"])
        if statuses.count(503) == refusals:
            finish.set()

    middleware = RequestQueueMiddleware(application, max_running=2, max_queued=max_queued, max_wait_s=max_wait_s)
    await asyncio.gather(*(middleware({"type": "http", "path": "/"}, None, send) for _ in range(6)))  # type: ignore[arg-type]
    return sorted(statuses), most_running


def test_requests_above_the_limit_wait_and_are_refused_after_a_while() -> None:
    assert asyncio.run(send_six_requests(max_wait_s=60, refusals=0)) == ([200] * 6, 2)
    assert asyncio.run(send_six_requests(max_wait_s=0.1, refusals=4)) == ([200] * 2 + [503] * 4, 2)


def test_requests_that_find_the_queue_full_are_refused_at_once() -> None:
    assert asyncio.run(send_six_requests(max_wait_s=60, refusals=3, max_queued=1)) == ([200] * 3 + [503] * 3, 2)
