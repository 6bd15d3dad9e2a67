"""Batches of records as other programs, or a damaged disk of a broker, bring them to Kafka. Kafka's Python clients cannot decode them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.record.util import calc_crc32c, encode_varint

from streams.settings import Settings
from streams.topic_creation import read_topic_configs

# The numbers of Kafka's codecs, with functions that store bytes in the format of the codec without making them smaller.
CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "snappy": (2, lambda body: _varint_unsigned(len(body)) + b"\xf4" + struct.pack("<H", len(body) - 1) + body),
    # The header of the frame, one uncompressed block, and the mark of the end.
    "lz4": (3, lambda body: bytes.fromhex("04224d18604082") + struct.pack("<I", len(body) | 2**31) + body + bytes(4)),
    "zstd": (4, lambda body: bytes.fromhex("28b52ffd0058") + (len(body) << 3 | 1).to_bytes(3, "little") + body),
}
_PRODUCE, _VERSION = 0, 7
# The broker answers with these errors while a topic is new.
_NOT_YET_LEADER = (3, 6)


def keep_compression(settings: Settings, *topics: str) -> None:
    """Lets the broker store batches as their producers compress them, as on a topic of an older release."""
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"compression.type": "producer"}) for topic in topics])
        while any(found["compression.type"] != "producer" for found in read_topic_configs(admin, list(topics)).values()):
            time.sleep(0.05)
        time.sleep(0.2)  # The broker shows the new value shortly before it applies it.
    finally:
        admin.close()


def send_batch(
    settings: Settings,
    topic: str,
    records: Sequence[tuple[bytes, bytes]],
    codec: str = "",
    headers: Sequence[tuple[bytes, bytes]] = (),
    partition: int = 0,
) -> None:
    """Sends `records`, pairs of key and value, as one batch. Each record gets the `headers`. An empty `codec` means no compression."""
    batch = make_batch(records, codec, headers)
    body = struct.pack(">hhi", -1, -1, 10_000) + struct.pack(">i", 1) + _text(topic)
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _text("a foreign producer") + body
    while (error := _exchange(settings.bootstrap, request, topic)) in _NOT_YET_LEADER:
        time.sleep(0.1)
    assert error == 0, f"Kafka refused the batch with the error {error}"


def _exchange(bootstrap: str, request: bytes, topic: str) -> int:
    """Sends `request` and returns the error code of the broker, which is 0 for a success."""
    host, port = bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as connection, connection.makefile("rb") as answer:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", answer.read(4))
        content = answer.read(size)
    # The error follows the id of the request, the number of topics, the topic, the number of partitions and the partition.
    return int(struct.unpack_from(">h", content, 4 + 4 + len(_text(topic)) + 4 + 4)[0])


def send_damaged(settings: Settings, topic: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    """Sends `records` as one batch each, and changes a byte of the value in the file of the broker."""
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
    for key, value in records:
        producer.send(topic, key=key, value=value, partition=0).get(10)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    folders = [Path(folder["log_dir"]) for answer in admin.describe_log_dirs() for folder in answer["log_dirs"]]
    admin.close()
    for _, value in records:
        for file in [file for folder in folders for file in (folder / f"{topic}-0").glob("*.log")]:
            place = file.read_bytes().rfind(value)
            if place >= 0:
                with file.open("r+b") as opened:
                    opened.seek(place)
                    opened.write(bytes([value[0] ^ 0xFF]))


def make_batch(records: Sequence[tuple[bytes, bytes]], codec: str = "", headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """Returns a batch of `records`, whose first one has the offset 0."""
    body = bytearray()
    for number, (key, value) in enumerate(records):
        record = b"\0\0" + _varint(number) + _sized(key) + _sized(value) + _varint(len(headers))
        record += b"".join(_sized(name) + _sized(content) for name, content in headers)
        body += _varint(len(record)) + record
    attributes, now_ms = 0, int(time.time() * 1000)
    if codec:
        attributes, pack = CODECS[codec]
        body = bytearray(pack(bytes(body)))
    checked = struct.pack(">hiqqqhii", attributes, len(records) - 1, now_ms, now_ms, -1, -1, -1, len(records)) + body
    checksum = calc_crc32c(memoryview(checked))
    after_length = struct.pack(">ibI", -1, 2, checksum) + checked
    return struct.pack(">qi", 0, len(after_length)) + after_length


def _varint(value: int) -> bytes:
    encoded = bytearray()
    encode_varint(value, encoded.append)
    return bytes(encoded)


def _varint_unsigned(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
