"""Reads the metrics pages of a running plant for `castline top`, and computes the figures that the terminal view shows."""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.demo.line_states import LineStates
from deploy.demo.terminal_view import LineStatus, ProcessStatus, Snapshot
from deploy.demo.topic_monitor import LineFigures
from deploy.supervisor import State
from streams.plant_states import LineCounts, PlantState
from streams.settings import Settings

_WINDOW_S = 60.0
_PAGE_TIMEOUT_S = 2.0
_MAX_THREADS = 16
_AGE_BUCKETS = "castline_verdict_age_seconds_bucket"
_CPU = "process_cpu_seconds_total"
_MEMORY = "process_resident_memory_bytes"
_METRICS_OF_LINES = (
    "castline_verdict_deadline_seconds",
    "castline_verdicts_total",
    "castline_parts_counted_total",
    "castline_spool_pictures",
)

# A cumulative Prometheus histogram. Example: in {0.1: 7, inf: 9}, there are 9 values, and 7 of them are at most 0.1 s.
Buckets = Mapping[float, float]


@dataclass(frozen=True)
class ScrapeTarget:
    """A process that a Prometheus target file lists. `address` is the host and port of its metrics page."""

    instance: str
    role: str
    address: str


@dataclass(frozen=True)
class MetricSample:
    """One value of a metrics page, with the role and the instance of the process that served the page."""

    name: str
    labels: Mapping[str, str]
    value: float
    role: str = ""
    instance: str = ""


@dataclass(frozen=True)
class PlantMetrics:
    """All metrics of the plant at the time `now`, in monotonic seconds. `silent` names the instances that did not answer."""

    now: float
    samples: Sequence[MetricSample]
    targets: Sequence[ScrapeTarget] = ()
    silent: frozenset[str] = field(default_factory=frozenset)

    def sum(self, name: str, role: str = "", **labels: str) -> float:
        """Returns the sum of all samples of a metric with the given role and labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and (not role or sample.role == role) and labels.items() <= dict(sample.labels).items()
        )

    def label_values(self, name: str, label: str, **labels: str) -> list[str]:
        """Returns the values of `label` in the samples of metric `name`. Uses only samples that are above 0 and have all `labels`.

        Example: `label_values("castline_gate_state", "state", line="line-1")` returns the present state of the gate of line-1.
        """
        return sorted(
            {
                sample.labels[label]
                for sample in self.samples
                if sample.name == name and sample.value > 0 and labels.items() <= dict(sample.labels).items()
            }
        )

    def age_buckets(self, line: str) -> Buckets:
        """Returns the histogram of the verdict ages of `line`, summed over all inspectors. The age is the time from capture to verdict."""
        buckets: dict[float, float] = defaultdict(float)
        for sample in self.samples:
            if sample.name == _AGE_BUCKETS and sample.labels["line"] == line:
                buckets[float(sample.labels["le"])] += sample.value
        return buckets

    def lines(self) -> list[str]:
        """Returns the names of all lines that appear in the metrics."""
        return sorted({sample.labels["line"] for sample in self.samples if sample.name in _METRICS_OF_LINES})


def find_targets(patterns: Iterable[str]) -> list[ScrapeTarget]:
    """Returns the processes that the target files list. In `patterns`, the file name can contain a `*`.

    A file that cannot be read is skipped, because its process is perhaps writing the file.
    """
    targets = {}
    for pattern in patterns:
        for file in Path(pattern).parent.glob(Path(pattern).name):
            try:
                for entry in json.loads(file.read_text(encoding="utf-8")):
                    labels = entry["labels"]
                    for address in entry["targets"]:
                        targets[address] = ScrapeTarget(labels["instance_name"], labels["role"], address)
            except (OSError, ValueError, KeyError):
                continue
    return sorted(targets.values(), key=lambda target: (target.role, target.instance))


def read_plant_metrics(targets: Sequence[ScrapeTarget], now: float) -> PlantMetrics:
    """Reads the metrics pages of all processes in parallel and returns their metrics."""
    with ThreadPoolExecutor(max_workers=min(_MAX_THREADS, len(targets)) or 1) as threads:
        pages = list(threads.map(_read_page, targets))
    answers = list(zip(targets, pages, strict=True))
    samples = [sample for target, page in answers if page is not None for sample in parse_metrics(page, target.role, target.instance)]
    silent = frozenset(target.instance for target, page in answers if page is None)
    return PlantMetrics(now, samples, targets, silent)


def _read_page(target: ScrapeTarget) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{target.address}/metrics", timeout=_PAGE_TIMEOUT_S) as response:
            text: str = response.read().decode(errors="replace")
            return text
    except (OSError, ValueError, HTTPException):
        return None


def parse_metrics(page: str, role: str, instance: str = "") -> Iterable[MetricSample]:
    """Yields only those samples of a metrics page that the terminal view needs.

    All other samples are skipped, because parsing all histograms would take too long.
    """
    lines = [
        line
        for line in page.splitlines()
        if line.startswith(("castline_", _CPU, _MEMORY)) and ("_bucket{" not in line or line.startswith(_AGE_BUCKETS))
    ]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            yield MetricSample(sample.name, sample.labels, sample.value, role, instance)


def compute_quantile_s(share: float, buckets: Buckets) -> float | None:
    """Computes a quantile of a histogram in seconds, as the function histogram_quantile of Prometheus does.

    Example: `compute_quantile_s(0.5, buckets)` returns the median. Returns None if the histogram is empty.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank, lower_count, lower_bound = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return lower_bound
            inside = buckets[bound] - lower_count
            return lower_bound + (bound - lower_bound) * ((rank - lower_count) / inside if inside else 1.0)
        lower_count, lower_bound = buckets[bound], bound
    return lower_bound


class PlantMonitor:
    """Keeps the metrics of the last minute and computes snapshots for the view."""

    def __init__(self, settings: Settings) -> None:
        self._line_states = LineStates(settings)
        self._states: dict[str, PlantState] = {}
        self._history: deque[PlantMetrics] = deque()
        self._started_at: float | None = None
        self._unready_since: dict[str, float] = {}

    def add(self, metrics: PlantMetrics, wall_s: float) -> None:
        """Adds the latest metrics, and removes metrics that are older than a minute.

        `wall_s` is the present time in seconds since 1970. It is compared with the end of a line's planned stop.
        """
        self._started_at = metrics.now if self._started_at is None else self._started_at
        self._history.append(metrics)
        while metrics.now - self._history[0].now > _WINDOW_S and len(self._history) > 2:
            self._history.popleft()
        for line in metrics.lines():
            self._states[line] = self._compute_state(metrics, line, wall_s)

    def make_snapshot(self) -> Snapshot:
        """Returns the figures that the terminal view shows. Raises IndexError if `add` was not called yet."""
        latest, earliest = self._history[-1], self._history[0]
        elapsed_s = latest.now - earliest.now
        cpu_s = latest.sum(_CPU) - earliest.sum(_CPU)
        deadlines = [sample.value for sample in latest.samples if sample.name == "castline_verdict_deadline_seconds"]
        return Snapshot(
            phase="running",
            elapsed_s=latest.now - (self._started_at or 0.0),
            seconds=None,
            rows=[self._make_line_status(line, latest, earliest) for line in latest.lines()],
            processes=[self._make_process_status(target, latest) for target in latest.targets],
            cores=max(0.0, cpu_s / elapsed_s) if elapsed_s else 0.0,
            memory_mb=latest.sum(_MEMORY) / 2**20,
            deadline_s=min(deadlines, default=0.0),
            now=latest.now,
            warnings=[f"{instance} does not answer on its metrics page" for instance in sorted(latest.silent)],
            hint="Ctrl-C: leave the view",
        )

    def _make_line_status(self, line: str, latest: PlantMetrics, earliest: PlantMetrics) -> LineStatus:
        def count(name: str, **labels: str) -> int:
            return int(latest.sum(name, line=line, **labels))

        verdicts = latest.sum("castline_verdicts_total", line=line)
        elapsed_s = latest.now - earliest.now
        before = earliest.age_buckets(line)
        ages = {bound: total - before.get(bound, 0.0) for bound, total in latest.age_buckets(line).items()}
        p50_s, p99_s = compute_quantile_s(0.5, ages), compute_quantile_s(0.99, ages)
        new_verdicts = max(0.0, verdicts - earliest.sum("castline_verdicts_total", line=line))
        figures = LineFigures(
            verdicts=int(verdicts),
            labels={label: count("castline_verdicts_total", label=label) for label in ("ok", "defect", "review")},
            sorted=count("castline_parts_sorted_total"),
            diverted=count("castline_parts_sorted_total", action="diverted"),
            no_verdict=count("castline_parts_sorted_total", reason="no-verdict"),
            late=count("castline_verdicts_late_total"),
            p50_ms=None if p50_s is None else p50_s * 1000,
            p99_ms=None if p99_s is None else p99_s * 1000,
            verdicts_per_s=new_verdicts / elapsed_s if elapsed_s else 0.0,
        )
        return LineStatus(
            name=line,
            figures=figures,
            parts=max(count("castline_parts_counted_total"), int(verdicts)),
            queue=int(latest.sum("castline_consumer_lag_records", "inspector", line=line)),
            spooled=count("castline_spool_pictures"),
            state=self._states[line],
        )

    def _compute_state(self, metrics: PlantMetrics, line: str, wall_s: float) -> PlantState:
        sorted_parts = "castline_parts_sorted_total"
        missed = sum(metrics.sum(sorted_parts, line=line, reason=reason) for reason in ("no-verdict", "late-verdict"))
        gate_states = metrics.label_values("castline_gate_state", "state", line=line)
        # If a sorter reports the state of a gate, the line has a gate, even if the settings name no gate.
        if not (gate_states or self._line_states.has_gate(line)):
            missed = metrics.sum("castline_verdicts_overdue_total", line=line)
        counts = LineCounts(
            castings=int(metrics.sum("castline_parts_counted_total", line=line)),
            pictures=int(metrics.sum("castline_pictures_received_total", line=line)),
            verdicts=int(metrics.sum("castline_verdicts_total", line=line)),
            reports=int(metrics.sum(sorted_parts, line=line)),
            missed=int(missed),
        )
        planned_stops = [
            sample.value
            for sample in metrics.samples
            if sample.name == "castline_planned_stop_until_seconds" and sample.labels["line"] == line
        ]
        return self._line_states.compute(line, counts, gate_states, max(planned_stops, default=0.0) > wall_s, metrics.now)

    def _make_process_status(self, target: ScrapeTarget, latest: PlantMetrics) -> ProcessStatus:
        is_ready = target.instance not in latest.silent and any(
            sample.name == "castline_process_ready" and sample.instance == target.instance and sample.value > 0 for sample in latest.samples
        )
        if is_ready:
            self._unready_since.pop(target.instance, None)
            return ProcessStatus(target.instance, State.READY)
        since = self._unready_since.setdefault(target.instance, latest.now)
        return ProcessStatus(target.instance, State.STARTING, max(0.1, latest.now - since))
