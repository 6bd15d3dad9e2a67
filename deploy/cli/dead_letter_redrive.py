"""The redrive of dead letters: sends their original records to the original topics again, each record at most once.

Castline remembers a redrive by two marks. A mark is a record on the topic of dead letters, so all machines can read it. Castline writes
the first mark before it sends the original record, and the second mark after Kafka has confirmed the record. If Castline crashes after
the first mark, the record counts as sent. The option `--again` sends such a record nevertheless.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from streams.errors import CastlineError
from streams.identity import format_time, make_header_map
from streams.image_topic_reader import ImageTopicReader
from streams.kafka import make_client_arguments, open_client, read_to_end
from streams.record_producer import DEAD_LETTER_PREFIX, DEAD_REASON, EXPIRED, REDRIVE_MARK, ConsumedRecord, is_redrive_mark
from streams.settings import Settings
from streams.topics import TopicNames, declare_topics
from streams.unreadable_batches import UNREADABLE

_ROLE = "dead-letters"
_CONFIRM_S = 30
# A redrive first marks 20 dead letters, then sends their 20 records, and goes on with the next 20. If the redrive is interrupted, at most
# 20 dead letters have a mark although their record was not sent.
_GROUP_RECORDS = 20
# The largest record that the Kafka client sends, in bytes. The client checks the size before it compresses a record. The broker checks the
# size after the compression, so this limit is higher than the broker's.
_MAX_RECORD_BYTES = 2**28
_MARK_STATE, _BEGUN, _SENT = "redrive-state", "begun", "sent"
_GONE = "not sent: Kafka no longer has the whole record"
# A record that was sent again has this header. Its value is the place of the dead letter.
REDRIVEN_FROM = "redriven-from"


@dataclass(frozen=True)
class RedriveMark:
    """A mark on the topic of dead letters: a person has begun to send the record of a dead letter again.

    - `place`: the place of the dead letter, PARTITION@OFFSET.
    - `id`: identifies the redrive. All marks of a redrive have the same id.
    - `is_sent`: whether Kafka has confirmed the record that was sent.
    - `at`, `by`: when the mark was written, and by whom.
    - `to`: the new place of the record, or "" if `is_sent` is False.
    """

    place: str
    id: str
    is_sent: bool
    at: str
    by: str
    to: str

    @property
    def partition(self) -> str:
        """The partition that contains the mark and its dead letter, as text."""
        return self.place.partition("@")[0]

    def describe(self) -> str:
        if self.is_sent:
            return f"sent again on {self.at} by {self.by}, to {self.to}"
        return f"{self.by} began to send it again on {self.at}, and perhaps Kafka has it"


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter: its place, key and headers, without the bytes of the original record.

    Each mark in `marks` stands for an attempt to send the original record again. All dead letters of the same record have the same `marks`.
    """

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
    def reason(self) -> str | None:
        """Why the record could not be processed, in one word. None if the record on the topic of dead letters has no reason."""
        return self.headers.get(DEAD_REASON)

    @property
    def mark(self) -> RedriveMark | None:
        """The newest mark that says that Kafka has confirmed the record. Without such a mark, the newest of all marks, or None."""
        return max(reversed(self.marks), key=lambda mark: mark.is_sent, default=None)

    @property
    def topic(self) -> str:
        """The topic of the original record, or "" if the dead letter does not name it."""
        return self.headers.get("dead-topic", "")

    @property
    def original_position(self) -> tuple[int, int] | None:
        """Partition and offset of the original record. None if the record was never on Kafka, or if the dead letter does not name them."""
        partition, offset = self.headers.get("dead-partition", ""), self.headers.get("dead-offset", "")
        return (int(partition), int(offset)) if partition.isdecimal() and offset.isdecimal() else None

    @property
    def origin(self) -> tuple[str, int, int]:
        """The topic, partition and offset of the original record.

        If they are unknown, the topic is "", and the partition and offset are those of the dead letter.
        """
        return (self.topic, *self.original_position) if self.original_position else ("", self.partition, self.offset)

    @property
    def is_cut(self) -> bool:
        """Whether the dead letter has only the first bytes of the original record."""
        return "dead-sha256" in self.headers

    def describe_mark(self) -> str:
        """Returns when and by whom the record was sent again, or "" if nobody has sent it again."""
        if self.mark is None:
            return ""
        which = "" if self.mark.place == self.place else f"the same record, from the dead letter {self.mark.place}: "
        return which + self.mark.describe()


@dataclass(frozen=True)
class RedriveStep:
    """What a redrive does with one dead letter. `refusal` says why the letter is not sent, or is "" if it is sent."""

    letter: DeadLetter
    refusal: str = ""


def read_dead_letters(settings: Settings) -> list[DeadLetter]:
    """Returns all dead letters that Kafka holds, oldest first within each partition.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    letters, marks = _split(read_to_end(settings, _ROLE, [TopicNames(settings.topics.prefix).dead_letters]))
    by_origin = group_by_origin(letters, marks)
    return [replace(letter, marks=by_origin.get(letter.origin, ())) for letter in letters]


def group_by_origin(letters: Sequence[DeadLetter], marks: Sequence[RedriveMark]) -> dict[tuple[str, int, int], tuple[RedriveMark, ...]]:
    """Groups the marks by the original record of their dead letter.

    A mark says that a person has begun to send a dead letter again. The key of a group is the `origin` of the dead letter. Within a group,
    the marks keep their order.
    """
    origins = {letter.place: letter.origin for letter in letters}
    by_origin: dict[tuple[str, int, int], tuple[RedriveMark, ...]] = {}
    for mark in marks:
        if origin := origins.get(mark.place):
            by_origin[origin] = (*by_origin.get(origin, ()), mark)
    return by_origin


def _split(records: Iterable[Any]) -> tuple[list[DeadLetter], list[RedriveMark]]:
    letters: list[DeadLetter] = []
    marks: list[RedriveMark] = []
    for record in records:
        headers = {name: value.decode(errors="replace") for name, value in make_header_map(record.headers).items()}
        if mark := _read_mark(headers):
            marks.append(mark)
        else:
            letters.append(DeadLetter(record.partition, record.offset, record.key, len(record.value or b""), headers))
    return letters, marks


def _read_mark(headers: Mapping[str, str]) -> RedriveMark | None:
    if not is_redrive_mark(headers):
        return None
    at, by, to = (headers.get(f"redrive-{name}", "?") for name in ("at", "by", "to"))
    return RedriveMark(headers[REDRIVE_MARK], headers.get("redrive-id", ""), headers.get(_MARK_STATE) == _SENT, at, by, to)


def plan_redrive(settings: Settings, chosen: Sequence[DeadLetter], again: bool, named: Collection[str] = ()) -> list[RedriveStep]:
    """Returns a step for each of the `chosen` dead letters. A step says whether the record is sent again, or why not.

    If several dead letters come from the same record, the record is sent only once. A record with a mark is not sent, because a person has
    already begun to send it. With `again`, a marked record is sent in two cases:

    - Kafka has not confirmed the record.
    - A person has given the place of its dead letter (`named`).
    """
    cleanup_by_topic = {spec.name: spec.configs["cleanup.policy"] for spec in declare_topics(settings)}
    names = TopicNames(settings.topics.prefix)
    planned: dict[tuple[str, int, int], DeadLetter] = {}
    steps = []
    for letter in chosen:
        if letter.topic not in cleanup_by_topic or letter.topic == names.dead_letters:
            refusal = f"its topic {letter.topic or '(none)'} is no topic of these settings"
        elif letter.reason == EXPIRED:
            refusal = "the dead letter holds no record, because Kafka had deleted the records"
        elif letter.reason == UNREADABLE:
            refusal = "the dead letter holds no record, because the records could not be decoded"
        elif letter.topic == names.commands:
            refusal = "a command is valid for a minute only, so send a new command"
        elif cleanup_by_topic[letter.topic] == "compact":
            refusal = "an old decision must not replace a newer one, so choose or review again instead"
        elif letter.origin in planned:
            refusal = f"it is the same record as the dead letter {planned[letter.origin].place}"
        else:
            refusal = _describe_earlier_redrive(letter, again, letter.place in named)
        steps.append(RedriveStep(letter, refusal))
        if not refusal:
            planned[letter.origin] = letter
    return steps


def _describe_earlier_redrive(letter: DeadLetter, again: bool, is_named: bool) -> str:
    """If the record must not be sent again, returns when and by whom it was sent. Otherwise returns ""."""
    if letter.mark is None or (again and (is_named or not letter.mark.is_sent)):
        return ""
    return letter.describe_mark() + (". To send the record once more, name its PLACE" if again else "")


class Redrive:
    """Sends the original records of dead letters again. Use a Redrive in a `with` block.

    - `by`: the person who sends the records. Each RedriveMark contains this name.
    - `known`: all dead letters, as `read_dead_letters` returned them.
    """

    def __init__(self, settings: Settings, by: str, known: Sequence[DeadLetter]) -> None:
        self._settings = settings
        self._by = by
        self._known = known
        self._topic = TopicNames(settings.topics.prefix).dead_letters
        self._reader = ImageTopicReader(settings, _ROLE)
        self._id = str(uuid.uuid4())
        try:
            self._producer: Any = open_client(
                KafkaProducer,
                **make_client_arguments(settings, _ROLE),
                acks="all",
                compression_type="gzip",
                max_request_size=_MAX_RECORD_BYTES,
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

        Raises CastlineError if Kafka does not confirm a record. The records before this record were sent, and have their marks.
        """
        for start in range(0, len(letters), _GROUP_RECORDS):
            yield from self._send_group(letters[start : start + _GROUP_RECORDS])

    def _send_group(self, letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, str]]:
        whole = [letter for letter in letters if not letter.is_cut or self._read_original(letter) is not None]
        yield from ((letter, _GONE) for letter in letters if letter not in whole)
        for letter in whole:
            self._mark(letter, _BEGUN)
        marks_by_origin = self._read_new_marks()
        for letter in whole:
            if self._has_rival(letter, marks_by_origin.get(letter.origin, ())):
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

    def _read_new_marks(self) -> Mapping[tuple[str, int, int], tuple[RedriveMark, ...]]:
        """Reads the newest marks, which say which dead letters were sent again. Groups them by the original record of the dead letter."""
        first_offsets = {TopicPartition(self._topic, letter.partition): letter.offset for letter in self._known}
        letters, marks = _split(read_to_end(self._settings, _ROLE, [self._topic], first_offsets=first_offsets))
        return group_by_origin([*self._known, *letters], marks)

    def _has_rival(self, letter: DeadLetter, marks: Sequence[RedriveMark]) -> bool:
        """Returns whether another person is perhaps sending the same dead letter again at this moment.

        Each person writes a mark before sending. If the marks of two people are in the same partition, the person with the first mark sends
        the record. If the marks are in different partitions, nobody can tell which mark is first, so nobody sends the record.
        """
        new_marks = [mark for mark in marks if mark not in letter.marks]
        own = next((place for place, mark in enumerate(new_marks) if mark.id == self._id), len(new_marks))
        own_partition = str(letter.partition)
        return any(mark.id != self._id and (place < own or mark.partition != own_partition) for place, mark in enumerate(new_marks))

    def _read_original(self, letter: DeadLetter) -> ConsumedRecord | None:
        """Returns the original record without the headers `dead-…`, or None if Kafka no longer has the whole record."""
        try:
            if not letter.is_cut:
                record = self._reader.read(self._topic, letter.partition, letter.offset)
            else:
                record = self._reader.read(letter.topic, *letter.original_position) if letter.original_position else None
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
                f'Kafka did not confirm a record for {topic}: {error!r}. "castline dead-letters list" shows which records were sent.'
            ) from error
        return f"{confirmed.topic}/{confirmed.partition}@{confirmed.offset}"
