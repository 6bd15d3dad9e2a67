"""Measures the throughput, the latency and the memory of an inspector.

The throughput is compared with the throughput of the inspector's networks alone. The latency is measured while
pictures come at half of the inspector's throughput.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.inspector_process import RoleProcess, create_bench_topics, make_bench_settings, run_broker
from bench.picture_feed import PictureFeed, measure_latencies_ms, measure_throughput
from models.inference.ensemble import Ensemble, open_ensemble
from models.pictures.decoder import decode_picture
from models.registry import open_plant_registry
from streams.settings import Settings

ReportProgress = Callable[[str], None]

_MEMORY_WATCH_S = 40.0


@dataclass(frozen=True)
class PipelineBenchPlan:
    """The size of a measurement.

    - `pictures`: pictures in a round. An inspector is about 8 % slower in its first two seconds, so a round must be long.
    - `latency_s`: length of the latency measurement.
    - `backlog`: number of waiting pictures at the start of the memory measurement.
    """

    pictures: int = 6144
    rounds: int = 3
    latency_s: float = 30.0
    backlog: int = 20_000
    lines: int = 3


@dataclass(frozen=True)
class PipelineBenchResult:
    """The result of a measurement: medians over the rounds, and the settings.

    `pipeline_per_s` is the speed of the inspector in pictures a second, and `bare_per_s` the speed of its networks alone. `p50_ms` and
    `p99_ms` are the median and the 99th percentile of the time from capture to verdict.
    """

    pipeline_per_s: float
    bare_per_s: float
    ratio: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    rss_start_mb: float
    latency_load_per_s: float
    rounds: list[dict[str, float]]
    settings: dict[str, object]

    def as_json(self) -> dict[str, object]:
        """Returns the result as values that JSON can hold."""
        return asdict(self)


def measure_pipeline(
    base: Settings, pictures: list[bytes], plan: PipelineBenchPlan, report_progress: ReportProgress
) -> PipelineBenchResult:
    """Measures an inspector on a temporary broker. The sections model, batch, inspector and pictures come from `base`."""
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        folder = Path(name)
        settings = make_bench_settings(base, folder, plan.lines)
        inspector = RoleProcess.of_settings(settings, folder)
        version = open_plant_registry(settings).open_version(settings.model.version)
        ensemble = open_ensemble(version, settings.model.runtime, settings.batch.shapes, settings.model.threads)
        with run_broker(settings):
            create_bench_topics(settings)
            feed = PictureFeed(settings, pictures)
            rounds = []
            for number in range(1, plan.rounds + 1):
                pipeline_per_s = measure_throughput(feed, plan.pictures, inspector)
                bare_per_s = _measure_bare_throughput(ensemble, pictures, settings.batch.size, plan.pictures)
                ratio = pipeline_per_s / bare_per_s
                rounds.append({"pipeline_per_s": pipeline_per_s, "bare_per_s": bare_per_s, "ratio": ratio})
                report_progress(
                    f"round {number} of {plan.rounds}: pipeline {pipeline_per_s:.1f}/s, bare model {bare_per_s:.1f}/s, ratio {ratio:.3f}"
                )
            load_per_s = statistics.median(figures["pipeline_per_s"] for figures in rounds) / 2
            with inspector:
                latencies_ms = measure_latencies_ms(feed, load_per_s, int(load_per_s * plan.latency_s))
            p50_ms, p99_ms = (float(quantile) for quantile in np.percentile(latencies_ms, (50, 99)))
            report_progress(f"at {load_per_s:.0f}/s for {plan.latency_s:.0f} s: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms")
            start_mb, max_mb = _measure_memory(feed, plan.backlog, inspector)
            report_progress(f"backlog of {plan.backlog}: {start_mb:.0f} MB at the start, {max_mb:.0f} MB at most")
    return PipelineBenchResult(
        pipeline_per_s=statistics.median(figures["pipeline_per_s"] for figures in rounds),
        bare_per_s=statistics.median(figures["bare_per_s"] for figures in rounds),
        ratio=statistics.median(figures["ratio"] for figures in rounds),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        rss_mb=max_mb,
        rss_start_mb=start_mb,
        latency_load_per_s=load_per_s,
        rounds=rounds,
        settings={
            "model": settings.model.version,
            "runtime": ensemble.runtime.name,
            "batch": settings.batch.model_dump(mode="json"),
            "inspector": settings.inspector.model_dump(mode="json"),
            "plan": asdict(plan),
        },
    )


def _measure_bare_throughput(ensemble: Ensemble, pictures: list[bytes], batch_size: int, picture_count: int) -> float:
    """Returns how many pictures a second `ensemble` judges without Kafka. The pictures are decoded before the measurement."""
    needed = max(batch_size, len(pictures))
    pixels = np.stack([decode_picture(picture, ensemble.side_px).pixels for picture in islice(cycle(pictures), needed)])
    starts = cycle(range(0, len(pixels) - batch_size + 1, batch_size))
    batch_count = picture_count // batch_size
    start_s = time.perf_counter()
    for start in islice(starts, batch_count):
        ensemble.predict(pixels[start : start + batch_size])
    return batch_count * batch_size / (time.perf_counter() - start_s)


def _measure_memory(feed: PictureFeed, backlog: int, inspector: RoleProcess) -> tuple[float, float]:
    """Starts `inspector` while `backlog` pictures wait. Returns its memory at the start and its largest memory, in MB."""
    feed.send(backlog)
    with inspector:
        start_mb = max_mb = inspector.read_resident_mb()
        deadline_s = time.monotonic() + _MEMORY_WATCH_S
        while time.monotonic() < deadline_s:
            max_mb = max(max_mb, inspector.read_resident_mb())
            time.sleep(0.25)
    return start_mb, max_mb
