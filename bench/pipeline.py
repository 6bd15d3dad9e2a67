"""The whole inspector against the bare model: throughput as a ratio, latency at half load, memory under a backlog.

Throughput is measured in rounds that alternate: a backlog of pictures judged by a `castline inspector` process (from the first
verdict's time on Kafka to the last one's), then the same batches by the same ensemble in a bare loop in this process. Both have the
machine to themselves while they are measured.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from bench.feed import Feed, piped_per_s, tail
from bench.worker import InspectorProcess, bench_settings, running_broker
from models.inference.ensemble import Ensemble, open_ensemble
from models.pictures.decoder import decode_picture
from models.registry import open_registry
from streams.records import Verdict
from streams.settings import Settings

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured: `pictures` a round, `rounds`, seconds of the latency run, pictures of the backlog.

    A worker's first two seconds are some 8 % slower than the later ones: a round is long enough for them to weigh little.
    """

    pictures: int = 6144
    rounds: int = 3
    latency_s: float = 30.0
    backlog: int = 20_000
    lines: int = 3


@dataclass(frozen=True)
class Figures:
    """The result; `settings` are those used."""

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
        return asdict(self)


def run_pipeline_bench(base: Settings, pictures: list[bytes], plan: Plan, say: Say) -> Figures:
    """Measures with the model, batch and inspector settings of `base`, on a broker of its own."""
    with tempfile.TemporaryDirectory(prefix="castline-bench-") as folder:
        settings = bench_settings(base, Path(folder), plan.lines)
        version = open_registry(settings.model.root).open_version(settings.model.version)
        ensemble = open_ensemble(version, settings.model.runtime, settings.batch.shapes, settings.model.threads)
        with running_broker(settings):
            feed = Feed(settings, pictures)
            rounds = []
            for number in range(1, plan.rounds + 1):
                piped = piped_per_s(feed, plan.pictures, InspectorProcess(settings, Path(folder)))
                bare = _bare_round(ensemble, pictures, settings.batch.size, plan.pictures)
                rounds.append({"pipeline_per_s": piped, "bare_per_s": bare, "ratio": piped / bare})
                say(f"round {number} of {plan.rounds}: pipeline {piped:.1f}/s, bare {bare:.1f}/s, ratio {piped / bare:.3f}")
            load_per_s = statistics.median(one["pipeline_per_s"] for one in rounds) / 2
            with InspectorProcess(settings, Path(folder)):
                ages_ms = _latency(settings, feed, load_per_s, plan.latency_s)
            p50_ms, p99_ms = (float(value) for value in np.percentile(ages_ms, (50, 99)))
            say(f"at {load_per_s:.0f}/s for {plan.latency_s:.0f} s: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms")
            start_mb, most_mb = _backlog(settings, feed, plan, Path(folder))
            say(f"backlog of {plan.backlog}: {start_mb:.0f} MB at its start, at most {most_mb:.0f} MB")
    return Figures(
        pipeline_per_s=statistics.median(one["pipeline_per_s"] for one in rounds),
        bare_per_s=statistics.median(one["bare_per_s"] for one in rounds),
        ratio=statistics.median(one["ratio"] for one in rounds),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        rss_mb=most_mb,
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


def _bare_round(ensemble: Ensemble, pictures: list[bytes], size: int, count: int) -> float:
    """Pictures a second of the ensemble alone, in batches of `size` decoded beforehand."""
    decoded = np.stack([decode_picture(picture, ensemble.side_px).pixels for picture in islice(cycle(pictures), max(size, len(pictures)))])
    starts = cycle(range(0, len(decoded) - size + 1, size))
    begun_s = time.perf_counter()
    for start in islice(starts, count // size):
        ensemble.predict(decoded[start : start + size])
    return (count // size) * size / (time.perf_counter() - begun_s)


def _latency(settings: Settings, feed: Feed, rate_per_s: float, seconds: float) -> list[float]:
    """Milliseconds from `captured_at` to the verdict's arrival at a consumer, for every picture after the first second."""
    count = int(rate_per_s * seconds)
    verdicts = tail(settings)
    sending = threading.Thread(target=feed.send, args=(count, rate_per_s))
    sending.start()
    ages: list[tuple[datetime, float]] = []
    while len(ages) < count:
        for records in verdicts.poll(200).values():
            arrived = datetime.now(UTC)
            for record in records:
                captured_at = Verdict.decode(record.value).captured_at
                ages.append((captured_at, (arrived - captured_at).total_seconds() * 1000))
    sending.join()
    verdicts.close()
    begun = min(captured_at for captured_at, _ in ages)
    return [age_ms for captured_at, age_ms in ages if (captured_at - begun).total_seconds() > 1]


def _backlog(settings: Settings, feed: Feed, plan: Plan, folder: Path, watched_s: float = 40.0) -> tuple[float, float]:
    """Resident memory when the worker meets a backlog, and its largest over `watched_s` of work on it, MB."""
    feed.send(plan.backlog)
    with InspectorProcess(settings, folder) as inspector:
        start_mb = most_mb = inspector.rss_mb()
        until = time.monotonic() + watched_s
        while time.monotonic() < until:
            most_mb = max(most_mb, inspector.rss_mb())
            time.sleep(0.25)
    return start_mb, most_mb
