"""`castline bench`: measurements, always as ratios of one run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from streams.settings import load_settings


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
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
@click.pass_context
def pipeline(
    context: click.Context, images: Path | None, rounds: int, pictures: int, latency_seconds: float, backlog: int, as_json: bool
) -> None:
    """The whole inspector against the bare model: pictures a second and their ratio, capture-to-verdict p50 and p99 at half
    that load, resident memory under a backlog. Uses the sections model, batch and inspector of the settings.
    """
    from bench.pictures import bench_pictures
    from bench.pipeline import Plan, run_pipeline_bench

    settings = load_settings(context.find_root().obj)
    plan = Plan(pictures=pictures, rounds=rounds, latency_s=latency_seconds, backlog=backlog)
    figures = run_pipeline_bench(settings, bench_pictures(images, 256), plan, lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(figures.as_json(), indent=2))
        return
    click.echo(f"pipeline {figures.pipeline_per_s:.1f}/s, bare model {figures.bare_per_s:.1f}/s, ratio {figures.ratio:.3f}")
    click.echo(f"capture to verdict at {figures.latency_load_per_s:.0f}/s: p50 {figures.p50_ms:.0f} ms, p99 {figures.p99_ms:.0f} ms")
    click.echo(
        f"resident memory with a backlog of {plan.backlog}: {figures.rss_start_mb:.0f} MB at its start, at most {figures.rss_mb:.0f} MB"
    )
