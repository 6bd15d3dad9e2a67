"""Fills the disk of the embedded broker, a file system of 400 MB, by pictures and by a foreign file, and counts what is left.

`make campaign-disk` needs the right to mount a file system, which usually only root has. The run takes about four minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from deploy.kafka.disk_guard import compute_watermarks, read_free_bytes
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topics import TopicNames
from tests.image_topics import wait_for
from tests.processes import CASTLINE, CastlineProcess, make_environment

_PICTURE = os.urandom(900_000)
_EVIDENCE = 500


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """Mounts an empty file system of `size_mb` at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Plant:
    """A broker on the small disk, with topics, dead letters as evidence, and a producer of pictures."""

    def __init__(self, settings: Settings, broker: CastlineProcess) -> None:
        self.settings, self.broker = settings, broker
        self.names = TopicNames(settings.topics.prefix)
        self.sent = 0

    def start(self) -> float:
        """Waits until the broker serves, and returns the seconds that this took."""
        began_s = time.monotonic()
        self.broker.wait_ready(60)
        return time.monotonic() - began_s

    def create(self) -> None:
        subprocess.run([CASTLINE, "topics", "create"], env=make_environment(self.settings), check=True, capture_output=True)
        with self._producer() as producer:
            for number in range(_EVIDENCE):
                producer.send(self.names.dead_letters, b"%d" % number).get(20)

    @contextmanager
    def _producer(self) -> Iterator[KafkaProducer]:
        producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap, request_timeout_ms=5000, delivery_timeout_ms=8000, linger_ms=0)
        try:
            yield producer
        finally:
            producer.close(5)

    def send_pictures(self, count: int) -> int:
        """Sends three pictures a second, until `count` are confirmed or the broker refuses one. Returns the number of confirmed ones."""
        with self._producer() as producer:
            for confirmed in range(count):
                time.sleep(0.3)
                try:
                    producer.send(self.names.images("line-1"), _PICTURE, partition=self.sent % 4).get(10)
                except KafkaError:
                    return confirmed
                self.sent += 1
                if confirmed % 8 == 0:
                    self._commit()
        return count

    def _commit(self) -> None:
        """Commits all pictures as judged, as an inspector does."""
        group = f"{self.names.prefix}-inspector"
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap, group_id=group, enable_auto_commit=False)
        places = [TopicPartition(self.names.images("line-1"), partition) for partition in range(4)]
        consumer.assign(places)
        consumer.commit({place: OffsetAndMetadata(end, "", -1) for place, end in consumer.end_offsets(places).items() if end})
        consumer.close()

    def count_evidence(self) -> int:
        admin = KafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        places = [TopicPartition(self.names.dead_letters, partition) for partition in range(4)]
        first, last = (
            sum(found.offset for found in admin.list_partition_offsets(dict.fromkeys(places, spec)).values())
            for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        )
        admin.close()
        return int(last - first)


def run(pictures: int, size_mb: int) -> dict[str, object]:
    """Returns what happened: pictures, evidence, drops, and the seconds from free space to a serving broker."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="disk-")))
        disk = folder / "disk"
        stack.enter_context(small_disk(disk, size_mb))
        settings = Settings.model_validate(
            {
                # The topics may become larger than the disk, so that retention alone does not keep the disk from filling up.
                "broker": {"port": free_ports(2), "data_dir": disk / "kafka", "access": "open", "max_bytes": 2 * size_mb * 2**20},
                "service": {"run_dir": folder / "run", "log_format": "text"},
                "lines": [{"name": "line-1"}],
            }
        )
        broker = stack.enter_context(CastlineProcess(settings, folder / "broker.log", "broker"))
        plant = Plant(settings, broker)
        plant.start()
        plant.create()
        confirmed = plant.send_pictures(pictures)
        report: dict[str, object] = {
            "pictures_sent": pictures,
            "pictures_confirmed": confirmed,
            "picture_mb_over_disk_mb": round(confirmed * len(_PICTURE) / 2**20 / size_mb, 1),
            "broker_runs_after_pictures": broker.process.poll() is None,
            "alarm_said": "has only" in broker.log(),
            "drops": broker.metric("castline_broker_drops_total"),
            "evidence_after_pictures": plant.count_evidence(),
        }
        foreign = disk / "foreign"
        free, total = read_free_bytes(disk)
        with foreign.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 2**20)
        plant.send_pictures(60)
        broker.kill()
        (disk / "kafka" / "reserve").unlink(missing_ok=True)
        free, _ = read_free_bytes(disk)
        with (disk / "foreign-2").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(0, free - compute_watermarks(total).start // 4))
        broker.start()
        wait_for(lambda: "to start" in broker.page("/readyz")[1], 30, "expected /readyz to say that the disk is full")
        report["full_disk_said"] = broker.page("/readyz")[1].strip()
        began_s = time.monotonic()
        foreign.unlink()
        (disk / "foreign-2").unlink()
        broker.wait_ready(60)
        report["seconds_from_free_space_to_service"] = round(time.monotonic() - began_s, 1)
        report["evidence_at_the_end"] = plant.count_evidence()
        report["pictures_confirmed_at_the_end"] = plant.send_pictures(20)
        return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=500, help="Pictures of 0.9 MB that are sent.")
    parser.add_argument("--size-mb", type=int, default=400, help="Size of the disk.")
    arguments = parser.parse_args()
    report = run(arguments.pictures, arguments.size_mb)
    print(json.dumps(report, indent=2))
    is_good = (
        report["pictures_confirmed"] == arguments.pictures
        and report["broker_runs_after_pictures"]
        and report["alarm_said"]
        and report["evidence_after_pictures"] == report["evidence_at_the_end"] == _EVIDENCE
        and float(str(report["seconds_from_free_space_to_service"])) <= 10
        and report["pictures_confirmed_at_the_end"] == 20
    )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
