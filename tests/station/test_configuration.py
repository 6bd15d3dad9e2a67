"""Django's settings: Django's own deployment check, security headers, cookies, host names and the secret key."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.messages import INFO
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string

from station.configuration import make_django_settings, read_secret_key
from streams.errors import SettingsError
from streams.settings import Settings, StationSettings
from tests.station.conftest import SETTINGS

# The check runs in a process of its own, because Django can be configured only once per process.
DEPLOYMENT_CHECK = """
import sys
from station.configuration import configure
from streams.settings import Settings, StationSettings
hosts = ("castline.plant.example",)
configure(Settings(station=StationSettings(database=sys.argv[1], secret_key_file=sys.argv[2], behind_tls=True, hosts=hosts)))
from django.core.management import call_command
call_command("check", deploy=True, fail_level="WARNING")
"""


@pytest.mark.real
def test_the_deployment_check_behind_tls_finds_no_issues(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", DEPLOYMENT_CHECK, str(tmp_path / "station.sqlite3"), str(tmp_path / "key")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "no issues" in result.stdout


def test_behind_tls_cookies_are_secure_and_hsts_is_on() -> None:
    created = make_django_settings(SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"behind_tls": True})}))
    assert all(created[name] for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"))
    assert created["SECURE_HSTS_SECONDS"] >= 31_536_000
    assert not make_django_settings(SETTINGS)["SESSION_COOKIE_SECURE"]


def test_behind_tls_the_names_of_all_cookies_begin_with_host() -> None:
    created = make_django_settings(SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"behind_tls": True})}))
    assert (created["SESSION_COOKIE_NAME"], created["CSRF_COOKIE_NAME"]) == ("__Host-sessionid", "__Host-csrftoken")
    request = RequestFactory().get("/", secure=True)
    request.session = SessionBase()
    storage = import_string(created["MESSAGE_STORAGE"])(request)
    storage.add(INFO, "Done.")
    response = HttpResponse()
    storage.update(response)
    assert list(response.cookies) == ["__Host-messages"]
    plain = make_django_settings(SETTINGS)
    assert (plain["SESSION_COOKIE_NAME"], plain["CSRF_COOKIE_NAME"]) == ("sessionid", "csrftoken"), "without TLS, as in release 0.1.0"
    assert import_string(plain["MESSAGE_STORAGE"]).__module__ == "django.contrib.messages.storage.fallback"


def test_pages_forbid_inline_scripts_frames_and_type_sniffing(visitor: Client) -> None:
    response = visitor.get("/log-in/")
    policy = dict(part.strip().split(" ", 1) for part in response["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    page = response.content.decode()
    assert " style=" not in page
    assert "<script>" not in page
    assert " onclick=" not in page


def test_cookies_are_http_only(visitor: Client) -> None:
    visitor.get("/log-in/")
    assert visitor.cookies["csrftoken"]["httponly"]
    assert visitor.cookies["csrftoken"]["samesite"] == "Lax"


def test_an_unknown_host_name_is_refused(visitor: Client) -> None:
    assert visitor.get("/log-in/", headers={"host": "evil.example"}).status_code == 400


def test_the_secret_key_is_created_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    station = StationSettings(secret_key_file=tmp_path / "var" / "key")
    created = read_secret_key(station)
    assert len(created) >= 50
    assert read_secret_key(station) == created
    assert stat.S_IMODE(station.secret_key_file.stat().st_mode) == 0o600


def test_a_short_secret_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short")
    with pytest.raises(SettingsError, match="a key of at least 50"):
        read_secret_key(StationSettings(secret_key_file=tmp_path / "key"))


@pytest.mark.parametrize(
    ("database", "sentence"),
    [
        ("mysql://x@y/z", "found the scheme mysql"),
        ("postgresql://castline:secret@db/castline", "the address contains a password"),
    ],
)
def test_another_kind_of_database_and_a_password_in_its_address_are_refused(database: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(station=StationSettings(database=database))
