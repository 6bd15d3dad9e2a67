"""The producer of a role: what the brokers confirmed is sent once, and what they refuse for its size holds up no other record."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaConnectionError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError
from faust.types import AppT

from streams.record_producer import (
    CUT_VALUE_BYTES,
    ConsumedRecord,
    ProducerRecord,
    RecordProducer,
    cut_dead_letter,
    is_redrive_mark,
    make_dead_letter,
)
from streams.settings import Settings
from streams.signatures import check_signature, create_keys
from tests.held_kafka import HeldKafka

SETTINGS = Settings()
LETTERS = "castings.dead-letters"
Headers = list[tuple[str, bytes]]
# A function that returns the error for a topic and a value, or None.
Script = Callable[[str, bytes | None], BaseException | None]


@dataclass
class ScriptedKafka:
    """Stands for Faust's app and producer. Confirms each record, unless a script returns an error for it.

    - `refuse_early`: the error that `send` raises at once.
    - `refuse_late`: the error with which the broker answers.
    - `confirmed`: what arrived, in order.
    """

    refuse_early: Script = lambda topic, value: None
    refuse_late: Script = lambda topic, value: None
    confirmed: list[tuple[str, bytes | None, Headers]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    async def maybe_start_producer(self) -> ScriptedKafka:
        return self

    async def send(self, topic: str, key: bytes | None, value: bytes | None, _: None, __: None, headers: Headers) -> Any:
        # aiokafka asserts the same.
        assert not (value is None and key is None), "Need at least one: key or value"
        if error := self.refuse_early(topic, value):
            raise ProducerSendError(f"Error while sending: {error!r}") from error
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if error := self.refuse_late(topic, value):
            future.set_exception(error)
        else:
            self.confirmed.append((topic, value, headers))
            future.set_result(None)
        return future

    async def deliver(self, *records: ProducerRecord, settings: Settings = SETTINGS) -> list[ProducerRecord]:
        producer = RecordProducer(cast(AppT[object], self), settings, "inspector", self.problems.append)
        async with asyncio.timeout(30):
            return await producer.deliver(records)


def make_letter(value: bytes | None, key: bytes | None = b"line-1:1:1") -> ProducerRecord:
    return make_dead_letter(LETTERS, ConsumedRecord("castings.images.line-1", 2, 7, key, value, {}), "inspector", "too-large", "Too large.")


def refusing(moment: str, script: Script) -> ScriptedKafka:
    """Returns a Kafka that refuses records "early", when they are sent, or "late", in the broker's answer."""
    return ScriptedKafka(refuse_early=script) if moment == "early" else ScriptedKafka(refuse_late=script)


def refuse_larger_than(largest: int) -> Script:
    return lambda topic, value: MessageSizeTooLargeError() if len(value or b"") > largest else None


@pytest.mark.asyncio
async def test_a_dead_letter_that_is_too_large_is_cut_with_a_note_and_its_neighbours_are_sent_once() -> None:
    kafka = ScriptedKafka(refuse_early=refuse_larger_than(SETTINGS.topics.max_message_bytes))
    value = bytes(25 * 2**20)
    await kafka.deliver(ProducerRecord("verdicts", b"a", b"1"), make_letter(value), ProducerRecord("verdicts", b"b", b"2"))
    assert [(topic, sent) for topic, sent, _ in kafka.confirmed] == [
        ("verdicts", b"1"),
        (LETTERS, value[:CUT_VALUE_BYTES]),
        ("verdicts", b"2"),
    ]
    headers = dict(kafka.confirmed[1][2])
    assert headers["dead-bytes"] == b"26214400"
    assert headers["dead-sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert kafka.problems == [""], "a record that Kafka refuses is no problem of Kafka"


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["early", "late"])
async def test_a_broker_with_a_smaller_limit_gets_a_cut_dead_letter_and_nothing_confirmed_again(moment: str) -> None:
    kafka = refusing(moment, refuse_larger_than(2**20))
    await kafka.deliver(ProducerRecord("verdicts", b"a", b"1"), make_letter(bytes(2**21)), ProducerRecord("verdicts", b"b", b"2"))
    assert [(topic, len(value or b"")) for topic, value, _ in kafka.confirmed] == [
        ("verdicts", 1),
        ("verdicts", 1),
        (LETTERS, CUT_VALUE_BYTES),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["early", "late"])
async def test_any_other_record_that_is_refused_for_its_size_becomes_a_dead_letter(moment: str) -> None:
    kafka = refusing(moment, lambda topic, value: MessageSizeTooLargeError() if topic != LETTERS else None)
    finding = ProducerRecord("castings.findings.line-1", b"line-1:1:1", b"{}", [("ce_type", b"castline.finding.v1")])
    assert await kafka.deliver(finding) == [finding]
    ((topic, value, headers),) = kafka.confirmed
    assert (topic, value) == (LETTERS, b"{}")
    assert dict(headers)["dead-reason"] == b"refused-by-kafka"
    assert dict(headers)["dead-topic"] == b"castings.findings.line-1"
    assert dict(headers)["ce_type"] == b"castline.finding.v1"


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["early", "late"])
async def test_the_dead_letter_of_a_refused_record_has_its_signature_so_a_redrive_succeeds(moment: str, tmp_path: Path) -> None:
    create_keys(tmp_path / "private", tmp_path / "public", "localiser")
    keys = {"private_keys": tmp_path / "private", "public_keys": tmp_path / "public"}
    settings = Settings.model_validate({"signing": keys}).for_role("localiser")
    kafka = refusing(moment, lambda topic, value: MessageSizeTooLargeError() if topic != LETTERS else None)
    topic = "castings.findings.line-1"
    await kafka.deliver(ProducerRecord(topic, b"line-1:1:1", b"{}"), settings=settings)
    ((_, value, headers),) = kafka.confirmed
    check_signature(settings, topic, b"line-1:1:1", value, dict(headers))


@pytest.mark.asyncio
async def test_a_broker_that_refuses_even_a_short_dead_letter_does_not_stop_the_others() -> None:
    kafka = ScriptedKafka(refuse_late=lambda topic, value: MessageSizeTooLargeError() if topic == LETTERS else None)
    await kafka.deliver(make_letter(b"x"), make_letter(bytes(2**20)), ProducerRecord("verdicts", b"a", b"1"))
    assert [topic for topic, _, _ in kafka.confirmed] == ["verdicts"]


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["early", "late"])
async def test_after_an_outage_only_the_unconfirmed_records_are_sent_again_in_their_order(moment: str) -> None:
    answers = iter([None, KafkaConnectionError()])
    kafka = refusing(moment, lambda topic, value: next(answers, None))
    await kafka.deliver(*(ProducerRecord("verdicts", b"a", str(number).encode()) for number in range(4)))
    sent = [value for _, value, _ in kafka.confirmed]
    assert sorted(sent, key=str) == [b"0", b"1", b"2", b"3"], "each arrived once"
    assert len(kafka.problems) == 2
    assert "did not accept" in kafka.problems[0]


@pytest.mark.asyncio
async def test_a_delivery_ends_only_when_kafka_has_confirmed_the_last_record() -> None:
    kafka = HeldKafka()
    records = [ProducerRecord("verdicts", b"a", b"%d" % number) for number in range(3)]
    delivery = asyncio.create_task(kafka.make_producer().deliver(records))
    assert await kafka.wait_for(3) == records
    await kafka.confirm(2)
    assert not delivery.done()
    for _ in range(3):
        await kafka.refuse(KafkaConnectionError())
        assert await kafka.wait_for(1) == records[2:], "a confirmed record is not sent again"
        assert not delivery.done()
    await kafka.confirm()
    assert await delivery == []


@pytest.mark.asyncio
async def test_a_record_that_failed_is_sent_again_before_the_records_behind_it() -> None:
    """Kafka loses the answer to record 0, and the connection breaks before record 1 is sent."""
    early, late = iter([None, KafkaConnectionError()]), iter([KafkaConnectionError()])
    kafka = ScriptedKafka(refuse_early=lambda *_: next(early, None), refuse_late=lambda *_: next(late, None))
    await kafka.deliver(*(ProducerRecord("verdicts", b"a", b"%d" % number) for number in range(4)))
    assert [value for _, value, _ in kafka.confirmed] == [b"0", b"1", b"2", b"3"]


@pytest.mark.asyncio
async def test_an_answer_that_nobody_expects_is_no_confirmation() -> None:
    """Then the role crashes, and Kafka delivers its records again after the restart."""
    kafka = HeldKafka()
    delivery = asyncio.create_task(kafka.make_producer().deliver([ProducerRecord("verdicts", b"a", b"1")]))
    await kafka.wait_for(1)
    await kafka.refuse(ZeroDivisionError("an error that nobody expects"))
    with pytest.raises(ZeroDivisionError):
        await delivery


@pytest.mark.asyncio
async def test_a_record_without_key_and_value_has_a_dead_letter_that_kafka_accepts() -> None:
    kafka = ScriptedKafka()
    await kafka.deliver(make_letter(None, key=None))
    assert [value for _, value, _ in kafka.confirmed] == [b""]


def test_a_short_dead_letter_keeps_its_value() -> None:
    letter = make_letter(b"x" * 100)
    assert cut_dead_letter(letter, 100) is letter
    assert cut_dead_letter(letter, 99).value == b"x" * 100


@pytest.mark.asyncio
@pytest.mark.parametrize("letter", [False, True])
async def test_a_record_that_is_refused_because_of_the_clock_is_sent_again_until_the_clock_is_right(letter: bool) -> None:
    answers = iter([InvalidTimestampError(), InvalidTimestampError()])
    kafka = ScriptedKafka(refuse_late=lambda topic, value: next(answers, None))
    assert await kafka.deliver(make_letter(b"1") if letter else ProducerRecord("verdicts", b"a", b"1")) == []
    assert [(topic, value) for topic, value, _ in kafka.confirmed] == [(LETTERS if letter else "verdicts", b"1")]
    assert "Set the clock" in kafka.problems[0]


def test_a_sender_cannot_hide_its_dead_letter_behind_the_headers_of_a_mark() -> None:
    headers = {"redrive-of": b"0@0", "redrive-id": b"x", "expired-records": b"9", "line": b"line-1"}
    record = ConsumedRecord("castings.images.line-1", 0, 0, None, b"x", headers)
    written = dict(make_dead_letter(LETTERS, record, "inspector", "identity", "No part.").headers)
    assert headers.keys() & written.keys() == {"line"}
    assert not is_redrive_mark(written | headers), "a letter of an older release may still have these headers"
    assert is_redrive_mark({"redrive-of": b"0@0"})
