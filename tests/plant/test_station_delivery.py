"""`castline station` as a process: it comes up, waits for its database, and stops when asked."""

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


def station_settings(tmp_path: Path, database: str, **station: object) -> Settings:
    return Settings.model_validate(
        {
            # Nothing listens there: the pages about the past need no Kafka.
            "kafka": {"bootstrap": f"127.0.0.1:{free_ports()}"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text", "grace_s": 3},
            "store": {"url": str(tmp_path / "store")},
            "station": {"database": database, "secret_key_file": tmp_path / "key", "port": free_ports(), **station},
            "lines": [{"name": "line-1"}],
        }
    )


def called(settings: Settings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {**make_environment(settings), **more}
    return subprocess.run([CASTLINE, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=60)


def fetched(settings: Settings, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.station.port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_it_serves_pages_health_and_static_files_and_stops_in_time(tmp_path: Path) -> None:
    settings = station_settings(tmp_path, str(tmp_path / "station.sqlite3"))
    made = called(settings, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert made.stdout == "anna: made, administrator\n", made.stderr
    with CastlineProcess(settings, tmp_path / "log", "station") as station:
        station.wait_ready()
        status, page = fetched(settings, "/history/")
        assert status == 200, "a stranger is led to the log-in page"
        assert "Log in" in page
        assert "Traceback" not in fetched(settings, "/no-such-page/")[1]
        assert fetched(settings, "/static/station/station.css")[0] == 200
        assert fetched(settings, "/static/../station.key")[0] == 404
        assert 'castline_process_ready{role="station"} 1.0' in station.page("/metrics")[1]
        assert station.page("/healthz")[0] == 200
        assert station.stop() == 0
        assert "Traceback" not in station.log()


def test_while_the_database_is_away_it_waits_and_says_so(tmp_path: Path, postgres: PostgreSQL) -> None:
    settings = station_settings(tmp_path, postgres.create_database(f"t{uuid.uuid4().hex[:12]}"))
    postgres.stop()
    try:
        with CastlineProcess(settings, tmp_path / "log", "station") as station:
            wait_for(lambda: "does not answer" in station.page("/readyz")[1], 40, "expected it to say that the database is away")
            assert station.page("/readyz")[0] == 503
            postgres.start()
            station.wait_ready()
            assert fetched(settings, "/log-in/")[0] == 200
            assert station.stop() == 0
    finally:
        postgres.start()
