"""Sends mutated records of each topic through running roles, over a real Kafka broker, and checks that each of them is accounted for.

    images ------> inspector -> a verdict, or a dead letter if the record names no part
    verdicts ----> sorter -> handled or a dead letter;  archivist -> stored or a dead letter;  localiser and station skip and count it
    sorted, findings, reviews -> archivist -> stored or a dead letter
    models, lines -> archivist -> valid or a dead letter;  inspector, localiser and station skip and count it
    commands -----> sorter -> an answer or a dead letter
    dead letters -> station, `castline dead-letters list`

`make campaign-records` sends 10,000 records of each topic. At the end, all roles are restarted, because some read old records at the start.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from streams.topics import TopicNames
from tests.image_topics import TopicReader, make_jpeg
from tests.processes import CASTLINE, make_environment
from tests.record_mutations import KINDS, MutatedRecord, make_valid, mutated_records
from tests.running_roles import RunningRoles, own_broker
from tests.station.browser.plant import HttpUser, create_account

LINE = "line-1"
PICTURE = make_jpeg(1, 32)
GROUP_RECORDS = 200
_ADMINISTRATOR = "anna"
# The archivist stores the records of these topics, and only checks those of the others.
_STORED = ("verdicts", "sorted", "findings", "reviews")
_CHECKED = ("models", "lines")


@dataclass
class RecordReport:
    """The figures of a campaign, by kind of topic, and the sentences that say what fell short."""

    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    answers: dict[str, str] = field(default_factory=dict)
    shortcomings: list[str] = field(default_factory=list)

    def expect(self, sentence: str, found: float, expected: float) -> None:
        """Adds a shortcoming if two counts differ."""
        if found != expected:
            self.shortcomings.append(f"{sentence}: expected {expected:.0f}, found {found:.0f}.")

    def describe(self) -> str:
        """Returns the figures as a Markdown table, and the shortcomings."""
        rows = ["| topic | mutated records | refused by the broker | all records on the topic | what became of them |"]
        rows += ["| --- | ---: | ---: | ---: | --- |"]
        rows += [
            f"| {kind} | {self.sent[kind]} | {self.refused[kind]} | {self.written[kind]} | {self.answers.get(kind, '')} |" for kind in KINDS
        ]
        rows += ["", "Dead letters by reason: " + ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common()) + "."]
        rows += ["", *(self.shortcomings or ["No role crashed or hung, and every record is accounted for."])]
        return "\n".join(rows)


def make_sections(folder: Path) -> dict[str, dict[str, object]]:
    """Returns sections of `Settings` for a station with its database below `folder`."""
    station = {"port": free_ports(), "database": str(folder / "station.sqlite3"), "secret_key_file": folder / "station.key"}
    return {"station": station, "archivist": {"ok_share": 0.0}}


def make_lines(folder: Path) -> tuple[dict[str, object], ...]:
    """Returns the line of the campaign, which has a gate. A simulated board is behind the port."""
    return ({"name": LINE, "gate": {"port": str(folder / "board")}},)


class RecordCampaign:
    """Runs the roles that read Kafka, and sends mutated records through them. `report` holds what became of the records."""

    def __init__(self, settings: Settings, folder: Path, show: Callable[[str], None]) -> None:
        """The topics of `settings` must exist. `folder` gets the logs of the roles."""
        self.report = RecordReport()
        self._settings = settings
        self._folder = folder
        self._show = show
        self._names = TopicNames(settings.topics.prefix)
        self._roles = RunningRoles(settings, folder, self.report.shortcomings)
        self._topics = {kind: getattr(self._names, kind)(LINE) for kind in ("images", "verdicts", "sorted", "findings")}
        self._topics |= {kind: getattr(self._names, kind.replace("-", "_")) for kind in KINDS if kind not in self._topics}

    def run(self, seed: int, count: int) -> None:
        """Sends `count` mutated records of each topic and a valid one after them, restarts the roles, and stops them."""
        commands = {role: (role,) for role in ("inspector", "localiser", "station", "archivist")}
        board = ("board", "simulate", "--line", LINE, "--parts", "1")
        with ExitStack() as stack:
            self._roles.start(stack, {**commands, "sorter": ("sorter", "--line", LINE)}, {}, helpers={"board": board})
            create_account(self._settings, _ADMINISTRATOR, "administrator")
            self._user = HttpUser(f"http://127.0.0.1:{self._settings.station.port}", _ADMINISTRATOR)
            # Each record is a batch of its own, because the broker refuses whole batches, for example for one record without a key. After
            # such a refusal, an idempotent producer sends nothing more.
            producer = KafkaProducer(bootstrap_servers=self._settings.bootstrap, batch_size=0, enable_idempotence=False, acks="all")
            stack.callback(producer.close)
            for kind in KINDS:
                self._send(producer, kind, mutated_records(kind, LINE, seed, count, PICTURE))
            if self._roles.is_sound():
                self._roles.wait(self._count_waiting, "records")
                self._read_letters()
                self._account()
                self._open_pages()
            if self._roles.is_sound():
                self._roles.restart()
                self._roles.is_sound()
            self._roles.stop()

    def _send(self, producer: Any, kind: str, records: Any) -> None:
        """Sends the records of a topic in groups, and waits after each group until the roles have read it."""
        while self._roles.is_sound() and (group := list(islice(records, GROUP_RECORDS))):
            valid = make_valid(kind, LINE, 1_000_000 + self.report.sent[kind], PICTURE)
            futures = [self._send_record(producer, record) for record in [*group, valid]]
            producer.flush(60)
            self.report.sent[kind] += len(group)
            self.report.refused[kind] += sum(future.failed() for future in futures)
            self._roles.wait(self._count_waiting, f"records on {kind}")
            self._show(f"{kind}: {self.report.sent[kind]} records sent")

    def _send_record(self, producer: Any, record: MutatedRecord) -> Any:
        # Kafka's client refuses a record without key and value.
        value = b"" if record.key is None and record.value is None else record.value
        arguments = {"key": record.key, "value": value, "headers": record.headers, "timestamp_ms": record.timestamp_ms}
        return producer.send(self._topics[record.kind], **arguments)

    def _count_waiting(self) -> int:
        """Returns how many records the roles have not acknowledged yet."""
        roles = ("inspector", "localiser", "archivist", "sorter")
        return int(sum(self._roles[role].metric("castline_consumer_lag_records") for role in roles))

    def _end_offset(self, kind: str) -> int:
        """Returns how many records were ever written to a topic, those of the roles included."""
        consumer = KafkaConsumer(bootstrap_servers=self._settings.bootstrap)
        partitions = [TopicPartition(self._topics[kind], number) for number in consumer.partitions_for_topic(self._topics[kind])]
        count = sum(consumer.end_offsets(partitions).values())
        consumer.close()
        return int(count)

    def _read_letters(self) -> None:
        """Counts the dead letters by the role that wrote them and by the kind of topic of the original record."""
        kinds = {topic.encode(): kind for kind, topic in self._topics.items()}
        origins: Counter[tuple[bytes, ...]] = Counter()
        with TopicReader(self._settings, self._names.dead_letters) as reader:
            for headers in reader.read_new().headers:
                role = headers.get("dead-role", b"").decode()
                # The campaign itself sends records to the topic of dead letters, which name no role.
                if role and (kind := kinds.get(headers.get("dead-topic", b""))) is not None:
                    self.report.letters[role, kind] += 1
                    self.report.reasons[headers["dead-reason"].decode()] += 1
                    origins[headers["dead-role"], headers["dead-topic"], headers["dead-partition"], headers["dead-offset"]] += 1
        self.report.expect("Records with more than one dead letter of a role", sum(count > 1 for count in origins.values()), 0)

    def _account(self) -> None:
        """Compares what was written to each topic with what became of it."""
        report, letters, roles = self.report, self.report.letters, self._roles
        report.written.update({kind: self._end_offset(kind) for kind in KINDS})
        for kind in KINDS:
            if report.written[kind] < max(1, report.sent[kind] - report.refused[kind]):
                report.shortcomings.append(f"Only {report.written[kind]} of {report.sent[kind]} records reached the topic of {kind}.")
        report.expect("Dead letters with the reason handling-failed", report.reasons["handling-failed"], 0)
        verdicts = int(roles["inspector"].metric("castline_verdicts_total"))
        nameless = int(roles["inspector"].metric("castline_dead_letters_total", reason="identity"))
        report.expect("Image records with a verdict or without a part", verdicts + nameless, report.written["images"])
        report.answers["images"] = f"{verdicts} verdicts, {nameless} dead letters without a verdict"
        archived = int(roles["archivist"].metric("castline_records_archived_total"))
        refused = sum(letters["archivist", kind] for kind in _STORED)
        report.expect("Records in the archive or in a dead letter", archived + refused, sum(report.written[kind] for kind in _STORED))
        report.expect("Dead letters of the sorter on verdicts", letters["sorter", "verdicts"], letters["archivist", "verdicts"])
        for kind in (*_STORED, *_CHECKED):
            report.answers[kind] = f"{letters['archivist', kind]} dead letters of the archivist"
            skipped = {
                role: roles[role].metric("castline_records_skipped_total", kind=kind) for role in ("inspector", "localiser", "station")
            }
            report.answers[kind] += "".join(f", {count:.0f} skipped by the {role}" for role, count in skipped.items() if count)
        report.answers["verdicts"] += f", {letters['sorter', 'verdicts']} dead letters of the sorter"
        for kind in _CHECKED:
            found = roles["inspector"].metric("castline_records_skipped_total", kind=kind)
            report.expect(f"Records on {kind} that the inspector skipped", found, letters["archivist", kind])
        self._account_commands()
        listed = subprocess.run(
            [str(CASTLINE), "dead-letters", "list", "--json"],
            env=make_environment(self._settings),
            check=True,
            capture_output=True,
            text=True,
        )
        report.expect("Dead letters that the command lists", len(listed.stdout.splitlines()), self._count_listed())
        report.answers["dead-letters"] = f"{len(listed.stdout.splitlines())} listed by the command"

    def _account_commands(self) -> None:
        """Checks that each record on the topic of commands has a dead letter or an answer, or is an answer itself."""
        with TopicReader(self._settings, self._names.commands) as reader:
            contents = reader.read_new()
        answers = sum(b"castline/sorter" in headers.values() for headers in contents.headers)
        # A mutation may make a command look like an answer, which the sorter ignores, and may change a line's name or an id.
        ignored = sum(
            _has_answer(value) and b"castline/sorter" not in headers.values()
            for value, headers in zip(contents.values, contents.headers, strict=True)
        )
        dead = self.report.letters["sorter", "commands"]
        self.report.answers["commands"] = f"{answers} answers, {dead} dead letters, {ignored} that claim to be answers"
        least = self.report.written["commands"] - answers
        if not dead + answers <= least <= dead + answers + ignored:
            self.report.shortcomings.append(f"{least} commands were sent, but {answers} have an answer and {dead} a dead letter.")

    def _count_listed(self) -> int:
        with TopicReader(self._settings, self._names.dead_letters) as reader:
            return sum("redrive-of" not in headers or "dead-reason" in headers for headers in reader.read_new().headers)

    def _open_pages(self) -> None:
        for page in ("/", "/history/", "/history/?label=review", "/reviews/", f"/lines/{LINE}/", f"/parts/{LINE}/1/1000000/"):
            if (status := self._user.get(page).status_code) >= 500:
                self.report.shortcomings.append(f"The station answers {status} to {page}.")


def _has_answer(value: bytes | None) -> bool:
    try:
        content = json.loads(value or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("answer") is not None


def run_with_own_broker(seed: int, count: int) -> bool:
    """Sends `count` mutated records of each topic through roles with a broker of their own. Returns whether nothing fell short."""
    with tempfile.TemporaryDirectory(prefix="castline-records-") as name:
        folder = Path(name)
        with own_broker(folder, {"lines": make_lines(folder), **make_sections(folder)}) as settings:
            campaign = RecordCampaign(settings, folder, lambda text: print(text, flush=True))
            campaign.run(seed, count)
    print(campaign.report.describe())
    return not campaign.report.shortcomings


def main() -> int:
    """Runs the campaign. Returns 1 if a role crashed, or if a record is not accounted for."""
    parser = argparse.ArgumentParser(
        description="Send mutated records of each topic through running roles, and count what becomes of them."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.count} records of each topic", flush=True)
    return 0 if run_with_own_broker(options.seed, options.count) else 1


if __name__ == "__main__":
    sys.exit(main())
