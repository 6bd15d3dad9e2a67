"""A power cut of the one PC loses no picture that the gateway has confirmed to its camera."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from aiohttp import ClientSession
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from agents.gateway.spool import Spool, SpoolBudget
from deploy.supervisor.ports import free_ports
from streams.identity import PartId
from streams.settings import KafkaSettings, Settings
from streams.topics import TopicNames
from tests.agents.gateway.camera_line import make_jpeg, wait_until
from tests.conftest import MakeSettings
from tests.debian import find_program
from tests.power_cut import ReplayedDisk, strace_options
from tests.processes import CASTLINE, make_environment

pytestmark = pytest.mark.real

PICTURES = 24
CONNECTIONS = 4


async def upload_all(url: str) -> None:
    """Uploads the pictures over a few connections at once. Each upload must be confirmed."""
    numbers = iter(range(PICTURES))
    headers = {"Authorization": "Bearer let-me-in", "Content-Type": "image/jpeg"}
    async with ClientSession() as session:

        async def upload_some() -> None:
            for number in numbers:
                picture = make_jpeg("x" * 65_000 + str(number))
                async with session.post(f"{url}/lines/line-1/pictures", data=picture, headers=headers) as answer:
                    assert answer.status == 201

        await asyncio.gather(*(upload_some() for _ in range(CONNECTIONS)))


def refuse_large_records(settings: Settings) -> None:
    """Makes Kafka refuse the pictures, so that they stay in the spool although Kafka is reachable."""
    topic = TopicNames(settings.topics.prefix).images("line-1")
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000"})])
    admin.close()


def find_parts(folder: Path) -> set[PartId]:
    spool = Spool(folder, "line-1", SpoolBudget(2**30))
    parts = {spooled.part for spooled in spool.read_after(0, 1000)}
    spool.close()
    return parts


@pytest.mark.parametrize("with_kafka", [True, False], ids=["with Kafka", "without Kafka"])
def test_no_confirmed_picture_is_lost_by_a_power_cut(make_settings: MakeSettings, tmp_path: Path, with_kafka: bool) -> None:
    """Strace records the system calls of a real gateway. Kafka refuses the pictures as too large or does not run.

    So all pictures stay in the spool.
    """
    settings = make_settings(lines=({"name": "line-1", "camera": {"kind": "http"}},))
    if with_kafka:
        refuse_large_records(settings)
    else:
        settings = settings.model_copy(update={"kafka": KafkaSettings(bootstrap=f"127.0.0.1:{free_ports(1)}")})
    environment = make_environment(settings)
    environment["CASTLINE_LINES"] = '[{"name": "line-1", "token": "let-me-in", "camera": {"kind": "http"}}]'
    spool_dir, trace, address = settings.gateway.spool_dir, tmp_path / "trace", settings.service.run_dir / "gateways/line-1"
    log_file = tmp_path / "gateway.log"
    with log_file.open("w") as log:
        strace = subprocess.Popen(
            [find_program("strace"), *strace_options(trace), CASTLINE, "gateway"], env=environment, stdout=log, stderr=log
        )
        try:
            wait_until(address.exists, 60)
            if with_kafka:
                wait_until(lambda: "Kafka accepts pictures of line-1 again" in log_file.read_text(), 60)
            asyncio.run(upload_all(address.read_text().strip()))
        finally:
            for process in psutil.Process(strace.pid).children():
                process.terminate()
            strace.wait(30)

    disk, chance = ReplayedDisk(spool_dir), random.Random(1)
    confirmed: set[PartId] = set()
    for message in disk.replay(trace):
        found = re.findall(rb'"part": "(line-1:\d+:\d+)"', message)
        if not found:
            continue
        confirmed |= {PartId.parse(part.decode()) for part in found}
        for case, keep in enumerate((None, chance) if len(confirmed) % 4 == 0 else (None,)):
            left = tmp_path / f"left-{len(confirmed)}-{case}"
            disk.leave(left, keep)
            assert confirmed <= find_parts(left), f"the power cut after {len(confirmed)} confirmed pictures lost some of them"
    assert len(confirmed) == PICTURES


def test_the_broker_forces_a_record_to_its_disk_before_it_confirms_the_record(make_settings: MakeSettings, tmp_path: Path) -> None:
    """The gateway deletes a picture from the spool when Kafka has confirmed it. So the broker's copy must be safe by then."""
    settings, trace = make_settings(lines=({"name": "line-1"},)), tmp_path / "trace"
    topic, port = TopicNames(settings.topics.prefix).images("line-1"), int(settings.bootstrap.rpartition(":")[2])
    broker = next(found.pid for found in psutil.net_connections("tcp") if found.status == "LISTEN" and list(found.laddr)[1:] == [port])
    flushes = ["-f", "-y", "-ttt", "-e", "trace=fsync,fdatasync", "-o", str(trace), "-p", str(broker)]
    strace = subprocess.Popen([find_program("strace"), *flushes], stderr=subprocess.PIPE, text=True)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")
    try:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        confirmed = []
        for number in range(20):
            sent_s = time.time()
            producer.send(topic, value=b"picture %d" % number, partition=0).get(30)
            confirmed.append((sent_s, time.time()))
    finally:
        producer.close()
        strace.terminate()
        strace.communicate(timeout=30)
    times_s = [
        float(line.split()[1]) for line in trace.read_text().splitlines() if f"/{topic}-0/0000" in line and line.split("<")[0][-1] != "."
    ]
    for sent_s, confirmed_s in confirmed:
        assert any(sent_s <= flushed_s <= confirmed_s for flushed_s in times_s), "Kafka confirmed a record without a flush"
