"""`castline dead-letters redrive` over a real broker: it sends chosen records once, says what it does not send, and keeps marks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.cli.dead_letter_redrive import Redrive, plan_redrive, read_dead_letters
from streams.errors import CastlineError
from streams.record_producer import ConsumedRecord, ProducerRecord, cut_dead_letter, make_dead_letter
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.image_topics import TopicContents, read_topic
from tests.processes import CASTLINE, make_environment

LINE = "line-1"


@dataclass
class LetterBox:
    """Writes dead letters as the roles do, and runs the command."""

    settings: Settings
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = TopicNames(self.settings.topics.prefix)
        self.producer = KafkaProducer(bootstrap_servers=self.settings.bootstrap)

    def write(
        self, name: str, topic: str, value: bytes, offset: int = 0, partition: int = 0, role: str = "archivist", cut: int | None = None
    ) -> None:
        source = ConsumedRecord(topic, partition, offset, b"line-1:1:1", value, {"truth": b"ok"})
        letter = make_dead_letter(self.names.dead_letters, source, role, name, "A reason.")
        self.send(name, letter if cut is None else cut_dead_letter(letter, cut))

    def send(self, name: str, letter: ProducerRecord) -> None:
        sent = self.producer.send(letter.topic, key=letter.key, value=letter.value, headers=letter.headers).get(10)
        self.places[name] = f"{sent.partition}@{sent.offset}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(CASTLINE), "dead-letters", *arguments]
        return subprocess.run(command, env=make_environment(self.settings), input="", capture_output=True, text=True, timeout=60)

    def read(self, topic: str) -> TopicContents:
        return read_topic(self.settings, topic)


@pytest.fixture
def box(make_settings: MakeSettings) -> Iterator[LetterBox]:
    letter_box = LetterBox(make_settings())
    yield letter_box
    letter_box.producer.close()


def test_chosen_records_are_shown_then_sent_and_not_a_second_time(box: LetterBox) -> None:
    verdicts = box.names.verdicts(LINE)
    box.write("first", verdicts, b"1", offset=1)
    box.write("second", verdicts, b"2", offset=2)
    box.write("other", box.names.sorted(LINE), b"3")
    box.write("first-of-sorter", verdicts, b"1", offset=1, role="sorter")

    refused = box.run("redrive", "--topic", verdicts)
    assert (refused.returncode, "Add --yes to send 2 records again." in refused.stderr) == (3, True)
    assert refused.stdout.count("would be sent") == 2
    assert f"the same record as the dead letter {box.places['first']}" in refused.stdout
    assert box.read(verdicts).values == [], "nothing is sent without a confirmation"

    done = box.run("redrive", "--topic", verdicts, "--yes")
    assert done.returncode == 0, done.stderr
    assert "2 records were sent again." in done.stdout
    found = box.read(verdicts)
    assert sorted(found.values, key=str) == [b"1", b"2"]
    assert set(found.keys) == {b"line-1:1:1"}
    assert [set(headers) for headers in found.headers] == [{"truth", "redriven-from"}] * 2, "the headers of the dead letter are gone"

    repeated = box.run("redrive", "--topic", verdicts, "--yes")
    assert repeated.returncode == 0
    assert "Nothing is sent." in repeated.stdout
    assert repeated.stdout.count("sent again on") == 3, "the sorter's dead letter is of the same record"
    assert len(box.read(verdicts).values) == 2

    again = box.run("redrive", box.places["first"], "--again", "--yes")
    assert "1 records were sent again." in again.stdout
    assert len(box.read(verdicts).values) == 3

    listed = box.run("list").stdout.splitlines()
    assert len(listed) == 4, "the marks are no dead letters"
    assert sum("sent again on" in line for line in listed) == 3, "the sorter's dead letter is of the same record"


def test_commands_foreign_topics_and_lost_originals_are_not_sent(box: LetterBox) -> None:
    images = box.names.images(LINE)
    whole = box.producer.send(images, key=b"line-1:1:1", value=b"x" * 100, headers=[("truth", b"ok")]).get(10)
    box.write("command", box.names.commands, b"{}")
    box.write("foreign", "other.images.line-1", b"x")
    box.write("cut", images, b"x" * 100, whole.offset, whole.partition, cut=10)
    box.write("gone", images, b"y" * 100, 999, whole.partition, cut=10)
    # Kafka did not take this record, so it has no place.
    box.write("never-taken", box.names.findings(LINE), b"z", offset=-1, partition=-1)

    done = box.run("redrive", *box.places.values(), "--yes")
    assert done.returncode == 0, done.stderr
    lines = {name: [line for line in done.stdout.splitlines() if line.split()[0] == place] for name, place in box.places.items()}
    assert "a command is valid for a minute only" in lines["command"][-1]
    assert "is no topic of these settings" in lines["foreign"][-1]
    assert "Kafka no longer has the whole record" in lines["gone"][-1]
    assert box.read(box.names.commands).values == []
    assert box.read(images).values == [b"x" * 100] * 2
    assert box.read(box.names.findings(LINE)).values == [b"z"]
    assert "2 records were sent again." in done.stdout


def test_a_wrong_choice_gets_a_sentence_and_the_limit_holds(box: LetterBox) -> None:
    for number in range(3):
        box.write("same", box.names.verdicts(LINE), b"x", offset=number)
    nothing = box.run("redrive")
    assert (nothing.returncode, "No dead letter is chosen" in nothing.stderr) == (2, True)
    unknown = box.run("redrive", "7@99")
    assert (unknown.returncode, "There is no dead letter at 7@99" in unknown.stderr) == (3, True)
    absent = box.run("redrive", "--reason", "absent")
    assert (absent.returncode, "No dead letter was found" in absent.stderr) == (3, True)
    limited = box.run("redrive", "--reason", "same", "--limit", "2", "--yes")
    assert "not sent: the limit is 2" in limited.stdout
    assert len(box.read(box.names.verdicts(LINE)).values) == 2


def test_an_interrupted_redrive_leaves_few_marks_and_again_sends_no_confirmed_record_twice(box: LetterBox) -> None:
    verdicts = box.names.verdicts(LINE)
    for number in range(25):
        box.write("judged", verdicts, b"%d" % number, offset=number)
    known = read_dead_letters(box.settings)
    with Redrive(box.settings, "a person", known) as sending:
        (sent, _), *_ = [next(results := sending.send(known)), next(results)]
    after = read_dead_letters(box.settings)
    assert sum(letter.mark is not None for letter in after) == 20, "a record that was not reached has no mark"
    steps = plan_redrive(box.settings, after, again=True)
    assert sum(not step.refusal for step in steps) == 23
    assert "name its PLACE" in next(step.refusal for step in steps if step.letter.place == sent.place)
    assert all(not step.refusal for step in plan_redrive(box.settings, after, again=True, named=[sent.place]) if step.letter == sent)


def test_a_record_that_kafka_does_not_confirm_is_not_marked_as_sent(box: LetterBox) -> None:
    findings = box.names.findings(LINE)
    box.write("judged", findings, b"x" * 3000)
    admin = KafkaAdminClient(bootstrap_servers=box.settings.bootstrap)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, findings, {"max.message.bytes": "100"})])
    known = read_dead_letters(box.settings)
    with Redrive(box.settings, "a person", known) as sending, pytest.raises(CastlineError, match="Kafka did not confirm"):
        list(sending.send(known))
    (letter,) = read_dead_letters(box.settings)
    assert [mark.is_sent for mark in letter.marks] == [False]
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, findings, {"max.message.bytes": "100000"})])
    admin.close()
    done = box.run("redrive", box.places["judged"], "--again", "--yes")
    assert "1 records were sent again." in done.stdout
    assert box.read(findings).values == [b"x" * 3000]


def test_records_without_a_position_are_different_records(box: LetterBox) -> None:
    findings = box.names.findings(LINE)
    for name, value in (("first", b"1"), ("second", b"2")):
        box.write(name, findings, value, offset=-1, partition=-1)
    for place in box.places.values():
        assert "1 records were sent again." in box.run("redrive", place, "--yes").stdout
    assert sorted(box.read(findings).values, key=str) == [b"1", b"2"]


def test_decisions_and_dead_letters_without_a_record_are_not_sent(box: LetterBox) -> None:
    decided = (box.names.models, box.names.lines, box.names.reviews)
    for topic in decided:
        box.write(topic, topic, b"{}")
    for reason in ("expired", "unreadable"):
        box.write(reason, box.names.images(LINE), b"")
    done = box.run("redrive", *box.places.values(), "--yes")
    assert done.stdout.count("an old decision must not replace a newer one") == 3
    assert done.stdout.count("the dead letter holds no record") == 2
    assert "Nothing is sent." in done.stdout
    assert [box.read(topic).values for topic in (*decided, box.names.images(LINE))] == [[]] * 4


def test_two_people_who_choose_two_dead_letters_of_one_record_send_it_once(box: LetterBox) -> None:
    box.write("of-archivist", box.names.verdicts(LINE), b"1", offset=1)
    box.write("of-sorter", box.names.verdicts(LINE), b"1", offset=1, role="sorter")
    known = read_dead_letters(box.settings)
    with Redrive(box.settings, "first", known) as first, Redrive(box.settings, "second", known) as second:
        results = [result for sending, letter in zip((first, second), known, strict=True) for _, result in sending.send([letter])]
    assert ["another person" in result for result in results] == [False, True]
    assert box.read(box.names.verdicts(LINE)).values == [b"1"]


def test_characters_that_control_a_terminal_are_not_printed(box: LetterBox) -> None:
    source = ConsumedRecord(box.names.verdicts(LINE), 0, 0, b"key\x1b[2J", b"x", {})
    box.send("odd", make_dead_letter(box.names.dead_letters, source, "sorter", "odd\x07", "A\x1b]0;title\nreason."))
    for arguments in (
        ["list"],
        ["redrive", box.places["odd"], "--yes"],
        ["save", box.places["odd"], str(box.settings.service.run_dir / "out")],
    ):
        box.settings.service.run_dir.mkdir(parents=True, exist_ok=True)
        printed = box.run(*arguments).stdout
        assert "\ufffd" in printed
        assert all(character.isprintable() for line in printed.split("\n") for character in line), printed
