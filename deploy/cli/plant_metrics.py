"""A running plant as its own metrics pages tell it, in the form that the live view shows."""

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

from deploy.demo.view import Row, Snapshot, Standing
from deploy.demo.watch import LineNumbers
from deploy.supervisor import State

_WINDOW_S = 60.0  # that ages and rates are taken over
_TIMEOUT_S = 2.0
_AGE = "castline_verdict_age_seconds_bucket"
_FOREIGN = ("process_cpu_seconds_total", "process_resident_memory_bytes")

Buckets = Mapping[float, float]  # upper bound in seconds -> count up to it


@dataclass(frozen=True)
class Target:
    """A process, as its file for Prometheus' discovery names it."""

    instance: str
    role: str
    address: str


@dataclass(frozen=True)
class Sample:
    """One value of a metrics page. `role` and `instance` are those of the process."""

    name: str
    labels: Mapping[str, str]
    value: float
    role: str = ""
    instance: str = ""


@dataclass(frozen=True)
class Look:
    """All that was seen at `now`, monotonic seconds. `silent` are the targets that did not answer."""

    now: float
    samples: Sequence[Sample]
    targets: Sequence[Target] = ()
    silent: frozenset[str] = field(default_factory=frozenset)

    def total(self, name: str, role: str = "", **labels: str) -> float:
        wanted = labels.items()
        return sum(
            one.value for one in self.samples if one.name == name and (not role or one.role == role) and wanted <= dict(one.labels).items()
        )

    def values(self, name: str, label: str, **labels: str) -> list[str]:
        """The values of `label` on what is above 0."""
        wanted = labels.items()
        return sorted(
            {one.labels[label] for one in self.samples if one.name == name and one.value > 0 and wanted <= dict(one.labels).items()}
        )

    def ages(self, line: str) -> Buckets:
        found: dict[float, float] = defaultdict(float)
        for one in self.samples:
            if one.name == _AGE and one.labels["line"] == line:
                found[float(one.labels["le"])] += one.value
        return found


def targets(patterns: Iterable[str]) -> list[Target]:
    """The processes that the files name; `*` may stand in a file's name, not in its folders'.

    A file that is being written is passed over.
    """
    found = {}
    for pattern in patterns:
        for file in Path(pattern).parent.glob(Path(pattern).name):
            try:
                for entry in json.loads(file.read_text(encoding="utf-8")):
                    labels = entry["labels"]
                    for address in entry["targets"]:
                        found[address] = Target(labels["instance_name"], labels["role"], address)
            except (OSError, ValueError, KeyError):
                continue
    return sorted(found.values(), key=lambda one: (one.role, one.instance))


def look(at: Sequence[Target], now: float) -> Look:
    """Reads all metrics pages side by side."""
    with ThreadPoolExecutor(max_workers=min(16, len(at)) or 1) as threads:
        pages = list(threads.map(_page, at))
    samples = [
        sample for target, page in zip(at, pages, strict=True) if page is not None for sample in read(page, target.role, target.instance)
    ]
    silent = frozenset(target.instance for target, page in zip(at, pages, strict=True) if page is None)
    return Look(now, samples, at, silent)


def _page(target: Target) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{target.address}/metrics", timeout=_TIMEOUT_S) as answer:
            text: str = answer.read().decode(errors="replace")
            return text
    except (OSError, ValueError, HTTPException):
        return None


def read(page: str, role: str, instance: str = "") -> Iterable[Sample]:
    """The samples of a metrics page that the view needs."""
    kept = [
        line
        for line in page.splitlines()
        if line.startswith(("castline_", *_FOREIGN)) and ("_bucket{" not in line or line.startswith(_AGE))
    ]
    for family in text_string_to_metric_families("\n".join(kept) + "\n"):
        for sample in family.samples:
            yield Sample(sample.name, sample.labels, sample.value, role, instance)


def quantile_s(share: float, buckets: Buckets) -> float | None:
    """As Prometheus computes it: even within a bucket; the last finite bound for what lies beyond it. None without observations."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted, below, lower = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        below, lower = buckets[bound], bound
    return lower


class PlantWatch:
    """Keeps the looks of the last minute and makes a snapshot of them. Counts are since the processes' start."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._began: float | None = None
        self._verdicts: dict[str, tuple[float, float]] = {}  # line -> count, when it last grew
        self._unready: dict[str, float] = {}

    def add(self, seen: Look) -> None:
        self._began = seen.now if self._began is None else self._began
        self._looks.append(seen)
        while seen.now - self._looks[0].now > _WINDOW_S and len(self._looks) > 2:
            self._looks.popleft()
        for line in self._lines(seen):
            count = seen.total("castline_verdicts_total", line=line)
            if count != self._verdicts.get(line, (-1.0, 0.0))[0]:
                self._verdicts[line] = (count, seen.now)

    def snapshot(self) -> Snapshot:
        """Raises IndexError: before the first look."""
        now, first = self._looks[-1], self._looks[0]
        elapsed_s = now.now - first.now
        cpu_s = now.total(_FOREIGN[0]) - first.total(_FOREIGN[0])
        deadlines = [one.value for one in now.samples if one.name == "castline_verdict_deadline_seconds"]
        return Snapshot(
            phase="running",
            elapsed_s=now.now - (self._began or 0.0),
            seconds=None,
            rows=[self._row(line, now, first) for line in self._lines(now)],
            processes=[self._standing(target, now) for target in now.targets],
            cores=max(0.0, cpu_s / elapsed_s) if elapsed_s else 0.0,
            memory_mb=now.total(_FOREIGN[1]) / 2**20,
            useful_s=min(deadlines, default=0.0),
            now=now.now,
            news=[f"{name} does not answer on its metrics page" for name in sorted(now.silent)],
            hint="Ctrl-C: leave the view",
        )

    def _row(self, line: str, now: Look, first: Look) -> Row:
        def counted(name: str, **labels: str) -> int:
            return int(now.total(name, line=line, **labels))

        verdicts, grew_at = self._verdicts.get(line, (0.0, now.now))
        elapsed_s = now.now - first.now
        before = first.ages(line)
        ages = {bound: count - before.get(bound, 0.0) for bound, count in now.ages(line).items()}
        half, late = quantile_s(0.5, ages), quantile_s(0.99, ages)
        numbers = LineNumbers(
            verdicts=int(verdicts),
            labels={label: counted("castline_verdicts_total", label=label) for label in ("ok", "defect", "review")},
            sorted=counted("castline_parts_sorted_total"),
            diverted=counted("castline_parts_sorted_total", action="diverted"),
            no_verdict=counted("castline_parts_sorted_total", reason="no-verdict"),
            late=counted("castline_verdicts_late_total"),
            p50_ms=None if half is None else half * 1000,
            p99_ms=None if late is None else late * 1000,
            per_s=max(0.0, verdicts - first.total("castline_verdicts_total", line=line)) / elapsed_s if elapsed_s else 0.0,
            last_verdict_at=grew_at if verdicts else None,
        )
        return Row(
            name=line,
            numbers=numbers,
            parts=max(counted("castline_parts_counted_total"), int(verdicts)),
            queue=int(now.total("castline_consumer_lag_records", "inspector", line=line)),
            spooled=counted("castline_spool_pictures"),
            gate=", ".join(now.values("castline_gate_state", "state", line=line)),
        )

    def _standing(self, target: Target, now: Look) -> Standing:
        ready = target.instance not in now.silent and any(
            one.name == "castline_process_ready" and one.instance == target.instance and one.value > 0 for one in now.samples
        )
        if ready:
            self._unready.pop(target.instance, None)
            return Standing(target.instance, State.READY)
        since = self._unready.setdefault(target.instance, now.now)
        return Standing(target.instance, State.STARTING, max(0.1, now.now - since))

    @staticmethod
    def _lines(seen: Look) -> list[str]:
        named = ("castline_verdict_deadline_seconds", "castline_verdicts_total", "castline_parts_counted_total", "castline_spool_pictures")
        return sorted({one.labels["line"] for one in seen.samples if one.name in named})
