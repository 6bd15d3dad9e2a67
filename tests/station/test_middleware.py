"""Limits before Django: the size and time of request bodies, and the number of concurrent requests of all clients and of each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from station.middleware import BodyLimitMiddleware, RequestQueueMiddleware, find_client

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
    asyncio.run(BodyLimitMiddleware(application, 100, 1000, compute_time_s=lambda _: 0.2)(scope, receive, send))
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


def test_a_body_that_trickles_has_a_total_time() -> None:
    async def send_slowly() -> list[int]:
        statuses: list[int] = []
        sent = 0

        async def receive() -> dict[str, Any]:
            nonlocal sent
            await asyncio.sleep(0.02)
            sent += 1
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(event: Any) -> None:
            statuses.extend([event["status"]] if event["type"] == "http.response.start" else [])

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["type"] == "http.request":
                pass

        scope = {"type": "http", "path": "/", "headers": []}
        await BodyLimitMiddleware(application, 1000, 1000, compute_time_s=lambda received: 0.1 + received / 1000)(scope, receive, send)
        assert 2 < sent < 20
        return statuses

    assert asyncio.run(send_slowly()) == [408]


def test_the_bodies_of_one_client_have_a_limit_together_and_free_their_room() -> None:
    async def send_bodies() -> list[int]:
        statuses: list[int] = []
        finish = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if (await receive())["type"] == "http.request":
                await finish.wait()
                await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(event: Any) -> None:
            statuses.extend([event["status"]] if event["type"] == "http.response.start" else [])
            finish.set()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(900), "more_body": False}

        middleware = BodyLimitMiddleware(application, form_bytes=1000, upload_bytes=1000)

        def post(address: str) -> Any:
            return middleware({"type": "http", "path": "/", "headers": [], "client": (address, 1)}, receive, send)

        await asyncio.gather(post("10.0.0.1"), post("10.0.0.1"), post("10.0.0.2"), post("10.0.0.1"))
        await post("10.0.0.1")
        return statuses

    assert sorted(asyncio.run(send_bodies())) == [200, 200, 200, 200, 503]


def test_a_request_with_a_body_waits_for_its_place_only_when_the_body_is_complete() -> None:
    async def send_both() -> list[tuple[str, int]]:
        answers: list[tuple[str, int]] = []
        body_comes = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        def make_send(name: str) -> Any:
            async def send(event: Any) -> None:
                answers.extend([(name, event["status"])] if event["type"] == "http.response.start" else [])

            return send

        async def receive_slowly() -> dict[str, Any]:
            await body_comes.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        queue = RequestQueueMiddleware(application, max_running=1, max_wait_s=0.1)
        slow_scope = {"type": "http", "path": "/", "headers": [(b"content-length", b"1")]}
        slow = asyncio.create_task(queue(slow_scope, receive_slowly, make_send("slow")))
        await asyncio.sleep(0)
        await queue({"type": "http", "path": "/", "headers": []}, receive, make_send("quick"))
        body_comes.set()
        await slow
        return answers

    assert asyncio.run(send_both()) == [("quick", 200), ("slow", 200)]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_of_a_picture_takes_a_place_although_it_announces_a_body(method: str) -> None:
    async def send_both() -> list[int]:
        statuses: list[int] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.3)
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(event: Any) -> None:
            statuses.extend([event["status"]] if event["type"] == "http.response.start" else [])

        async def receive() -> dict[str, Any]:
            raise AssertionError("the body of this request is not read")

        queue = RequestQueueMiddleware(application, max_running=1, max_wait_s=0.05)
        scope = {"type": "http", "path": "/", "method": method, "headers": [(b"content-length", b"1")]}
        await asyncio.gather(*(queue(dict(scope), receive, send) for _ in range(2)))
        return sorted(statuses)

    assert asyncio.run(send_both()) == [200, 503]


def test_the_client_behind_proxies_is_the_address_that_the_outermost_proxy_saw() -> None:
    scope = {"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"1.1.1.1, 2.2.2.2"), (b"x-forwarded-for", b"3.3.3.3")]}
    trusted = ("127.0.0.1", "3.3.3.3")
    assert [find_client(scope, proxies, trusted) for proxies in (0, 1, 2, 9)] == ["127.0.0.1", "3.3.3.3", "2.2.2.2", "2.2.2.2"]
    assert find_client(scope, 2, ("10.0.0.1",)) == "127.0.0.1"
    assert find_client({"client": ("2001:db8::1", 1), "headers": []}, 0, ()) == "2001:db8::/64"


async def send_six_requests(
    max_wait_s: float, refusals: int, max_queued: int = 100, max_running: int = 2, max_client_running: int = 40
) -> tuple[list[int], int]:
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

    middleware = RequestQueueMiddleware(application, 0, (), max_running, max_queued, max_wait_s, max_client_running)
    scope = {"type": "http", "path": "/", "headers": []}
    await asyncio.gather(*(middleware(scope, None, send) for _ in range(6)))  # type: ignore[arg-type]
    return sorted(statuses), most_running


def test_requests_above_the_limit_wait_and_are_refused_after_a_while() -> None:
    assert asyncio.run(send_six_requests(max_wait_s=60, refusals=0)) == ([200] * 6, 2)
    assert asyncio.run(send_six_requests(max_wait_s=0.1, refusals=4)) == ([200] * 2 + [503] * 4, 2)


def test_one_client_cannot_take_all_places() -> None:
    assert asyncio.run(send_six_requests(max_wait_s=0.1, refusals=4, max_running=160, max_client_running=2)) == ([200] * 2 + [503] * 4, 2)


def test_requests_that_find_the_queue_full_are_refused_at_once() -> None:
    assert asyncio.run(send_six_requests(max_wait_s=60, refusals=3, max_queued=1)) == ([200] * 3 + [503] * 3, 2)
