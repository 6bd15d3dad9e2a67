"""Programs that start on a full disk, with the default folders on a file system of 64 MB that has no free byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

# Fills the file system in the present folder, except for the reserve file of the broker, which takes 5 %.
_FILL = """
import os
from pathlib import Path

def fill():
    for folder in ("var/run/targets", "var/kafka", "var/journal"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    Path("var/kafka/reserve").write_bytes(bytes(3_300_000))
    with open("foreign", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    assert os.statvfs(".").f_bavail == 0
"""

_PAGES = """
import json, urllib.request
from streams.health import HealthServer, ProcessHealth, ProgressWatchdog
from streams.settings import ServiceSettings

def read(page):
    with urllib.request.urlopen(f"http://{page}") as response:
        return response.read().decode().strip()

service = ServiceSettings()
def serve():
    return HealthServer(ProcessHealth("sorter", ProgressWatchdog(15)), service, "sorter-1")
targets = Path("var/run/targets/sorter-1.json")
"""


def run_on_small_disk(folder: Path, *scripts: str) -> list[str]:
    """Runs Python code in an empty file system of 64 MB at `folder`, which only the code sees. Returns the lines that it prints."""
    mount = ["/usr/bin/unshare", "--mount", "--map-root-user", "/bin/sh", "-c"]
    shell = f'mount -t tmpfs -o size=64m tmpfs "{folder}" && cd "{folder}" && exec "$0" -c "$1"'
    code = "\n".join(scripts)
    done = subprocess.run([*mount, shell, sys.executable, code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_pages_are_served_although_their_address_cannot_be_written(tmp_path: Path) -> None:
    first, second, third = run_on_small_disk(
        tmp_path,
        _FILL + _PAGES,
        """
import time
fill()
with serve() as pages:
    print(read(f"{pages.address}/healthz"))
    Path("foreign").unlink()
    until = time.monotonic() + 20
    while not (targets.exists() and targets.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    print(json.loads(targets.read_text())[0]["targets"] == [pages.address])
    print(read(f"{pages.address}/healthz"))
""",
    )
    assert "ok, but: The address of the health pages" in first
    assert "No space left on device" in first
    assert (second, third) == ("True", "ok")


def test_an_address_of_an_earlier_process_is_overwritten(tmp_path: Path) -> None:
    assert run_on_small_disk(
        tmp_path,
        _FILL + _PAGES,
        """
targets.parent.mkdir(parents=True)
targets.write_text("an old address " * 100)
fill()
with serve() as pages:
    print(json.loads(targets.read_text())[0]["targets"] == [pages.address], read(f"{pages.address}/healthz"))
""",
    ) == ["True ok"]


def test_a_journal_opens_when_the_disk_has_room_again(tmp_path: Path) -> None:
    assert run_on_small_disk(
        tmp_path,
        _FILL,
        """
from agents.sorter.journal import JournalError, SortingJournal
from tests.agents.sorter.test_journal import parts_of, sorting

seconds = 0.0
fill()
journal = SortingJournal(Path("var/journal"), "line-1", lambda: seconds)
print("Free space on its disk" in journal.fault, parts_of(journal), journal.counted_parts(), journal.last_run())
for _ in range(2):
    try:
        journal.append([sorting(1)])
    except JournalError as error:
        print(str(error) == journal.fault)
    Path("foreign").unlink(missing_ok=True)
seconds = 5.0
journal.append([sorting(2)])
print(repr(journal.fault), parts_of(journal))
journal.close()
""",
    ) == ["True [] [] None", "True", "True", "'' [2]"]


def test_a_journal_that_a_killed_sorter_left_opens_on_a_full_disk(tmp_path: Path) -> None:
    assert run_on_small_disk(
        tmp_path,
        _FILL,
        """
import subprocess, sys
left = '''
import os
from pathlib import Path
from agents.sorter.journal import SortingJournal
from tests.agents.sorter.test_journal import sorting
SortingJournal(Path("var/journal"), "line-1").append([sorting(1)])
os._exit(0)
'''
subprocess.run([sys.executable, "-c", left], check=True)
fill()
from agents.sorter.journal import SortingJournal
from tests.agents.sorter.test_journal import parts_of
journal = SortingJournal(Path("var/journal"), "line-1")
print(repr(journal.fault), parts_of(journal))
journal.close()
""",
    ) == ["'' [1]"]


@pytest.mark.parametrize("command", ["broker", "up"])
def test_the_reserve_file_is_deleted_before_anything_is_written(tmp_path: Path, command: str) -> None:
    assert run_on_small_disk(
        tmp_path,
        _FILL,
        f"""
import signal, subprocess, sys, time
fill()
castline = Path(sys.executable).with_name("castline")
from models.registry import BUNDLED_VERSIONS
environment = {{**os.environ, "CASTLINE_LINES": '[{{"name": "line-1"}}]', "CASTLINE_MODEL__ROOT": str(BUNDLED_VERSIONS)}}
process = subprocess.Popen([castline, "{command}"], env=environment, stdout=sys.stderr)
until = time.monotonic() + 60
while not list(Path("var/run/targets").glob("broker-1.json")) and time.monotonic() < until and process.poll() is None:
    time.sleep(0.1)
print(process.poll(), Path("var/kafka/reserve").exists(), [file.name for file in Path("var/run/targets").iterdir()])
process.send_signal(signal.SIGTERM)
process.wait(60)
""",
    ) == ["None False ['broker-1.json']"]
