"""`castline bench`: measurements, always as ratios of one run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from streams.settings import Settings, load_settings


def _say(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _model(settings: Settings, full_size: bool) -> Iterator[Settings]:
    """`settings`, or the same with an untrained version of the papers' size that is gone after the block."""
    if not full_size:
        yield settings
        return
    from bench.full_size import make

    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        _say("making a version of the papers' size")
        model = settings.model.model_copy(update={"root": Path(name), "version": make(Path(name))})
        yield settings.model_copy(update={"model": model})


@click.group("bench")
def command() -> None:
    """Measure on this machine. Nothing else should run meanwhile."""


@command.command("pipeline")
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Pictures to use; rendered ones where absent."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 50), help="Rounds of pipeline against bare model.")
@click.option("--pictures", default=2048, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures of a round.")
@click.option("--latency-seconds", default=30.0, show_default=True, type=click.FloatRange(5, 3600), help="Length of the latency run.")
@click.option("--backlog", default=20_000, show_default=True, type=click.IntRange(1000, 1_000_000), help="Pictures of the memory run.")
@click.option("--full-size", is_flag=True, help="Networks of the papers' size, untrained, instead of the settings' version.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
@click.pass_context
def pipeline(
    context: click.Context,
    images: Path | None,
    rounds: int,
    pictures: int,
    latency_seconds: float,
    backlog: int,
    full_size: bool,
    as_json: bool,
) -> None:
    """The whole inspector against the bare model: pictures a second and their ratio, capture-to-verdict p50 and p99 at half
    that load, resident memory under a backlog. Uses the sections model, batch and inspector of the settings.
    """
    from bench.pictures import bench_pictures
    from bench.pipeline import Plan, run_pipeline_bench

    settings = load_settings(context.find_root().obj)
    plan = Plan(pictures=pictures, rounds=rounds, latency_s=latency_seconds, backlog=backlog)
    with _model(settings, full_size) as chosen:
        figures = run_pipeline_bench(chosen, bench_pictures(images, 256), plan, _say)
    if as_json:
        click.echo(json.dumps(figures.as_json(), indent=2))
        return
    click.echo(f"pipeline {figures.pipeline_per_s:.1f}/s, bare model {figures.bare_per_s:.1f}/s, ratio {figures.ratio:.3f}")
    click.echo(f"capture to verdict at {figures.latency_load_per_s:.0f}/s: p50 {figures.p50_ms:.0f} ms, p99 {figures.p99_ms:.0f} ms")
    click.echo(
        f"resident memory with a backlog of {plan.backlog}: {figures.rss_start_mb:.0f} MB at its start, at most {figures.rss_mb:.0f} MB"
    )


@command.command("instrumentation")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Rounds of with against without.")
@click.option("--pictures", default=2048, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures of a round.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
@click.pass_context
def instrumentation(context: click.Context, rounds: int, pictures: int, as_json: bool) -> None:
    """What the metrics cost: the inspector's pictures a second with them, scraped every 5 s, against every metric silenced."""
    from bench.instrumentation import run_instrumentation_bench
    from bench.pictures import bench_pictures

    cost = run_instrumentation_bench(load_settings(context.find_root().obj), bench_pictures(None, 256), pictures, rounds, _say)
    if as_json:
        click.echo(json.dumps(cost.as_json(), indent=2))
        return
    click.echo(f"with metrics {cost.with_per_s:.1f}/s, without {cost.without_per_s:.1f}/s, overhead {cost.overhead:+.1%}")
