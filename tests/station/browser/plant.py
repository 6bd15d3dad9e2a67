"""A running plant for the browser tests: a camera that sends rendered castings to Kafka, and users who log in over HTTP."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import requests
from kafka import KafkaProducer

from models.registry import BUNDLED_VERSIONS
from models.synthetic import render_series
from streams.identity import PartId, PictureIdentity, make_headers
from streams.settings import Settings
from streams.topics import TopicNames
from tests.processes import CASTLINE, make_environment

PASSWORD = "a long enough pass phrase"
ROLES = ("operator", "reviewer", "engineer", "administrator")
LINES = ("line-1", "line-2")
VERSION, OTHER_VERSION = "demo", "demo-again"


def copy_versions(root: Path) -> None:
    """Copies the bundled version to `root` twice, under its own and under another name."""
    shutil.copytree(BUNDLED_VERSIONS / VERSION, root / VERSION, ignore=shutil.ignore_patterns("*.json.*"))
    shutil.copytree(BUNDLED_VERSIONS / VERSION, root / OTHER_VERSION, ignore=shutil.ignore_patterns("*.json.*"))
    manifest = root / OTHER_VERSION / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"version": "{VERSION}"', f'"version": "{OTHER_VERSION}"'))


def create_account(settings: Settings, name: str, role: str) -> None:
    """Creates an account with the command line and the password PASSWORD."""
    command = [str(CASTLINE), "station", "account", name, "--role", role]
    environment = make_environment(settings) | {"STATION_PASSWORD": PASSWORD}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@cache
def make_jpeg(good: bool = True) -> bytes:
    """Returns the picture of a good casting, or of a casting whose defect is so large that every model finds it."""
    castings = list(render_series(12, seed=5))
    good_casting = next(casting for casting in castings if casting.is_ok)
    worst_casting = max(castings, key=lambda casting: int((casting.mask > 0).sum()))
    return (good_casting if good else worst_casting).to_jpeg()


class KafkaCamera:
    """Sends pictures of castings to the image topics, each as the next part of run 1."""

    def __init__(self, settings: Settings) -> None:
        self._names = TopicNames(settings.topics.prefix)
        self._producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        self._last_part = 0

    def take_picture(self, line: str, good: bool = True) -> PartId:
        """Sends one picture and returns the part once Kafka has confirmed the record."""
        self._last_part += 1
        part = PartId(line, 1, self._last_part)
        headers = make_headers(PictureIdentity(part, datetime.now(UTC), "image/jpeg", None, None, None))
        self._producer.send(self._names.images(line), key=part.key, value=make_jpeg(good), headers=headers).get(30)
        return part

    def close(self) -> None:
        self._producer.close()


class HttpUser:
    """A logged-in user without a browser. It reads pages and sends forms with their CSRF token."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.session = requests.Session()
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": _find_csrf_token(self.get("/log-in/").text)}
        self.session.post(f"{address}/log-in/", data=form, timeout=30)

    def get(self, path: str, **options: object) -> requests.Response:
        return self.session.get(self.address + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, path: str, form_page: str, **options: object) -> requests.Response:
        """Posts to `path` with the CSRF token of the page `form_page`."""
        headers = {"X-CSRFToken": _find_csrf_token(self.get(form_page).text), **options.pop("headers", {})}  # type: ignore[dict-item]
        return self.session.post(self.address + path, headers=headers, timeout=60, **options)  # type: ignore[arg-type]

    def create_token(self) -> str:
        """Returns a new API token of this user."""
        page = self.post("/account/tokens/", "/account/", data={"name": "tests", "scope": "inspect", "days": "90"}).text
        match = re.search(r"<code>(castline_[\w-]+)</code>", page)
        assert match, page
        return match[1]


def _find_csrf_token(page: str) -> str:
    match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert match, page[:500]
    return match[1]


@dataclass(frozen=True)
class RunningStation:
    """A station process with the plant behind it. `pid` is the process of the station."""

    settings: Settings
    address: str
    camera: KafkaCamera
    pid: int

    def log_in(self, role: str) -> HttpUser:
        """Returns a user with the account of this role."""
        return HttpUser(self.address, role)

    def memory_bytes(self) -> int:
        """Returns the resident memory of the station's process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def reset_peak_memory(self) -> None:
        """Resets the value that `peak_memory_bytes` returns."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_memory_bytes(self) -> int:
        """Returns the largest resident memory since the process started or since `reset_peak_memory`."""
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert match
        return int(match[1]) * 1024
