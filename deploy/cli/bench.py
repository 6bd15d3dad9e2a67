"""`castline bench`: measurements, always as ratios of one run."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from bench.wall import Figure


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: what was started is stopped


@command.command("pipeline")
@click.option(
    "--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Pictures to use; rendered ones where absent."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 50), help="Rounds of pipeline against bare model.")
@click.option("--pictures", default=6144, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures of a round.")
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


@command.command("runtimes")
@click.option("--model", default="demo", show_default=True, help="Folder of a version, the name of one that the project ships, or `full`.")
@click.option(
    "--data", type=click.Path(path_type=Path), multiple=True, help="Labelled pictures to compare labels on; the golden set where absent."
)
@click.option(
    "--seconds", default=2.0, show_default=True, type=click.FloatRange(0.05, 600), help="Time of each runtime at each batch size."
)
@click.option(
    "--pictures", default=512, show_default=True, type=click.IntRange(1), help="Most pictures of --data to compare on, drawn by chance."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
def runtimes(model: str, data: tuple[Path, ...], seconds: float, pictures: int, as_json: bool) -> None:
    """Every installed runtime of the networks against plain model.predict, at batches of 1, 8 and 32 pictures, in turns of one run.

    The one chosen is the fastest that turns no label. `full` is an untrained version of the papers' size (AlexNet at 224 px with two
    layers of 4096, and LeNet), made on the spot.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from bench.runtimes import compare_runtimes, opened_model

    with opened_model(model) as version:
        found = compare_runtimes(version, data, seconds, lambda line: click.echo(line, err=True), most=pictures)
    if as_json:
        click.echo(json.dumps(found.plain(), indent=2))
        return
    for row in found.rows:
        labels = "same labels" if row.same_labels else f"{row.other_labels} of {found.labelled} labels differ"
        click.echo(f"{row.runtime:16} batch {row.batch:2}: {row.per_s:7.1f} a second, {labels}")
    for name, why in found.refused.items():
        click.echo(f"{name:16} may not serve: {why}")
    for name, why in found.left_out.items():
        click.echo(f"{name:16} left out: {why}")
    click.echo(f"chosen: {found.chosen}, {found.ratio_to_predict} times model.predict; labels compared on {found.labelled} pictures")


@command.command("history")
@click.option("--rows", default=1_000_000, show_default=True, type=click.IntRange(1000, 20_000_000), help="Parts in the table.")
@click.option("--requests", default=20, show_default=True, type=click.IntRange(1, 1000), help="Requests of each question.")
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file to fill, kept for the next call; else one that is gone.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
def history(rows: int, requests: int, database: Path | None, as_json: bool) -> int:
    """Times of the history's pages with a large table, by what is looked for.

    Makes the parts in an SQLite database (about 800 bytes each), then asks for pages through the real view. Exit status 1
    when the 95th percentile of all pages is not below 300 ms.
    """
    from bench.history import measure, prepare

    with tempfile.TemporaryDirectory(prefix="castline-bench-") as folder:
        prepare(database or Path(folder) / "history.sqlite3", rows, _say)
        found = measure(rows, requests, _say)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for one in found["questions"]:
            times = f"{one['p50_ms']:8.1f} {one['p95_ms']:8.1f} {one['longest_ms']:8.1f} ms"
            click.echo(f"{one['question']:45} {times}, {one['cpu_p95_ms']:.1f} ms of processor")
        click.echo(f"{rows:,} parts, {found['pages']} pages: p50 {found['p50_ms']:.1f} ms, p95 {found['p95_ms']:.1f} ms")
    return int(found["p95_ms"] >= found["allowed_ms"])


@command.command("wall")
@click.option("--rounds", default=16, show_default=True, type=click.IntRange(1, 1000), help="Rounds of two turns, with and without.")
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(2, 600), help="What counts of a turn; cards come every ten."
)
@click.option("--browsers", default=2, show_default=True, type=click.IntRange(1, 64), help="Browsers on the wall.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output; progress goes to standard error.")
@click.pass_context
def wall(context: click.Context, rounds: int, seconds: float, browsers: int, as_json: bool) -> None:
    """What people at the wall cost: the inspector's pictures a second with a station and browsers on its wall, against none.

    An inspector judges a backlog while station and browsers run and stand still in turns. The cost is the share of the processors that the
    station and the broker's extra work take, and what the inspector judges less in its own processor time: both move less from turn to
    turn than the throughput does. The browsers' processor time is told and not counted: they would run on other computers.
    """
    from bench.pictures import bench_pictures
    from bench.wall import in_words, run_wall_bench

    settings = load_settings(context.find_root().obj)
    cost = run_wall_bench(settings, bench_pictures(None, 256), seconds, rounds, browsers, _say)
    if as_json:
        click.echo(json.dumps(cost.as_json(), indent=2))
        return
    click.echo(f"mean of {rounds} rounds, {browsers} browsers, {cost.processors} processors: {in_words(cost.mean)}")
    click.echo(
        f"the wall takes {_share(cost.cost)} of the throughput (95 %): {_share(cost.taken)} of the processors, and the inspector is "
        f"{_share(cost.slower)} slower beside it; from the throughputs alone: {_share(cost.direct)}; "
        f"each browser was shown {cost.pictures_per_browser} pictures"
    )


def _share(figure: Figure) -> str:
    return f"{figure.share:.1%} ± {figure.within:.1%}"
