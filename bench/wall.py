"""What people looking at the wall cost the pipeline: the inspector's pictures a second with browsers on the wall, against none.

One inspector judges a backlog all the while, so whatever else wants the processors takes from it. In turns of seconds the station and
its browsers run or stand still (SIGSTOP): both turns of a round meet the same worker on the same machine, whatever else that machine does
in the minute. The browsers would run on other computers; here they are a process of their own (`bench.viewers`), and what it takes of the
processors is told and not counted.

Throughput itself moves by a tenth from turn to turn on a shared machine, mostly by what others leave to it. So the cost is put together of
two things that move less: the share of the processors that the station and the broker's extra work take, which the inspector would have
had, and how many pictures fewer it judges in a second of its own processor time. The throughputs are told beside it.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import requests
from scipy.stats.mstats import trimmed_mean_ci  # type: ignore[import-untyped]  # no stubs among the locked packages

from bench.feed import Feed, VerdictTimes
from bench.viewers import ACCOUNT, Viewers
from bench.worker import InspectorProcess, bench_settings, plain_environment, running_broker
from deploy.supervisor.launch import bound_command
from streams.errors import CastlineError
from streams.settings import Settings

CASTLINE = Path(sys.executable).with_name("castline")
START_S = 120
SETTLE_S = 4.0  # of a turn before it counts: what stood still draws
# The station reads what it missed while the inspector stands still: beside it, standing back, it would read for most of a turn.
CATCH_UP_S = 3.0
TRIMMED = 0.2  # of the rounds, at either end
MOST_PER_S = 400.0  # of pictures, until a turn has shown how many there are
_PROCESSORS = len(os.sched_getaffinity(0))

Say = Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """One turn: when it counted (seconds since the epoch), and processor time in seconds of one processor a second, by process."""

    from_s: float
    to_s: float
    processors: dict[str, float]


@dataclass(frozen=True)
class Round:
    """Two turns. Processor times are in seconds of one processor a second."""

    with_per_s: float
    without_per_s: float
    station: float
    browsers: float
    broker_with: float
    broker_without: float
    inspector_with: float
    inspector_without: float

    @property
    def taken(self) -> float:
        """The share of the machine's processors that the wall takes."""
        return (self.station + self.broker_with - self.broker_without) / _PROCESSORS

    @property
    def slower(self) -> float:
        """The share of pictures that a second of the inspector's processor time judges less."""
        return 1 - self.with_per_s / self.inspector_with / (self.without_per_s / self.inspector_without)

    @property
    def cost(self) -> float:
        """The share of the throughput."""
        return 1 - (1 - self.taken) * (1 - self.slower)

    @property
    def direct(self) -> float:
        """The cost from the throughputs alone; what the browsers took, the inspector would have had."""
        return 1 - self.with_per_s / (1 - self.browsers / _PROCESSORS) / self.without_per_s


@dataclass(frozen=True)
class Figure:
    """A share, below 0 is noise; `within` is its 95 % interval's half width."""

    share: float
    within: float


@dataclass(frozen=True)
class Cost:
    """What the wall costs, of the rounds in the middle; `mean` is of all rounds."""

    cost: Figure
    taken: Figure
    slower: Figure
    direct: Figure
    browsers: int
    processors: int
    pictures_per_browser: int  # that each browser was shown
    mean: Round
    rounds: list[Round]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def run_wall_bench(base: Settings, pictures: list[bytes], seconds: float, rounds: int, browsers: int, say: Say) -> Cost:
    """Rounds of two turns of `seconds`, on a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = bench_settings(base, folder, lines=3)
        with running_broker(settings):
            (broker,) = (child for child in psutil.Process().children() if child.name() == "java")
            feed, verdicts = Feed(settings, pictures), VerdictTimes(settings)
            feed.send(int(4 * MOST_PER_S))
            with _looked_at(settings, folder, browsers) as (station, people), InspectorProcess(settings, folder) as inspector:
                watched = {"broker": broker, "station": station}
                watched |= {"browsers": psutil.Process(people.pid), "inspector": psutil.Process(inspector.pid)}
                bench = _Bench(feed, verdicts, watched, seconds)
                found = []
                try:
                    for number in range(1, rounds + 1):
                        found.append(_round(bench.turn(True), bench.turn(False), verdicts))
                        say(f"round {number} of {rounds}: {in_words(found[-1])}")
                finally:  # what stands still cannot stop
                    bench.send_signal(signal.SIGCONT, *watched)
            if not (shown := people.counts["pictures"] // browsers):
                raise CastlineError("expected the browsers to be shown pictures, they saw none: nothing was measured")
    mean = Round(**{name: statistics.fmean(getattr(one, name) for one in found) for name in asdict(found[0])})
    return Cost(
        cost=_middle([one.cost for one in found]),
        taken=_middle([one.taken for one in found]),
        slower=_middle([one.slower for one in found]),
        direct=_middle([one.direct for one in found]),
        browsers=browsers,
        processors=_PROCESSORS,
        pictures_per_browser=shown,
        mean=mean,
        rounds=found,
    )


def _middle(shares: list[float]) -> Figure:
    """The mean without a fifth at either end, and its 95 % interval's half width (Tukey and McLaughlin, 1963).

    In some rounds a shared machine does something else for seconds; these would be most of a plain mean's error.
    """
    if len(shares) < 5:
        return Figure(statistics.fmean(shares), math.inf)
    low, high = trimmed_mean_ci(shares, (TRIMMED, TRIMMED), alpha=0.05)
    return Figure(float(low + high) / 2, float(high - low) / 2)


class _Bench:
    """Lets what looks at the wall go on and stand still, and keeps the inspector's backlog full."""

    def __init__(self, feed: Feed, verdicts: VerdictTimes, watched: dict[str, psutil.Process], seconds: float) -> None:
        self._feed, self._verdicts, self._watched, self._seconds = feed, verdicts, watched, seconds
        self._most_per_s = MOST_PER_S

    def turn(self, looked_at: bool) -> Turn:
        needed = 1.2 * self._most_per_s * (self._seconds + SETTLE_S)
        if (missing := needed - (self._feed.sent - self._verdicts.out())) > 0:
            self._feed.send(int(missing))
        if looked_at:
            self.send_signal(signal.SIGSTOP, "inspector")
            self.send_signal(signal.SIGCONT, "station", "browsers")
            time.sleep(CATCH_UP_S)
            self.send_signal(signal.SIGCONT, "inspector")
        else:
            self.send_signal(signal.SIGSTOP, "browsers", "station")
        time.sleep(SETTLE_S)
        began_s, before, out = time.time(), self._spent(), self._verdicts.out()
        time.sleep(self._seconds)
        after, ended_s = self._spent(), time.time()
        took_s = ended_s - began_s
        self._most_per_s = max(50.0, 1.5 * (self._verdicts.out() - out) / took_s)
        return Turn(began_s, ended_s, {name: (after[name] - before[name]) / took_s for name in after})

    def send_signal(self, number: signal.Signals, *names: str) -> None:
        for name in names:
            self._watched[name].send_signal(number)

    def _spent(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._watched.items()}
        return {name: one.user + one.system for name, one in times.items()}


def _round(seen: Turn, unseen: Turn, verdicts: VerdictTimes) -> Round:
    with_per_s, without_per_s = (verdicts.per_s(turn.from_s, turn.to_s) for turn in (seen, unseen))
    return Round(
        with_per_s=with_per_s,
        without_per_s=without_per_s,
        station=seen.processors["station"],
        browsers=seen.processors["browsers"],
        broker_with=seen.processors["broker"],
        broker_without=unseen.processors["broker"],
        inspector_with=seen.processors["inspector"],
        inspector_without=unseen.processors["inspector"],
    )


def in_words(one: Round) -> str:
    """A line for a person."""
    return (
        f"cost {one.cost:+.1%} (processors {one.taken:.1%}, inspector {one.slower:+.1%} slower); "
        f"with {one.with_per_s:.1f}/s, without {one.without_per_s:.1f}/s ({one.direct:+.1%}); "
        f"processors: station {one.station:.3f}, browsers {one.browsers:.3f}, "
        f"broker {one.broker_with:.3f} against {one.broker_without:.3f}, "
        f"inspector {one.inspector_with:.2f} against {one.inspector_without:.2f}"
    )


@contextmanager
def _looked_at(settings: Settings, folder: Path, browsers: int) -> Iterator[tuple[psutil.Process, Viewers]]:
    """A station of its own with `browsers` on its wall, as long as the block runs; and who looks."""
    environment = plain_environment(settings) | {"STATION_PASSWORD": secrets.token_urlsafe(16)}
    account = [str(CASTLINE), "station", "account", ACCOUNT, "--role", "operator"]
    subprocess.run(account, env=environment, check=True, capture_output=True)
    with (folder / "station.log").open("ab") as log:
        station = subprocess.Popen(bound_command([CASTLINE, "station"]), env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{settings.station.port}"
    try:
        _await(address, station, folder / "station.log")
        with Viewers(address, browsers, environment) as people:
            yield psutil.Process(station.pid), people
    finally:
        station.send_signal(signal.SIGCONT)
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
