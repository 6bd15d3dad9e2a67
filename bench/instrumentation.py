"""What counting costs: the whole inspector with its metrics, scraped as by Prometheus, against the same with every metric silenced."""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.feed import Feed, piped_per_s
from bench.worker import InspectorProcess, bench_settings, running_broker
from streams.settings import Settings

SCRAPE_EVERY_S = 5.0
SILENCED = (sys.executable, "-m", "bench.uninstrumented")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cost:
    """`overhead` is the share of the throughput that the metrics take, the median of the rounds; below 0 is noise."""

    with_per_s: float
    without_per_s: float
    overhead: float
    rounds: list[dict[str, float]]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def run_instrumentation_bench(base: Settings, pictures: list[bytes], count: int, rounds: int, say: Say) -> Cost:
    """Rounds of `count` pictures in turn with and without, first the one, then the other, on a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = bench_settings(base, folder, lines=3)
        found: list[dict[str, float]] = []
        with running_broker(settings):
            feed = Feed(settings, pictures)
            for number in range(1, rounds + 1):
                per_s: dict[str, float] = {}
                # Turn about, so that a machine that grows slower or faster does not speak for one of them.
                for way in ("with", "without") if number % 2 else ("without", "with"):
                    worker = InspectorProcess(settings, folder, SILENCED if way == "without" else ())
                    with _scraped(worker) if way == "with" else nullcontext():
                        per_s[way] = piped_per_s(feed, count, worker)
                overhead = 1 - per_s["with"] / per_s["without"]
                found.append({"with_per_s": per_s["with"], "without_per_s": per_s["without"], "overhead": overhead})
                say(f"round {number} of {rounds}: with {per_s['with']:.1f}/s, without {per_s['without']:.1f}/s, overhead {overhead:+.1%}")
    middle = {field: statistics.median(one[field] for one in found) for field in found[0]}
    return Cost(middle["with_per_s"], middle["without_per_s"], middle["overhead"], found)


@contextmanager
def _scraped(worker: InspectorProcess) -> Iterator[None]:
    """Reads the worker's metrics as Prometheus does, as long as the block runs and the worker serves them."""
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_EVERY_S):
            try:
                worker.metrics_page()
            except (OSError, ValueError):
                continue  # not up yet, or gone already

    thread = threading.Thread(target=scrape, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
