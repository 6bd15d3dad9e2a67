"""What the campaign sees of the plant while it runs: verdicts, health, memory, alarms, and faults that a person must end."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from deploy.supervisor.prober import Samples, read_samples
from streams.records import make_command
from streams.settings import Settings
from streams.topics import TopicNames
from tests.campaign.plant import Plant
from tests.campaign.poison import MARK
from tests.campaign.scene import GATED_LINES, write_line

_POLL_S = 1.0
_MEMORY_S = 5.0
_RECONNECT = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 500}
# A person looks at a held gate after this many seconds, and acknowledges its faults.
_PERSON_S = 5.0
_HELD_STATES = ("safe", "stopped")
# The lines do not wait for the station, which runs at the lowest priority.
_AWAITED_ROLES = frozenset({"inspector", "gateway", "sorter", "archivist"})
# A line whose last verdict is older than this is silent. A casting passes every 1.4 s.
_SILENT_S = 5.0


class Watch:
    """Threads that watch the plant. They write `memory.jsonl` and `alarms.jsonl`."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._names = TopicNames(plant.broker_settings.topics.prefix)
        self._verdict_at: dict[str, float] = {}
        self._problems: dict[str, str] = {"plant": "starts"}
        self._alarms: dict[tuple[str, str, str], str] = {}
        self._held_since: dict[str, float] = {}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=run.__name__, daemon=True)
            for run in (self._read_verdicts, self._read_pages, self._read_memory)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)

    def silence_s(self) -> float:
        """Returns the seconds since the last verdict of the line that has been silent for the longest time."""
        return time.time() - min((self._verdict_at.get(line, 0.0) for line in GATED_LINES), default=0.0)

    def find_trouble(self) -> str:
        """Returns why the plant is not healthy, or "" if all roles are ready and all lines have a recent verdict."""
        if self._problems:
            return "; ".join(f"{name}: {problem}" for name, problem in sorted(self._problems.items()))[:300]
        return f"no verdict for {self.silence_s():.0f} s" if self.silence_s() > _SILENT_S else ""

    def _read_verdicts(self) -> None:
        topics = {self._names.verdicts(line): line for line in GATED_LINES}
        places: dict[TopicPartition, int] = {}
        while not self._stopping.is_set():
            with suppress(KafkaError):
                consumer = KafkaConsumer(bootstrap_servers=self._plant.bootstrap, **_RECONNECT)
                consumer.assign([TopicPartition(topic, 0) for topic in topics])
                for topic in topics:
                    consumer.seek(TopicPartition(topic, 0), places.get(TopicPartition(topic, 0), 0))
                while not self._stopping.is_set():
                    for place, records in consumer.poll(timeout_ms=200).items():
                        places[place] = records[-1].offset + 1
                        # A verdict on poison does not show that the line works.
                        if any(b'"' in (record.value or b"") and MARK not in dict(record.headers) for record in records):
                            self._verdict_at[topics[place.topic]] = time.time()
                consumer.close()
            self._stopping.wait(0.5)

    def _read_pages(self) -> None:
        with (self._plant.folder / "alarms.jsonl").open("a") as alarms:
            while not self._stopping.wait(_POLL_S):
                self._problems = dict(self._find_problems())
                for (source, name, line), state in self._read_states():
                    if self._alarms.get((source, name, line)) != state:
                        self._alarms[source, name, line] = state
                        write_line(alarms, {"at": time.time(), "source": source, "name": name, "line": line or None, "state": state})
                self._act_as_person()

    def _find_problems(self) -> Iterator[tuple[str, str]]:
        if not self._plant.is_world_running:
            yield "world", "the simulated board has ended"
        for machine in self._plant.machines.values():
            targets = {target["role"]: target["address"] for target in machine.list_targets()}
            for role in _AWAITED_ROLES.intersection(machine.roles):
                if role not in targets:
                    yield f"{machine.name}/{role}", "does not run"
                    continue
                status, text = _get(f"http://{targets[role]}/readyz")
                if status != 200:
                    yield f"{machine.name}/{role}", text.strip()[:200] or "does not answer"

    def _read_states(self) -> Iterator[tuple[tuple[str, str, str], str]]:
        """Yields the states of the lines as the archivist exports them, the states of the gates, and what each page /healthz says."""
        targets = [(machine.name, target) for machine in self._plant.machines.values() for target in machine.list_targets()]
        targets += [("broker", target) for target in self._plant.list_broker_targets()]
        for machine, target in targets:
            source = f"{machine}/{target['role']}"
            status, text = _get(f"http://{target['address']}/healthz")
            yield (source, "healthz", ""), text.strip()[:300] if status else "does not answer"
            status, text = _get(f"http://{target['address']}/readyz")
            yield (source, "readyz", ""), text.strip()[:300] if status else "does not answer"
            if target["role"] in ("archivist", "sorter"):
                yield from _find_states(source, self._samples(target["address"]))

    def _samples(self, address: str) -> Samples:
        status, text = _get(f"http://{address}/metrics")
        return read_samples(text) if status == 200 else {}

    def _act_as_person(self) -> None:
        """Acknowledges the faults of a gate that has been held for some seconds."""
        for (_, name, line), state in list(self._alarms.items()):
            if name != "castline_gate_state":
                continue
            if state not in _HELD_STATES:
                self._held_since.pop(line, None)
            elif time.time() - self._held_since.setdefault(line, time.time()) > _PERSON_S:
                self._held_since.pop(line)
                with suppress(KafkaError):
                    self._acknowledge(line)

    def _acknowledge(self, line: str) -> None:
        producer = KafkaProducer(bootstrap_servers=self._plant.bootstrap)
        command = make_command(line, "acknowledge", "campaign", 20)
        producer.send(self._names.commands, key=line.encode(), value=command.encode())
        producer.close(5)

    def _read_memory(self) -> None:
        with (self._plant.folder / "memory.jsonl").open("a") as file:
            while not self._stopping.wait(_MEMORY_S):
                for process in self._plant.list_processes():
                    with suppress(OSError, ValueError, StopIteration):
                        write_line(file, {"at": time.time(), **process, **_read_memory(process["pid"])})


def _find_states(source: str, samples: Samples) -> Iterator[tuple[tuple[str, str, str], str]]:
    for (name, labels), value in samples.items():
        if name in ("castline_line_state", "castline_gate_state") and value == 1:
            found = dict(labels)
            yield (source, name, found.get("line", "")), found["state"]


def _read_memory(pid: int) -> dict[str, int]:
    fields = {}
    for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = text.partition(":")
        if name in ("Rss", "Pss"):
            fields[f"{name.lower()}_bytes"] = int(rest.split()[0]) * 1024
    return fields


def _get(url: str) -> tuple[int, str]:
    """Returns the status and the text of a page, or 0 and "" if the process does not answer."""
    try:
        answer = requests.get(url, timeout=2)
        return answer.status_code, answer.text
    except requests.RequestException:
        return 0, ""


def dump_topics(settings: Settings, folder: Path, injected: Set[tuple[str, int, int]]) -> None:
    """Writes all records of all topics to `topics/<topic>.jsonl`, and the places of those that the campaign has written to
    `injected.jsonl`.

    `injected` holds the topic, partition and offset of the records that are known. The marks of the others are found in the topics.
    """
    (folder / "topics").mkdir()
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False, consumer_timeout_ms=20_000)
    written = set(injected)
    for topic in sorted(name for name in consumer.topics() if name.startswith(settings.topics.prefix)):
        places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        with (folder / "topics" / f"{topic}.jsonl").open("w") as file:
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=1000).values():
                    for record in records:
                        file.write(json.dumps(_describe(record)) + "\n")
                        if place := _find_injected(record):
                            written.add(place)
    with (folder / "injected.jsonl").open("w") as file:
        for topic, partition, offset in sorted(written):
            write_line(file, {"topic": topic, "partition": partition, "offset": offset})
    consumer.close()


def _find_injected(record: Any) -> tuple[str, int, int] | None:
    """Returns the place of the record that the campaign has written: `record`, or the record that the dead letter `record` is about."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    if MARK not in headers:
        return None
    # A role that writes a dead letter keeps the headers of the record and adds its own behind them. The campaign adds its mark as the last.
    if list(headers)[-1] == MARK:
        return record.topic, record.partition, record.offset
    return headers["dead-topic"], int(headers["dead-partition"]), int(headers["dead-offset"])


def _describe(record: Any) -> dict[str, Any]:
    def encode(content: bytes | None) -> str | None:
        return None if content is None else base64.b64encode(content).decode()

    place = {"partition": record.partition, "offset": record.offset, "timestamp": record.timestamp}
    headers = [[name, encode(value)] for name, value in record.headers]
    return {**place, "key": encode(record.key), "value": encode(record.value), "headers": headers}
