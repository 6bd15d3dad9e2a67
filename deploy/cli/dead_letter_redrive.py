"""Sends the original records of dead letters to their topics again, each at most once.

A mark is a record on the topic of dead letters. The mark tells all machines that a dead letter was sent again. Castline writes the mark
before it sends the original record. If Castline crashes between mark and record, the record counts as sent. Use `--again` to send it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streams.errors import CastlineError
from streams.identity import format_time, make_header_map
from streams.image_topic_reader import ImageTopicReader
from streams.kafka import make_client_arguments, read_to_end
from streams.record_producer import DEAD_LETTER_PREFIX, REDRIVE_MARK, ConsumedRecord, is_redrive_mark
from streams.settings import Settings
from streams.topics import TopicNames, declare_topics

_ROLE = "dead-letters"
_CONFIRM_S = 30
# This limit is high because a record may have been compressed when it arrived. The broker still refuses a record that is too large.
_MAX_RECORD_BYTES = 2**28
_MARK_STATE, _BEGUN, _SENT = "redrive-state", "begun", "sent"
_GONE = "not sent: Kafka no longer has the whole record"
# The header of a record that was sent again. It names the dead letter.
REDRIVEN_FROM = "redriven-from"


@dataclass(frozen=True)
class RedriveMark:
    """A record that says that a person began to send the dead letter at `place` again. If `is_sent`, Kafka has confirmed it."""

    place: str
    id: str
    is_sent: bool
    at: str
    by: str
    to: str

    def describe(self) -> str:
        if self.is_sent:
            return f"sent again on {self.at} by {self.by}, to {self.to}"
        return f"{self.by} began to send it again on {self.at}, and Kafka may have it"


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter without its value, with the marks of its redrives in the order in which they were written."""

    partition: int
    offset: int
    key: bytes | None
    size: int
    headers: dict[str, str]
    marks: tuple[RedriveMark, ...] = ()

    @property
    def place(self) -> str:
        """The place of the dead letter, PARTITION@OFFSET."""
        return f"{self.partition}@{self.offset}"

    @property
    def mark(self) -> RedriveMark | None:
        """The last mark with `is_sent`. If no record was sent, the last mark of all, or None if the dead letter has no mark."""
        return max(reversed(self.marks), key=lambda mark: mark.is_sent, default=None)

    @property
    def topic(self) -> str:
        """The topic of the original record, or "" if the dead letter does not name it."""
        return self.headers.get("dead-topic", "")

    @property
    def origin(self) -> tuple[str, str, str]:
        """Topic, partition and offset of the original record."""
        return self.topic, self.headers.get("dead-partition", ""), self.headers.get("dead-offset", "")

    @property
    def is_cut(self) -> bool:
        """Whether the dead letter has only the first bytes of the original record."""
        return "dead-sha256" in self.headers


@dataclass(frozen=True)
class RedriveStep:
    """What a redrive does with one dead letter. `refusal` says why the letter is not sent, or is "" if it is sent."""

    letter: DeadLetter
    refusal: str = ""


def read_dead_letters(settings: Settings) -> list[DeadLetter]:
    """Returns all dead letters that Kafka holds, oldest first within each partition.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    letters: list[DeadLetter] = []
    marks: dict[str, tuple[RedriveMark, ...]] = {}
    for record in read_to_end(settings, _ROLE, [TopicNames(settings.topics.prefix).dead_letters]):
        headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
        if mark := _read_mark(headers):
            marks[mark.place] = (*marks.get(mark.place, ()), mark)
        else:
            letters.append(DeadLetter(record.partition, record.offset, record.key, len(record.value or b""), headers))
    return [replace(letter, marks=marks.get(letter.place, ())) for letter in letters]


def _read_mark(headers: dict[str, str]) -> RedriveMark | None:
    if not is_redrive_mark(headers):
        return None
    at, by, to = (headers.get(f"redrive-{name}", "?") for name in ("at", "by", "to"))
    return RedriveMark(headers[REDRIVE_MARK], headers.get("redrive-id", ""), headers.get(_MARK_STATE) == _SENT, at, by, to)


def plan_redrive(settings: Settings, chosen: Sequence[DeadLetter], known: Sequence[DeadLetter], again: bool) -> list[RedriveStep]:
    """Returns what a redrive of the `chosen` letters does with each of them. `known` are all dead letters.

    If several dead letters come from the same record, only the first sends the record. If `again` is true, records that were already sent
    are sent once more.
    """
    topics = {spec.name for spec in declare_topics(settings)}
    names = TopicNames(settings.topics.prefix)
    sent = {letter.origin: letter for letter in known if letter.mark is not None}
    steps = []
    for letter in chosen:
        refusal, twin = "", sent.get(letter.origin)
        if letter.topic not in topics or letter.topic == names.dead_letters:
            refusal = f"its topic {letter.topic or '(none)'} is no topic of these settings"
        elif letter.topic == names.commands:
            refusal = "a command is valid for a minute only, so send a new command"
        elif twin is not None and twin.mark is not None and not again:
            which = "" if twin.place == letter.place else f"the same record, from the dead letter {twin.place}, was "
            refusal = which + twin.mark.describe()
        elif twin is not None and twin.mark is None:
            refusal = f"it is the same record as the dead letter {twin.place}"
        steps.append(RedriveStep(letter, refusal))
        if not refusal and "-1" not in letter.origin:
            sent[letter.origin] = replace(letter, marks=())
    return steps


class Redrive:
    """Sends the original records of dead letters again. Use a Redrive in a `with` block. `by` is the name of the person who sends them."""

    def __init__(self, settings: Settings, by: str) -> None:
        self._settings = settings
        self._by = by
        self._topic = TopicNames(settings.topics.prefix).dead_letters
        self._reader = ImageTopicReader(settings, _ROLE)
        self._id = str(uuid.uuid4())
        try:
            self._producer: Any = KafkaProducer(
                **make_client_arguments(settings, _ROLE), acks="all", compression_type="gzip", max_request_size=_MAX_RECORD_BYTES
            )
        except (KafkaError, OSError) as error:
            raise CastlineError(f"Kafka at {settings.bootstrap} does not answer: {error}. Nothing was sent. Check the brokers.") from error

    def __enter__(self) -> Redrive:
        return self

    def __exit__(self, *error: object) -> None:
        self._producer.close()
        self._reader.close()

    def send(self, letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, str]]:
        """Sends the records of `letters`, one after the other. Yields each letter with the new place of its record, such as "topic/0@17".

        If a record was not sent, yields the letter with "not sent: " and the reason.

        Raises CastlineError if Kafka does not confirm a record. The records before this record stay sent and marked.
        """
        whole = [letter for letter in letters if not letter.is_cut or self._read_original(letter) is not None]
        yield from ((letter, _GONE) for letter in letters if letter not in whole)
        for letter in whole:
            self._mark(letter, _BEGUN)
        present = {letter.place: letter.marks for letter in read_dead_letters(self._settings)}
        for letter in whole:
            # If two people redrive a letter at the same time, the first of their marks decides who sends it.
            new_marks = present.get(letter.place, ())[len(letter.marks) :]
            if not new_marks or new_marks[0].id != self._id:
                yield letter, "not sent: another person sends it at this moment"
                continue
            original = self._read_original(letter)
            if original is None:
                yield letter, _GONE
                continue
            headers = [*original.headers.items(), (REDRIVEN_FROM, letter.place.encode())]
            to = self._confirm(letter.topic, original.key, original.value, headers)
            self._mark(letter, _SENT, to)
            yield letter, to

    def _read_original(self, letter: DeadLetter) -> ConsumedRecord | None:
        """Returns the original record without the headers `dead-…`, or None if Kafka no longer has the whole record."""
        try:
            if not letter.is_cut:
                record = self._reader.read(self._topic, letter.partition, letter.offset)
            else:
                _, partition, offset = letter.origin
                record = self._reader.read(letter.topic, int(partition), int(offset)) if offset != "-1" else None
        except (KafkaError, OSError, ValueError) as error:
            raise CastlineError(f"The dead letter {letter.place} cannot be read: {error}. Nothing was sent. Check the brokers.") from error
        if record is None:
            return None
        if letter.is_cut and hashlib.sha256(record.value or b"").hexdigest() != letter.headers["dead-sha256"]:
            return None
        headers = {
            name: value for name, value in record.headers.items() if not name.startswith(DEAD_LETTER_PREFIX) and name != REDRIVEN_FROM
        }
        return replace(record, headers=headers)

    def _mark(self, letter: DeadLetter, state: str, to: str = "") -> None:
        mark = {
            REDRIVE_MARK: letter.place,
            _MARK_STATE: state,
            "redrive-id": self._id,
            "redrive-at": format_time(datetime.now(UTC)),
            "redrive-by": self._by,
            "redrive-to": to,
        }
        self._confirm(self._topic, letter.key, b"", [(name, text.encode()) for name, text in mark.items()], letter.partition)

    def _confirm(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], partition: int | None = None
    ) -> str:
        """Sends a record and waits until Kafka confirms it. Returns the place of the record, such as "topic/0@17"."""
        try:
            confirmed = self._producer.send(topic, key=key, value=value, headers=headers, partition=partition).get(_CONFIRM_S)
        except (KafkaError, OSError) as error:
            raise CastlineError(
                f'Kafka did not confirm a record for {topic}: {error!r}. "castline dead-letters list" shows what was sent.'
            ) from error
        return f"{confirmed.topic}/{confirmed.partition}@{confirmed.offset}"
