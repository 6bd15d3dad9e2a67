"""The command `castline inspector`: one worker that turns pictures into verdicts."""

from __future__ import annotations

import asyncio
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli.role_start import start_role
from streams import metrics
from streams.compacted_topics import CompactedTopicFollower, FollowedTopic
from streams.errors import SettingsError
from streams.group_members import make_identity
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ModelChoices
from streams.settings import Settings
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, worker_process

if TYPE_CHECKING:
    from agents.inspector.judging import LineRules
    from agents.inspector.model_switcher import ModelSwitcher
    from models.inference.ensemble import Ensemble
    from models.registry import Version

ROLE = "inspector"
# Python lets another thread run after at most this time, in seconds. The default of 5 ms would delay each call of the networks.
_SWITCH_INTERVAL_S = 0.0005


@click.command("inspector")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz. 0: any free port.  [default: 0]"
)
@click.pass_obj
def command(file: Path | None, port: int) -> int:
    """Judge the pictures of all lines with the ensemble, until SIGTERM.

    If one inspector is too slow, start more, up to the number of partitions of the image topics.

    A running inspector applies the changes of `castline models choose` and `castline lines set`. It refuses a version that is damaged or
    has other classes.

    While Kafka does not answer, /readyz returns 503 with the reason.
    """
    settings = start_role(file, ROLE)
    if not settings.lines:
        raise SettingsError("The settings define no production line. Add at least one [[lines]] section.")
    with worker_process(settings, ROLE, port) as process:
        return _serve(process)


def _serve(process: WorkerProcess) -> int:
    settings, health = process.settings, process.health
    if not process.wait_for_topics(_list_topics(settings), [make_identity(settings, ROLE, process.instance)]):
        return 0
    # These imports are slow. At the top of the file, they would delay `castline inspector --help`.
    from agents.inspector.judging import LineRules
    from agents.inspector.model_switcher import ModelSwitcher
    from models.inference.ensemble import open_ensemble
    from models.inference.runtimes.runtime import choose_concurrent_calls, import_runtime
    from models.registry import open_plant_registry

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    model, lines = settings.model, [line.name for line in settings.lines]
    parallel_batches = choose_concurrent_calls(model.threads)

    @cache
    def freeze_modules() -> None:
        # After `freeze`, the garbage collector skips the imported modules, so each garbage collection is a quarter of a second shorter.
        gc.collect()
        gc.freeze()
        process.spans.end_span("importing the runtime")

    def open_version(version: Version) -> Ensemble:
        # A runtime is imported when a version needs it, because the import of TensorFlow takes seconds.
        import_runtime(version, model.runtime)
        freeze_modules()
        return open_ensemble(
            version,
            model.runtime,
            settings.batch.shapes,
            model.threads,
            model.cascade,
            model.cascade_band,
            parallel_batches,
            settings.inspector.detail_time_s,
        )

    switcher = ModelSwitcher(
        lines,
        lambda name: open_plant_registry(settings).open_version(name),
        open_version,
    )
    process.spans.end_span("importing the inspector")
    names, line_rules = TopicNames(settings.topics.prefix), LineRules()
    follower = CompactedTopicFollower(
        settings,
        ROLE,
        [
            FollowedTopic(names.models, ModelChoices(model.version), switcher.follow),
            FollowedTopic(names.lines, LiveSettingsByLine(), line_rules.follow),
        ],
    )
    follower.start()
    try:
        health.set_waiting("reading which versions and thresholds are chosen")
        choices = None
        # Wait for the settings of the lines, because the first verdicts must already use a line's own threshold.
        while choices is None or not line_rules.are_known:
            if process.stop_requested.is_set():
                return 0
            choices = switcher.wait_for_choices(timeout_s=0.2) or choices
        process.spans.end_span("reading the choices")
        health.set_not_ready("loading the models")
        with ThreadPoolExecutor(1) as opener:
            opening = opener.submit(switcher.start, choices)
            # Import Faust while the networks are opened. This saves time, because OpenVINO and LiteRT let other threads run.
            import_module("agents.inspector.inspector")
            opening.result()
        process.spans.end_span("opening the version")
        return asyncio.run(_run(process, switcher, line_rules, parallel_batches))
    finally:
        follower.stop()
        switcher.stop()


def _list_topics(settings: Settings) -> list[str]:
    names = TopicNames(settings.topics.prefix)
    topics = [names.dead_letters]
    for line in settings.lines:
        topics += [names.images(line.name), names.verdicts(line.name)]
    return [*topics, names.models, names.lines]


async def _run(process: WorkerProcess, switcher: ModelSwitcher, line_rules: LineRules, parallel_batches: int) -> int:
    from agents.inspector.inspector import Inspector
    from streams.object_store import ObjectStore
    from streams.record_producer import RecordProducer
    from streams.worker import ConsumerGroup, make_app, run_worker

    settings, health = process.settings, process.health
    if process.stop_requested.is_set():
        return 0
    for line in settings.lines:
        metrics.initialise_counters(ROLE, line.name)
        if (deadline_s := line.verdict_deadline_s) is not None:
            metrics.verdict_deadline_seconds.labels(line.name).set(deadline_s)
        metrics.review_share_limit.labels(line.name, "low").set(line.review_share_low)
        metrics.review_share_limit.labels(line.name, "high").set(line.review_share_high)
    identity = make_identity(settings, ROLE, process.instance)
    app = make_app(settings, identity, settings.inspector.buffer)
    store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
    producer = RecordProducer(app, settings, ROLE, partial(health.set_problem, topic="producer"))
    inspector = Inspector(settings, switcher, store, producer, health.set_problem, parallel_batches, line_rules)
    group = ConsumerGroup(app, identity, inspector, settings, ROLE, health, inspector.report_expired)
    process.spans.end_span("making the worker")

    async def measure_start() -> None:
        await group.has_partitions.wait()
        process.spans.end_span("joining the group")
        await inspector.has_delivered.wait()
        process.spans.end_span("the first verdict")

    measuring = asyncio.create_task(measure_start())
    try:
        return await run_worker([group], ROLE, settings.service.grace_s)
    finally:
        measuring.cancel()
