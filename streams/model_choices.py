"""Reads and writes the topic `castings.models`, which says which model version judges which line.

If a line has no choice of its own, the choice for all lines (`*`) applies. If nobody has made such a choice, the setting
`model.version` applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from streams.compacted_topics import publish_keyed_record, read_compacted_topic
from streams.errors import ModelError, RecordError
from streams.record_reader import read_record
from streams.records import ModelChoice
from streams.settings import Settings
from streams.topics import TopicNames

ALL_LINES = "*"
_MAX_PREVIOUS = 8


@dataclass(frozen=True)
class EffectiveModel:
    """The model version that judges a line, and the line's shadow version. `choice` is None if the version comes from the settings."""

    version: str
    shadow: str | None
    choice: ModelChoice | None

    @property
    def decided_for(self) -> str:
        """Returns the line for which the version was chosen, `*` for all lines, or "settings" if the version comes from the settings."""
        return self.choice.line if self.choice else "settings"


@dataclass(frozen=True)
class ModelChoices:
    """The newest model choice for each line and for all lines (`*`). `default` is the version that the settings name."""

    default: str
    by_key: Mapping[str, ModelChoice] = field(default_factory=dict)

    def find(self, line: str) -> EffectiveModel:
        """Returns the model version that judges `line`. `*` stands for all lines that have no choice of their own."""
        choice = self.by_key.get(line) or self.by_key.get(ALL_LINES)
        return EffectiveModel(choice.version, choice.shadow, choice) if choice else EffectiveModel(self.default, None, None)

    def list_candidates(self, line: str) -> list[str]:
        """Returns the versions that a starting worker tries to load for `line`, in this order. The chosen version comes first."""
        effective = self.find(line)
        previous = effective.choice.previous if effective.choice else ()
        return list(dict.fromkeys([effective.version, *previous, self.find(ALL_LINES).version, self.default]))

    def with_record(self, key: bytes | None, value: bytes | None, broker_time: datetime | None = None) -> ModelChoices:
        """Returns a copy in which `value` is the model choice of the line `key`. An empty value removes the choice.

        Raises RecordError if the record is not valid.
        """
        name = (key or b"").decode(errors="replace")
        if not value:
            return ModelChoices(self.default, {line: choice for line, choice in self.by_key.items() if line != name})
        choice = read_record(ModelChoice, value, broker_time)
        if choice.line != name:
            raise RecordError("other-line", f"The model choice is for {choice.line}, but the key of its record is {name[:80]!r}.")
        return ModelChoices(self.default, {**self.by_key, choice.line: choice})

    def make_choice(self, line: str, version: str, by: str, at: datetime, forced: bool = False) -> ModelChoice:
        """Returns the record that makes `version` judge `line`. The record also lists the versions that judged the line before.

        `forced` permits a version whose classes differ from the classes of the previous version.
        """
        effective = self.find(line)
        own = self.by_key.get(line)
        previous = own.previous if own else ()
        if effective.version != version:
            previous = (effective.version, *(name for name in previous if name != effective.version))[:_MAX_PREVIOUS]
        elif own is not None:
            forced = forced or own.forced
        shadow = effective.shadow if effective.shadow != version else None
        return ModelChoice(line=line, version=version, shadow=shadow, chosen_by=by, chosen_at=at, previous=previous, forced=forced)

    def make_shadow_choice(self, line: str, shadow: str | None, by: str, at: datetime) -> ModelChoice:
        """Returns the record that sets the shadow version of `line`, or removes the shadow version if `shadow` is None."""
        effective, own = self.find(line), self.by_key.get(line)
        return ModelChoice(
            line=line,
            version=effective.version,
            shadow=shadow,
            chosen_by=by,
            chosen_at=at,
            previous=own.previous if own else (),
            forced=own.forced if own else False,
        )

    def make_roll_back(self, line: str, by: str, at: datetime) -> ModelChoice:
        """Returns the record that makes the previous version judge `line` again. Raises ModelError if there is no such version."""
        own = self.by_key.get(line)
        if own is None or not own.previous:
            raise ModelError(f"There is no version to roll back to for {line}, because no other version was chosen for it before.")
        version, *previous = own.previous
        shadow = own.shadow if own.shadow != version else None
        # The line has used this version before. So the version is permitted even if its classes of parts differ from the classes of the
        # current version.
        return ModelChoice(line=line, version=version, shadow=shadow, chosen_by=by, chosen_at=at, previous=tuple(previous), forced=True)


def read_model_choices(settings: Settings, role: str) -> ModelChoices:
    """Reads the topic of model choices to its end and returns the newest choice of each line.

    Raises CastlineError if the topic does not exist or cannot be read.
    """
    return read_compacted_topic(settings, role, TopicNames(settings.topics.prefix).models, ModelChoices(settings.model.version))


def publish_model_choice(settings: Settings, choice: ModelChoice, source: str) -> None:
    """Sends `choice` to Kafka and waits for the brokers' confirmation. Raises BrokerError if the brokers do not accept it."""
    publish_keyed_record(settings, TopicNames(settings.topics.prefix).models, choice.line, choice, source)
