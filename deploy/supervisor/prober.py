"""Reads the pages /readyz, /healthz and /metrics of the supervised processes."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from streams.health import WAITS_FOR_HEADER
from streams.supervision import SupervisedThread

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class ProbeResult:
    """The latest health and metrics of one process, read from its pages `/readyz`, `/healthz` and `/metrics`.

    - `is_ready`: True if the process is ready. A process that only waits for a person counts as ready, too.
    - `is_waiting`: True if the process is not ready because it waits for Kafka, for the database or for free space on a disk.
    - `complaint`: the text of /healthz while the process is unhealthy.
    - `unhealthy_since`: monotonic seconds, or None.
    - `silent_since`: monotonic seconds, or None if the process answers.
    - `samples`: the metrics, without the buckets of histograms. `samples_at` says when they were read, in monotonic seconds.
    """

    address: str
    is_ready: bool = False
    is_waiting: bool = False
    complaint: str = ""
    unhealthy_since: float | None = None
    silent_since: float | None = None
    samples: Samples = field(default_factory=dict)
    samples_at: float = -math.inf

    def unhealthy_s(self, now: float) -> float:
        """Returns for how many seconds the process has been unhealthy or silent, or 0. `now` is the present time in monotonic seconds."""
        return 0.0 if self.unhealthy_since is None else now - self.unhealthy_since

    def silent_s(self, now: float) -> float:
        """Returns for how many seconds the process has not answered at all, or 0. `now` is the present time in monotonic seconds."""
        return 0.0 if self.silent_since is None else now - self.silent_since

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples of metric `name` whose labels include `labels`, or 0 if there are none."""
        required = labels.items()
        return sum(value for (sample, present), value in self.samples.items() if sample == name and required <= dict(present).items())

    def labels(self, name: str, label: str, **labels: str) -> list[str]:
        """Returns the values of the label `label` in the samples of metric `name`. Uses only samples above 0 that have all `labels`.

        Example: `labels("castline_gate_state", "state", line="line-1")` returns the present state of the gate of line-1.
        """
        required = labels.items()
        return [
            dict(present)[label]
            for (sample, present), value in self.samples.items()
            if sample == name and value > 0 and required <= dict(present).items()
        ]


@dataclass(frozen=True)
class _Page:
    """The response of a health page. `waits_for` says what the process waits for, for example Kafka. Empty if it waits for nothing."""

    status: int
    text: str
    waits_for: str = ""


class Prober:
    """Reads the pages of processes in a separate thread, so that a page that hangs cannot delay a restart. Thread-safe.

    /readyz and /healthz are read every `every_s` seconds, and /metrics every `metrics_every_s` seconds.
    """

    def __init__(self, every_s: float = 0.5, metrics_every_s: float = 2.0, timeout_s: float = 2.0) -> None:
        self._every_s = every_s
        self._metrics_every_s = metrics_every_s
        self._timeout_s = timeout_s
        self._results: dict[int, ProbeResult] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = SupervisedThread("prober", self._run, self._closing)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(self._timeout_s * 2)

    def add(self, pid: int, address: str) -> None:
        """Begins to read the web pages of process `pid` at `address` (host:port). A repeated call changes nothing."""
        with self._lock:
            if pid not in self._results or self._results[pid].address != address:
                self._results[pid] = ProbeResult(address)

    def remove(self, pid: int) -> None:
        """Stops reading the web pages of process `pid`, such as /healthz."""
        with self._lock:
            self._results.pop(pid, None)

    def result(self, pid: int) -> ProbeResult | None:
        """Returns the latest result for process `pid`, or None if `add` was not called for it."""
        with self._lock:
            return self._results.get(pid)

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            with self._lock:
                probed = list(self._results.items())
            for pid, before in probed:
                result = self._probe(before)
                with self._lock:
                    if pid in self._results and self._results[pid].address == result.address:
                        self._results[pid] = result

    def _probe(self, before: ProbeResult) -> ProbeResult:
        now = time.monotonic()
        health = self._get(before.address, "/healthz")
        since = before.unhealthy_since or now
        if health.status == 0:
            silent_since = before.silent_since or now
            return replace(
                before, is_ready=False, is_waiting=False, complaint=health.text, unhealthy_since=since, silent_since=silent_since
            )
        readiness = self._get(before.address, "/readyz")
        samples, samples_at = before.samples, before.samples_at
        if now - samples_at >= self._metrics_every_s:
            page = self._get(before.address, "/metrics")
            if page.status == 200:
                samples = read_samples(page.text)
            samples_at = now
        is_ready = readiness.status == 200 or readiness.waits_for == "person"
        answer = replace(
            before,
            is_ready=is_ready,
            is_waiting=readiness.waits_for == "outside",
            silent_since=None,
            samples=samples,
            samples_at=samples_at,
        )
        if health.status == 200:
            return replace(answer, complaint="", unhealthy_since=None)
        return replace(answer, complaint=health.text.strip(), unhealthy_since=since)

    def _get(self, address: str, path: str) -> _Page:
        """Reads a page. If the process does not answer, the status is 0 and the text is the reason."""
        try:
            return self._request(f"http://{address}{path}")
        except (OSError, ValueError, HTTPException) as error:
            return _Page(0, f"{path} does not respond: {error!r}")

    def _request(self, url: str) -> _Page:
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_s) as response:
                return _Page(response.status, response.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            with error:
                return _Page(error.code, error.read().decode(errors="replace"), error.headers.get(WAITS_FOR_HEADER, ""))


def read_samples(page: str) -> Samples:
    """Returns the samples of the `castline_*` metrics on a /metrics page, without histogram buckets."""
    lines = [line for line in page.splitlines() if line.startswith("castline_") and "_bucket{" not in line]
    samples: Samples = {}
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def _read_change_time(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0  # A process has just removed the file.


def find_target(run_dir: Path, pid: int) -> str | None:
    """Returns the web address at which the process `pid` shows its health and its metrics.

    The address stands in the file of the process in `run_dir`/targets. Returns None if there is no file yet.
    Several files can name the same process id, because a killed process leaves its file behind. The newest of these files is used.
    """
    for file in sorted((run_dir / "targets").glob("*.json"), key=_read_change_time, reverse=True):
        try:
            (target,) = json.loads(file.read_text())
            if target["labels"]["pid"] == str(pid):
                return str(target["targets"][0])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue  # A process is writing the file at this moment, or the file does not describe a process.
    return None
