"""The command `castline localiser`: one worker that makes heat maps of suspicious parts."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli.role_start import start_role
from deploy.supervisor.priority import LOWEST_NICENESS, lower_priority
from streams import metrics
from streams.compacted_topics import CompactedTopicFollower, FollowedTopic
from streams.errors import SettingsError
from streams.group_members import make_identity
from streams.live_line_settings import LiveSettingsByLine
from streams.model_choices import ModelChoices
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, worker_process

if TYPE_CHECKING:
    from agents.localiser.localiser import PlantChoices

ROLE = "localiser"
_BUFFER = 512


@click.command("localiser")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz. 0: any free port.  [default: 0]"
)
@click.pass_obj
def command(file: Path | None, port: int) -> int:
    """Make heat maps and boxes of suspicious parts, until SIGTERM. A part is suspicious if its verdict is not `ok`.

    Lines in inspector.explain_lines get heat maps of all parts.

    The process runs with low priority (setting inspector.localiser_niceness). With the lowest priority, 19, the process also waits for a
    free processor before each heat map. It waits at most two seconds.

    If the process is too slow, the oldest waiting parts get no heat map. The metric castline_findings_dropped_total counts these parts.

    While Kafka or the object store does not answer, /readyz returns 503 with the reason.
    """
    settings = start_role(file, ROLE)
    if not settings.lines:
        raise SettingsError("The settings define no production line. Add at least one [[lines]] section.")
    if not settings.inspector.localise:
        raise SettingsError("The setting inspector.localise is false, so no heat maps are made. Set it to true, or do not run a localiser.")
    lower_priority(settings.inspector.localiser_niceness)
    with worker_process(settings, ROLE, port) as process:
        return _serve(process)


def _serve(process: WorkerProcess) -> int:
    settings, names = process.settings, TopicNames(process.settings.topics.prefix)
    topics = [names.models, names.lines]
    for line in settings.lines:
        topics += [names.images(line.name), names.verdicts(line.name), names.findings(line.name)]
    if not process.wait_for_topics(topics, [make_identity(settings, ROLE, process.instance)]):
        return 0
    from agents.localiser.localiser import PlantChoices

    choices = PlantChoices(settings.model.version)
    follower = CompactedTopicFollower(
        settings,
        ROLE,
        [
            FollowedTopic(names.models, ModelChoices(settings.model.version), choices.follow_models),
            FollowedTopic(names.lines, LiveSettingsByLine(), choices.follow_lines),
        ],
    )
    follower.start()
    try:
        process.health.set_waiting("reading which versions and regions are chosen")
        # Wait for the regions of the lines, because a heat map must not show ignored areas.
        while not choices.are_known:
            if process.stop_requested.wait(0.1):
                return 0
        process.health.set_not_ready("importing TensorFlow")
        # Import TensorFlow before the process joins its consumer group, because the import would block the heartbeats to Kafka.
        import_module("models.inference.grad_cam")
        # `freeze` makes the garbage collector skip the imported modules, which are never deleted.
        gc.collect()
        gc.freeze()
        return asyncio.run(_run(process, choices))
    finally:
        follower.stop()


async def _run(process: WorkerProcess, choices: PlantChoices) -> int:
    from agents.localiser.acceptance_table import read_acceptance_table
    from agents.localiser.localiser import Localiser
    from agents.localiser.spare_processors import SpareProcessors
    from models.inference.defect_locator import DefectLocator, open_defect_locator
    from models.registry import open_plant_registry
    from streams.image_topic_reader import ImageTopicReader
    from streams.object_store import ObjectStore
    from streams.record_producer import RecordProducer
    from streams.worker import ConsumerGroup, make_app, run_worker

    settings, health = process.settings, process.health
    if process.stop_requested.is_set():
        return 0

    def open_version(name: str) -> DefectLocator | None:
        return open_defect_locator(open_plant_registry(settings).open_version(name), settings.inspector.detail_time_s > 0)

    for line in settings.lines:
        metrics.initialise_counters(ROLE, line.name)
    identity = make_identity(settings, ROLE, process.instance)
    app = make_app(settings, identity, _BUFFER)
    tables = {line.name: read_acceptance_table(line.acceptance_table) for line in settings.lines if line.acceptance_table}
    localiser = Localiser(
        settings,
        ImageTopicReader(settings, ROLE),
        ObjectStore(settings.store.url, settings.pictures.max_bytes),
        RecordProducer(app, settings, ROLE, partial(health.set_problem, topic="producer")),
        open_version,
        health.set_problem,
        choices,
        tables,
        health.record_wait,
        SpareProcessors().are_free if settings.inspector.localiser_niceness == LOWEST_NICENESS else lambda: True,
    )
    return await run_worker([ConsumerGroup(app, identity, localiser, settings, ROLE, health)], ROLE, settings.service.grace_s)
