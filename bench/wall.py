"""What people looking at the wall cost the pipeline: the inspector's pictures a second with browsers on the wall, against none.

A browser here is a session that follows the wall's events and fetches every picture that a card shows, as a real one does. It is a
thread of this process and so costs more than a person's computer would take from the plant.
"""

from __future__ import annotations

import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from bench.feed import Feed, piped_per_s
from bench.worker import InspectorProcess, bench_settings, plain_environment, running_broker
from deploy.orphans import die_with_parent
from streams.errors import CastlineError
from streams.settings import Settings

CASTLINE = Path(sys.executable).with_name("castline")
START_S = 120
_PICTURE = re.compile(rb'src="(/parts/[^"]+)"')
_FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """`cost` is the share of the throughput that the wall takes, the median of the rounds; below 0 is noise."""

    with_per_s: float
    without_per_s: float
    cost: float
    browsers: int
    pictures_shown: int
    rounds: list[dict[str, float]]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def run_wall_bench(base: Settings, pictures: list[bytes], count: int, rounds: int, browsers: int, say: Say) -> Cost:
    """Rounds of `count` pictures in turn with and without the station and its `browsers`, on a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = bench_settings(base, folder, lines=3)
        found: list[dict[str, float]] = []
        shown = 0
        with running_broker(settings):
            feed = Feed(settings, pictures)
            for number in range(1, rounds + 1):
                per_s: dict[str, float] = {}
                for way in ("with", "without") if number % 2 else ("without", "with"):
                    with watched(settings, folder, browsers) if way == "with" else nullcontext() as people:
                        per_s[way] = piped_per_s(feed, count, InspectorProcess(settings, folder))
                    shown += sum(one.pictures for one in people or ())
                cost = 1 - per_s["with"] / per_s["without"]
                found.append({"with_per_s": per_s["with"], "without_per_s": per_s["without"], "cost": cost})
                say(f"round {number} of {rounds}: with {per_s['with']:.1f}/s, without {per_s['without']:.1f}/s, cost {cost:+.1%}")
    middle = {field: statistics.median(one[field] for one in found) for field in found[0]}
    return Cost(middle["with_per_s"], middle["without_per_s"], middle["cost"], browsers, shown, found)


class Browser(threading.Thread):
    """One person who looks at the wall until told to stop; `pictures` counts what was shown."""

    def __init__(self, address: str, name: str, password: str) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._over = threading.Event()
        self.pictures = 0
        self._session = requests.Session()
        token = _FORM_TOKEN.search(self._session.get(f"{address}/log-in/", timeout=30).text)
        form = {"username": name, "password": password, "csrfmiddlewaretoken": token[1] if token else ""}
        self._session.post(f"{address}/log-in/", data=form, timeout=30).raise_for_status()

    def stop(self) -> None:
        self._over.set()
        self.join(10)

    def run(self) -> None:
        seen: set[bytes] = set()
        with self._session.get(f"{self._address}/live/events", stream=True, timeout=60) as events:
            for line in events.iter_lines():
                if self._over.is_set():
                    return
                for address in set(_PICTURE.findall(line)) - seen:
                    seen.add(address)
                    self.pictures += self._session.get(self._address + address.decode(), timeout=60).status_code == 200


@contextmanager
def watched(settings: Settings, folder: Path, browsers: int) -> Iterator[list[Browser]]:
    """A station of its own with `browsers` on its wall, as long as the block runs."""
    password = secrets.token_urlsafe(16)
    environment = plain_environment(settings) | {"STATION_PASSWORD": password}
    account = [str(CASTLINE), "station", "account", "bench", "--role", "operator"]
    subprocess.run(account, env=environment, check=True, capture_output=True)
    with (folder / "station.log").open("ab") as log:
        station = subprocess.Popen([CASTLINE, "station"], env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent)
    address = f"http://127.0.0.1:{settings.station.port}"
    people: list[Browser] = []
    try:
        _await(address, station, folder / "station.log")
        people += [Browser(address, "bench", password) for _ in range(browsers)]
        for one in people:
            one.start()
        yield people
    finally:
        for one in people:
            one.stop()
        station.terminate()
        station.wait(60)


def _await(address: str, station: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            if requests.get(f"{address}/log-in/", timeout=10).ok:
                return
        except requests.RequestException:
            pass
        if station.poll() is not None or time.monotonic() > until:
            raise CastlineError(f"expected the station to answer at {address}, it did not: {log.read_text()[-2000:]}")
        time.sleep(0.2)
