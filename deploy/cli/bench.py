"""The command `castline bench`: measurements of speed and cost on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from streams.settings import Settings, load_settings

_ROOT = Path(__file__).resolve().parents[2]
_JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output. Progress goes to standard error."
)


def _report_progress(line: str) -> None:
    click.echo(line, err=True)


def _print_json(content: object) -> None:
    click.echo(json.dumps(content, indent=2))


@contextmanager
def _use_model(settings: Settings, is_full_size: bool) -> Iterator[Settings]:
    """Yields `settings`, or for `is_full_size` a copy of them with an untrained version of the papers' size, deleted after the block."""
    if not is_full_size:
        yield settings
        return
    from bench.full_size import write_full_size_version

    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        _report_progress("making a version of the papers' size")
        model = settings.model.model_copy(update={"root": Path(name), "version": write_full_size_version(Path(name))})
        yield settings.model_copy(update={"model": model})


@click.group("bench")
def command() -> None:
    """Measure speed and cost on this machine. Run nothing else meanwhile."""
    # Without a handler SIGTERM would end this process without stopping the processes that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@command.command("pipeline")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the pictures to use. Without the option, castings are rendered.",
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Rounds, each of which measures the pipeline and then the bare model.",
)
@click.option("--pictures", default=6144, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures in a round.")
@click.option(
    "--latency-seconds", default=30.0, show_default=True, type=click.FloatRange(5, 3600), help="Length of the latency measurement."
)
@click.option(
    "--backlog",
    default=20_000,
    show_default=True,
    type=click.IntRange(1000, 1_000_000),
    help="Pictures that wait in the memory measurement.",
)
@click.option("--full-size", is_flag=True, help="Use untrained networks of the papers' size instead of the version in the settings.")
@_JSON_OPTION
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
    """Measure the whole inspector against the bare model.

    Prints the pictures a second of both and their ratio, p50 and p99 of the time from capture to verdict at half that load, and the
    resident memory under a backlog. The sections model, batch, inspector and pictures of the settings are used.
    """
    from bench.picture_feed import load_pictures
    from bench.pipeline import PipelineBenchPlan, measure_pipeline

    settings = load_settings(context.find_root().obj)
    plan = PipelineBenchPlan(pictures=pictures, rounds=rounds, latency_s=latency_seconds, backlog=backlog)
    with _use_model(settings, full_size) as bench_settings:
        result = measure_pipeline(bench_settings, load_pictures(images, 256), plan, _report_progress)
    if as_json:
        _print_json(result.as_json())
        return
    click.echo(f"pipeline {result.pipeline_per_s:.1f}/s, bare model {result.bare_per_s:.1f}/s, ratio {result.ratio:.3f}")
    click.echo(f"capture to verdict at {result.latency_load_per_s:.0f}/s: p50 {result.p50_ms:.0f} ms, p99 {result.p99_ms:.0f} ms")
    click.echo(
        f"resident memory with a backlog of {plan.backlog}: {result.rss_start_mb:.0f} MB at the start, {result.rss_mb:.0f} MB at most"
    )


@command.command("compare")
@click.argument("old_checkout", type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))
@click.option(
    "--old-settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    help="Settings file for the inspector of OLD_CHECKOUT.",
)
@click.option(
    "--new-settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    help="Settings file for the inspector of this checkout.",
)
@click.option(
    "--load",
    type=click.FloatRange(0.001, 0.95),
    help="Measure latencies, too, at this share of the measured throughput, for example 0.05.",
)
@click.option(
    "--pairs",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Pairs of turns, each with one turn of the old and one of the new inspector. Below 6 there is no 95 % interval.",
)
@click.option(
    "--pictures", default=2048, show_default=True, type=click.IntRange(64, 1_000_000), help="Pictures that are measured in a turn."
)
@_JSON_OPTION
@click.pass_context
def compare(
    context: click.Context,
    old_checkout: Path,
    old_settings: Path | None,
    new_settings: Path | None,
    load: float | None,
    pairs: int,
    pictures: int,
    as_json: bool,
) -> int:
    """Compare the speed of this checkout's inspector with the inspector of OLD_CHECKOUT.

    Both run in turns: old, new, then new, old, and so on, each time as a fresh process with the same pictures. OLD_CHECKOUT must
    have a .venv of its own, made by `make setup` there. To compare two settings files, pass this checkout as OLD_CHECKOUT.

    Prints the processor time a picture and the pictures a second of both, and the ratios new to old: the median of the pairs with its
    95 % interval. The new inspector is no slower if the median ratio of the processor times is at most 1.03. The interval of the
    throughput ratio should reach 1. With --load, p50 and p99 of the time from capture to verdict are printed, too.

    The sections model, batch, inspector and pictures of a settings file are used. Without --old-settings or --new-settings the file of
    `castline --settings` is used, and without that the defaults of each checkout. Relative paths count from the checkout's folder.

    Exit code 1 if the processor ratio is above 1.03 or the interval of the throughput ratio lies below 1.
    """
    from bench.compare import InspectorCheckout, compare_checkouts, describe_comparison

    common_settings = context.find_root().obj
    common_settings = common_settings.resolve() if common_settings else None
    old = InspectorCheckout("old", old_checkout, old_settings or common_settings)
    new = InspectorCheckout("new", _ROOT, new_settings or common_settings)
    comparison = compare_checkouts(old, new, pairs, pictures, load, _report_progress)
    if as_json:
        _print_json(comparison.as_json())
    else:
        for line in describe_comparison(comparison):
            click.echo(line)
    return int(not comparison.is_no_slower or comparison.does_throughput_reach_old is False)


@command.command("instrumentation")
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Rounds, each with one run with metrics and one without."
)
@click.option("--pictures", default=2048, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures in a run.")
@_JSON_OPTION
@click.pass_context
def instrumentation(context: click.Context, rounds: int, pictures: int, as_json: bool) -> None:
    """Measure how much throughput the metrics cost the inspector.

    Compares the pictures a second of an inspector whose metrics are scraped every 5 s with those of an inspector whose metrics do nothing.
    """
    from bench.instrumentation import measure_instrumentation
    from bench.picture_feed import load_pictures

    settings = load_settings(context.find_root().obj)
    cost = measure_instrumentation(settings, load_pictures(None, 256), pictures, rounds, _report_progress)
    if as_json:
        _print_json(cost.as_json())
        return
    click.echo(f"{cost.with_per_s:.1f}/s with metrics, {cost.without_per_s:.1f}/s without, overhead {cost.overhead:+.1%}")


@command.command("runtimes")
@click.option(
    "--model",
    default="demo",
    show_default=True,
    help="Folder of a version, the name of a version that the project ships, or `full` for an untrained version of the papers' size.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of labelled pictures on which labels are compared. Without the option, the golden set is used.",
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05, 600),
    help="Time for which each runtime is measured at each batch size.",
)
@click.option(
    "--pictures",
    default=512,
    show_default=True,
    type=click.IntRange(1),
    help="Most pictures of --data on which labels are compared. They are drawn at random.",
)
@_JSON_OPTION
def runtimes(model: str, data: tuple[Path, ...], seconds: float, pictures: int, as_json: bool) -> None:
    """Compare every installed runtime of the networks with plain model.predict.

    Measures batches of 1, 8 and 32 pictures in turns, and chooses the fastest runtime that changes no label. The model `full` has
    AlexNet at 224 px with two dense layers of 4096 units, and LeNet.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from bench.runtimes import compare_runtimes, find_version

    with find_version(model) as version:
        comparison = compare_runtimes(version, data, seconds, _report_progress, max_pictures=pictures)
    if as_json:
        _print_json(comparison.as_json())
        return
    for row in comparison.rows:
        labels = "same labels" if row.same_labels else f"{row.other_labels} of {comparison.labelled} labels differ"
        click.echo(f"{row.runtime:16} batch {row.batch:2}: {row.per_s:7.1f} a second, {labels}")
    for name, reason in comparison.refused.items():
        click.echo(f"{name:16} may not judge: {reason}")
    for name, reason in comparison.left_out.items():
        click.echo(f"{name:16} not measured: {reason}")
    click.echo(
        f"chosen: {comparison.chosen}, {comparison.ratio_to_predict} times model.predict; labels compared on {comparison.labelled} pictures"
    )


@command.command("history")
@click.option(
    "--rows", default=1_000_000, show_default=True, type=click.IntRange(1000, 20_000_000), help="Parts in the table of the history."
)
@click.option("--requests", default=20, show_default=True, type=click.IntRange(1, 1000), help="Requests of each kind of search.")
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file to fill and to keep for the next call. Without the option, a temporary file is used.",
)
@_JSON_OPTION
def history(rows: int, requests: int, database: Path | None, as_json: bool) -> int:
    """Measure the pages of the history with a large table, by what is searched for.

    Generates the parts in an SQLite database (about 800 bytes each), then requests pages through the station's own view. Exit code 1
    if the 95th percentile of all pages is not below 300 ms.
    """
    from bench.history import measure_pages, prepare_database

    with tempfile.TemporaryDirectory(prefix="castline-bench-") as folder:
        prepare_database(database or Path(folder) / "history.sqlite3", rows, _report_progress)
        result = measure_pages(rows, requests, _report_progress)
    if as_json:
        _print_json(result)
    else:
        for row in result["questions"]:
            times = f"{row['p50_ms']:8.1f} {row['p95_ms']:8.1f} {row['longest_ms']:8.1f} ms"
            click.echo(f"{row['question']:45} {times}, {row['cpu_p95_ms']:.1f} ms of processor")
        click.echo(f"{rows:,} parts, {result['pages']} pages: p50 {result['p50_ms']:.1f} ms, p95 {result['p95_ms']:.1f} ms")
    return int(result["p95_ms"] >= result["allowed_ms"])


@command.command("wall")
@click.option(
    "--rounds", default=16, show_default=True, type=click.IntRange(1, 1000), help="Rounds without the wall, and as many with the wall."
)
@click.option(
    "--seconds", default=20.0, show_default=True, type=click.FloatRange(2, 600), help="Length of a round. Cards change every ten seconds."
)
@click.option("--browsers", default=2, show_default=True, type=click.IntRange(1, 64), help="Browsers that show the wall.")
@_JSON_OPTION
@click.pass_context
def wall(context: click.Context, rounds: int, seconds: float, browsers: int, as_json: bool) -> None:
    """Measure the processor time that the live wall takes while an inspector works through a backlog.

    What the wall takes is the processor time of the station and the additional processor time of the broker, as a share of all
    processors. Throughput is not measured, because it moves by a tenth on a shared machine, whereas processor times are known to a
    tenth of a per cent. The browsers' processor time is shown but not counted, because they would run on other computers.
    """
    from bench.picture_feed import load_pictures
    from bench.wall import measure_wall

    settings = load_settings(context.find_root().obj)
    cost = measure_wall(settings, load_pictures(None, 256), seconds, rounds, browsers, _report_progress)
    if as_json:
        _print_json(cost.as_json())
        return
    click.echo(
        f"the wall takes {cost.taken.share:.1%} ± {cost.taken.within:.1%} (95 %) of {cost.processors} processors: "
        f"station {cost.station:.3f}, broker {cost.broker_with:.3f} with and {cost.broker_without:.3f} without the wall"
    )
    click.echo(
        f"{cost.browser_count} browsers took {cost.browsers:.3f} processors, which do not count; "
        f"each was shown {cost.pictures_per_browser} pictures"
    )
