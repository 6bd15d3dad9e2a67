"""Starts a plant, kills its inspector and its broker, and measures how long no verdicts come after each kill."""

from __future__ import annotations

import itertools
import os
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from bench.inspector_process import CASTLINE, make_bench_settings, make_settings_environment
from deploy.supervisor.launch import bound_command
from deploy.supervisor.prober import find_target, read_samples
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import TopicNames

Report = Callable[[str], None]

_PLANT = "plant"
_TIMEOUT_S = 240.0
# Before the bench kills a process, verdicts must come steadily for this many seconds. Then the previous kill has no effect any more.
_STEADY_S = 5.0
_LONGEST_PAUSE_S = 2.0
_FIRST_SPAN = "noticed by the supervisor"
_LAST_SPAN = "the first verdict"
# The Kafka clients of this bench connect again quickly after the broker was killed. Otherwise the bench would see verdicts too late, and
# measure a time that is too long.
_RECONNECT = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 200}


@dataclass(frozen=True)
class Silence:
    """The time without verdicts after a process was killed, or after the whole plant was started. Times are in seconds.

    - `killed`: the killed process, `inspector` or `broker`. For the start of the whole plant, `killed` is `plant`.
    - `longest_s`: the longest time between two verdicts. For `plant`, the time from the start of `castline up` to the first verdict.
    - `spans`: the name and the length of each step until the first verdict, in the order of the steps. Empty if the broker was killed.
    - `load`: the load average of the operating system, that is, the number of processes that want a processor.
    """

    killed: str
    longest_s: float
    spans: dict[str, float]
    load: float


@dataclass(frozen=True)
class RestartResult:
    """The results of a measurement, one for each killed process."""

    silences: list[Silence]

    def as_json(self) -> list[dict[str, object]]:
        """Returns the results as a list for JSON, with one dictionary for each killed process."""
        return [asdict(silence) for silence in self.silences]

    def describe(self) -> list[str]:
        """Returns the lines of the report: how long no verdict came after each kill, and how long each step of a start took."""
        lines = []
        for killed in dict.fromkeys(silence.killed for silence in self.silences):
            group = [silence for silence in self.silences if silence.killed == killed]
            longest = [silence.longest_s for silence in group]
            loads = [silence.load for silence in group]
            event, time_name = (
                ("start of the whole plant", "first verdict") if killed == _PLANT else (f"kill -9 of the {killed}", "silence")
            )
            lines.append(
                f"{event}, {len(group)} times: {time_name} median {statistics.median(longest):.1f} s, "
                f"longest {max(longest):.1f} s; load of the machine {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} processors"
            )
            for span in group[0].spans:
                lines.append(f"  {span}: median {statistics.median(silence.spans.get(span, 0.0) for silence in group):.2f} s")
        return lines


def measure_restarts(
    base: Settings, pictures: Sequence[bytes], starts: int, kills: int, broker_kills: int, rate_per_s: float, report: Report
) -> RestartResult:
    """Runs a plant with one line and one inspector while pictures come.

    First starts and stops the plant `starts` times. The first start begins with an empty folder, as on a new machine. Then kills the
    inspector and the broker repeatedly.

    The sections of the settings that affect the speed come from `base`. Raises BrokerError if the plant does not recover.
    """
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        # The measured plant has no localiser, because the start of a localiser would take processor time from the inspector.
        base = base.model_copy(update={"inspector": base.inspector.model_copy(update={"localise": False})})
        settings = make_bench_settings(base, folder, line_count=1)
        silences = []
        for _ in range(starts):
            silences.append(_measure_start(settings, folder, pictures, rate_per_s))
            report(f"plant started: {silences[-1].longest_s:.1f} s until the first verdict")
        if not kills + broker_kills:
            return RestartResult(silences)
        with _run_plant(settings, folder) as plant, _feed(settings, pictures, rate_per_s), _VerdictClock(settings) as clock:
            clock.wait_for_steady_verdicts()
            for killed in ["inspector"] * kills + ["broker"] * broker_kills:
                silences.append(_measure_silence(plant, clock, killed))
                report(f"{killed} killed: {silences[-1].longest_s:.1f} s without a verdict")
    return RestartResult(silences)


class _Plant:
    """A plant that the command `castline up` has started. The log of the command contains the process ids of the plant."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._run_dir = settings.service.run_dir
        self._log = log

    def find_pid(self, role: str) -> int:
        """Returns the process id of the last start of `role`, or 0 before its first start."""
        starts = re.findall(rf" {role}(?:-1)? started, process (\d+)", self._log.read_text(errors="replace"))
        return int(starts[-1]) if starts else 0

    def read_spans(self, pid: int) -> dict[str, float]:
        """Returns the names and lengths of the steps in which the process `pid` started, in their order.

        Returns an empty dictionary as long as the process has given no verdict.
        """
        address = find_target(self._run_dir, pid)
        if address is None:
            return {}
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
                samples = read_samples(response.read().decode())
        except OSError:
            return {}
        spans = {dict(labels)["span"]: value for (name, labels), value in samples.items() if name == "castline_start_span_seconds"}
        return spans if _LAST_SPAN in spans else {}


def _measure_silence(plant: _Plant, clock: _VerdictClock, killed: str) -> Silence:
    before = plant.find_pid(killed)
    killed_s, wall_s = time.monotonic(), time.time()
    os.kill(before, signal.SIGKILL)
    spans: dict[str, float] = {}
    if killed == "inspector":
        _wait_for(lambda: plant.find_pid(killed) != before, "The supervisor did not start the inspector again.")
        after = plant.find_pid(killed)
        _wait_for(lambda: bool(plant.read_spans(after)), "The new inspector gave no verdict.")
        spans = {_FIRST_SPAN: psutil.Process(after).create_time() - wall_s, **plant.read_spans(after)}
    clock.wait_for_steady_verdicts(killed_s)
    return Silence(killed, clock.find_longest_gap_s(killed_s), spans, os.getloadavg()[0])


def _measure_start(settings: Settings, folder: Path, pictures: Sequence[bytes], rate_per_s: float) -> Silence:
    # The threads that send pictures and read verdicts start before the broker, so that the first picture comes as early as possible.
    with _VerdictClock(settings) as clock, ExitStack() as feeding:
        feeding.enter_context(_feed(settings, pictures, rate_per_s))
        start_s, wall_s = time.monotonic(), time.time()
        with _run_plant(settings, folder) as plant:
            pid = plant.find_pid("inspector")
            _wait_for(lambda: bool(plant.read_spans(pid)) and clock.has_verdicts, "The inspector gave no verdict.")
            spans = {
                "the broker answers": clock.connected_s - start_s,
                "the inspector's process starts": psutil.Process(pid).create_time() - wall_s - (clock.connected_s - start_s),
                **plant.read_spans(pid),
            }
            # The thread that sends pictures ends while the broker still runs, so that its Kafka client can close normally.
            feeding.close()
            return Silence(_PLANT, clock.first_verdict_s - start_s, spans, os.getloadavg()[0])


@contextmanager
def _run_plant(settings: Settings, folder: Path) -> Iterator[_Plant]:
    log = folder / "plant.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            bound_command([CASTLINE, "up", "--no-station"]), env=make_settings_environment(settings), stdout=output, stderr=output
        )
    try:
        _wait_for(
            lambda: "all processes are ready" in log.read_text(errors="replace") or process.poll() is not None, "The plant did not start."
        )
        if process.poll() is not None:
            raise BrokerError(f"The plant ended with exit status {process.returncode}. The end of its log: {log.read_text()[-2000:]}")
        yield _Plant(settings, log)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _feed(settings: Settings, pictures: Sequence[bytes], rate_per_s: float) -> Iterator[None]:
    """Sends pictures to the first line in a thread during a `with` block. The thread first waits for the broker.

    The thread continues to send if the broker is killed later.
    """
    ending = threading.Event()
    line = settings.lines[0].name

    def send() -> None:
        producer = _connect(KafkaProducer, settings, ending)
        if producer is None:
            return
        number, start_s = 0, time.monotonic()
        while not ending.wait(max(0.0, start_s + number / rate_per_s - time.monotonic())):
            number += 1
            topic = TopicNames(settings.topics.prefix).images(line)
            producer.send(topic, key=f"{line}:1:{number}".encode(), value=pictures[number % len(pictures)])
        producer.close(timeout=5)

    thread = threading.Thread(target=send, name="feed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(30)


def _connect(kind: type[Any], settings: Settings, ending: threading.Event) -> Any:
    """Waits for the broker and returns a Kafka client of the class `kind`. Returns None if the event `ending` is set first."""
    while not ending.wait(0.05):
        with suppress(KafkaError):
            return kind(bootstrap_servers=settings.bootstrap, **_RECONNECT)
    return None


class _VerdictClock:
    """A thread that notes when each verdict of the first line arrives, on the monotonic clock. Ignores verdicts from before its start.

    `connected_s` is the time at which the broker answered.
    """

    def __init__(self, settings: Settings) -> None:
        self.connected_s = 0.0
        self._settings = settings
        self._since_ms = time.time() * 1000
        self._times_s: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)

    def __enter__(self) -> _VerdictClock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)

    def _run(self) -> None:
        consumer = _connect(KafkaConsumer, self._settings, self._ending)
        if consumer is None:
            return
        self.connected_s = time.monotonic()
        place = TopicPartition(TopicNames(self._settings.topics.prefix).verdicts(self._settings.lines[0].name), 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        while not self._ending.is_set():
            for records in consumer.poll(timeout_ms=100).values():
                self._times_s += [time.monotonic() for record in records if record.timestamp >= self._since_ms]
        consumer.close()

    @property
    def has_verdicts(self) -> bool:
        return bool(self._times_s)

    @property
    def first_verdict_s(self) -> float:
        return self._times_s[0]

    def wait_for_steady_verdicts(self, since_s: float = 0.0) -> None:
        """Waits until verdicts have come for five seconds without a pause of two seconds. The five seconds begin after `since_s`.

        Raises BrokerError if the verdicts do not come steadily in time.
        """
        start_s = time.monotonic()

        def is_steady() -> bool:
            now_s = time.monotonic()
            recent = [now_s - _STEADY_S, *(moment for moment in list(self._times_s) if moment > now_s - _STEADY_S), now_s]
            pauses = [later - earlier for earlier, later in itertools.pairwise(recent)]
            return now_s - max(start_s, since_s) > _STEADY_S and max(pauses) < _LONGEST_PAUSE_S

        _wait_for(is_steady, "The verdicts did not come steadily again.")

    def find_longest_gap_s(self, since_s: float) -> float:
        """Returns the longest time without a verdict after `since_s`. The time from `since_s` to the first verdict counts, too."""
        moments = [since_s, *(moment for moment in list(self._times_s) if moment > since_s)]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


def _wait_for(is_done: Callable[[], bool], failure: str) -> None:
    give_up_s = time.monotonic() + _TIMEOUT_S
    while not is_done():
        if time.monotonic() > give_up_s:
            raise BrokerError(f"{failure} The measurement waited {_TIMEOUT_S:.0f} s. Run the command again on a machine with less load.")
        time.sleep(0.05)
