"""Reads /readyz, /healthz and /metrics of the processes, from a thread of its own: a hanging page delays no restart."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Sight:
    """What was last seen of one process. `unhealthy_since` is monotonic seconds, None while it is well."""

    address: str
    ready: bool = False
    complaint: str = ""
    unhealthy_since: float | None = None
    samples: Samples = field(default_factory=dict)  # without histogram buckets: the live view reads no more

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples called `name` whose labels include `labels`; 0 where there are none."""
        wanted = labels.items()
        return sum(value for (sample, having), value in self.samples.items() if sample == name and wanted <= dict(having).items())

    def labels(self, name: str, label: str, **labels: str) -> list[str]:
        """The values of `label` on the samples called `name` that are above 0 and whose labels include `labels`."""
        wanted = labels.items()
        return [
            dict(having)[label]
            for (sample, having), value in self.samples.items()
            if sample == name and value > 0 and wanted <= dict(having).items()
        ]


class Prober:
    """Looks at every watched process each `every_s`; at metrics only each `metrics_every_s`. Thread-safe."""

    def __init__(self, every_s: float = 0.5, metrics_every_s: float = 2.0, timeout_s: float = 2.0) -> None:
        self._every_s = every_s
        self._metrics_every_s = metrics_every_s
        self._timeout_s = timeout_s
        self._sights: dict[int, Sight] = {}
        self._metrics_at: dict[int, float] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(self._timeout_s * 2)

    def watch(self, pid: int, address: str) -> None:
        with self._lock:
            self._sights.setdefault(pid, Sight(address))

    def forget(self, pid: int) -> None:
        with self._lock:
            self._sights.pop(pid, None)
            self._metrics_at.pop(pid, None)

    def sight(self, pid: int) -> Sight | None:
        with self._lock:
            return self._sights.get(pid)

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            with self._lock:
                watched = list(self._sights.items())
            for pid, sight in watched:
                seen = self._look(pid, sight)
                with self._lock:
                    if pid in self._sights:
                        self._sights[pid] = seen

    def _look(self, pid: int, sight: Sight) -> Sight:
        now = time.monotonic()
        ready, _ = self._get(sight.address, "/readyz")
        well, text = self._get(sight.address, "/healthz")
        samples = sight.samples
        if now - self._metrics_at.get(pid, -self._metrics_every_s) >= self._metrics_every_s:
            found, page = self._get(sight.address, "/metrics")
            if found == 200:
                samples = read_samples(page)
            self._metrics_at[pid] = now
        since = None if well == 200 else sight.unhealthy_since or now
        return replace(sight, ready=ready == 200, complaint="" if well == 200 else text.strip(), unhealthy_since=since, samples=samples)

    def _get(self, address: str, path: str) -> tuple[int, str]:
        """Status and text; 0 and why when there was no whole answer: a process may end in the middle of one."""
        try:
            return self._answer(f"http://{address}{path}")
        except (OSError, ValueError, HTTPException) as error:
            return 0, f"{path} does not answer: {error!r}"

    def _answer(self, url: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_s) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")


def read_samples(page: str) -> Samples:
    """The samples of Castline's own metrics on a /metrics page, histogram buckets left out."""
    wanted = "\n".join(line for line in page.splitlines() if line.startswith("castline_") and "_bucket{" not in line)
    found: Samples = {}
    for family in text_string_to_metric_families(f"{wanted}\n"):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found
