"""Hostile requests are refused with an explanation, nothing leaks, and the station keeps running."""

from __future__ import annotations

import asyncio
import http.client
import resource
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.image_topics import wait_for
from tests.station.browser.plant import HttpUser, RunningStation, make_jpeg

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

REQUESTS, CONNECTIONS, KINDS = 10_000, 1000, 20
# The connections come from this many addresses, because the station limits the connections and requests of each address.
CLIENTS = 20
# Status and body of each response.
HttpResponses = list[tuple[int, bytes]]


@pytest.fixture(scope="module")
def engineer(station: RunningStation) -> HttpUser:
    return station.log_in("engineer")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/models/version/..%2f..%2f..%2fetc/passwd",
        "/models/version/%2e%2e/manifest.json",
        "/models/version/demo/manifest.json",
        "/models/version/demo/error-99999999999999999999.png",
        "/parts/..%2f..%2f/1/1/picture",
        "/parts/line-1/99999999999999999999/1/picture",
        "/parts/uploads/1/99999999999999999999/picture",
        "/uploads/99999999999999999999/",
        "/lines/<script>alert(1)</script>/",
        "/live/events?line=../../etc",
        "/models/change?action=choose&line=..&version=../../etc",
    ],
)
def test_an_unknown_path_is_not_found_and_leaks_nothing(engineer: HttpUser, path: str) -> None:
    response = engineer.get(path)
    assert response.status_code == 404, response.text[:500]
    for leak in ("root:", "Traceback", "<script>alert", "sqlite"):
        assert leak not in response.text


@pytest.mark.parametrize("version", ["../../etc", "demo/../demo", "", "no-such", "<script>alert(1)</script>", "x" * 5000])
def test_an_unknown_version_is_refused(engineer: HttpUser, version: str) -> None:
    response = engineer.get("/models/change", params={"action": "choose", "line": "line-1", "version": version})
    assert response.status_code == 409
    assert "There is no version" in response.text
    assert "<script>alert" not in response.text


def test_a_form_without_its_token_does_nothing(engineer: HttpUser) -> None:
    form = {"action": "choose", "line": "line-1", "version": "demo-again"}
    response = engineer.session.post(f"{engineer.address}/models/change", data=form, timeout=30)
    assert response.status_code == 403
    assert "Form expired" in response.text


def test_an_announced_body_that_is_too_large_is_refused_before_it_is_sent(station: RunningStation) -> None:
    for path in ("/api/inspections", "/uploads/", "/log-in/"):
        connection = http.client.HTTPConnection(urlsplit(station.address).netloc, timeout=30)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(50 * 2**30))
        connection.endheaders()
        assert connection.getresponse().status == 413, path
        connection.close()


def test_an_endless_body_is_cut_off_and_not_stored(station: RunningStation) -> None:
    before = station.memory_bytes()
    connection = http.client.HTTPConnection(urlsplit(station.address).netloc, timeout=30)
    connection.putrequest("POST", "/log-in/")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk, sent = b"100000\r\n" + bytes(2**20) + b"\r\n", 0
    try:
        while sent < 100:
            connection.send(chunk)
            sent += 1
        status = connection.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = 0
    connection.close()
    assert status in (0, 400, 413)
    assert station.memory_bytes() - before < 60 * 2**20


@pytest.mark.timeout(600)
def test_the_station_survives_ten_thousand_requests_over_a_thousand_connections(station: RunningStation, engineer: HttpUser) -> None:
    """20 clients keep 1,000 connections busy, each with one request, until all requests are answered."""
    part, token = station.camera.take_picture("line-1"), engineer.create_token()
    picture = f"/parts/line-1/{part.run}/{part.part}/picture"
    wait_for(lambda: engineer.get(picture).status_code == 200, 60, "expected the part's picture")
    cookies = engineer.session.cookies.get_dict()
    before = station.memory_bytes()
    station.reset_peak_memory()
    responses = _run_in_thread(_send_requests(station.address, cookies, token, picture))
    statuses = Counter(status for status, _ in responses)
    print(f"{statuses}, {(station.peak_memory_bytes() - before) / 2**20:.0f} MiB more memory at the peak")
    assert statuses.total() == REQUESTS
    assert set(statuses) <= {200, 302, 401, 403, 404, 415, 429, 503}, statuses
    # Requests beyond the running and the queued ones are refused with 503. Of every kind some requests must have been served.
    assert REQUESTS - statuses[503] > 480, statuses
    for kind in range(KINDS):
        assert sum(status != 503 for status, _ in responses[kind::KINDS]) >= 5, (kind, statuses)
    assert all(b"Try again in a moment" in body for status, body in responses if status == 503)
    assert station.peak_memory_bytes() - before < 300 * 2**20
    secrets = (token, *cookies.values(), station.settings.station.secret_key_file.read_text().strip())
    for leak in (*secrets, "Traceback", "site-packages", "root:", str(station.settings.service.run_dir.parent)):
        assert [body[:300] for _, body in responses if leak.encode() in body] == [], leak
    assert engineer.get("/").status_code == 200
    wait_for(lambda: engineer.get("/live/events", stream=True).status_code == 200, 30, "expected the wall's stream")


def _make_requests(cookies: dict[str, str], token: str, picture: str) -> list[tuple[str, str, dict[str, str], bytes | None]]:
    """Returns method, path, headers and body of requests without a log-in, with wrong and right tokens, and without a CSRF token."""
    good, logged_in = make_jpeg(), {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    return [
        ("GET", "/", {}, None),
        ("GET", picture, {}, None),
        ("GET", "/history/?part=../../etc/passwd", {}, None),
        ("GET", "/static/station/station.css", {}, None),
        ("GET", "/static/%2e%2e/%2e%2e/etc/passwd", {}, None),
        ("GET", "/log-in/", {}, None),
        ("POST", "/log-in/", {}, b"username=engineer&password=guess"),
        ("POST", "/uploads/", {}, good),
        ("POST", "/api/inspections", {"Authorization": "Bearer wrong"}, good),
        ("POST", "/api/inspections", {"Authorization": f"Bearer {token}"}, b"no picture"),
        ("POST", "/uploads/", logged_in, good),
        ("POST", "/reviews/", logged_in, bytes(range(256)) * 40),
        ("DELETE", "/models/", logged_in, b"{}"),
        ("GET", picture, logged_in, None),
        ("GET", f"{picture}?side=240", logged_in, None),
        ("GET", "/uploads/rows?open=1.waiting", logged_in, None),
        ("GET", "/parts/line-1/99999999999999999999/1/picture", logged_in, None),
        ("GET", "/parts/line-1/1/999/picture", logged_in, None),
        ("GET", "/lines/<script>alert(1)</script>/", logged_in, None),
        ("GET", "/models/version/..%2f..%2fetc/passwd", logged_in, None),
    ]


async def _send_requests(address: str, cookies: dict[str, str], token: str, picture: str) -> HttpResponses:
    kinds = _make_requests(cookies, token, picture) * (REQUESTS // KINDS)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=120, sock_read=120)
    async with AsyncExitStack() as stack:
        sessions = []
        for number in range(CLIENTS):
            connector = aiohttp.TCPConnector(limit=CONNECTIONS // CLIENTS, local_addr=(f"127.0.3.{number + 1}", 0))
            session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
            sessions.append(await stack.enter_async_context(session))

        async def one(number: int, method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
            session = sessions[number // KINDS % CLIENTS]
            for _ in range(5):
                # A keep-alive connection may have been closed by the station at the same moment. Then the request is sent again.
                with suppress(aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                    async with session.request(method, address + path, headers=headers, data=body, allow_redirects=False) as response:
                        return response.status, await response.read()
            return 0, b""

        return list(await asyncio.gather(*(one(number, *kind) for number, kind in enumerate(kinds))))


def _run_in_thread(coroutine: Coroutine[Any, Any, HttpResponses]) -> HttpResponses:
    """Runs the coroutine in another thread, because Playwright's event loop occupies this one."""
    with ThreadPoolExecutor(1) as thread, _raised_open_file_limit():
        return thread.submit(asyncio.run, coroutine).result()


@contextmanager
def _raised_open_file_limit() -> Iterator[None]:
    """Raises the limit of open files, usually 1,024, as far as the connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CONNECTIONS + 1000
    if 0 <= soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
