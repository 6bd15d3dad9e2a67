"""`castline archivist`: one worker that keeps what the topics tell of every part."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path

import click

from agents.archivist.decoding import shelves
from streams import metrics
from streams.errors import SettingsError
from streams.logs import configure_logs
from streams.settings import load_settings
from streams.topics import TopicNames
from streams.worker_process import WorkerProcess, worker_process

log = logging.getLogger(__name__)
ROLE = "archivist"


@click.command("archivist")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics, /healthz and /readyz; 0 takes a free one.")
@click.pass_obj
def command(file: Path | None, port: int) -> int:
    """Keep verdicts, sortings, findings and reviews of all lines in the station's database, until SIGTERM.

    A record is acknowledged when its row is safe; what comes twice changes nothing. Pictures of defects, of doubts, of
    reviewed parts and of a share of the good ones go to the object store, and are dropped by age and size as [archivist]
    says. Makes the database's tables where they are missing. While Kafka or the database is away it waits and says so;
    /readyz is 503, and what came meanwhile is caught up with.
    """
    settings = load_settings(file)
    configure_logs(settings.service, ROLE)
    if not settings.lines:
        raise SettingsError("lines: expected at least one line, found none")
    with worker_process(settings, ROLE, port) as worker:
        return _serve(worker)


def _serve(worker: WorkerProcess) -> int:
    from station.configuration import configure

    settings = worker.settings
    configure(settings)
    from station.archive.database import migrate_database, wait_for_database

    worker.health.set_not_ready("waiting for the database")
    if not wait_for_database(worker.report_not_ready, worker.stop_requested.wait):
        return 0
    migrate_database()
    if not worker.wait_for_topics([*shelves(settings), TopicNames(settings.topics.prefix).dead_letters]):
        return 0
    gc.collect()
    gc.freeze()
    return asyncio.run(_run(worker))


async def _run(worker: WorkerProcess) -> int:
    from agents.archivist.archivist import Archivist
    from station.archive.part_writer import PartWriter
    from station.archive.retention import PictureArchiver, RetentionPolicy, RetentionWorker
    from station.pictures.part_picture_reader import PartPictureReader
    from station.reviews.candidates import CandidateQueue
    from streams.object_store import ObjectStore
    from streams.record_producer import RecordProducer
    from streams.worker import ConsumerGroup, make_app, run_worker

    settings, instance, health = worker.settings, worker.instance, worker.health
    archivist_settings = settings.archivist
    for line in sorted({shelf.line for shelf in shelves(settings).values()}):
        metrics.initialise_counters(ROLE, line)
    app = make_app(settings, ROLE, instance, archivist_settings.buffer)
    policy = RetentionPolicy(archivist_settings.ok_share, complete_lines=frozenset({settings.station.upload_line}))
    part_writer = PartWriter(policy, CandidateQueue(settings))
    archivist = Archivist(settings, part_writer, RecordProducer(app, health.set_problem), health.set_problem)
    group = ConsumerGroup(app, archivist, settings, ROLE, health)
    picture_reader = PartPictureReader(settings)
    store = ObjectStore(settings.store.url, settings.pictures.max_bytes)
    archiver = PictureArchiver(store, picture_reader, archivist_settings, settings.topics)
    retention = RetentionWorker(archiver, archivist_settings.sweep_s, lambda fault: health.set_problem(fault, "pictures"))

    retention.start()
    try:
        return await run_worker([group], ROLE, settings.service.grace_s)
    finally:
        retention.stop(within_s=3)
        picture_reader.close()
