"""Measures by how much the metrics reduce the throughput of the inspector.

One inspector updates its metrics, and they are read every five seconds. The other inspector never updates its metrics.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase

from bench.inspector_process import RoleProcess, create_bench_topics, make_bench_settings, run_broker
from bench.picture_feed import PictureFeed, measure_throughput
from streams.settings import Settings

ReportProgress = Callable[[str], None]

_SCRAPE_INTERVAL_S = 5.0
# The command that starts `castline` without metrics. It is Python code for a new process, because this module itself cannot import
# `deploy.cli`: the imports would be circular.
_CASTLINE_WITHOUT_METRICS = (
    sys.executable,
    "-c",
    "from bench.instrumentation import silence_metrics; silence_metrics(); from deploy.cli.main import main; main()",
)


@dataclass(frozen=True)
class InstrumentationCost:
    """The cost of the metrics: medians over all rounds. The throughputs are in pictures a second.

    `overhead` is a share: 0.03 means 3 % slower with metrics. If it is negative, the cost is too small to be measured.
    """

    with_per_s: float
    without_per_s: float
    overhead: float
    rounds: list[dict[str, float]]

    def as_json(self) -> dict[str, object]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def measure_instrumentation(
    base: Settings, pictures: list[bytes], picture_count: int, round_count: int, report_progress: ReportProgress
) -> InstrumentationCost:
    """Measures `round_count` rounds on a temporary broker.

    In each round an inspector with metrics and an inspector without metrics judge `picture_count` pictures each.
    """
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = make_bench_settings(base, folder)
        with_metrics = RoleProcess.of_settings(settings, folder)
        without_metrics = RoleProcess.of_settings(settings, folder, _CASTLINE_WITHOUT_METRICS)
        rounds: list[dict[str, float]] = []
        with run_broker(settings):
            create_bench_topics(settings)
            feed = PictureFeed(settings, pictures)
            for number in range(1, round_count + 1):
                per_s: dict[bool, float] = {}
                # In one round the inspector with metrics is measured first, in the next round the inspector without metrics. So a change
                # of the machine's speed affects the two inspectors equally.
                for has_metrics in (True, False) if number % 2 else (False, True):
                    inspector = with_metrics if has_metrics else without_metrics
                    with _scrape(inspector) if has_metrics else nullcontext():
                        per_s[has_metrics] = measure_throughput(feed, picture_count, inspector)
                overhead = 1 - per_s[True] / per_s[False]
                rounds.append({"with_per_s": per_s[True], "without_per_s": per_s[False], "overhead": overhead})
                report_progress(
                    f"round {number} of {round_count}: {per_s[True]:.1f}/s with metrics, {per_s[False]:.1f}/s without, "
                    f"overhead {overhead:+.1%}"
                )
    medians = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
    return InstrumentationCost(medians["with_per_s"], medians["without_per_s"], medians["overhead"], rounds)


@contextmanager
def _scrape(inspector: RoleProcess) -> Iterator[None]:
    """Reads the metrics of `inspector` every five seconds during a `with` block, as Prometheus does."""
    stop_requested = threading.Event()

    def run() -> None:
        while not stop_requested.wait(_SCRAPE_INTERVAL_S):
            try:
                inspector.read_metrics()
            except (OSError, ValueError):
                # The error is ignored, because an inspector that starts or stops serves no metrics page.
                continue

    thread = threading.Thread(target=run, name="scraper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_requested.set()
        thread.join()


def silence_metrics() -> None:
    """Switches off the updates of all metrics of this process. Metrics can still be declared and served."""

    def do_nothing(*_: Any, **__: Any) -> None:
        return None

    def return_metric(metric: MetricWrapperBase, *_: Any, **__: Any) -> MetricWrapperBase:
        return metric

    def make_null_context(*_: Any, **__: Any) -> nullcontext[None]:
        return nullcontext()

    for metric_class in (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram):
        for name in ("inc", "dec", "set", "observe", "set_to_current_time", "remove", "clear"):
            if hasattr(metric_class, name):
                setattr(metric_class, name, do_nothing)
        for name in ("time", "track_inprogress"):
            if hasattr(metric_class, name):
                setattr(metric_class, name, make_null_context)
    MetricWrapperBase.labels = return_metric  # type: ignore[method-assign,assignment]
