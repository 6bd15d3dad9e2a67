"""The backup of docs/operations.md: a plant that lost all its files is restored from its copy."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.image_topics import make_jpeg
from tests.security.test_private_files import run_castline, running_plant, write_settings
from tests.wired_line import wait_until

PAGE = (DOCS / "operations.md").read_text("utf-8")
FOLDERS_OF_THE_UNIT = "/etc/castline /var/lib/castline /var/spool/castline"


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


@pytest.mark.real
@pytest.mark.timeout(400)
def test_a_plant_that_lost_all_its_files_is_restored_from_its_copy(tmp_path: Path) -> None:
    plant = tmp_path / "plant"
    plant.mkdir()
    file, var, archive = write_settings(plant), plant / "var", tmp_path / "castline.tar"
    made = run_castline(file, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert made.returncode == 0, made.stderr
    with running_plant(file, plant):
        assert run_castline(file, "models", "choose", "demo", "--line", "line-1").returncode == 0
        (plant / "camera" / "one.jpg").write_bytes(make_jpeg(1))
        wait_until(lambda: count_rows(var / "station.sqlite3", "archive_part") > 0, 60)
    parts, modes = count_rows(var / "station.sqlite3", "archive_part"), list_modes(var)

    run_documented(r"tar --create --file \S+ [^\n`]+", archive, f"{file} {var}")
    assert archive.stat().st_mode & 0o077 == 0, "the copy holds passwords"
    shutil.rmtree(var)
    file.unlink()
    run_documented(r"tar --extract [^\n`]+", archive, "")

    assert list_modes(var) == modes
    assert count_rows(var / "station.sqlite3", "archive_part") == parts
    assert count_rows(var / "station.sqlite3", "auth_user") == 1
    with running_plant(file, plant):
        status = run_castline(file, "models", "status")
        assert "line-1: demo (chosen for line-1" in status.stdout, status.stderr
        (plant / "camera" / "two.jpg").write_bytes(make_jpeg(2))
        wait_until(lambda: count_rows(var / "station.sqlite3", "archive_part") > parts, 60)
