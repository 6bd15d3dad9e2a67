"""What people looking at the wall cost the pipeline: the inspector's pictures a second with browsers on the wall, against none.

Both sides judge a backlog, so whatever else wants the processors takes from them. The browsers would run on other computers; here they are
a process of their own (`bench.viewers`), and what it takes of the processors is told and handed back to the throughput.
"""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil
import requests

from bench.feed import Feed, piped_per_s
from bench.viewers import ACCOUNT, Viewers
from bench.worker import InspectorProcess, bench_settings, plain_environment, running_broker
from deploy.orphans import die_with_parent
from streams.errors import CastlineError
from streams.settings import Settings

CASTLINE = Path(sys.executable).with_name("castline")
START_S = 120
_PROCESSORS = len(os.sched_getaffinity(0))

Say = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """One round. Processor times are in seconds of one processor a second, while the inspector judged."""

    with_per_s: float
    without_per_s: float
    raw_cost: float  # the browsers' processor time counted as the plant's
    cost: float  # without it
    station: float
    browsers: float
    broker_with: float
    broker_without: float
    pictures_per_s: float  # shown to one browser
    cards_per_s: float


@dataclass(frozen=True)
class Cost:
    """`cost` is the share of the throughput that the wall takes; below 0 is noise. `middle` has the medians of the rounds."""

    cost: float
    browsers: int
    processors: int
    middle: Round
    rounds: list[Round]

    @property
    def station_per_browser(self) -> float:
        """Processors."""
        return self.middle.station / self.browsers

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"station_per_browser": self.station_per_browser}


@dataclass(frozen=True)
class Side:
    """One run of the inspector."""

    per_s: float
    seconds: float
    processors: dict[str, float]  # seconds a second, by process
    seen: Counter[str]


class Metered(InspectorProcess):
    """An inspector, and what the processes `watched` took of the processors between its readiness and its last verdict."""

    def __init__(self, settings: Settings, folder: Path, watched: dict[str, int]) -> None:
        super().__init__(settings, folder)
        self._watched = watched
        self._begun: dict[str, float] = {}
        self._begun_s = self.seconds = 0.0
        self.per_s: dict[str, float] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._begun, self._begun_s = self._spent(), time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.monotonic() - self._begun_s
        self.per_s = {name: (spent - self._begun[name]) / self.seconds for name, spent in self._spent().items()}
        super().__exit__(*error)

    def _spent(self) -> dict[str, float]:
        times = {name: psutil.Process(pid).cpu_times() for name, pid in self._watched.items()}
        return {name: one.user + one.system for name, one in times.items()}


def run_wall_bench(base: Settings, pictures: list[bytes], count: int, rounds: int, browsers: int, say: Say) -> Cost:
    """Rounds of `count` pictures in turn with and without the station and its `browsers`, on a broker of its own."""
    found: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = bench_settings(base, folder, lines=3)
        with running_broker(settings):
            (broker,) = (child.pid for child in psutil.Process().children() if child.name() == "java")
            feed = Feed(settings, pictures)
            for number in range(1, rounds + 1):
                sides: dict[int, Side] = {}
                for people in (browsers, 0) if number % 2 else (0, browsers):
                    sides[people] = _side(feed, count, settings, folder, broker, people)
                found.append(_round(sides[browsers], sides[0], browsers))
                say(f"round {number} of {rounds}: {in_words(found[-1])}")
    middle = Round(**{name: statistics.median(getattr(one, name) for one in found) for name in asdict(found[0])})
    return Cost(middle.cost, browsers, _PROCESSORS, middle, found)


def _side(feed: Feed, count: int, settings: Settings, folder: Path, broker: int, browsers: int) -> Side:
    with ExitStack() as stack:
        watched = {"broker": broker}
        people = None
        if browsers:
            station, people = stack.enter_context(_looked_at(settings, folder, browsers))
            watched |= {"station": station, "browsers": people.pid}
        worker = Metered(settings, folder, watched)
        per_s = piped_per_s(feed, count, worker)
    return Side(per_s, worker.seconds, worker.per_s, people.counts if people else Counter())


def _round(seen: Side, unseen: Side, browsers: int) -> Round:
    # What the browsers took, the inspector would have had.
    handed_back = 1 - seen.processors["browsers"] / _PROCESSORS
    return Round(
        with_per_s=seen.per_s,
        without_per_s=unseen.per_s,
        raw_cost=1 - seen.per_s / unseen.per_s,
        cost=1 - seen.per_s / handed_back / unseen.per_s,
        station=seen.processors["station"],
        browsers=seen.processors["browsers"],
        broker_with=seen.processors["broker"],
        broker_without=unseen.processors["broker"],
        pictures_per_s=seen.seen["pictures"] / seen.seconds / browsers,
        cards_per_s=seen.seen["cards"] / seen.seconds / browsers,
    )


def in_words(one: Round) -> str:
    """A line for a person."""
    return (
        f"with {one.with_per_s:.1f}/s, without {one.without_per_s:.1f}/s, "
        f"cost {one.cost:+.1%} ({one.raw_cost:+.1%} with the browsers' own); processors: station {one.station:.3f}, "
        f"browsers {one.browsers:.3f}, broker {one.broker_with:.3f} against {one.broker_without:.3f}; "
        f"a browser saw {one.pictures_per_s:.1f} pictures and {one.cards_per_s:.1f} cards a second"
    )


@contextmanager
def _looked_at(settings: Settings, folder: Path, browsers: int) -> Iterator[tuple[int, Viewers]]:
    """A station of its own with `browsers` on its wall, as long as the block runs: its process id, and who looks."""
    environment = plain_environment(settings) | {"STATION_PASSWORD": secrets.token_urlsafe(16)}
    account = [str(CASTLINE), "station", "account", ACCOUNT, "--role", "operator"]
    subprocess.run(account, env=environment, check=True, capture_output=True)
    with (folder / "station.log").open("ab") as log:
        station = subprocess.Popen([CASTLINE, "station"], env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent)
    address = f"http://127.0.0.1:{settings.station.port}"
    try:
        _await(address, station, folder / "station.log")
        with Viewers(address, browsers, environment) as people:
            yield station.pid, people
    finally:
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
