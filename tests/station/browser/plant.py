"""A plant to look at: the roles as processes, castings sent like a camera's, people who log in over HTTP."""

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
from models.synthetic import RenderedCasting, render_series
from streams.identity import PartId, PictureIdentity, make_headers
from streams.settings import Settings
from streams.topics import TopicNames
from tests.processes import CASTLINE, make_environment

PASSWORD = "a long enough pass phrase"
ROLES = ("operator", "reviewer", "engineer", "administrator")
LINES = ("line-1", "line-2")
VERSION, OTHER_VERSION = "demo", "demo-again"


def make_versions(root: Path) -> None:
    """The bundled version, and the same under another name."""
    shutil.copytree(BUNDLED_VERSIONS / VERSION, root / VERSION, ignore=shutil.ignore_patterns("*.json.*"))
    shutil.copytree(BUNDLED_VERSIONS / VERSION, root / OTHER_VERSION, ignore=shutil.ignore_patterns("*.json.*"))
    manifest = root / OTHER_VERSION / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"version": "{VERSION}"', f'"version": "{OTHER_VERSION}"'))


def make_account(settings: Settings, name: str, role: str) -> None:
    """As an operator of the machine does."""
    call = [str(CASTLINE), "station", "account", name, "--role", role]
    done = subprocess.run(
        call, env=make_environment(settings) | {"STATION_PASSWORD": PASSWORD}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@cache
def castings() -> tuple[RenderedCasting, RenderedCasting]:
    """A good one, and one that no model overlooks."""
    drawn = list(render_series(12, seed=5))
    return next(one for one in drawn if one.is_ok), max(drawn, key=lambda one: int((one.mask > 0).sum()))


class Camera:
    """Puts castings on a line's topic, each as the next part of a run."""

    def __init__(self, settings: Settings) -> None:
        self._names = TopicNames(settings.topics.prefix)
        self._producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        self._last = 0

    def photograph(self, line: str, good: bool = True) -> PartId:
        """One casting; returns once Kafka has its picture."""
        self._last += 1
        part = PartId(line, 1, self._last)
        value = castings()[0 if good else 1].to_jpeg()
        headers = make_headers(PictureIdentity(part, datetime.now(UTC), "image/jpeg", None, None, None))
        self._producer.send(self._names.images(line), key=part.key, value=value, headers=headers).get(30)
        return part

    def close(self) -> None:
        self._producer.close()


class Person:
    """Somebody at the station without a browser: a session, and the tokens of forms."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.session = requests.Session()
        page = self.get("/log-in/").text
        self.answer = self.session.post(
            f"{address}/log-in/", data={"username": name, "password": PASSWORD, "csrfmiddlewaretoken": _form_token(page)}, timeout=30
        )

    def get(self, path: str, **options: object) -> requests.Response:
        return self.session.get(self.address + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, path: str, form_at: str, **options: object) -> requests.Response:
        """Sends a form whose token stands on the page `form_at`."""
        headers = {"X-CSRFToken": _form_token(self.get(form_at).text), **options.pop("headers", {})}  # type: ignore[dict-item]
        return self.session.post(self.address + path, headers=headers, timeout=60, **options)  # type: ignore[arg-type]

    def token(self) -> str:
        """A new API token."""
        made = self.post("/account/tokens/", "/account/", data={"name": "tests"}).text
        found = re.search(r"<code>(castline_[\w-]+)</code>", made)
        assert found, made
        return found[1]


def _form_token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found, page[:500]
    return found[1]


@dataclass(frozen=True)
class Station:
    """The station and the plant behind it."""

    settings: Settings
    address: str
    camera: Camera
    pid: int

    def person(self, role: str) -> Person:
        """The account that is called like its role."""
        return Person(self.address, role)

    def memory_bytes(self) -> int:
        """What the station's process holds in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """From now on counts anew what `peak_memory_bytes` tells."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_memory_bytes(self) -> int:
        """The most that it held."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024
