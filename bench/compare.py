"""Compares the speed of the inspector in two checkouts, or in one checkout with two settings files.

The two inspectors run alternately, many times. Each run is a new process, because the speed of a process depends on chance, for example
on its memory layout.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
from kafka import KafkaAdminClient

from bench.inspector_process import MEASURED_SECTIONS, RoleProcess, make_bench_settings, make_environment, run_broker
from bench.picture_feed import PictureFeed, VerdictTimes, load_pictures, measure_latencies_ms
from bench.protected_listeners import ProtectedListeners, Protection
from deploy.supervisor.launch import bound_command
from streams.errors import BrokerError, SettingsError
from streams.settings import Settings

ReportProgress = Callable[[str], None]

# The new inspector is "no slower" if it needs at most 3 % more processor time per picture.
MAX_PROCESSOR_RATIO = 1.03
# A pair is one run of the old and one run of the new inspector. A 95 % interval for the median ratio needs at least six pairs. With five
# pairs, even the interval from the smallest to the largest ratio misses the true median in 6 % of cases.
MIN_PAIRS_FOR_INTERVAL = 6
_CONFIDENCE = 0.95
_DIFFERENT_PICTURES = 256
# The first pictures do not count, because an inspector is about 8 % slower in its first two seconds.
_WARM_UP_PICTURES = 256
_SAMPLE_INTERVAL_S = 0.5
_LATENCY_S = 20.0
_MIN_LATENCY_PICTURES = 20


@dataclass(frozen=True)
class InspectorCheckout:
    """A checkout of Castline whose inspector is measured, and the settings file of this inspector. `name` is `old` or `new`.

    `protections` names what the inspector uses: `scram` and `tls` for its connection to Kafka, and `signatures` for its verdicts.
    """

    name: str
    folder: Path
    settings_file: Path | None = None
    protections: frozenset[Protection] = frozenset()

    @property
    def castline(self) -> Path:
        return self.folder / ".venv" / "bin" / "castline"

    def check(self) -> None:
        """Raises SettingsError if the checkout has no `castline` program in its folder .venv."""
        if not self.castline.is_file():
            raise SettingsError(f"{self.folder} has no .venv/bin/castline. Run `make setup` in that checkout first.")

    @property
    def versions(self) -> Path:
        """The folder of the model versions that come with the checkout."""
        return (self.folder / "models" / "versions").resolve()

    def read_sections(self, versions: Path) -> dict[str, Any]:
        """Returns the sections of the settings file that affect the inspector's speed.

        `versions` is a folder of model versions. It becomes the value of `model.root` if the file does not set `model.root`.

        Raises SettingsError if the file cannot be read or is not valid TOML.
        """
        sections = self._read_file()
        return sections | {"model": {"root": str(versions)} | sections.get("model", {})}

    def _read_file(self) -> dict[str, Any]:
        if self.settings_file is None:
            return {}
        try:
            content = tomllib.loads(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"The settings file {self.settings_file} cannot be read: {error}. Correct the file.") from error
        return {name: content[name] for name in MEASURED_SECTIONS if name in content}


@dataclass(frozen=True)
class InspectorMeasurement:
    """The figures of one run of one inspector.

    `latencies_ms` holds the time from capture to verdict of each picture. It is empty if latencies were not measured.
    """

    processor_ms_per_picture: float
    pictures_per_s: float
    latencies_ms: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PairMeasurement:
    """The measurements of the old and of the new inspector in two runs, one directly after the other."""

    old: InspectorMeasurement
    new: InspectorMeasurement

    @property
    def processor_ratio(self) -> float:
        """Processor time per picture of the new inspector, divided by that of the old one. Below 1, the new inspector needs less time."""
        return self.new.processor_ms_per_picture / self.old.processor_ms_per_picture

    @property
    def throughput_ratio(self) -> float:
        """Throughput of the new inspector, divided by the throughput of the old one. Above 1, the new inspector is faster."""
        return self.new.pictures_per_s / self.old.pictures_per_s


@dataclass(frozen=True)
class RatioEstimate:
    """The median of the ratios of all pairs, with its 95 % interval. The interval is None if there are fewer than six pairs."""

    median: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class LatencyQuantiles:
    """The median and the 99th percentile of the time from capture to verdict, over all runs of one inspector, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class SpeedComparison:
    """The result of comparing two inspectors: medians over all pairs of runs, and latency quantiles over all pictures.

    `load_per_s` is the number of pictures a second during the latency measurement, or None if latencies were not measured.
    """

    processor_ratio: RatioEstimate
    throughput_ratio: RatioEstimate
    old_processor_ms_per_picture: float
    new_processor_ms_per_picture: float
    old_pictures_per_s: float
    new_pictures_per_s: float
    old_latency: LatencyQuantiles | None
    new_latency: LatencyQuantiles | None
    load_per_s: float | None
    pairs: list[PairMeasurement]

    @property
    def is_no_slower(self) -> bool:
        """True if the new inspector needs at most 3 % more processor time per picture, which means a median ratio of at most 1.03."""
        return self.processor_ratio.median <= MAX_PROCESSOR_RATIO

    @property
    def does_throughput_reach_old(self) -> bool | None:
        """False if the throughput of the new inspector is surely lower: the whole 95 % interval of `throughput_ratio` is below 1.

        True if the upper end of the interval is at least 1. None if there are too few pairs for an interval.
        """
        interval = self.throughput_ratio.interval
        return None if interval is None else interval[1] >= 1

    def as_json(self) -> dict[str, Any]:
        """Returns the comparison as values that JSON can hold, without the latencies of single pictures."""
        content = asdict(self)
        for pair in content["pairs"]:
            for measurement in pair.values():
                del measurement["latencies_ms"]
        return content | {"is_no_slower": self.is_no_slower, "does_throughput_reach_old": self.does_throughput_reach_old}


def estimate_median(values: Sequence[float]) -> RatioEstimate:
    """Returns the median of `values` and its 95 % interval by the sign test.

    Both ends of the interval are members of `values`. For ten values, they are the second smallest and the second largest.
    """
    ordered = sorted(values)
    count = len(ordered)
    if count < MIN_PAIRS_FOR_INTERVAL:
        return RatioEstimate(statistics.median(ordered), None)
    # At first, the interval reaches from the smallest value to the largest one. Each step of the loop leaves out the value at each end.
    # `tail` is the probability that the true median lies below the smaller interval. The loop stops before `tail` exceeds 2.5 %.
    tail = 2.0**-count
    left_out = 0
    while (tail := tail + math.comb(count, left_out + 1) * 2.0**-count) <= (1 - _CONFIDENCE) / 2:
        left_out += 1
    return RatioEstimate(statistics.median(ordered), (ordered[left_out], ordered[count - 1 - left_out]))


def summarise_pairs(pairs: Sequence[PairMeasurement], load_per_s: float | None = None) -> SpeedComparison:
    """Computes the medians, intervals and latency quantiles of all `pairs`.

    `load_per_s` is the number of pictures a second that were sent while latencies were measured.
    """
    return SpeedComparison(
        processor_ratio=estimate_median([pair.processor_ratio for pair in pairs]),
        throughput_ratio=estimate_median([pair.throughput_ratio for pair in pairs]),
        old_processor_ms_per_picture=statistics.median(pair.old.processor_ms_per_picture for pair in pairs),
        new_processor_ms_per_picture=statistics.median(pair.new.processor_ms_per_picture for pair in pairs),
        old_pictures_per_s=statistics.median(pair.old.pictures_per_s for pair in pairs),
        new_pictures_per_s=statistics.median(pair.new.pictures_per_s for pair in pairs),
        old_latency=_pool_latencies([pair.old for pair in pairs]),
        new_latency=_pool_latencies([pair.new for pair in pairs]),
        load_per_s=load_per_s,
        pairs=list(pairs),
    )


def _pool_latencies(measurements: Sequence[InspectorMeasurement]) -> LatencyQuantiles | None:
    latencies_ms = [latency_ms for measurement in measurements for latency_ms in measurement.latencies_ms]
    if not latencies_ms:
        return None
    p50_ms, p99_ms = (float(quantile) for quantile in np.percentile(latencies_ms, (50, 99)))
    return LatencyQuantiles(p50_ms, p99_ms)


def compare_checkouts(
    old: InspectorCheckout,
    new: InspectorCheckout,
    pair_count: int,
    picture_count: int,
    load: float | None,
    report_progress: ReportProgress,
) -> SpeedComparison:
    """Compares the speeds of the inspectors of two checkouts. The two inspectors run alternately on a temporary broker.

    While latencies are measured, pictures are sent at the rate `load` times the throughput of the first run. If `load` is None, latencies
    are not measured.

    Raises SettingsError or BrokerError if a checkout or an inspector fails.
    """
    for checkout in (old, new):
        checkout.check()
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        bench = _ComparisonBench(
            Path(name), load_pictures(None, min(_DIFFERENT_PICTURES, picture_count)), picture_count, load, (old, new), report_progress
        )
        with run_broker(bench.settings, bench.listeners.make_properties()):
            bench.listeners.create_users()
            pairs = []
            for number in range(1, pair_count + 1):
                # In one pair the old inspector is measured first, in the next pair the new inspector. So a change of the machine's speed
                # affects the two inspectors equally.
                order = (old, new) if number % 2 else (new, old)
                by_name = {checkout.name: bench.measure_turn(checkout, f"{checkout.name}-{number}") for checkout in order}
                pairs.append(PairMeasurement(by_name["old"], by_name["new"]))
                report_progress(f"pair {number} of {pair_count}, {order[0].name} first: {describe_pair(pairs[-1])}")
    return summarise_pairs(pairs, bench.load_per_s)


class _ComparisonBench:
    def __init__(
        self,
        folder: Path,
        pictures: list[bytes],
        picture_count: int,
        load: float | None,
        checkouts: Sequence[InspectorCheckout],
        report_progress: ReportProgress,
    ) -> None:
        self.settings = make_bench_settings(Settings(), folder)
        self.listeners = ProtectedListeners(self.settings, folder)
        self.load_per_s: float | None = None
        self._folder = folder
        self._pictures = pictures
        self._picture_count = picture_count
        self._warm_up_count = min(_WARM_UP_PICTURES, picture_count)
        self._load = load
        self._report_progress = report_progress
        # The old and the new inspector judge with the model versions of the old checkout. So only the code of the inspectors differs.
        old, _ = checkouts
        self._sections = {checkout.name: checkout.read_sections(old.versions) for checkout in checkouts}
        # An inspector fetches pictures in advance, and is slower when no more pictures wait. So that this does not happen during the
        # measurement, this many additional pictures are sent after the measured ones.
        self._tail_count = max(self._count_ahead(sections) for sections in self._sections.values())
        # The inspectors get an empty settings file. Otherwise each inspector would read the castline.toml of its checkout.
        self._empty_file = folder / "empty.toml"
        self._empty_file.touch()

    @staticmethod
    def _count_ahead(sections: dict[str, Any]) -> int:
        defaults = Settings()
        buffer = int(sections.get("inspector", {}).get("buffer", defaults.inspector.buffer))
        batch_size = int(sections.get("batch", {}).get("size", defaults.batch.size))
        return buffer + 4 * batch_size

    def measure_turn(self, checkout: InspectorCheckout, prefix: str) -> InspectorMeasurement:
        """Starts the inspector of `checkout` on fresh topics whose names begin with `prefix`, measures its speed, and stops it."""
        topics = self.settings.topics.model_copy(update={"prefix": prefix})
        settings = self.settings.model_copy(update={"topics": topics})
        run_dir = self._folder / f"run-{prefix}"
        environment = self._make_environment(checkout, prefix, run_dir)
        castline: list[str | Path] = [checkout.castline, "--settings", self._empty_file]
        self._create_topics(checkout, castline, environment)
        feed, verdicts = PictureFeed(settings, self._pictures), VerdictTimes(settings)
        measured_end = self._warm_up_count + self._picture_count
        feed.send(measured_end + self._tail_count)
        latencies_ms: list[float] = []
        inspector = RoleProcess(castline, environment, run_dir, self._folder / f"{prefix}.log", checkout.folder)
        with inspector, _ProcessorTimes(inspector.pid) as processor_times:
            verdicts.wait_for(measured_end, inspector)
            times_s = verdicts.read_times_s()
            start_s, end_s = times_s[self._warm_up_count - 1], times_s[measured_end - 1]
            processor_times.wait_until(end_s)
            count = sum(start_s < time_s <= end_s for time_s in times_s)
            pictures_per_s = count / (end_s - start_s)
            if self._load is not None:
                verdicts.wait_for(feed.sent_count, inspector)
                latencies_ms = self._measure_latencies(feed, pictures_per_s)
        verdicts.close()
        self._delete_topics(prefix)
        processor_s = processor_times.seconds_at(end_s) - processor_times.seconds_at(start_s)
        return InspectorMeasurement(processor_s / count * 1000, pictures_per_s, tuple(latencies_ms))

    def _make_environment(self, checkout: InspectorCheckout, prefix: str, run_dir: Path) -> dict[str, str]:
        sections = self._sections[checkout.name] | {
            # Give the inspector the address of the broker and its log-in. An old release cannot find them alone, because it does not know
            # the setting `broker.access`.
            **self.listeners.make_sections(checkout.protections),
            "topics": {"prefix": prefix},
            "service": {"run_dir": str(run_dir)},
            "store": {"url": str(self._folder / "store")},
            "lines": [{"name": line.name} for line in self.settings.lines],
        }
        environment = make_environment(sections)
        # These environment variables are removed, because they could make a checkout import the packages of another checkout.
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
        return environment

    def _create_topics(self, checkout: InspectorCheckout, castline: Sequence[str | Path], environment: dict[str, str]) -> None:
        command = bound_command([*castline, "topics", "create"])
        result = subprocess.run(command, env=environment, cwd=checkout.folder, capture_output=True, text=True, timeout=120)
        if result.returncode:
            raise BrokerError(f"`castline topics create` of the {checkout.name} checkout {checkout.folder} failed: {result.stderr[-2000:]}")

    def _measure_latencies(self, feed: PictureFeed, pictures_per_s: float) -> list[float]:
        assert self._load is not None
        # All runs send the same number of pictures a second as the first run, because latencies under different loads cannot be compared.
        self.load_per_s = self.load_per_s or self._load * pictures_per_s
        count = max(_MIN_LATENCY_PICTURES, round(self.load_per_s * _LATENCY_S))
        return measure_latencies_ms(feed, self.load_per_s, count)

    def _delete_topics(self, prefix: str) -> None:
        """Deletes the topics that begin with `prefix`, because the pictures of all measurements together would fill the disk."""
        admin = KafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        try:
            admin.delete_topics([name for name in admin.list_topics() if name.startswith(f"{prefix}.")])
        finally:
            admin.close()


class _ProcessorTimes:
    """Samples twice a second, in a thread of its own, how much processor time a process and its children have used."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._samples: list[tuple[float, float]] = []
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processor times", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_requested.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._samples.append((time.time(), self._read_seconds()))
            except psutil.NoSuchProcess:
                return
            if self._stop_requested.wait(_SAMPLE_INTERVAL_S):
                return

    def _read_seconds(self) -> float:
        times = [self._process.cpu_times()]
        for child in self._process.children(recursive=True):
            # A child process can end during this loop. Its processor time is not lost, because the operating system adds it to the values
            # `children_user` and `children_system` of the parent.
            with contextlib.suppress(psutil.NoSuchProcess):
                times.append(child.cpu_times())
        return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))

    def wait_until(self, time_s: float) -> None:
        """Waits until there is a sample from `time_s` (in seconds since 1970) or later, or until the process has ended."""
        while self._thread.is_alive() and (not self._samples or self._samples[-1][0] < time_s):
            time.sleep(0.1)

    def seconds_at(self, time_s: float) -> float:
        """Returns how many seconds of processor time the process has used until `time_s`, interpolated between two samples."""
        times, seconds = zip(*self._samples, strict=True)
        return float(np.interp(time_s, times, seconds))


def describe_pair(pair: PairMeasurement) -> str:
    """Returns the figures of the old and of the new inspector in one pair of runs, as a line for the terminal."""
    return (
        f"processor time per picture {pair.old.processor_ms_per_picture:.2f} ms old, {pair.new.processor_ms_per_picture:.2f} ms new, "
        f"ratio {pair.processor_ratio:.3f}; throughput {pair.old.pictures_per_s:.1f}/s old, {pair.new.pictures_per_s:.1f}/s new, "
        f"ratio {pair.throughput_ratio:.3f}"
    )


def describe_comparison(comparison: SpeedComparison) -> list[str]:
    """Returns the result of the comparison as lines for the terminal."""
    lines = [
        f"processor time per picture: {comparison.old_processor_ms_per_picture:.2f} ms old, "
        f"{comparison.new_processor_ms_per_picture:.2f} ms new, ratio {_describe_ratio(comparison.processor_ratio)}",
        f"  {'no slower' if comparison.is_no_slower else 'SLOWER'}: the ratio may be at most {MAX_PROCESSOR_RATIO}",
        f"throughput: {comparison.old_pictures_per_s:.1f}/s old, {comparison.new_pictures_per_s:.1f}/s new, "
        f"ratio {_describe_ratio(comparison.throughput_ratio)}",
    ]
    if comparison.does_throughput_reach_old is not None:
        lines.append(f"  the interval {'reaches' if comparison.does_throughput_reach_old else 'does NOT reach'} 1")
    if comparison.old_latency and comparison.new_latency and comparison.load_per_s:
        lines.append(
            f"capture to verdict at {comparison.load_per_s:.1f} pictures a second: "
            f"p50 {comparison.old_latency.p50_ms:.0f} ms old, {comparison.new_latency.p50_ms:.0f} ms new; "
            f"p99 {comparison.old_latency.p99_ms:.0f} ms old, {comparison.new_latency.p99_ms:.0f} ms new"
        )
    return lines


def _describe_ratio(estimate: RatioEstimate) -> str:
    if estimate.interval is None:
        return f"{estimate.median:.3f} (a 95 % interval needs {MIN_PAIRS_FOR_INTERVAL} pairs or more)"
    return f"{estimate.median:.3f} (95 % interval {estimate.interval[0]:.3f} to {estimate.interval[1]:.3f})"
