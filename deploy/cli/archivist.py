"""The command `castline archivist`: one worker that writes the history of every part to the station's database."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from pathlib import Path

import click

from agents.archivist.archivist import list_archived_topics
from deploy.cli.role_start import start_role
from streams import metrics
from streams.errors import SettingsError
from streams.group_members import GroupIdentity, make_identity
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, worker_process

ROLE = "archivist"


@click.command("archivist")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz. 0: any free port.  [default: 0]"
)
@click.pass_obj
def command(file: Path | None, port: int) -> int:
    """Write the verdicts, sortings, findings and reviews of all lines to the station's database, until SIGTERM.

    A sorting says what a gate did. A finding shows where a part looks suspicious.

    Pictures of defective, doubtful and reviewed parts are kept in the object store. The settings say how long.

    While Kafka or the database does not answer, /readyz returns 503 with the reason.
    """
    settings = start_role(file, ROLE)
    if not settings.lines:
        raise SettingsError("The settings define no production line. Add at least one [[lines]] section.")
    with worker_process(settings, ROLE, port) as process:
        return _serve(process)


def _serve(process: WorkerProcess) -> int:
    from station.configuration import configure

    settings = process.settings
    configure(settings)
    from station.archive.database import migrate_database, wait_for_database

    process.health.set_waiting("waiting for the database")
    if not wait_for_database(process.report_not_ready, process.stop_requested.wait):
        return 0
    migrate_database()
    if not process.wait_for_topics(
        [*list_archived_topics(settings), TopicNames(settings.topics.prefix).dead_letters], [_make_identity(process)]
    ):
        return 0
    # `freeze` makes the garbage collector skip the imported modules, so that each garbage collection is short.
    gc.collect()
    gc.freeze()
    return asyncio.run(_run(process))


async def _run(process: WorkerProcess) -> int:
    from agents.archivist.archivist import Archivist
    from station.archive.part_writer import PartWriter
    from station.archive.retention import PictureArchiver, RetentionPolicy, RetentionWorker
    from station.golden_parts.golden_checks import check_golden_parts
    from station.pictures.part_picture_reader import PartPictureReader
    from station.reviews.candidates import CandidateQueue
    from streams.object_store import ObjectStore
    from streams.plant_watch import PlantWatch, export_state
    from streams.record_producer import RecordProducer
    from streams.worker import ConsumerGroup, make_app, run_worker

    settings, health = process.settings, process.health
    for line in sorted({topic.line for topic in list_archived_topics(settings).values()}):
        metrics.initialise_counters(ROLE, line)
    identity = _make_identity(process)
    app = make_app(settings, identity, settings.archivist.buffer)
    policy = RetentionPolicy(settings.archivist.ok_share, complete_lines=frozenset({settings.station.upload_line}))
    part_writer = PartWriter(policy, CandidateQueue(settings), check_golden_parts)
    archivist = Archivist(
        settings, part_writer, RecordProducer(app, settings, ROLE, partial(health.set_problem, topic="producer")), health.set_problem
    )
    picture_reader = PartPictureReader(settings)
    store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
    upload_line = settings.station.upload_line
    has_uploads = any(line.name == upload_line for line in settings.lines)
    archiver = PictureArchiver(store, picture_reader, settings.archivist, settings.topics, upload_line if has_uploads else "")
    retention = RetentionWorker(archiver, settings.archivist.sweep_s, lambda fault: health.set_problem(fault, "pictures"))
    health.add_complaint_check(retention.find_doubt)
    watch = PlantWatch(settings, ROLE, export_state)
    retention.start()
    watch.start()
    try:
        return await run_worker([ConsumerGroup(app, identity, archivist, settings, ROLE, health)], ROLE, settings.service.grace_s)
    finally:
        watch.stop()
        retention.stop(within_s=3)
        picture_reader.close()


def _make_identity(process: WorkerProcess) -> GroupIdentity:
    """Returns the identity of this archivist in its Kafka consumer group.

    The identity says if this archivist must be the only one. With SQLite it must, because archivists on two machines would write into two
    different files. With PostgreSQL, several archivists can work at the same time.
    """
    settings = process.settings
    is_exclusive = "://" not in settings.station.database
    return make_identity(settings, ROLE, process.instance, is_exclusive)
