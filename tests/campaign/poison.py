"""Odd pictures and records that the campaign sends into the running plant.

The header `campaign` marks each record that the campaign itself has written to a topic, because the judge must know these records.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import requests
from kafka import KafkaProducer
from kafka.errors import KafkaError

from streams.topics import TopicNames
from tests.bad_pictures import make_bad_pictures
from tests.campaign.scene import GATED_LINES, SPARE_LINE
from tests.image_topics import make_jpeg
from tests.record_mutations import make_valid, mutate

if TYPE_CHECKING:
    from tests.campaign.plant import Plant

MARK = "campaign"
# The number of the first part in odd records. No board counts so far.
_FIRST_PART = 1_000_000
_OF_A_LINE = ("images", "verdicts", "sorted", "findings")
_SETTINGS = ("models", "lines", "commands")
_LARGE_BYTES = 20 * 2**20


def send_bad_pictures(plant: Plant, line: str, seed: int, count: int) -> None:
    """Uploads `count` bad pictures as the camera of `line`, each until the gateway has taken or refused it."""
    chosen = random.Random(seed).sample(make_bad_pictures(), count)
    with requests.Session() as session:
        for number, (_, picture, _) in enumerate(chosen):
            key = f"bad-{seed}-{number}"
            # A repeated upload must not take place for ever, because the gateway may be away until the end of the campaign.
            for _ in range(20):
                if plant.cameras[line].upload(session, picture, time.time(), key, {"casting": None, "run": None, "part": None}):
                    break
                time.sleep(1)


def send_records(plant: Plant, kind: str, seed: int, count: int) -> None:
    """Writes `count` damaged records of a topic of `kind`. Settings, model choices and commands concern the spare line."""
    names, chance = TopicNames(plant.broker_settings.topics.prefix), random.Random(seed)
    line = SPARE_LINE if kind in _SETTINGS else chance.choice(GATED_LINES)
    topic = getattr(names, kind)(line) if kind in _OF_A_LINE else getattr(names, kind.replace("-", "_"))
    records = [
        mutate(make_valid(kind, line, _FIRST_PART + seed % 10**6 * 100 + number, make_jpeg(1, 32)), chance) for number in range(count)
    ]
    # Each record is a batch of its own, because the broker refuses whole batches.
    producer = KafkaProducer(bootstrap_servers=plant.bootstrap, batch_size=0, enable_idempotence=False, acks="all")
    sent = []
    for record in records:
        value = b"" if record.key is None and record.value is None else record.value
        headers = [*record.headers, (MARK, b"1")]
        sent.append(producer.send(topic, key=record.key, value=value, headers=headers, timestamp_ms=record.timestamp_ms))
    producer.close(30)
    stored = [future.value for future in sent if future.succeeded()]
    plant.injected |= {(place.topic, place.partition, place.offset) for place in stored}


def send_large_pictures(plant: Plant, line: str, seed: int) -> None:
    """Writes two records of 20 MiB as pictures, which compression makes small. A broker that unpacks them refuses them."""
    producer = KafkaProducer(
        bootstrap_servers=plant.bootstrap, compression_type="gzip", max_request_size=2 * _LARGE_BYTES, enable_idempotence=False
    )
    topic = TopicNames(plant.broker_settings.topics.prefix).images(line)
    for number in range(2):
        key = f"{line}:1:{_FIRST_PART + seed % 10**6 * 100 + number}".encode()
        try:
            place = producer.send(topic, key=key, value=bytes(_LARGE_BYTES), headers=[(MARK, b"1")]).get(30)
            plant.injected.add((place.topic, place.partition, place.offset))
        except KafkaError:
            # The broker may be away or full, or refuse the record. The dump of the topics shows whether it has taken the record.
            break
    producer.close(5)
