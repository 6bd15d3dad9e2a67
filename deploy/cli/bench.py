"""The command `castline bench`: measures the speed and the cost of Castline on this machine."""

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
    from bench.protected_listeners import Protection

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
    """Yields the settings for a measurement.

    If `is_full_size` is False, yields `settings` unchanged. If `is_full_size` is True, the settings name a temporary model version. Its
    networks are untrained, and as large as in the papers on AlexNet and LeNet.
    """
    if not is_full_size:
        yield settings
        return
    from bench.full_size import write_full_size_version

    with tempfile.TemporaryDirectory(prefix="castline-bench-") as name:
        _report_progress("making a version with networks as large as in the papers on AlexNet and LeNet")
        model = settings.model.model_copy(update={"root": Path(name), "version": write_full_size_version(Path(name))})
        yield settings.model_copy(update={"model": model})


@click.group("bench")
def command() -> None:
    """Measure the speed and the cost of Castline on this machine. Run no other programs during a measurement."""
    # After SIGTERM, exit normally, so that the processes that this command has started are stopped too.
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
    help="Number of rounds. Each round measures the inspector and then the networks alone.",
)
@click.option("--pictures", default=6144, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures in a round.")
@click.option(
    "--latency-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(5, 3600),
    help="Length of the latency measurement, in seconds.",
)
@click.option(
    "--backlog",
    default=20_000,
    show_default=True,
    type=click.IntRange(1000, 1_000_000),
    help="Number of pictures that wait on Kafka during the memory measurement.",
)
@click.option(
    "--full-size",
    is_flag=True,
    help="Use untrained networks as large as in the papers on AlexNet and LeNet, instead of the version in the settings.",
)
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
    """Measure the speed, the latency and the memory of the inspector.

    The command compares the speed with the "bare model": a loop that only computes the same networks.

    Latency is the time from capture to verdict, while pictures come at half of the measured speed. p50 is the median, p99 the 99th
    percentile.

    The inspector uses the settings in the sections model, batch, inspector and pictures.
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
    help="Settings file for the old inspector, whose code is in OLD_CHECKOUT.",
)
@click.option(
    "--new-settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True),
    help="Settings file for the new inspector, whose code is in this checkout.",
)
@click.option(
    "--old-with",
    type=click.Choice(["scram", "tls", "signatures"]),
    multiple=True,
    help="Protection that the old inspector uses: SCRAM or TLS to Kafka, or signatures of its verdicts. You can repeat the option.",
)
@click.option(
    "--new-with",
    type=click.Choice(["scram", "tls", "signatures"]),
    multiple=True,
    help="Protection that the new inspector uses. To measure the cost of a protection, pass this checkout as OLD_CHECKOUT, so that both "
    "inspectors have the same code.",
)
@click.option(
    "--load",
    type=click.FloatRange(0.001, 0.95),
    help="Also measure latencies at a lower rate of pictures. Example: with 0.05, pictures come at 5 % of the throughput of the first run.",
)
@click.option(
    "--pairs",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of pairs of runs, one of the old and one of the new inspector. A 95 % interval needs at least 6 pairs.",
)
@click.option(
    "--pictures",
    default=2048,
    show_default=True,
    type=click.IntRange(64, 1_000_000),
    help="Number of pictures in each run of an inspector.",
)
@_JSON_OPTION
@click.pass_context
def compare(
    context: click.Context,
    old_checkout: Path,
    old_settings: Path | None,
    new_settings: Path | None,
    old_with: tuple[Protection, ...],
    new_with: tuple[Protection, ...],
    load: float | None,
    pairs: int,
    pictures: int,
    as_json: bool,
) -> int:
    """Compare the speed of the new inspector, from this checkout, with the old inspector, from OLD_CHECKOUT.

    Call `make setup` in OLD_CHECKOUT first. The two inspectors judge the same pictures in turn, each time in a new process. The command
    prints the processor time per picture and the throughput of each inspector. It also prints the ratio NEW / OLD of these figures, with
    a 95 % interval. For example, a throughput ratio of 1.2 means that the new inspector is 20 % faster.

    To compare two settings files, name the files with --old-settings and --new-settings, and pass this checkout as OLD_CHECKOUT.
    An inspector without such an option uses the file of `castline --settings`, or the default settings of its checkout.

    The options --old-with and --new-with switch on protections: SCRAM, TLS or signatures. Without these options, nothing is protected. With
    `signatures`, an inspector signs its verdicts, but does not check the signatures of other records.

    Both inspectors use the model versions of the old checkout, so that only the code differs. To compare versions, set `model.root` and
    `model.version` in the settings files.

    The exit status is 1 if the new inspector is slower: its median processor time is more than 3 % higher, or the 95 % interval of its
    throughput ratio is below 1.
    """
    from bench.compare import InspectorCheckout, compare_checkouts, describe_comparison

    common_settings = context.find_root().obj
    common_settings = common_settings.resolve() if common_settings else None
    old = InspectorCheckout("old", old_checkout, old_settings or common_settings, frozenset(old_with))
    new = InspectorCheckout("new", _ROOT, new_settings or common_settings, frozenset(new_with))
    comparison = compare_checkouts(old, new, pairs, pictures, load, _report_progress)
    if as_json:
        _print_json(comparison.as_json())
    else:
        for line in describe_comparison(comparison):
            click.echo(line)
    return int(not comparison.is_no_slower or comparison.does_throughput_reach_old is False)


@command.command("instrumentation")
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(1, 50),
    help="Number of rounds. Each round has one run with metrics and one run without metrics.",
)
@click.option("--pictures", default=2048, show_default=True, type=click.IntRange(256, 1_000_000), help="Pictures in a run.")
@_JSON_OPTION
@click.pass_context
def instrumentation(context: click.Context, rounds: int, pictures: int, as_json: bool) -> None:
    """Measure how much the metrics slow down the inspector.

    The command compares an inspector without metrics with an inspector whose metrics are read every 5 s.
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
    help="Folder of a version, or name of a version that comes with Castline. `full` means untrained networks as large as in the "
    "papers on AlexNet and LeNet.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Folder of labelled pictures. All runtimes must give the same labels for these pictures. Without the option, the few dozen "
    "pictures inside the version are used.",
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.05, 600),
    help="Length of each measurement, in seconds. A measurement is one runtime with one batch size.",
)
@click.option(
    "--pictures",
    default=512,
    show_default=True,
    type=click.IntRange(1),
    help="Largest number of pictures whose labels are compared. If --data has more pictures, this many are drawn at random.",
)
@_JSON_OPTION
def runtimes(model: str, data: tuple[Path, ...], seconds: float, pictures: int, as_json: bool) -> None:
    """Compare the speed of all installed runtimes with model.predict of Keras, in batches of 1, 8 and 32 pictures.

    A runtime is a library that computes the networks, such as OpenVINO. The command names the fastest runtime that gives the same labels as
    TensorFlow in float32.
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
        click.echo(f"{name:16} is not allowed to judge: {reason}")
    for name, reason in comparison.left_out.items():
        click.echo(f"{name:16} not measured: {reason}")
    click.echo(
        f"chosen: {comparison.chosen}, {comparison.ratio_to_predict} times model.predict; labels compared on {comparison.labelled} pictures"
    )


@command.command("history")
@click.option(
    "--rows",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(1000, 20_000_000),
    help="Number of parts in the database.",
)
@click.option("--requests", default=20, show_default=True, type=click.IntRange(1, 1000), help="Number of requests for each kind of search.")
@click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False),
    help="SQLite file for the parts. The file is kept and used by the next call. The default is a temporary file.",
)
@_JSON_OPTION
def history(rows: int, requests: int, database: Path | None, as_json: bool) -> int:
    """Measure how long a history page takes if the database holds many parts. The database needs about 800 bytes for each part.

    The exit code is 1 if the 95th percentile of the times is 300 ms or more.
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
    "--rounds",
    default=16,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of rounds without browsers. The same number of rounds with browsers follows. The browsers show the wall, the live page of "
    "all lines.",
)
@click.option(
    "--seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(2, 600),
    help="Length of a round, in seconds. Give at least 10, because a busy machine updates the live page only every ten seconds.",
)
@click.option(
    "--browsers",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of browsers that show the wall, the live page of all lines.",
)
@_JSON_OPTION
@click.pass_context
def wall(context: click.Context, rounds: int, seconds: float, browsers: int, as_json: bool) -> None:
    """Measure how much processor time the station's wall takes while an inspector is busy. The wall is the live page of all lines.

    The result is a percentage of the processor time of the whole machine. It includes the time of the station and the additional time of
    the broker, but not the time of the browsers.
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


@command.command("verdicts")
@click.option(
    "--rate", default=10.0, show_default=True, type=click.FloatRange(0.4, 40), help="Castings a second on all four lanes together."
)
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(5, 3600), help="Length of the measurement, in seconds.")
@click.option(
    "--python-board",
    is_flag=True,
    help="Use the simulated board in Python. Without the option, the board's firmware runs in an AVR simulator.",
)
@_JSON_OPTION
def verdicts(rate: float, seconds: float, python_board: bool, as_json: bool) -> None:
    """Measure how long a verdict takes from Kafka to the board.

    The time begins when the verdict's record is sent to Kafka. It ends when the board's acknowledgement arrives at the sorter.

    The command starts a broker, a sorter and a simulated board with four lanes. It also shows the time of each step: from Kafka to the
    sorter, to the serial port, and over the serial line to the board and back. The simulated board takes processor time, so the last step
    takes longer than with a real board.
    """
    from bench.verdict_path import STEPS, measure_verdict_path

    times = measure_verdict_path(rate, seconds, not python_board, _report_progress)
    if as_json:
        _print_json(times.as_json())
        return
    click.echo(
        f"verdict to board at {times.per_s:g} castings a second, {times.verdicts} verdicts: p50 {times.p50_ms:.1f} ms, "
        f"p99 {times.p99_ms:.1f} ms, longest {times.longest_ms:.1f} ms, {times.late} too late for the board"
    )
    for name, step in times.steps.items():
        click.echo(f"  {STEPS[name]:22} p50 {step.p50_ms:4.1f} ms, p99 {step.p99_ms:4.1f} ms")


@command.command("restart")
@click.option(
    "--starts",
    default=2,
    show_default=True,
    type=click.IntRange(0, 100),
    help="Number of starts of the plant. The first start uses an empty data folder.",
)
@click.option("--kills", default=5, show_default=True, type=click.IntRange(0, 100), help="Number of times that the inspector is killed.")
@click.option(
    "--broker-kills", default=2, show_default=True, type=click.IntRange(0, 100), help="Number of times that the broker is killed."
)
@click.option("--rate", default=10.0, show_default=True, type=click.FloatRange(2, 100), help="Pictures a second.")
@_JSON_OPTION
@click.pass_context
def restart(context: click.Context, starts: int, kills: int, broker_kills: int, rate: float, as_json: bool) -> None:
    """Measure how long the verdicts stop when the inspector or the broker is killed, and when the first verdict comes after a start.

    The command starts a whole plant with one line ("castline up"), and measures the time to the first verdict. Then it kills the inspector
    and the broker with signal 9, and measures how long no verdict comes.

    The command shows how long each step of the start takes. The inspector uses the settings in the sections model, batch, inspector and
    pictures.
    """
    from bench.picture_feed import load_pictures
    from bench.restart import measure_restarts

    settings = load_settings(context.find_root().obj)
    result = measure_restarts(settings, load_pictures(None, 64), starts, kills, broker_kills, rate, _report_progress)
    if as_json:
        _print_json(result.as_json())
        return
    for line in result.describe():
        click.echo(line)


@command.command("gateway")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder on the disk to measure. Without the option, the folder for temporary files is used.",
)
@click.option(
    "--pairs",
    default=10,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of pairs of rounds. In one round of a pair, the gateway forces each picture to the disk. In the other round, it does not.",
)
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.1, 600), help="Length of a round, in seconds.")
@click.option(
    "--connections", default=8, show_default=True, type=click.IntRange(1, 64), help="Number of cameras that upload at the same time."
)
@click.option("--bytes", "picture_bytes", default=30_000, show_default=True, type=click.IntRange(100, 10**7), help="Size of a picture.")
@_JSON_OPTION
def gateway(folder: Path | None, pairs: int, seconds: float, connections: int, picture_bytes: int, as_json: bool) -> None:
    """Measure the gateway alone, with and without a flush, which forces each picture to the disk.

    Rounds with the flush and rounds without it alternate. Each round uploads pictures over HTTP and waits for their receipts. In normal
    operation, the gateway always flushes, because a power cut must not lose a confirmed picture.
    """
    from dataclasses import asdict

    from bench.gateway_flush import compare_flush

    result = compare_flush(folder, pairs, seconds, connections, picture_bytes, _report_progress)
    if as_json:
        _print_json(asdict(result))
        return
    for name, figures in (("with flush", result.with_flush), ("without flush", result.without_flush)):
        click.echo(f"{name:14} {figures.pictures_per_s:7.1f} pictures a second, p99 {figures.p99_ms:6.1f} ms")
    click.echo(f"with the flush, the gateway takes {result.ratio:.2f} times as many pictures as without (median of {result.pairs} pairs)")


@command.command("decoding")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of JPEG or PNG files to decode. Without the option, castings are rendered.",
)
@click.option("--pictures", default=300, show_default=True, type=click.IntRange(1, 100_000), help="Largest number of files.")
@_JSON_OPTION
def decoding(data: Path | None, pictures: int, as_json: bool) -> None:
    """Measure the time for decoding one picture, in a thread and in a separate process.

    Castline decodes the pictures of cameras in a thread, and uploaded pictures in a separate process.
    """
    from dataclasses import asdict

    from bench.decoding import measure_decoding

    results = measure_decoding(data, pictures)
    if as_json:
        _print_json([asdict(result) for result in results])
        return
    for result in results:
        click.echo(
            f"{result.form}: {result.pictures} pictures of {result.mean_bytes} bytes; {result.thread_us:.0f} µs of processor time in a "
            f"thread, {result.process_us:.0f} µs from request to answer in the decoder process"
        )


@command.command("localiser")
@click.option(
    "--pairs",
    default=8,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of pairs of measurements: one with and one without the localiser.",
)
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(2, 20), help="Length of a measurement, in seconds.")
@click.option(
    "--findings-seconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(2, 600),
    help="For how many seconds the localiser is measured alone, without an inspector.",
)
@_JSON_OPTION
@click.pass_context
def localiser(context: click.Context, pairs: int, seconds: float, findings_seconds: float, as_json: bool) -> None:
    """Measure how many heat maps the localiser makes, and how much it slows down a busy inspector.

    The command compares the inspector's speed with and without a running localiser.

    The inspector and the localiser use the settings in the sections model, batch, inspector and pictures.
    """
    from bench.localiser import measure_localiser
    from bench.picture_feed import load_pictures

    settings = load_settings(context.find_root().obj)
    result = measure_localiser(settings, load_pictures(None, 256), pairs, seconds, findings_seconds, _report_progress)
    if as_json:
        _print_json(result.as_json())
        return
    click.echo(
        f"inspector with localiser {result.with_per_s:.1f}/s, without {result.without_per_s:.1f}/s, median ratio "
        f"{_format_ratio(result.ratio.median, result.ratio.interval)}"
    )
    processor_ratio = _format_ratio(result.processor_ratio.median, result.processor_ratio.interval)
    click.echo(f"inspector's processor time for one picture, with localiser divided by without: {processor_ratio}")
    click.echo(
        f"heat maps beside the inspector {result.findings_beside_per_s:.1f}/s, alone {result.findings_alone_per_s:.1f}/s; "
        f"processor time for one heat map {result.processor_ms_per_finding:.0f} ms; the localiser used {result.localiser_processors:.3f} "
        "processors beside the inspector"
    )


def _format_ratio(median: float, interval: tuple[float, float] | None) -> str:
    return f"{median:.3f}, 95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else f"{median:.3f}"


@command.command("part-finder")
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of JPEG or PNG files of good parts. Without the option, castings are rendered.",
)
@click.option("--pictures", default=200, show_default=True, type=click.IntRange(8, 100_000), help="Largest number of files.")
@_JSON_OPTION
def part_finder(data: Path | None, pictures: int, as_json: bool) -> None:
    """Measure how long it takes to find the part in a picture and to check whether the whole part is shown.

    The pictures are scaled to 160 x 160 px.
    """
    from dataclasses import asdict

    from bench.part_finder import measure_part_finder

    result = measure_part_finder(data, pictures)
    if as_json:
        _print_json(asdict(result))
        return
    click.echo(
        f"{result.pictures} pictures, a part found in {result.found}, {result.accepted} accepted; processor time for a picture: "
        f"{result.decode_us:.0f} µs for decoding, {result.find_us:.0f} µs for finding the part, {result.check_us:.0f} µs for finding and "
        f"checking it, {result.empty_us:.0f} µs for checking a picture of noise"
    )
