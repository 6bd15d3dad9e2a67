"""Requests that nobody sends by mistake: refused in words, nothing leaks, nothing falls over."""

from __future__ import annotations

import asyncio
import http.client
import resource
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.image_topics import wait_for
from tests.station.browser.plant import Person, Station, castings

pytestmark = pytest.mark.timeout(240)

REQUESTS, CONNECTIONS, KINDS = 10_000, 1000, 20
Answers = list[tuple[int, bytes]]  # status, body


@pytest.fixture(scope="module")
def engineer(station: Station) -> Person:
    return station.person("engineer")


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
def test_a_path_that_leads_nowhere_is_not_found_and_tells_nothing(engineer: Person, path: str) -> None:
    answer = engineer.get(path)
    assert answer.status_code == 404, answer.text[:500]
    for leak in ("root:", "Traceback", "<script>alert", "sqlite"):
        assert leak not in answer.text


@pytest.mark.parametrize("version", ["../../etc", "demo/../demo", "", "no-such", "<script>alert(1)</script>", "x" * 5000])
def test_an_unknown_version_is_refused_in_words(engineer: Person, version: str) -> None:
    answer = engineer.get("/models/change", params={"action": "choose", "line": "line-1", "version": version})
    assert answer.status_code == 409
    assert "There is no version" in answer.text
    assert "<script>alert" not in answer.text


def test_a_form_without_its_token_does_nothing(engineer: Person) -> None:
    form = {"action": "choose", "line": "line-1", "version": "demo-again"}
    answer = engineer.session.post(f"{engineer.address}/models/change", data=form, timeout=30)
    assert answer.status_code == 403
    assert "Form expired" in answer.text


def test_an_announced_body_that_is_too_large_is_refused_before_it_is_sent(station: Station) -> None:
    for path in ("/api/inspections", "/uploads/", "/log-in/"):
        connection = http.client.HTTPConnection(urlsplit(station.address).netloc, timeout=30)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(50 * 2**30))
        connection.endheaders()
        assert connection.getresponse().status == 413, path
        connection.close()


def test_a_body_without_end_is_cut_and_not_kept(station: Station) -> None:
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
def test_ten_thousand_requests_at_once_leave_the_station_standing(station: Station, engineer: Person) -> None:
    """At once: all are handed to a client that holds 1,000 connections, each with a request under way, until the last is answered."""
    part, token = station.camera.photograph("line-1"), engineer.token()
    picture = f"/parts/line-1/{part.run}/{part.part}/picture"
    wait_for(lambda: engineer.get(picture).status_code == 200, 60, "expected the part's picture")
    cookies = engineer.session.cookies.get_dict()
    before = station.memory_bytes()
    station.forget_peak()
    answers = _in_a_thread(_storm(station.address, cookies, token, picture))
    statuses = Counter(status for status, _ in answers)
    print(f"{statuses}, {(station.peak_memory_bytes() - before) / 2**20:.0f} MiB more at the most")
    assert statuses.total() == REQUESTS
    assert set(statuses) <= {200, 302, 401, 403, 404, 415, 429, 503}, statuses
    # More than have a place or wait for one are told to come again; of every kind some were served all the while.
    assert REQUESTS - statuses[503] > 480, statuses
    for kind in range(KINDS):
        assert sum(status != 503 for status, _ in answers[kind::KINDS]) >= 5, (kind, statuses)
    assert all(b"Try again in a moment" in body for status, body in answers if status == 503)
    assert station.peak_memory_bytes() - before < 300 * 2**20
    secrets = (token, *cookies.values(), station.settings.station.secret_key_file.read_text().strip())
    for leak in (*secrets, "Traceback", "site-packages", "root:", str(station.settings.service.run_dir.parent)):
        assert [body[:300] for _, body in answers if leak.encode() in body] == [], leak
    assert engineer.get("/").status_code == 200
    wait_for(lambda: engineer.get("/live/events", stream=True).status_code == 200, 30, "expected the wall's stream")


def _kinds(cookies: dict[str, str], token: str, picture: str) -> list[tuple[str, str, dict[str, str], bytes | None]]:
    """Method, path, headers, body: of nobody, of programs with wrong and right tokens, of a session without a form's token."""
    good, mine = castings()[0].jpeg(), {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
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
        ("POST", "/uploads/", mine, good),
        ("POST", "/reviews/", mine, bytes(range(256)) * 40),
        ("DELETE", "/models/", mine, b"{}"),
        ("GET", picture, mine, None),
        ("GET", f"{picture}?side=240", mine, None),
        ("GET", "/uploads/rows?open=1.waiting", mine, None),
        ("GET", "/parts/line-1/99999999999999999999/1/picture", mine, None),
        ("GET", "/parts/line-1/1/999/picture", mine, None),
        ("GET", "/lines/<script>alert(1)</script>/", mine, None),
        ("GET", "/models/version/..%2f..%2fetc/passwd", mine, None),
    ]


async def _storm(address: str, cookies: dict[str, str], token: str, picture: str) -> Answers:
    kinds = _kinds(cookies, token, picture) * (REQUESTS // KINDS)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    patience = aiohttp.ClientTimeout(total=None, sock_connect=120, sock_read=120)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def one(method: str, path: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
            for _ in range(5):
                # A connection on which the station had just said its last is no answer: asked again.
                with suppress(aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
                    async with session.request(method, address + path, headers=headers, data=body, allow_redirects=False) as answer:
                        return answer.status, await answer.read()
            return 0, b""

        return list(await asyncio.gather(*(one(*kind) for kind in kinds)))


def _in_a_thread(what: Coroutine[Any, Any, Answers]) -> Answers:
    """Its own event loop: Playwright's runs in this thread."""
    with ThreadPoolExecutor(1) as thread, _many_files():
        return thread.submit(asyncio.run, what).result()


@contextmanager
def _many_files() -> Iterator[None]:
    """As many open files as the connections need, which is more than a login's usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1000
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
