"""The sorter between a real Kafka and the simulated board: every part is recorded and falls on the right side, even after crashes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from firmware.board.board import MAX_EVENTS
from firmware.fault_table import code_of
from streams.records import Label, Sorting
from streams.settings import GateSettings, Settings, SigningSettings
from streams.signatures import SIGNING_ROLES, create_keys
from streams.topic_creation import create_topics
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.fake_inspector import TOKEN, FakeInspector, SortedReader, every_third_is_defect, make_verdict
from tests.image_topics import wait_for
from tests.processes import CastlineProcess

LINE = "line-1"
RATE = 6
SECOND = 1.0


@dataclass
class Plant:
    """Starts the processes of one test, and reads their log of physical events."""

    settings: Settings
    folder: Path
    stack: ExitStack

    def role(self, name: str, *arguments: str) -> CastlineProcess:
        return self.stack.enter_context(CastlineProcess(self.settings, self.folder / f"{name}.log", *arguments))

    def board(self, parts: int) -> CastlineProcess:
        truth = str(self.folder / "truth.jsonl")
        return self.role("board", "board", "simulate", "--line", LINE, "--rate", str(RATE), "--parts", str(parts), "--log", truth)

    def sorter(self) -> CastlineProcess:
        # The secret comes from a file, because the settings that tests pass to processes contain no secrets.
        secrets = self.folder / "secrets.toml"
        secrets.write_text(f'[gateway]\ntoken = "{TOKEN}"\n')
        return self.role("sorter", "--settings", str(secrets), "sorter", "--line", LINE)

    def sides(self) -> dict[tuple[int, int], str]:
        """Returns by run and part on which side each casting fell; castings that the gate struck are marked as struck."""
        lines = [json.loads(line) for line in (self.folder / "truth.jsonl").read_text().splitlines()]
        fell = [line for line in lines if line["what"] == "fell"]
        return {(line["run"], line["counted"]): "struck" if line["struck"] else line["side"] for line in fell}

    def swings(self) -> int:
        """Returns how often the simulated servo left its rest position."""
        lines = [json.loads(line) for line in (self.folder / "truth.jsonl").read_text().splitlines()]
        return sum(line["what"] == "servo" and line["to_us"] == 2000 for line in lines)


@pytest.fixture
def plant(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Plant]:
    gate = {"port": str(tmp_path / LINE)}
    settings = make_settings(
        lines=({"name": LINE, "gate": gate},),
        gateway={"port": free_ports()},
        kafka={"session_timeout_s": 6},
    )
    with ExitStack() as stack:
        yield Plant(settings, tmp_path, stack)


def expected_sides(labels: dict[tuple[int, int], Label | None]) -> dict[tuple[int, int], str]:
    """Returns the side on which each casting must fall: defects and castings without verdict are diverted."""
    return {part: "passed" if label == "ok" else "diverted" for part, label in labels.items()}


def test_every_part_is_recorded_once_and_falls_where_its_verdict_says(plant: Plant) -> None:
    parts = 30
    silent = {4, 9}
    with FakeInspector(plant.settings, lambda part: None if part in silent else every_third_is_defect(part)) as inspector:
        plant.board(parts)
        sorter = plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        records = reader.wait_for(lambda found: len(found) >= parts)
        time.sleep(SECOND)
        records = reader.read()
        reader.close()
        measured = {step: sorter.metric("castline_verdict_step_seconds_count", step=step) for step in ("fetch", "send", "board")}
        assert sorter.stop() == 0
    assert len(inspector.reported) == parts
    assert Counter(record.part for record in records) == dict.fromkeys(range(1, parts + 1), 1)
    labels = {(1, part): None if part in silent else every_third_is_defect(part) for part in range(1, parts + 1)}
    assert plant.sides() == expected_sides(labels)
    assert {(record.run, record.part): record.action for record in records} == expected_sides(labels)
    assert {record.part for record in records if record.reason == "no-verdict"} == silent
    judged = [record for record in records if record.part not in silent]
    assert {record.reason for record in judged} == {"verdict"}
    assert all(record.label and record.verdict_id and record.counted_at and record.told_at and record.at_gate_at for record in judged)
    assert all(
        record.counted_at < record.told_at < record.at_gate_at
        for record in judged
        if record.counted_at and record.told_at and record.at_gate_at
    )
    assert sum(record.gate_moved for record in records) == plant.swings() == records[-1].move_count
    assert measured == dict.fromkeys(("fetch", "send", "board"), len(judged))


def last_records(records: list[Sorting]) -> dict[int, Sorting]:
    """Returns the last record of each part."""
    return {record.part: record for record in records}


@pytest.mark.real
def test_four_lanes_lose_no_record_while_kafka_is_away(tmp_path: Path) -> None:
    """The board stores 64 events, which are full after 6 s at 12 parts a second in all. Kafka is away for longer.

    In the middle of this time the sorter is killed and started again.
    """
    parts, port = 60, str(tmp_path / "board")
    names = [f"line-{lane}" for lane in range(1, 5)]
    settings = Settings.model_validate(
        {
            "broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka", "access": "open"},
            "service": {"run_dir": tmp_path / "run", "log_format": "text"},
            "gateway": {"port": free_ports()},
            "sorter": {"journal_dir": tmp_path / "journal"},
            "lines": [{"name": name, "gate": {"port": port, "lane": lane}} for lane, name in enumerate(names, 1)],
        }
    )
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
        create_topics(admin, settings)
        admin.close()
        truth = tmp_path / "truth.jsonl"
        feed = ("--rate", "3", "--parts", str(parts), "--log", str(truth))
        board = ("board", "simulate", *(word for name in names for word in ("--line", name)), *feed)
        with (
            CastlineProcess(settings, tmp_path / "board.log", *board),
            CastlineProcess(settings, tmp_path / "sorter.log", "sorter") as sorter,
        ):
            sorter.wait_ready()
            wait_for_parts(sorter, names, 3)
            broker.stop(20)
            wait_for_parts(sorter, names, parts // 4)
            sorter.kill()
            sorter.start()
            wait_for_fallen(truth, parts * len(names))
            time.sleep(3 * SECOND)
            broker = EmbeddedBroker(settings)
            broker.start()
            for name in names:
                reader = SortedReader(settings, name)
                records = reader.wait_for(lambda found: len(last_records(found)) >= parts, within_s=60)
                reader.close()
                assert Counter(record.part for record in records if record.action != "untracked") == dict.fromkeys(range(1, parts + 1), 1)
            assert sorter.metric("castline_gate_faults_total", code=str(code_of("events-lost"))) == 0
            assert sorter.stop() == 0
    finally:
        broker.stop(20)


def wait_for_parts(sorter: CastlineProcess, names: list[str], parts: int) -> None:
    """Waits until the board has counted `parts` parts on each line."""
    deadline = time.monotonic() + 60
    while min(sorter.metric("castline_parts_counted_total", line=name) for name in names) < parts:
        assert time.monotonic() < deadline, sorter.log()
        time.sleep(0.1)


def wait_for_fallen(truth: Path, castings: int) -> None:
    """Waits until `castings` castings have left the belts."""
    deadline = time.monotonic() + 60
    while truth.read_text().count('"what": "fell"') < castings:
        assert time.monotonic() < deadline, truth.read_text()[-1000:]
        time.sleep(0.1)


def test_sorter_and_board_that_die_together_leave_no_part_without_a_record(plant: Plant) -> None:
    with FakeInspector(plant.settings, lambda part: None if part % 4 == 0 else "ok") as inspector:
        board = plant.board(1000)
        sorter = plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        reader.wait_for(lambda found: len(found) >= 10)
        sorter.kill()
        # No host hears of the parts that the board counts now. So the gateway gives a picture of them a number of its own. When the sorter
        # starts, the verdict on this picture is too old to be read.
        own = make_verdict(LINE, int(time.time()), 1, "ok", datetime.now(UTC))
        inspector.send(own)
        time.sleep(GateSettings(port=LINE).travel_s + SECOND)
        board.kill()
        counted = {part for _, run, part in inspector.reported if run == 1}
        board.start()
        sorter.start()
        reader.wait_for(lambda found: any(record.run == 2 for record in found), within_s=60)
        lost = reader.wait_for(lambda found: any(record.run == own.run for record in found))
        assert {(record.part, record.action, record.reason) for record in lost if record.run == own.run} == {
            (1, "untracked", "board-restarted")
        }
        assert sorter.metric("castline_parts_sorted_total", line=LINE, action="untracked", reason="board-restarted") >= 1
        records = reader.wait_for(lambda found: counted <= {record.part for record in found if record.run == 1})
        time.sleep(SECOND)
        records = [record for record in reader.read() if record.run == 1]
        reader.close()
    of_reset = [record for record in records if record.reason == "board-restarted"]
    assert of_reset, "no part was on its way when both died"
    # A sorter that is killed just after Kafka's confirmation sends the same event again, and readers take it once.
    events = {(record.part, record.event) for record in records}
    assert Counter(part for part, _ in events) == dict.fromkeys(range(1, max(counted) + 1), 1)
    assert {(record.action, record.gate_moved) for record in of_reset} == {("untracked", False)}


@pytest.mark.real
def test_a_sorter_that_was_away_for_more_reports_than_the_board_stores_records_every_part(plant: Plant) -> None:
    plant.board(1000)
    sorter = plant.sorter().wait_ready()
    reader = SortedReader(plant.settings, LINE)
    reader.wait_for(lambda found: len(found) >= 10)
    sorter.kill()
    enough = len(plant.sides()) + MAX_EVENTS + 2 * RATE
    wait_for(lambda: len(plant.sides()) >= enough, 60, "the board has sorted more castings than it can store reports")
    sorter.start()

    def is_complete(records: list[Sorting]) -> bool:
        parts = {record.part for record in records}
        return any(record.code == code_of("events-lost") for record in records) and parts == set(range(1, max(parts) + 1))

    records = reader.wait_for(is_complete, within_s=120)
    reader.close()
    untracked = [record for record in records if record.code == code_of("events-lost")]
    assert {(record.action, record.reason, record.gate_moved) for record in untracked} == {("untracked", "fault", False)}
    events = {(record.part, record.event) for record in records}
    assert max(Counter(part for part, _ in events).values()) == 1


def test_a_late_verdict_is_recorded_and_moves_nothing(plant: Plant) -> None:
    parts, late = 16, {3, 8}
    with FakeInspector(plant.settings, lambda part: "ok", lambda part: 4.0 if part in late else 0.0):
        plant.board(parts)
        plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        reader.wait_for(lambda found: len(found) >= parts and late <= {record.part for record in found if record.late})
        time.sleep(SECOND)
        records = reader.read()
        reader.close()
    found = last_records(records)
    assert {part for part, record in found.items() if record.late} == late
    assert {part for part, record in found.items() if record.action == "diverted"} == late
    assert {found[part].reason for part in late} == {"late-verdict"}
    # Each of these parts is recorded twice and moved once, so both records have the same event.
    for part in late:
        assert (
            len({(record.board, record.run, record.event) for record in records if record.part == part and record.action == "diverted"})
            == 1
        )
    assert plant.swings() == len(late)
    assert {part for (_, part), side in plant.sides().items() if side == "diverted"} == late


def test_a_killed_sorter_loses_no_part_and_moves_no_gate_twice(plant: Plant) -> None:
    parts = 45
    with FakeInspector(plant.settings) as inspector:
        plant.board(parts)
        sorter = plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        reader.wait_for(lambda found: len(found) >= 15)
        sorter.kill()
        sorter.start()
        reader.wait_for(lambda found: len(last_records(found)) >= parts, within_s=60)
        time.sleep(SECOND)
        records = reader.read()
        reader.close()
        assert sorter.wait_ready().stop() == 0
    assert set(last_records(records)) == set(range(1, parts + 1))
    moved = {(record.run, record.event) for record in records if record.gate_moved}
    assert len(moved) == plant.swings()
    # Parts that were counted while the sorter was dead have no verdict and are diverted. The others fall where they belong.
    reported = {(line, part) for line, _, part in inspector.reported}
    labels = {(1, part): every_third_is_defect(part) if (LINE, part) in reported else None for part in range(1, parts + 1)}
    wrong = {part: side for part, side in plant.sides().items() if side != expected_sides(labels)[part]}
    recorded_sides = {(record.run, record.part): record.action for record in last_records(records).values()}
    assert plant.sides() == recorded_sides
    # A verdict that arrived while the sorter was dead may be too late. Then the part is diverted and never passes.
    assert set(wrong.values()) <= {"diverted"}
    assert all(last_records(records)[part].reason in ("no-verdict", "late-verdict", "fault") for _, part in wrong)


def test_a_killed_board_counts_its_boots_and_its_parts_are_closed(plant: Plant) -> None:
    with FakeInspector(plant.settings) as inspector:
        board = plant.board(1000)
        plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        reader.wait_for(lambda found: len(found) >= 10)
        board.kill()
        board.start()
        reader.wait_for(lambda found: any(record.run == 2 and record.reason == "verdict" for record in found))
        reported = {part for _, run, part in inspector.reported if run == 1}
        records = reader.wait_for(lambda found: reported <= {record.part for record in found if record.run == 1})
        reader.close()
    of_first_run = {record.part: record for record in records if record.run == 1}
    assert set(of_first_run) == set(range(1, max(of_first_run) + 1)), "a part of the first run has no record"
    assert all(record.action == "untracked" and not record.gate_moved for record in records if record.reason == "board-restarted")
    once = Counter((record.run, record.part) for record in records if record.reason == "board-restarted")
    assert set(once.values()) == {1}, "no part was on its way when the board stopped, or one has two records"


def wait_for_partitions(sorter: CastlineProcess) -> None:
    """Waits until the sorter reads verdicts from Kafka. Without a board it does not become ready."""
    deadline = time.monotonic() + 60
    while "are read from offset" not in sorter.log():
        assert time.monotonic() < deadline, sorter.log()
        time.sleep(0.1)


def test_verdicts_for_a_missing_board_are_recorded_as_late_and_bad_records_become_dead_letters(plant: Plant) -> None:
    sorter = plant.sorter()
    wait_for_partitions(sorter)
    with FakeInspector(plant.settings) as inspector:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        for part in range(1, 201):
            inspector.send(make_verdict(LINE, 1, part, "ok", hour_ago))
        topic = TopicNames(plant.settings.topics.prefix).verdicts(LINE)
        producer = KafkaProducer(bootstrap_servers=plant.settings.bootstrap)
        for value in (b"", b"{", b'{"schema": "castline.verdict.v1"}', make_verdict("line-9", 1, 1, "ok", hour_ago).encode()):
            producer.send(topic, value, b"bad")
        producer.close()
        inspector.send(make_verdict(LINE, 1, 201, "ok", hour_ago))
        reader = SortedReader(plant.settings, LINE)
        records = reader.wait_for(lambda found: len(found) >= 201, within_s=60)
        reader.close()
    assert Counter(record.part for record in records) == dict.fromkeys(range(1, 202), 1)
    assert {(record.action, record.reason, record.late, record.gate_moved) for record in records} == {
        ("untracked", "late-verdict", True, False)
    }
    assert sorter.metric("castline_dead_letters_total", line=LINE, reason="verdict") == 4
    status, why = sorter.page("/readyz")
    assert status == 503
    assert "board" in why
    assert sorter.page("/healthz")[0] == 200
    assert sorter.stop() == 0


@pytest.mark.parametrize("has_keys", [True, False], ids=["keys", "no keys"])
def test_a_stranger_who_writes_ok_first_passes_defects_only_where_no_keys_are_set(plant: Plant, has_keys: bool) -> None:
    if has_keys:
        for role in SIGNING_ROLES:
            create_keys(plant.folder / "keys", plant.folder / "keys" / "public", role)
        signing = SigningSettings(private_keys=plant.folder / "keys", public_keys=plant.folder / "keys" / "public")
        plant.settings = plant.settings.model_copy(update={"signing": signing})
    parts, names = 12, TopicNames(plant.settings.topics.prefix)
    stranger = KafkaProducer(bootstrap_servers=plant.settings.bootstrap, linger_ms=0)

    def forge_before_judging(part: int) -> Label:
        forged = make_verdict(LINE, 1, part, "ok", datetime.now(UTC), model="forged")
        stranger.send(names.verdicts(LINE), forged.encode(), forged.part_id.key).get(10)
        return "defect"

    with FakeInspector(plant.settings, forge_before_judging):
        plant.board(parts)
        sorter = plant.sorter().wait_ready()
        reader = SortedReader(plant.settings, LINE)
        records = reader.wait_for(lambda found: len(last_records(found)) >= parts, within_s=60)
        reader.close()
        refused = sorter.metric("castline_dead_letters_total", line=LINE, reason="signature")
        counted = sorter.metric("castline_signatures_refused_total", role="sorter", kind="verdicts")
        assert sorter.stop() == 0
    stranger.close()
    assert refused == counted == (parts if has_keys else 0)
    # On a busy machine, some verdicts come too late for the gate, and their parts are diverted.
    assert {record.label for record in records if record.reason == "verdict"} == {"defect" if has_keys else "ok"}
    sides = set(plant.sides().values())
    assert sides == {"diverted"} if has_keys else "passed" in sides


def send_old_parts(settings: Settings, parts: int, sent_at: datetime) -> None:
    """Sends the verdicts of parts that have long passed the gate, and their sorting records."""
    names = TopicNames(settings.topics.prefix)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=20)
    sent_ms = int(sent_at.timestamp() * 1000)
    verdict = make_verdict(LINE, 1, 1, "ok", sent_at)
    sorting = Sorting(
        line=LINE,
        run=1,
        part=1,
        board="old",
        event=1,
        action="passed",
        reason="verdict",
        label="ok",
        verdict_id=verdict.verdict_id,
        gate_moved=False,
        move_count=0,
        counted_at=sent_at,
        sorted_at=sent_at,
    )
    for part in range(1, parts + 1):
        key = f"{LINE}:1:{part}".encode()
        producer.send(names.verdicts(LINE), verdict.model_copy(update={"part": part}).encode(), key, timestamp_ms=sent_ms)
        sorted_part = sorting.model_copy(update={"part": part, "event": part})
        producer.send(names.sorted(LINE), sorted_part.encode(), key, timestamp_ms=sent_ms)
    producer.close()


def read_committed_verdicts(settings: Settings) -> int | None:
    """Returns the offset that the sorter of the line has committed in its topic of verdicts, or None if it has committed none."""
    names = TopicNames(settings.topics.prefix)
    group, place = f"{settings.topics.prefix}-sorter-{LINE}", TopicPartition(names.verdicts(LINE), 0)
    with closing(KafkaAdminClient(bootstrap_servers=settings.bootstrap)) as admin:
        found = admin.list_group_offsets({group: [place]})[group]
    return found[place].offset if place in found else None


def test_old_verdicts_are_not_read_by_a_sorter_without_committed_offsets(plant: Plant) -> None:
    """Kafka holds thousands of verdicts of parts that were sorted an hour ago, and the sorter's offsets are lost.

    A sorter that read them would write false records, and live parts would pass the gate without their verdicts. If the skipped verdicts
    were not committed, they would count as waiting, and the supervisor would restart the sorter again and again.
    """
    old, parts = 8000, 12
    send_old_parts(plant.settings, old, datetime.now(UTC) - timedelta(hours=1))
    with FakeInspector(plant.settings, lambda part: "ok"):
        sorter = plant.sorter()
        wait_for_partitions(sorter)
        wait_for(lambda: read_committed_verdicts(plant.settings) == old, 20, "expected a commit of the skipped verdicts")
        plant.board(parts)
        sorter.wait_ready()
        status = plant.role("status", "board", "status", "--line", LINE)
        assert status.process.wait(60) == 0
        reader = SortedReader(plant.settings, LINE)
        # The run of the old parts is higher than that of the new board, so the board gets run 2.
        records = reader.wait_for(lambda found: sum(record.run == 2 for record in found) >= parts, 60)[old:]
        reader.close()
    assert {(record.run, record.part, record.action, record.reason) for record in records} == {
        (2, part, "passed", "verdict") for part in range(1, parts + 1)
    }
    topic = TopicNames(plant.settings.topics.prefix).verdicts(LINE)
    skipped = f"skipped {old} records of {topic} at its start, because they were sent before"
    assert skipped in sorter.log()
    assert skipped in status.log()


def ok_defect_or_review(part: int) -> Label:
    return "review" if part % 4 == 2 else every_third_is_defect(part)


def test_one_command_serves_every_line_that_has_a_gate(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Two lines share a board. The third line has a board of its own with an additional gate for `review`."""
    parts, shared, alone = 10, str(tmp_path / "shared"), str(tmp_path / "alone")
    review = {"name": "review", "lane": 3, "takes": ["review"], "gate_mm": 250}
    boards = {"shared": ("line-1", "line-2"), "alone": ("line-3",)}
    settings = make_settings(
        lines=(
            {"name": "line-1", "gate": {"port": shared, "lane": 1}},
            {"name": "line-2", "gate": {"port": shared, "lane": 2}},
            {"name": "line-3", "gate": {"port": alone, "grades": [review]}},
            "line-4",
        ),
        gateway={"port": free_ports()},
    )
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(f'[gateway]\ntoken = "{TOKEN}"\n')
    with ExitStack() as stack:
        stack.enter_context(FakeInspector(settings, ok_defect_or_review))
        for board, names in boards.items():
            named = [word for name in names for word in ("--line", name)]
            feed = ("--rate", "3", "--parts", str(parts), "--log", str(tmp_path / f"{board}.truth"))
            stack.enter_context(CastlineProcess(settings, tmp_path / f"{board}.log", "board", "simulate", *named, *feed))
        sorter = stack.enter_context(CastlineProcess(settings, tmp_path / "sorter.log", "--settings", str(secrets), "sorter"))
        records = {}
        for name in ("line-1", "line-2", "line-3"):
            reader = SortedReader(settings, name)
            stack.callback(reader.close)
            records[name] = reader.wait_for(lambda found: len(found) >= parts, within_s=60)
        assert sorter.stop() == 0
    for board, names in boards.items():
        facts = [json.loads(line) for line in (tmp_path / f"{board}.truth").read_text().splitlines()]
        for lane, name in enumerate(names, 1):
            fell = {fact["counted"]: fact for fact in facts if fact["what"] == "fell" and fact["lane"] == lane}
            assert sorted(record.part for record in records[name]) == list(range(1, parts + 1))
            for record in records[name]:
                label = ok_defect_or_review(record.part)
                assert (record.reason, record.action) == ("verdict", "passed" if label == "ok" else "diverted")
                graded = name == "line-3" and label == "review"
                assert record.grade == ("review" if graded else None)
                if record.part in fell:
                    assert (fell[record.part]["side"], fell[record.part]["gate"]) == (record.action, 3 if graded else 0)
