"""Measures the processor time for the station's page "wall" while an inspector is busy. This page shows all lines live.

The result is the time of the station plus the additional time of the broker. The time of the browsers does not count.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import requests
from scipy.stats.mstats import trimmed_mean_ci  # type: ignore[import-untyped]  # the locked packages hold no stubs for it

from bench.inspector_process import (
    CASTLINE,
    RoleProcess,
    create_bench_topics,
    make_bench_settings,
    make_settings_environment,
    run_broker,
)
from bench.picture_feed import PictureFeed, VerdictTimes
from deploy.supervisor.launch import bound_command
from streams.errors import CastlineError
from streams.settings import Settings

ReportProgress = Callable[[str], None]

_ACCOUNT = "bench"
_STATION_START_S = 120.0
# The measurement begins 10 s after the browsers have opened the page "wall", because they first fetch the pictures of all lines.
_SETTLE_S = 10.0
_TRIMMED_SHARE = 0.2
_MIN_ROUNDS_FOR_INTERVAL = 5
_FIRST_PICTURES_PER_S = 400.0
_PROCESSORS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class ShareEstimate:
    """A share of the machine's processors, 0..1. Its 95 % interval reaches from `share` - `within` to `share` + `within`."""

    share: float
    within: float


@dataclass(frozen=True)
class WallCost:
    """The processor time that the wall takes, as means over all rounds.

    - `taken`: a share of all processors. For example, 0.02 is 2 %.
    - `station`, `browsers`, `broker_with`, `broker_without`: numbers of busy processors. For example, 0.5 is half a processor.
    """

    taken: ShareEstimate
    station: float
    browsers: float
    broker_with: float
    broker_without: float
    browser_count: int
    processors: int
    pictures_per_browser: int

    def as_json(self) -> dict[str, object]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def measure_wall(
    base: Settings, pictures: list[bytes], round_s: float, round_count: int, browser_count: int, report_progress: ReportProgress
) -> WallCost:
    """Measures `round_count` rounds while no browser shows the page "wall", and as many rounds while browsers show it.

    The measurement uses a temporary broker. A round takes `round_s` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = make_bench_settings(base, folder)
        with run_broker(settings) as broker:
            create_bench_topics(settings)
            feed, verdicts = PictureFeed(settings, pictures), VerdictTimes(settings)
            backlog = _Backlog(feed, verdicts, round_s)
            backlog.refill()
            with RoleProcess.of_settings(settings, folder):
                without = _measure_rounds({"broker": broker.pid}, backlog, round_s, round_count, "without the wall", report_progress)
                environment = make_settings_environment(settings) | {"STATION_PASSWORD": secrets.token_urlsafe(16)}
                address = f"http://127.0.0.1:{settings.station.port}"
                with (
                    _run_station(address, environment, folder) as station_pid,
                    _BrowserProcess(address, browser_count, environment) as browsers,
                ):
                    time.sleep(_SETTLE_S)
                    pids = {"broker": broker.pid, "station": station_pid, "browsers": browsers.pid}
                    beside = _measure_rounds(pids, backlog, round_s, round_count, "with the wall", report_progress)
            verdicts.close()
            if not (shown := browsers.counts["pictures"] // browser_count):
                raise CastlineError("The browsers received no pictures, so the result would be too low. Use longer rounds.")
    broker_without = statistics.fmean(loads["broker"] for loads in without)
    return WallCost(
        taken=_estimate_share([(loads["station"] + loads["broker"] - broker_without) / _PROCESSORS for loads in beside]),
        station=statistics.fmean(loads["station"] for loads in beside),
        browsers=statistics.fmean(loads["browsers"] for loads in beside),
        broker_with=statistics.fmean(loads["broker"] for loads in beside),
        broker_without=broker_without,
        browser_count=browser_count,
        processors=_PROCESSORS,
        pictures_per_browser=shown,
    )


def _measure_rounds(
    pids: dict[str, int], backlog: _Backlog, round_s: float, round_count: int, phase: str, report_progress: ReportProgress
) -> list[dict[str, float]]:
    """Measures `round_count` rounds. For each round, returns the mean number of processors that each process used, such as 0.5."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    rounds = []
    for number in range(1, round_count + 1):
        backlog.refill()
        before_s, start_s = {name: _processor_seconds(process) for name, process in processes.items()}, time.monotonic()
        time.sleep(round_s)
        elapsed_s = time.monotonic() - start_s
        loads = {name: (_processor_seconds(process) - before_s[name]) / elapsed_s for name, process in processes.items()}
        rounds.append(loads)
        figures = ", ".join(f"{name} {load:.3f}" for name, load in loads.items())
        report_progress(f"{phase}, round {number} of {round_count}: processors {figures}")
    return rounds


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _estimate_share(shares: list[float]) -> ShareEstimate:
    """Returns the mean of `shares` and its 95 % interval. `shares` has one share of the processors for each round.

    Other programs on the machine make a few shares very low or very high. So the lowest and the highest fifth of the shares are left out
    (Tukey and McLaughlin, 1963).
    """
    if len(shares) < _MIN_ROUNDS_FOR_INTERVAL:
        return ShareEstimate(statistics.fmean(shares), math.inf)
    low, high = trimmed_mean_ci(shares, (_TRIMMED_SHARE, _TRIMMED_SHARE), alpha=0.05)
    return ShareEstimate(float(low + high) / 2, float(high - low) / 2)


class _Backlog:
    def __init__(self, feed: PictureFeed, verdicts: VerdictTimes, round_s: float) -> None:
        self._feed = feed
        self._verdicts = verdicts
        self._round_s = round_s
        self._pictures_per_s = _FIRST_PICTURES_PER_S
        self._last: tuple[float, int] | None = None

    def refill(self) -> None:
        """Sends more pictures if too few pictures wait on Kafka for the next round."""
        now_s, count = time.monotonic(), self._verdicts.count()
        if self._last is not None:
            last_s, last_count = self._last
            self._pictures_per_s = max(50.0, 1.5 * (count - last_count) / (now_s - last_s))
        self._last = now_s, count
        missing = 1.2 * self._pictures_per_s * (self._round_s + _SETTLE_S) - (self._feed.sent_count - count)
        if missing > 0:
            self._feed.send(int(missing))


@contextmanager
def _run_station(address: str, environment: dict[str, str], folder: Path) -> Iterator[int]:
    """Runs a station with an account for the browsers until the `with` block ends. Yields the process id of the station."""
    account = [str(CASTLINE), "station", "account", _ACCOUNT, "--role", "operator"]
    subprocess.run(account, env=environment, check=True, capture_output=True)
    log_file = folder / "station.log"
    with log_file.open("ab") as log:
        station = subprocess.Popen(bound_command([CASTLINE, "station"]), env=environment, stdout=log, stderr=log)
    try:
        _wait_for_station(address, station, log_file)
        yield station.pid
    finally:
        station.terminate()
        try:
            station.wait(60)
        finally:
            station.kill()


def _wait_for_station(address: str, station: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline_s = time.monotonic() + _STATION_START_S
    while True:
        with suppress(requests.RequestException):
            if requests.get(f"{address}/log-in/", timeout=10).ok:
                return
        if station.poll() is not None or time.monotonic() > deadline_s:
            raise CastlineError(f"The station did not start at {address}. The end of its log: {log_file.read_text()[-2000:]}")
        time.sleep(0.2)


class _BrowserProcess:
    """Runs the browsers in a separate process during a `with` block. The browsers are logged in when the block begins.

    After the block, `counts` holds the number of cards and pictures that the browsers received. A card is the box of one line on the page.
    """

    def __init__(self, address: str, browser_count: int, environment: dict[str, str]) -> None:
        self.counts: Counter[str] = Counter()
        self._process = subprocess.Popen(
            bound_command([sys.executable, "-m", "bench.wall", address, str(browser_count)]),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise CastlineError("The browsers could not log in to the station. The reason is printed above.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        output, _ = self._process.communicate("")
        self.counts.update(json.loads(output))


class _Browser:
    """Behaves like a browser that shows the page "wall": receives the events of the page, and fetches the pictures, four at a time.

    Each event contains a card, the box of one line. A picture is not fetched if a newer card of the line shows another picture. `counts`
    holds the number of received cards and pictures.
    """

    # A browser opens six connections: one for the events, one for pages, and four for pictures.
    _FETCHERS = 4
    _TIMEOUT_S = 120
    _PICTURE = re.compile(r'src="(/live/pictures/[^"]+)"')
    _FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')

    def __init__(self, address: str, password: str) -> None:
        self.counts: Counter[str] = Counter()
        self._address = address
        self._changed = threading.Condition()
        self._pictures_by_card: dict[str, list[str]] = {}
        self._requested: set[str] = set()
        session = requests.Session()
        token = self._FORM_TOKEN.search(session.get(f"{address}/log-in/", timeout=self._TIMEOUT_S).text)
        form = {"username": _ACCOUNT, "password": password, "csrfmiddlewaretoken": token[1] if token else ""}
        session.post(f"{address}/log-in/", data=form, timeout=self._TIMEOUT_S).raise_for_status()
        self._cookies = session.cookies
        for target in (self._follow_events, *[self._fetch_pictures] * self._FETCHERS):
            threading.Thread(target=target, daemon=True).start()

    def _open_session(self) -> requests.Session:
        session = requests.Session()
        session.cookies = self._cookies
        return session

    def _follow_events(self) -> None:
        """Reads the stream of events. When the stream ends, connects again as the EventSource of a browser does."""
        while True:
            with suppress(requests.RequestException):
                self._read_events()
            time.sleep(1)

    def _read_events(self) -> None:
        event = ""
        with self._open_session().get(f"{self._address}/live/events", stream=True, timeout=self._TIMEOUT_S) as events:
            pictures: list[str] = []
            for raw_line in events.iter_lines():
                line = raw_line.decode()
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line:
                    pictures += self._PICTURE.findall(line)
                elif event != "status":
                    with self._changed:
                        self._pictures_by_card[event], pictures = pictures, []
                        self.counts["cards"] += 1
                        self._changed.notify_all()

    def _fetch_pictures(self) -> None:
        session = self._open_session()
        while True:
            path = self._await_picture()
            # If the station has closed the connection, the request is repeated once on a new connection, as a browser does.
            for _ in range(2):
                with suppress(requests.RequestException):
                    is_shown = session.get(self._address + path, timeout=self._TIMEOUT_S).status_code == 200
                    with self._changed:
                        self.counts["pictures"] += is_shown
                    break

    def _await_picture(self) -> str:
        with self._changed:
            while True:
                for path in (path for paths in self._pictures_by_card.values() for path in paths):
                    if path not in self._requested:
                        self._requested.add(path)
                        return path
                self._changed.wait()


def _run_browsers(address: str, browser_count: int) -> None:
    """Runs `browser_count` browsers until standard input ends. Then prints the sums of their counts as JSON and ends the process."""
    browsers = [_Browser(address, os.environ["STATION_PASSWORD"]) for _ in range(browser_count)]
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps(sum((browser.counts for browser in browsers), Counter())), flush=True)
    # Some threads still wait for events. os._exit ends the process without waiting for these threads.
    os._exit(0)


if __name__ == "__main__":
    _run_browsers(sys.argv[1], int(sys.argv[2]))
