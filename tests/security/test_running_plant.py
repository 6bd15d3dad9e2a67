"""A running plant is closed to a second user of the machine, and is restored from its copy when it has lost all its files.

The tests share one plant, because its start takes half a minute of processor time. The last test stops the plant.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from agents.sorter.command_socket import socket_name
from streams.kafka import make_client_arguments
from streams.settings import load_settings
from tests.docs.pages import DOCS
from tests.image_topics import make_jpeg
from tests.security.conftest import AskStranger, StrangerRuns, make_open_folder
from tests.security.test_private_files import SECRET, run_castline, running_plant, write_settings
from tests.wired_line import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(500)]

PAGE = (DOCS / "operations.md").read_text("utf-8")
FOLDERS_OF_THE_UNIT = "/etc/castline /var/lib/castline /var/spool/castline"


@dataclass(frozen=True)
class OpenPlant:
    """A running plant in a folder that everybody can enter. `process` runs `castline up`, and `stopping` stops the plant."""

    folder: Path
    file: Path
    process: psutil.Process
    stopping: ExitStack


@pytest.fixture(scope="module")
def plant() -> Iterator[OpenPlant]:
    with make_open_folder() as folder, ExitStack() as stopping:
        file = write_settings(folder)
        made = run_castline(file, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
        assert made.returncode == 0, made.stderr
        yield OpenPlant(folder, file, stopping.enter_context(running_plant(file, folder)), stopping)


def test_a_stranger_reads_nothing_of_a_running_plant_but_the_targets_of_prometheus(
    plant: OpenPlant, as_stranger: StrangerRuns, ask_stranger: AskStranger
) -> None:
    var, settings = plant.folder / "var", load_settings(plant.file)
    # The gateway stores a picture of this size in the object store.
    add_picture(plant.folder, "large", make_jpeg(1, side_px=1800))
    wait_until((var / "store").exists, 60)

    # Files and folders
    readable = as_stranger(f"find {var} -type f -readable 2>/dev/null").stdout.split()
    writable = as_stranger(f"find {var} -writable 2>/dev/null").stdout.split()
    assert readable, "the stranger sees the targets, so the search works"
    assert [name for name in readable if not name.startswith(f"{var}/run/targets/")] == []
    assert writable == []
    for kept in ("station.sqlite3", "station.key", "kafka", "spool", "journal", "store"):
        assert (var / kept).exists()
        assert as_stranger(f"test -r {var}/{kept} || test -w {var}/{kept}").returncode == 1, kept
    assert as_stranger(f"touch {var}/run/new").returncode != 0
    assert as_stranger(f"test -r {plant.folder}/board || test -w {plant.folder}/board").returncode == 1, "the serial port"

    # The socket of the sorter
    address = str(var / "run" / socket_name("line-1"))
    connect_to_unix_socket(address)
    assert isinstance(ask_stranger(lambda: connect_to_unix_socket(address)), PermissionError)

    # Memory, environment and arguments of the processes
    processes = [plant.process, *plant.process.children(recursive=True)]
    roles = ("broker", "inspector", "gateway", "sorter", "archivist", "station", "localiser")
    assert all(any(role in process.cmdline() for process in processes) for role in roles)
    passwords = [path.read_text().strip() for path in (var / "kafka" / "passwords").iterdir()]
    assert len(passwords) > 5
    for process in processes:
        folder = Path("/proc") / str(process.pid)
        assert SECRET.encode() in (folder / "environ").read_bytes()
        for command in ("cat environ", "cat maps", "head -c 1 mem", "ls fd"):
            assert as_stranger(f"cd {folder} && {command}").returncode != 0, (process.cmdline(), command)
        words = as_stranger(f"cat {folder}/cmdline").stdout
        assert str(plant.file) in words or "java" in words, "everybody can read the arguments of a process"
        assert [secret for secret in (SECRET, *passwords) if secret in words] == []

    # The topics
    assert not isinstance(list_topics(make_client_arguments(settings.for_role("inspector"), "test")), Exception)
    guess = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "inspector"}
    for login in ({}, {**guess, "sasl_plain_password": "guess"}):
        arguments = {"bootstrap_servers": settings.bootstrap, **login}
        assert isinstance(ask_stranger(partial(list_topics, arguments)), KafkaError)
        assert isinstance(ask_stranger(partial(send_verdict, arguments)), KafkaError)
    assert isinstance(ask_stranger((var / "kafka" / "passwords" / "inspector").read_text), PermissionError)


def connect_to_unix_socket(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)


def list_topics(arguments: Mapping[str, Any]) -> set[str]:
    consumer = KafkaConsumer(**arguments, bootstrap_timeout_ms=5000)
    try:
        return set(consumer.topics())
    finally:
        consumer.close()


def send_verdict(arguments: Mapping[str, Any]) -> None:
    producer = KafkaProducer(**arguments, bootstrap_timeout_ms=5000, max_block_ms=5000)
    try:
        producer.send("castings.verdicts.line-1", b"{}", b"line-1:1:1").get(5)
    finally:
        producer.close(1)


def test_a_plant_that_lost_all_its_files_is_restored_from_its_copy(plant: OpenPlant, tmp_path: Path) -> None:
    folder, file, var, archive = plant.folder, plant.file, plant.folder / "var", tmp_path / "castline.tar"
    assert run_castline(file, "models", "choose", "demo", "--line", "line-1").returncode == 0
    add_picture(folder, "one", make_jpeg(2))
    plant.stopping.close()
    parts, modes = count_rows(var / "station.sqlite3", "archive_part"), list_modes(var)

    run_documented(r"tar --create --file \S+ [^\n`]+", archive, f"{file} {var}")
    assert archive.stat().st_mode & 0o077 == 0, "the copy holds passwords"
    shutil.rmtree(var)
    file.unlink()
    run_documented(r"tar --extract [^\n`]+", archive, "")

    assert list_modes(var) == modes
    assert count_rows(var / "station.sqlite3", "archive_part") == parts > 0
    assert count_rows(var / "station.sqlite3", "auth_user") == 1
    # The localiser keeps no files, so it need not run again.
    with running_plant(file, folder, CASTLINE_INSPECTOR__LOCALISE="false"):
        status = run_castline(file, "models", "status")
        assert "line-1: demo (chosen for line-1" in status.stdout, status.stderr
        add_picture(folder, "two", make_jpeg(3))


def add_picture(folder: Path, name: str, picture: bytes) -> None:
    """Gives the camera a picture, and returns when the archivist has added its verdict to the history."""
    (folder / "camera" / f"{name}.jpg").write_bytes(picture)
    wait_until(lambda: has_verdict(folder / "var" / "station.sqlite3", picture), 60)


def has_verdict(database: Path, picture: bytes) -> bool:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM archive_part WHERE sha256 = ? AND label != ''"
        return bool(connection.execute(query, [hashlib.sha256(picture).hexdigest()]).fetchone()[0])


def run_documented(pattern: str, archive: Path, folders: str) -> None:
    """Runs the command of the page that fits `pattern`, with another archive and other folders."""
    (command,) = re.findall(pattern, PAGE)
    command = command.replace("/backup/castline.tar", str(archive)).replace(FOLDERS_OF_THE_UNIT, folders)
    subprocess.run(f"umask 077 && {command}", shell=True, check=True, timeout=60)


def count_rows(database: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def list_modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mode for path in folder.rglob("*") if path.is_file()}
