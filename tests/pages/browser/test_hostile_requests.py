"""Requests that nobody sends by mistake: refused in words, nothing leaks, nothing falls over."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.delivery.pictures import wait_for
from tests.pages.browser.plant import Person, Station, castings

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("station")]

REQUESTS, AT_ONCE = 2000, 200


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


def test_two_thousand_requests_at_once_leave_the_station_standing(station: Station, engineer: Person) -> None:
    part, token = station.camera.photograph("line-1"), engineer.token()
    picture = f"/parts/line-1/{part.run}/{part.part}/picture"
    wait_for(lambda: engineer.get(picture).status_code == 200, 60, "expected the part's picture")
    before = station.memory_bytes()
    cookies = engineer.session.cookies.get_dict()
    codes = Counter(_in_a_thread(_storm(station.address, cookies, token, picture)))
    assert codes.total() == REQUESTS
    assert set(codes) <= {200, 202, 302, 401, 404, 415, 429, 503}, codes
    assert codes[200] > 200, codes
    assert station.memory_bytes() - before < 300 * 2**20
    assert engineer.get("/").status_code == 200
    wait_for(lambda: engineer.get("/live/events", stream=True).status_code == 200, 30, "expected the wall's stream")


async def _storm(address: str, cookies: dict[str, str], token: str, picture: str) -> list[int]:
    good, gate = castings()[0].jpeg(), asyncio.Semaphore(AT_ONCE)
    bearer = {"Authorization": f"Bearer {token}"}
    kinds: Iterator[tuple[str, str, dict[str, str], bytes | None]]
    kinds = iter(
        [
            ("GET", "/", {}, None),
            ("GET", picture, {}, None),
            ("GET", "/static/station/station.css", {}, None),
            ("GET", "/uploads/rows?open=1.waiting", {}, None),
            ("POST", "/api/inspections", {"Authorization": "Bearer wrong"}, good),
            ("POST", "/api/inspections", bearer, b"no picture"),
            ("GET", "/parts/line-1/1/999/picture", {}, None),
            ("GET", f"{picture}?side=240", {}, None),
            ("GET", "/log-in/", {}, None),
            ("GET", "/parts/line-1/99999999999999999999/1/picture", {}, None),
        ]
        * (REQUESTS // 10)
    )
    async with aiohttp.ClientSession(cookies=cookies, connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:

        async def one(method: str, path: str, headers: dict[str, str], body: bytes | None) -> int:
            async with gate, session.request(method, address + path, headers=headers, data=body, allow_redirects=False) as answer:
                await answer.read()
                return answer.status

        return list(await asyncio.gather(*(one(*kind) for kind in kinds)))


def _in_a_thread(what: object) -> list[int]:
    """Its own event loop: Playwright's runs in this thread."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(what)))  # type: ignore[arg-type]
    thread.start()
    thread.join()
    return found
