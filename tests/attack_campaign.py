"""Attacks a demo plant over HTTP, and measures how much older its verdicts become: `make campaign-attack`.

A simulated line takes five pictures a second. One client process sends 200 requests a second for 25 s: 5,000 requests in a run. Each pair
has two runs. In one run the client attacks the station and the gateway of the plant, and in the other run an empty HTTP server. So the
client takes the same processor time in both runs. The first run of a pair is an attack on the plant in every other pair.

The age of a verdict is the time from the capture of the picture until the verdict is in Kafka. The exit status is 1 if the median of the
differences of p50 is above 10 ms, if a casting has no verdict or no sorted record, or if a process of the plant had to be started again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tomli_w
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console

from bench.compare import RatioEstimate, estimate_median
from deploy.cli.demo import CASTINGS_SEED
from deploy.demo.audit import VerdictRecord, compute_percentile, find_first_verdicts, read_topic_records
from deploy.demo.demo_run import DemoInterruptedError, DemoRun
from deploy.demo.foundry import CASTINGS_COUNT, DemoOptions, Foundry, make_foundry, remove_plant_variables, render_castings
from deploy.demo.terminal_view import PlainScreen, Snapshot
from deploy.supervisor import Journal, StopRequests
from deploy.supervisor.launch import bound_command
from streams.kafka import make_client_arguments
from streams.settings import Settings, load_settings
from streams.topics import TopicNames
from tests.attack_client import LINE, ClientResult, Orders
from tests.station.browser.plant import HttpUser, create_account

MAX_P50_RISE_MS = 10.0
PICTURES_PER_S = 5.0
STEPS = ("capture to inspector", "inspector", "inspector to Kafka")
_BOOTSTRAP_DRAWS = 10_000
_CLIENT_LIMIT_S = 60.0
# Uploads are decoded in spare time. The next run starts when all of them have a verdict.
_MAX_SETTLE_S = 180.0
_WARM_UP_S = 10.0


@dataclass(frozen=True)
class Run:
    """One run of the client.

    - `is_attack`: True if the client attacked the plant, False if it sent its requests to the empty server.
    - `processor_s`: processor time of each process of the plant during the run, in seconds.
    """

    pair: int
    is_attack: bool
    client: ClientResult
    processor_s: dict[str, float]


@dataclass(frozen=True)
class RunAges:
    """The ages of the verdicts of one run, in milliseconds: the median, the 99th percentile, and their number.

    `steps_ms` has the medians of the three STEPS of the age.
    """

    p50_ms: float
    p99_ms: float
    verdicts: int
    steps_ms: tuple[float, float, float]


@dataclass(frozen=True)
class PairAges:
    """The ages of the two runs of a pair."""

    attacked: RunAges
    quiet: RunAges


@dataclass(frozen=True)
class AgeComparison:
    """By how much an attack makes the verdicts older, in milliseconds: the medians of the differences of all pairs.

    - `p50_rise`: with the interval of the sign test, or None for fewer than six pairs.
    - `p99_rise_interval`: the 95 % interval by a bootstrap over the pairs.
    - `attacked_p99_interval`: the same for the median of the p99 of the attacked runs, `attacked_p99_ms`.
    """

    p50_rise: RatioEstimate
    p99_rise_ms: float
    p99_rise_interval: tuple[float, float]
    attacked_p99_ms: float
    attacked_p99_interval: tuple[float, float]
    pairs: list[PairAges]


@dataclass
class CampaignReport:
    """The result of the campaign.

    - `restarts`: how often the supervisor has started each process again.
    - `shortcomings`: a sentence for each bar that was missed.
    """

    comparison: AgeComparison
    audit: Mapping[str, Any]
    restarts: Mapping[str, int]
    runs: list[Run]
    shortcomings: list[str] = field(default_factory=list)


def measure_ages(verdicts: Sequence[VerdictRecord], began_s: float, ended_s: float) -> RunAges:
    """Returns the ages of the verdicts whose pictures were captured between two times, in seconds since 1970.

    Raises ValueError if there is no such verdict.
    """
    found = [record for record in verdicts if began_s <= record.verdict.captured_at.timestamp() <= ended_s]
    ages_ms = [record.age_ms for record in found]
    p50_ms, p99_ms = compute_percentile(ages_ms, 0.50), compute_percentile(ages_ms, 0.99)
    if p50_ms is None or p99_ms is None:
        raise ValueError("no casting was judged during a run")
    first, second, third = (statistics.median(step) for step in zip(*map(_measure_steps, found), strict=True))
    return RunAges(p50_ms, p99_ms, len(ages_ms), (first, second, third))


def _measure_steps(record: VerdictRecord) -> tuple[float, float, float]:
    verdict = record.verdict
    received_ms, decided_ms = ((time - verdict.captured_at).total_seconds() * 1000 for time in (verdict.received_at, verdict.decided_at))
    return received_ms, decided_ms - received_ms, record.age_ms - decided_ms


def compare_ages(pairs: Sequence[PairAges], seed: int) -> AgeComparison:
    """Returns the medians of the differences between the two runs of each pair. `seed` is that of the bootstrap."""
    p99_rises = [pair.attacked.p99_ms - pair.quiet.p99_ms for pair in pairs]
    attacked_p99s = [pair.attacked.p99_ms for pair in pairs]
    return AgeComparison(
        p50_rise=estimate_median([pair.attacked.p50_ms - pair.quiet.p50_ms for pair in pairs]),
        p99_rise_ms=statistics.median(p99_rises),
        p99_rise_interval=bootstrap_median(p99_rises, seed),
        attacked_p99_ms=statistics.median(attacked_p99s),
        attacked_p99_interval=bootstrap_median(attacked_p99s, seed),
        pairs=list(pairs),
    )


def bootstrap_median(values: Sequence[float], seed: int) -> tuple[float, float]:
    """Returns the 95 % interval of the median of `values`, from 10,000 draws with replacement (percentile bootstrap)."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (_BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def make_pairs(runs: Sequence[Run], verdicts: Sequence[VerdictRecord]) -> list[PairAges]:
    """Returns the ages of the two runs of each complete pair."""
    ages = {(run.pair, run.is_attack): measure_ages(verdicts, run.client.began_s, run.client.ended_s) for run in runs}
    return [PairAges(ages[pair, True], ages[pair, False]) for pair in sorted({run.pair for run in runs}) if (pair, False) in ages]


def find_shortcomings(comparison: AgeComparison, audit: Mapping[str, Any], restarts: Mapping[str, int]) -> list[str]:
    """Returns a sentence for each bar that was missed."""
    found = []
    if comparison.p50_rise.median > MAX_P50_RISE_MS:
        found.append(f"The p50 of the age rose by {comparison.p50_rise.median:.1f} ms. At most {MAX_P50_RISE_MS:g} ms are allowed.")
    for record in ("verdict", "sorting"):
        if missing := audit["lost_for"][record]:
            found.append(f"{missing} castings have no {record}.")
    if not audit["parts"]:
        found.append("The line counted no casting.")
    return found + [f"The supervisor had to start the {name} again, {count} times." for name, count in restarts.items()]


def find_unanswered(runs: Sequence[Run]) -> list[str]:
    """Returns a sentence if the attacked station answered less than half of the simplest requests.

    The station has the lowest priority, so it answers nothing on a busy machine. Such a run shows no effect of the attack.
    """
    answers = sum_answers([run for run in runs if run.is_attack]).get("unknown path at the station", Counter())
    if 2 * answers["404"] >= answers.total():
        return []
    return [f"The station answered only {answers['404']} of {answers.total()} unknown paths. Repeat the campaign on a quiet machine."]


def describe_report(report: CampaignReport) -> str:
    """Returns the report as text."""
    comparison, audit = report.comparison, report.audit
    attacks = [run for run in report.runs if run.is_attack]
    quiet = [run for run in report.runs if not run.is_attack]
    interval = comparison.p50_rise.interval
    steps = zip(*[_median_steps([getattr(pair, name) for pair in comparison.pairs]) for name in ("attacked", "quiet")], strict=True)
    lines = ["pair  p50 attacked  p50 quiet  p99 attacked  p99 quiet  (age of the verdict in ms)"]
    for number, pair in enumerate(comparison.pairs, 1):
        figures = (pair.attacked.p50_ms, pair.quiet.p50_ms, pair.attacked.p99_ms, pair.quiet.p99_ms)
        lines.append(f"{number:4}  {figures[0]:12.1f}  {figures[1]:9.1f}  {figures[2]:12.1f}  {figures[3]:9.1f}")
    lines += [
        f"rise of p50: {comparison.p50_rise.median:+.1f} ms in the median of {len(comparison.pairs)} pairs"
        + (f", 95 % interval {interval[0]:+.1f} to {interval[1]:+.1f} ms" if interval else ""),
        "steps of the age, median (attacked, quiet): "
        + ", ".join(f"{name} {attacked_ms:.1f} {quiet_ms:.1f}" for name, (attacked_ms, quiet_ms) in zip(STEPS, steps, strict=True)),
        f"rise of p99: {comparison.p99_rise_ms:+.1f} ms, 95 % interval {_format_interval(comparison.p99_rise_interval)} ms",
        f"p99 under attack: {comparison.attacked_p99_ms:.1f} ms, 95 % interval {_format_interval(comparison.attacked_p99_interval)} ms",
        f"castings: {audit['parts']}, without verdict: {audit['lost_for']['verdict']}, "
        f"without sorted record: {audit['lost_for']['sorting']}, verdict too late for the gate: {audit['late']}",
        f"requests: {_count_requests(attacks)} to the plant, {_count_requests(quiet)} to the empty server",
        "answers of the plant:",
    ]
    answers = sum_answers(attacks)
    lines += [
        f"  {name:34} {', '.join(f'{answer}: {count}' for answer, count in sorted(found.items()))}" for name, found in answers.items()
    ]
    lines.append("processor seconds in a run, median (attacked, quiet):")
    names = sorted({name for run in report.runs for name in run.processor_s} | {"client"})
    lines += [f"  {name:34} {_median_processor_s(attacks, name):6.2f} {_median_processor_s(quiet, name):6.2f}" for name in names]
    lines.append(f"the client was at most {max(run.client.latest_s for run in report.runs):.2f} s behind its times")
    return "\n".join([*lines, *(report.shortcomings or ["All bars are met."])])


def _median_steps(ages: Sequence[RunAges]) -> list[float]:
    return [statistics.median(step) for step in zip(*(each.steps_ms for each in ages), strict=True)]


def _format_interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


def _median_processor_s(runs: Sequence[Run], name: str) -> float:
    return statistics.median([run.client.processor_s if name == "client" else run.processor_s.get(name, 0.0) for run in runs] or [0.0])


def _count_requests(runs: Sequence[Run]) -> int:
    return sum(sum(found.values()) for run in runs for found in run.client.answers.values())


def sum_answers(runs: Sequence[Run]) -> dict[str, Counter[str]]:
    """Returns the numbers of answers of all runs together, by the kind of request and the server."""
    summed: dict[str, Counter[str]] = {}
    for run in runs:
        for name, found in run.client.answers.items():
            summed.setdefault(name, Counter()).update(found)
    return dict(sorted(summed.items()))


# The plant


def make_plant(folder: Path, seed: int) -> Foundry:
    """Writes the settings of a demo with one line of five pictures a second, and of a further line that takes uploads at the gateway."""
    images = render_castings(CASTINGS_SEED, lambda *_: None, count=CASTINGS_COUNT)
    foundry = make_foundry(DemoOptions(lines=1, rate_per_s=PICTURES_PER_S, seed=seed), images, folder)
    file = folder / "castline.toml"
    sections = tomllib.loads(file.read_text())
    sections["lines"].append({"name": LINE, "camera": {"kind": "http"}, "token": secrets.token_hex(16)})
    file.write_text(tomli_w.dumps(sections))
    return replace(foundry, settings=load_settings(file))


def log_in_attackers(settings: Settings, orders: dict[str, Any]) -> None:
    """Makes an account that looks at live pages and an account that uploads, and puts their session and their token into `orders`."""
    address = f"http://127.0.0.1:{settings.station.port}"
    for name, role in (("otto", "operator"), ("rita", "reviewer")):
        create_account(settings, name, role)
    cookies = HttpUser(address, "otto").session.cookies
    orders["cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)
    orders["upload_token"] = HttpUser(address, "rita").create_token()


def measure_processor_s(plant: psutil.Process) -> dict[str, float]:
    """Returns the processor seconds of each process that `plant` has started so far, with its children, by its command."""
    seconds: dict[str, float] = defaultdict(float)
    for child in plant.children():
        try:
            words = child.cmdline()
            if "--settings" not in words:
                continue
            name = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), words[words.index("--settings") + 2 :]))
            for process in (child, *child.children(recursive=True)):
                times = process.cpu_times()
                seconds[name] += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return seconds


@contextmanager
def empty_server() -> Iterator[int]:
    """Runs the empty HTTP server in a process of its own, and yields its port."""
    command = bound_command([sys.executable, "-m", "tests.attack_client", "empty-server"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


class Campaign:
    """Runs the pairs beside a demo that runs in the main thread. `run` is called in a thread of its own."""

    def __init__(self, foundry: Foundry, pairs: int, orders: dict[str, Any], settle_s: float, is_stopped: Callable[[], bool]) -> None:
        self._foundry = foundry
        self._pairs = pairs
        self._orders = orders
        self._settle_s = settle_s
        self._is_stopped = is_stopped
        self.runs: list[Run] = []

    def run(self) -> None:
        """Runs the client twice for each pair, against the plant and against the empty server. Returns early if the demo is stopped."""
        settings = self._foundry.settings
        log_in_attackers(settings, self._orders)
        self._orders["line_token"] = next(line.token.get_secret_value() for line in settings.lines if line.name == LINE)
        self._pause(_WARM_UP_S)
        with empty_server() as empty_port:
            ports = {True: (settings.station.port, settings.gateway.port), False: (empty_port, empty_port)}
            for pair in range(1, self._pairs + 1):
                for is_attack in (True, False) if pair % 2 else (False, True):
                    if self._is_stopped():
                        return
                    self._run_client(pair, is_attack, ports[is_attack])
                    self._settle()

    def _run_client(self, pair: int, is_attack: bool, ports: tuple[int, int]) -> None:
        target = "the plant" if is_attack else "the empty server"
        print(f"pair {pair} of {self._pairs}: {self._orders['count']} requests to {target}", flush=True)
        orders = Orders(*ports, **self._orders, seed=pair)
        limit_s = orders.count / orders.rate_per_s + _CLIENT_LIMIT_S
        command = bound_command([sys.executable, "-m", "tests.attack_client"])
        plant = psutil.Process()
        before = measure_processor_s(plant)
        done = subprocess.run(command, input=json.dumps(asdict(orders)), stdout=subprocess.PIPE, text=True, check=True, timeout=limit_s)
        after = measure_processor_s(plant)
        client = ClientResult(**json.loads(done.stdout))
        self.runs.append(Run(pair, is_attack, client, {name: round(after[name] - before.get(name, 0.0), 2) for name in after}))

    def _settle(self) -> None:
        """Waits until all uploads have a verdict, so that this run does not disturb the next one, and then for `settle_s` seconds."""
        deadline_s = time.monotonic() + _MAX_SETTLE_S
        while self._count_waiting_uploads() > 0 and not self._is_stopped():
            if time.monotonic() > deadline_s:
                print("Some uploads still have no verdict.", flush=True)
                break
            time.sleep(1)
        self._pause(self._settle_s)

    def _count_waiting_uploads(self) -> int:
        settings = self._foundry.settings
        names, line = TopicNames(settings.topics.prefix), settings.station.upload_line
        consumer = KafkaConsumer(**make_client_arguments(settings, "demo"), group_id=None)
        try:
            counts = []
            for topic in (names.images(line), names.verdicts(line)):
                places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
                counts.append(sum(consumer.end_offsets(places).values()))
            return int(counts[0] - counts[1])
        finally:
            consumer.close()

    def _pause(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s and not self._is_stopped():
            time.sleep(0.2)


class CampaignScreen(PlainScreen):
    """Prints a line about the demo every few seconds. Sets `is_running` when all processes of the demo are ready."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.is_running = threading.Event()

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        if snapshot.phase == "running":
            self.is_running.set()


class CampaignStop(StopRequests):
    """Asks the demo to stop after Ctrl-C or SIGTERM, or when the campaign has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.has_ended = threading.Event()

    def is_stop_requested(self) -> bool:
        return super().is_stop_requested() or self.has_ended.is_set()


def run_campaign(folder: Path, options: argparse.Namespace) -> CampaignReport | None:
    """Runs the demo with all pairs. Returns None if a person has stopped the campaign before the first pair was complete."""
    foundry = make_plant(folder, options.seed)
    requests = CampaignStop()
    screen = CampaignScreen(Console(highlight=False))
    orders = {"count": round(options.seconds * options.rate), "rate_per_s": options.rate}
    campaign = Campaign(foundry, options.pairs, orders, options.settle, requests.is_stop_requested)

    def run_pairs() -> list[VerdictRecord]:
        try:
            while not screen.is_running.wait(0.5):
                if requests.is_stop_requested():
                    return []
            campaign.run()
            return list(find_first_verdicts(read_topic_records(foundry.gated_settings).verdicts).values())
        finally:
            requests.has_ended.set()

    with foundry.log.open("w", encoding="utf-8") as log, ThreadPoolExecutor(1) as executor:
        reading = executor.submit(run_pairs)
        try:
            demo = DemoRun(foundry, None, screen, requests, Journal(log)).run()
        except DemoInterruptedError:
            return None
        finally:
            requests.has_ended.set()
        verdicts = reading.result()
    pairs = make_pairs(campaign.runs, verdicts)
    if not pairs:
        return None
    comparison = compare_ages(pairs, options.seed)
    audit, restarts = asdict(demo.whole), demo.extra["restarts"]
    shortcomings = find_shortcomings(comparison, audit, restarts) + find_unanswered(campaign.runs)
    return CampaignReport(comparison, audit, restarts, campaign.runs, shortcomings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="pairs of runs (default: 10, about a quarter of an hour)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the castings and of the bootstrap (default: 1)")
    parser.add_argument("--seconds", type=float, default=25.0, help="length of a run (default: 25)")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second (default: 200)")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds of rest after each run (default: 10)")
    parser.add_argument("--report", type=Path, help="also write the report to this file, as JSON")
    parser.add_argument("--keep", type=Path, help="folder for settings, topics and logs; the default is a temporary folder")
    options = parser.parse_args()
    remove_plant_variables(os.environ)
    with tempfile.TemporaryDirectory(prefix="castline-attack-") as name:
        report = run_campaign(options.keep or Path(name), options)
    if report is None:
        print("The campaign was stopped before the first pair was complete.")
        return 130
    print(describe_report(report))
    if options.report:
        options.report.write_text(json.dumps(asdict(report), indent=2))
    return int(bool(report.shortcomings))


if __name__ == "__main__":
    sys.exit(main())
