"""The broker's start-up archive: used when it is as it was made, and never otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.cli.main import castline
from deploy.kafka import broker_archive, java
from streams.errors import BrokerError


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = tmp_path / "made.aot"
    made.write_bytes(b"classes, loaded and linked")
    java.archive_path().parent.mkdir(parents=True)
    java.keep_archive(made)
    return java.archive_path()


def test_an_archive_as_it_was_made_is_used(kept: Path) -> None:
    assert java.archive_options() == [f"-XX:AOTCache={kept}"]


def test_without_an_archive_the_runtime_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert java.archive_options() == []


def test_a_damaged_archive_is_not_used(kept: Path) -> None:
    """The runtime would fall over it."""
    kept.write_bytes(b"classes, loaded and lanked")
    assert java.archive_options() == []


def test_an_archive_whose_sum_is_gone_is_not_used(kept: Path) -> None:
    kept.with_suffix(".sha256").unlink()
    assert java.archive_options() == []


def test_a_sum_that_cannot_be_read_keeps_no_broker_from_its_start(kept: Path) -> None:
    kept.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    assert java.archive_options() == []
    kept.with_suffix(".sha256").unlink()
    kept.with_suffix(".sha256").mkdir()
    assert java.archive_options() == []


def test_an_archive_that_cannot_be_made_is_said_and_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Path:
        raise BrokerError("no room left")

    monkeypatch.setattr("deploy.cli.broker.make_archive", fails)
    done = CliRunner().invoke(castline, ["broker", "--fetch-only"], standalone_mode=False)
    assert done.exception is None
    assert "without its archive, in twice the time: no room left" in done.stderr


def test_the_archive_of_this_machine_was_made_at_the_set_up() -> None:
    assert java.is_whole(broker_archive.make_archive())
    assert java.archive_options()
