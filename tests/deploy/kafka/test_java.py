"""The broker's start-up archive is used only if its content has its checksum."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli.main import castline
from deploy.kafka import java
from deploy.kafka.startup_archive import make_archive
from streams.errors import BrokerError
from streams.user_cache import user_cache_folder


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a start-up archive in a cache that only this test uses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recorded = tmp_path / "recorded.aot"
    recorded.write_bytes(b"classes, loaded and linked")
    java.archive_path().parent.mkdir(parents=True)
    java.keep_archive(recorded)
    return java.archive_path()


def test_a_whole_archive_is_used(archive: Path) -> None:
    assert java.archive_options() == [f"-XX:AOTCache={archive}"]


def test_without_an_archive_the_broker_starts_without_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert java.archive_options() == []


def test_a_damaged_archive_is_not_used_because_the_java_runtime_would_crash(archive: Path) -> None:
    archive.write_bytes(b"classes, loaded and lanked")
    assert java.archive_options() == []


def test_an_archive_without_a_readable_checksum_is_not_used(archive: Path) -> None:
    checksum = archive.with_suffix(".sha256")
    checksum.write_bytes(b"\xff\xfe")
    assert java.archive_options() == []
    checksum.unlink()
    assert java.archive_options() == []
    checksum.mkdir()
    assert java.archive_options() == []


def test_if_the_archive_cannot_be_made_the_command_says_so_and_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Path:
        raise BrokerError("No room is left.")

    monkeypatch.setattr("deploy.cli.broker.make_archive", fails)
    result = CliRunner().invoke(castline, ["broker", "--fetch-only"], standalone_mode=False)
    assert result.exception is None
    assert "without its start-up archive, in twice the time. No room is left." in result.stderr


def test_the_set_up_has_made_the_archive_of_this_machine() -> None:
    assert make_archive() == java.archive_path()
    assert java.archive_options()


def test_jars_are_not_read_while_another_process_fetches_them() -> None:
    folder = user_cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(java.kafka_jars)
        try:
            with pytest.raises(TimeoutError):
                reading.result(2)
        finally:
            os.close(handle)
        assert reading.result(60)


def test_a_starting_broker_keeps_its_jars_while_other_processes_ask_for_theirs() -> None:
    jars = java.kafka_jars()
    before = [jar.stat() for jar in jars]
    assert java.kafka_jars() == jars
    assert [(stat.st_ino, stat.st_ctime_ns) for stat in map(Path.stat, jars)] == [(stat.st_ino, stat.st_ctime_ns) for stat in before]


def test_a_changed_jar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jars = java.kafka_jars()
    jars[0].write_bytes(b"not what was locked")
    with pytest.raises(BrokerError, match=f"The jars {jars[0].name} differ"):
        java.kafka_jars()
    jars[0].unlink()
    assert java.kafka_jars() == jars
