"""`castline inspector`: one worker that turns pictures into verdicts."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams import metrics
from streams.errors import SettingsError
from streams.logs import configure_logs
from streams.model_choices import ModelChoiceFollower
from streams.settings import Settings, load_settings
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, worker_process

if TYPE_CHECKING:
    from agents.inspector.model_switcher import Serving

log = logging.getLogger(__name__)
ROLE = "inspector"


@click.command("inspector")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz; 0 takes a free one.")
@click.pass_obj
def command(file: Path | None, port: int) -> int:
    """Judge the pictures of all lines with the ensemble, until SIGTERM.

    May run any number of times, up to the image topics' partitions: Kafka's consumer group shares them out. Refuses to
    start when no version that was in force for a line is whole. What `castline models choose` puts in force is followed
    while it runs; a version that is damaged, tampered with or of other classes stays out, and the one in force goes on.
    While Kafka is away it waits and says so; /readyz is 503.
    """
    settings = load_settings(file)
    configure_logs(settings.service, ROLE)
    if not settings.lines:
        raise SettingsError("lines: expected at least one line, found none")
    with worker_process(settings, ROLE, port) as worker:
        return _serve(worker)


def _serve(worker: WorkerProcess) -> int:
    settings, health, stopping = worker.settings, worker.health, worker.stop_requested
    if not worker.wait_for_topics(_topics(settings)):
        return 0
    # Imported here: TensorFlow takes seconds, and `castline inspector --help` should not.
    from agents.inspector.model_switcher import Serving
    from models.inference.ensemble import open_ensemble
    from models.inference.runtimes.runtime import choose_concurrent_calls
    from models.registry import open_registry

    import_module("models.inference.runtimes.tensorflow")
    # What is here now stays for ever: searching it for garbage stops the worker for a quarter of a second each time.
    gc.collect()
    gc.freeze()
    # By default a thread that has the interpreter may keep it for 5 ms: the networks' would stand still that long after each call.
    sys.setswitchinterval(0.0005)
    model, lines = settings.model, [line.name for line in settings.lines]
    at_once = choose_concurrent_calls(model.threads)
    serving = Serving(
        lines,
        lambda name: open_registry(model.root).open_version(name),
        lambda version: open_ensemble(
            version, model.runtime, settings.batch.shapes, model.threads, model.cascade, model.cascade_band, at_once
        ),
    )
    watch = ModelChoiceFollower(settings, ROLE, serving.follow)
    watch.start()
    try:
        health.set_not_ready("reading which versions are chosen")
        choices = None
        while choices is None:
            if stopping.is_set():
                return 0
            choices = serving.take(within_s=0.2)
        health.set_not_ready("loading the models")
        serving.begin(choices)
        return asyncio.run(_run(worker, serving, at_once))
    finally:
        watch.stop()
        serving.stop()


def _topics(settings: Settings) -> list[str]:
    names = TopicNames(settings.topics.prefix)
    wanted = [names.dead_letters]
    for line in settings.lines:
        wanted += [names.images(line.name), names.verdicts(line.name)]
        if settings.inspector.localise:
            wanted.append(names.findings(line.name))
    return [*wanted, names.models]


async def _run(worker: WorkerProcess, serving: Serving, at_once: int) -> int:
    from agents.inspector.inspector import Inspector
    from models.inference.grad_cam import open_grad_cam
    from streams.object_store import ObjectStore
    from streams.record_producer import RecordProducer
    from streams.worker import ConsumerGroup, make_app, run_worker

    settings, instance, health = worker.settings, worker.instance, worker.health
    if worker.stop_requested.is_set():
        return 0
    for line in settings.lines:
        metrics.initialise_counters(ROLE, line.name)
        if (useful_s := line.verdict_deadline_s) is not None:
            metrics.verdict_deadline_seconds.labels(line.name).set(useful_s)
    app = make_app(settings, ROLE, instance, settings.inspector.buffer)
    store, courier = ObjectStore(settings.store.url, settings.pictures.max_bytes), RecordProducer(app, health.set_problem)
    inspector = Inspector(settings, serving, store, courier, open_grad_cam, health.set_problem, at_once)
    return await run_worker([ConsumerGroup(app, inspector, settings, ROLE, health)], ROLE, settings.service.grace_s)
