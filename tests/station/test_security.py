"""What stands before every page: headers, limits, names, and Django's own check of a deployment."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, RequestFactory, override_settings

from station.accounts.log_in import client_address
from station.configuration import make_django_settings, read_secret_key
from station.middleware import BodyLimitMiddleware, RequestQueueMiddleware
from streams.errors import SettingsError
from streams.settings import Settings, StationSettings
from tests.station.conftest import SETTINGS

# In a process of its own, since Django's settings are one a process.
DEPLOYMENT_CHECK = """
import sys
from station.configuration import configure
from streams.settings import Settings, StationSettings
hosts = ("castline.plant.example",)
configure(Settings(station=StationSettings(database=sys.argv[1], secret_key_file=sys.argv[2], behind_tls=True, hosts=hosts)))
from django.core.management import call_command
call_command("check", deploy=True, fail_level="WARNING")
"""


def test_the_check_of_a_deployment_behind_tls_finds_nothing(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", DEPLOYMENT_CHECK, str(tmp_path / "station.sqlite3"), str(tmp_path / "key")]
    found = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "no issues" in found.stdout


def test_behind_tls_cookies_and_hsts_are_for_tls_alone() -> None:
    made = make_django_settings(SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"behind_tls": True})}))
    assert all(made[name] for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"))
    assert made["SECURE_HSTS_SECONDS"] >= 31_536_000
    assert not make_django_settings(SETTINGS)["SESSION_COOKIE_SECURE"]


def test_every_page_forbids_inline_scripts_frames_and_guessing_of_types(visitor: Client) -> None:
    answer = visitor.get("/log-in/")
    policy = dict(part.strip().split(" ", 1) for part in answer["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    page = answer.content.decode()
    assert " style=" not in page
    assert "<script>" not in page
    assert " onclick=" not in page


def test_cookies_are_out_of_reach_of_scripts(visitor: Client) -> None:
    visitor.get("/log-in/")
    assert visitor.cookies["csrftoken"]["httponly"]
    assert visitor.cookies["csrftoken"]["samesite"] == "Lax"


def test_a_foreign_name_of_the_station_is_refused(visitor: Client) -> None:
    assert visitor.get("/log-in/", headers={"host": "evil.example"}).status_code == 400


def test_the_client_is_who_the_outermost_trusted_proxy_saw() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 192.0.2.9, 10.0.0.2")
    assert client_address(request) == "10.0.0.1", "without proxies the header is the client's own word"
    with override_settings(CASTLINE=SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"proxies": 2})})):
        assert client_address(request) == "192.0.2.9"


def test_the_secret_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    station = StationSettings(secret_key_file=tmp_path / "var" / "key")
    made = read_secret_key(station)
    assert len(made) >= 50
    assert read_secret_key(station) == made
    assert stat.S_IMODE(station.secret_key_file.stat().st_mode) == 0o600


def test_a_short_secret_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    with pytest.raises(SettingsError, match="expected at least 50 characters"):
        read_secret_key(StationSettings(secret_key_file=tmp_path / "key"))


@pytest.mark.parametrize("database", ["mysql://x@y/z", "postgresql://castline:secret@db/castline"])
def test_another_kind_of_database_and_a_password_in_its_address_are_refused(database: str) -> None:
    with pytest.raises(ValueError, match="database: expected"):
        Settings(station=StationSettings(database=database))


Sent = list[dict[str, Any]]


def exchange(path: str, body: list[bytes], told: int | None = None, stalls: bool = False) -> Sent:
    """What a client gets that sends `body` in pieces to an application which reads all and answers 200; `stalls` before the last."""
    sent: Sent = []
    pieces = [{"type": "http.request", "body": piece, "more_body": stalls or place < len(body) - 1} for place, piece in enumerate(body)]

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop(0)

    async def send(event: Any) -> None:
        sent.append(dict(event))

    async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (event := await receive())["type"] == "http.request":
            if not event["more_body"]:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                return

    headers = [] if told is None else [(b"content-length", str(told).encode())]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(BodyLimitMiddleware(inner, form_bytes=100, upload_bytes=1000, max_pause_s=0.2)(scope, receive, send))
    return sent


def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    assert exchange("/log-in/", [b"x"], told=101)[0]["status"] == 413
    assert exchange("/uploads/", [b"x"], told=101)[0]["status"] == 200
    assert exchange("/uploads/", [b"x"], told=1001)[0]["status"] == 413


def test_a_body_that_does_not_say_is_read_up_to_the_limit() -> None:
    assert exchange("/log-in/", [b"x" * 60, b"x" * 60])[0]["status"] == 413
    assert exchange("/log-in/", [b"x" * 60, b"x" * 40])[0]["status"] == 200


def test_a_body_that_does_not_go_on_is_given_up() -> None:
    answer = exchange("/log-in/", [b"x" * 60], stalls=True)
    assert answer[0]["status"] == 408
    assert b"did not come within" in answer[1]["body"]


def test_the_api_refuses_a_body_as_it_refuses_everything_else() -> None:
    start, body = exchange("/api/inspections", [b"x"], told=1001)
    assert start["status"] == 413
    assert dict(start["headers"])[b"content-type"] == b"application/json"
    assert "at most" in json.loads(body["body"])["error"]
    start, body = exchange("/uploads/", [b"x"], told=1001)
    assert dict(start["headers"])[b"content-type"].startswith(b"text/plain")
    assert body["body"].startswith(b"Too large")


def test_more_requests_than_places_wait_and_are_told_to_come_again_when_it_lasts() -> None:
    async def crowd(max_wait_s: float, refused: int, max_queued: int = 100) -> tuple[list[int], int]:
        """Six requests for two places, which are held until so many were refused."""
        statuses: list[int] = []
        inside, most_inside = 0, 0
        leave = asyncio.Event()

        async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
            nonlocal inside, most_inside
            inside += 1
            most_inside = max(most_inside, inside)
            if refused:
                await leave.wait()
            await asyncio.sleep(0)
            inside -= 1
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(event: Any) -> None:
            if event["type"] == "http.response.start":
                statuses.append(event["status"])
            if statuses.count(503) == refused:
                leave.set()

        queued = RequestQueueMiddleware(inner, max_running=2, max_queued=max_queued, max_wait_s=max_wait_s)
        await asyncio.gather(*(queued({"type": "http", "path": "/"}, None, send) for _ in range(6)))  # type: ignore[arg-type]
        return sorted(statuses), most_inside

    assert asyncio.run(crowd(max_wait_s=60, refused=0)) == ([200] * 6, 2)
    assert asyncio.run(crowd(max_wait_s=0.1, refused=4)) == ([200] * 2 + [503] * 4, 2)
    # Where one may wait, it is served as soon as there is a place; the others hear at once that there is none.
    assert asyncio.run(crowd(max_wait_s=60, refused=3, max_queued=1)) == ([200] * 3 + [503] * 3, 2)
