"""The station as a process: it starts, waits for its database, and stops on SIGTERM."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from tests.image_topics import wait_for
from tests.postgres import PostgreSQL
from tests.processes import CASTLINE, CastlineProcess, make_environment

pytestmark = pytest.mark.real


def make_station_settings(tmp_path: Path, database: str, **station: object) -> Settings:
    return Settings.model_validate(
        {
            # Nothing listens there, because the pages about the past need no Kafka.
            "kafka": {"bootstrap": f"127.0.0.1:{free_ports()}"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text", "grace_s": 3},
            "store": {"url": str(tmp_path / "store")},
            "station": {"database": database, "secret_key_file": tmp_path / "key", "port": free_ports(), **station},
            "lines": [{"name": "line-1"}],
        }
    )


def run_castline(settings: Settings, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**make_environment(settings), **variables}
    return subprocess.run([CASTLINE, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60)


def fetch_page(settings: Settings, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.station.port}{path}", timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_it_serves_pages_health_and_static_files_and_stops_in_time(tmp_path: Path) -> None:
    settings = make_station_settings(tmp_path, str(tmp_path / "station.sqlite3"))
    account = run_castline(settings, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert account.stdout == "anna: made, administrator\n", account.stderr
    with CastlineProcess(settings, tmp_path / "log", "station") as station:
        station.wait_ready()
        status, page = fetch_page(settings, "/history/")
        assert status == 200, "without a session the log-in page is shown"
        assert "Log in" in page
        assert "Traceback" not in fetch_page(settings, "/no-such-page/")[1]
        assert fetch_page(settings, "/static/station/station.css")[0] == 200
        assert fetch_page(settings, "/static/../station.key")[0] == 404
        assert 'castline_process_ready{role="station"} 1.0' in station.page("/metrics")[1]
        assert station.page("/healthz")[0] == 200
        assert station.stop() == 0
        assert "Traceback" not in station.log()


def test_while_the_database_is_away_the_station_waits_and_is_not_ready(tmp_path: Path, postgres: PostgreSQL) -> None:
    settings = make_station_settings(tmp_path, postgres.create_database(f"t{uuid.uuid4().hex[:12]}"))
    postgres.stop()
    try:
        with CastlineProcess(settings, tmp_path / "log", "station") as station:
            wait_for(lambda: "does not answer" in station.page("/readyz")[1], 40, "expected it to say that the database is away")
            assert station.page("/readyz")[0] == 503
            postgres.start()
            station.wait_ready()
            assert fetch_page(settings, "/log-in/")[0] == 200
            assert station.stop() == 0
    finally:
        postgres.start()
