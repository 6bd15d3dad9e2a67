"""Which version judges which line, as the topic `castings.models` tells it: read, followed and written.

A line's own choice goes before the one of all lines (`*`), and that before the setting `model.version`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from pydantic import ValidationError

from streams.errors import BrokerError, ModelError
from streams.kafka import make_client_arguments, read_to_end
from streams.record_producer import make_json_record
from streams.records import ModelChoice
from streams.settings import Settings
from streams.topics import TopicNames

log = logging.getLogger(__name__)

ALL_LINES = "*"
_REMEMBERED = 8  # versions that can be rolled back to
_POLL_MS = 500
_AGAIN_S = 1.0


@dataclass(frozen=True)
class EffectiveModel:
    """What is to judge a line, and who decided it; `choice` is None where the settings did."""

    version: str
    shadow: str | None
    choice: ModelChoice | None

    @property
    def decided_for(self) -> str:
        """The line, `*` or `settings`."""
        return self.choice.line if self.choice else "settings"


@dataclass(frozen=True)
class ModelChoices:
    """The newest choice under each key; `default` is the version of the settings."""

    default: str
    by_key: Mapping[str, ModelChoice] = field(default_factory=dict)

    def find(self, line: str) -> EffectiveModel:
        """What is to judge `line`; for `*` what judges the lines without a choice of their own."""
        choice = self.by_key.get(line) or self.by_key.get(ALL_LINES)
        return EffectiveModel(choice.version, choice.shadow, choice) if choice else EffectiveModel(self.default, None, None)

    def list_candidates(self, line: str) -> list[str]:
        """The version to judge `line`, then those to fall back on when a worker starts and cannot serve it, best first."""
        in_force = self.find(line)
        before = in_force.choice.previous if in_force.choice else ()
        return list(dict.fromkeys([in_force.version, *before, self.find(ALL_LINES).version, self.default]))

    def with_record(self, key: bytes | None, value: bytes | None) -> ModelChoices:
        """These choices after one more record; an empty value takes the choice back, what is no choice changes nothing."""
        name = (key or b"").decode(errors="replace")
        if not value:
            return ModelChoices(self.default, {line: choice for line, choice in self.by_key.items() if line != name})
        try:
            choice = ModelChoice.decode(value)
        except ValidationError as error:
            log.warning("a record on the topic of model choices is none: %s", error)
            return self
        if choice.line != name:
            log.warning("expected the choice for %s under its own key, found it under %r", choice.line, name[:80])
            return self
        return ModelChoices(self.default, {**self.by_key, choice.line: choice})

    def make_choice(self, line: str, version: str, by: str, at: datetime, forced: bool = False) -> ModelChoice:
        """The record that puts `version` in force. Chosen once more, it leaves what to roll back to as it is."""
        now = self.find(line)
        own = self.by_key.get(line)
        before = own.previous if own else ()
        if now.version != version:
            before = (now.version, *(name for name in before if name != now.version))[:_REMEMBERED]
        elif own is not None:
            forced = forced or own.forced
        shadow = now.shadow if now.shadow != version else None
        return ModelChoice(line=line, version=version, shadow=shadow, chosen_by=by, chosen_at=at, previous=before, forced=forced)

    def make_shadow_choice(self, line: str, shadow: str | None, by: str, at: datetime) -> ModelChoice:
        """The record that lets `shadow` judge silently beside the version in force, or nothing for None."""
        now, own = self.find(line), self.by_key.get(line)
        return ModelChoice(
            line=line,
            version=now.version,
            shadow=shadow,
            chosen_by=by,
            chosen_at=at,
            previous=own.previous if own else (),
            forced=own.forced if own else False,
        )

    def make_roll_back(self, line: str, by: str, at: datetime) -> ModelChoice:
        """The record that puts the version before in force again. Raises ModelError: when there is none."""
        own = self.by_key.get(line)
        if own is None or not own.previous:
            raise ModelError(f"expected a version before the one in force for {line}, found none: nothing was chosen for it yet")
        version, *before = own.previous
        shadow = own.shadow if own.shadow != version else None
        # Of other classes or not: it has been in force here.
        return ModelChoice(line=line, version=version, shadow=shadow, chosen_by=by, chosen_at=at, previous=tuple(before), forced=True)


def read_model_choices(settings: Settings, role: str) -> ModelChoices:
    """The choices as the topic has them now. Raises CastlineError: when it does not exist or is not readable."""
    choices = ModelChoices(settings.model.version)
    for record in read_to_end(settings, role, [TopicNames(settings.topics.prefix).models]):
        choices = choices.with_record(record.key, record.value)
    return choices


def publish_model_choice(settings: Settings, choice: ModelChoice, source: str) -> None:
    """Returns once the brokers have `choice`. Raises BrokerError: when they do not take it."""
    record = make_json_record(TopicNames(settings.topics.prefix).models, choice.line.encode(), choice, source)
    try:
        producer = KafkaProducer(**make_client_arguments(settings, source))
        try:
            producer.send(record.topic, key=record.key, value=record.value, headers=record.headers).get(30)
        finally:
            producer.close()
    except KafkaError as error:
        raise BrokerError(f"expected Kafka at {settings.bootstrap} to take the choice for {choice.line}, it did not: {error!r}") from error


class ModelChoiceFollower:
    """A thread that follows the topic with a consumer of its own, outside any group; Kafka's absence only delays it.

    `changed` gets the choices once the topic was read to its end, and again after every change: never those of its history.
    """

    def __init__(self, settings: Settings, role: str, changed: Callable[[ModelChoices], None]) -> None:
        self._settings = settings
        self._role = role
        self._changed = changed
        self._stopping = threading.Event()
        self._told: ModelChoices | None = None
        self._thread = threading.Thread(target=self._run, name="choices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (KafkaError, OSError) as error:
                log.warning("the topic of model choices cannot be read, what is in force stays: %r", error)
                self._stopping.wait(_AGAIN_S)

    def _follow(self) -> None:
        """Reads from the beginning: what was chosen while Kafka was away is found like everything else."""
        place = TopicPartition(TopicNames(self._settings.topics.prefix).models, 0)
        consumer = KafkaConsumer(
            **make_client_arguments(self._settings, f"{self._role}-choices"),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            end = consumer.end_offsets([place])[place]
            choices = ModelChoices(self._settings.model.version)
            while not self._stopping.is_set():
                if consumer.position(place) >= end and choices != self._told:
                    self._told = choices
                    self._changed(choices)
                for record in consumer.poll(timeout_ms=_POLL_MS).get(place, ()):
                    choices = choices.with_record(record.key, record.value)
        finally:
            consumer.close()
