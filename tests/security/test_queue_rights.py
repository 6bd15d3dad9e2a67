"""Queues on disk that belong to another Unix account, or lie on a file system that can only be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.gateway.spool import Spool, SpoolBudget
from agents.sorter.journal import SortingJournal
from streams.errors import SettingsError
from tests.deploy.test_full_disk import run_on_small_disk
from tests.security.conftest import STRANGER, AskStranger

pytestmark = pytest.mark.real


def open_journal(folder: Path) -> None:
    SortingJournal(folder, "line-1").close()


def open_spool(folder: Path) -> None:
    Spool(folder, "line-1", SpoolBudget(10**9)).close()


def take_file(folder: Path) -> Path:
    os.chown(folder / "line-1.sqlite", 0, 0)
    return folder / "line-1.sqlite"


def take_lock(folder: Path) -> Path:
    os.chown(folder / "line-1.lock", 0, 0)
    return folder / "line-1.lock"


def take_write_ahead_log(folder: Path) -> Path:
    log = folder / "line-1.sqlite-wal"
    log.touch(mode=0o600)
    return log


def take_folder(folder: Path) -> Path:
    os.chown(folder, 0, 0)
    return folder


@pytest.mark.parametrize("open_queue", [open_journal, open_spool])
@pytest.mark.parametrize("take", [take_file, take_lock, take_write_ahead_log, take_folder])
def test_a_queue_of_another_user_is_a_wrong_setting_and_no_full_disk(
    open_folder: Path, ask_stranger: AskStranger, open_queue: Callable[[Path], None], take: Callable[[Path], Path]
) -> None:
    folder = open_folder / "queue"
    folder.mkdir()
    open_queue(folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, STRANGER, STRANGER)
    taken = take(folder)
    answer = ask_stranger(lambda: open_queue(folder))
    assert isinstance(answer, SettingsError)
    assert f"{taken}, which belongs to the user root" in str(answer)
    assert "Free space" not in str(answer)


def test_a_disk_that_can_only_be_read_is_named_and_the_sorter_starts_without_its_journal(tmp_path: Path) -> None:
    (told,) = run_on_small_disk(
        tmp_path,
        """
import os, subprocess
from pathlib import Path
from agents.sorter.journal import SortingJournal
SortingJournal(Path("journal"), "line-1").close()
subprocess.run(["mount", "-o", "remount,ro", os.getcwd()], check=True)
print(SortingJournal(Path("journal"), "line-1").fault)
""",
    )
    assert "Mount its disk so that it can be written" in told
    assert "Free space" not in told
