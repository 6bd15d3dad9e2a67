"""A change of what judges a line: considered with the checks of `castline models`, then told to the inspectors by the same record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from django.contrib.auth.models import User

from station.accounts.models import AuditEntry
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError, send_record
from station.versions.shelf import read, verify
from streams.errors import CastlineError, ModelError
from streams.kafka import is_reachable
from streams.model_choices import ALL_LINES, ModelChoices, read_model_choices
from streams.record_producer import make_json_record
from streams.records import ModelChoice
from streams.settings import Settings
from streams.topics import TopicNames

Action = Literal["choose", "shadow", "roll-back"]
NO_SHADOW = "none"


@dataclass(frozen=True)
class Wish:
    """What a person asked for: `line` is a line or `*`; a roll-back names no version."""

    action: Action
    line: str
    version: str = ""
    force: bool = False


@dataclass(frozen=True)
class Plan:
    """A wish that passed all checks: the record that will be sent, and what was in force before."""

    wish: Wish
    record: ModelChoice
    before: str
    before_shadow: str | None


class OtherClassesError(ModelError):
    """The version judges other classes than the one in force: it needs a person's explicit word."""


def choices() -> ModelChoices:
    """What is chosen now, read from its topic. Raises KafkaUnavailableError."""
    settings = current_settings()
    if not is_reachable(settings.bootstrap):
        raise KafkaUnavailableError("Kafka does not answer: nothing can be chosen now.")
    try:
        return read_model_choices(settings, "station")
    except CastlineError as error:
        raise KafkaUnavailableError(f"What is chosen now cannot be read from Kafka: {error}") from error


def consider(settings: Settings, wish: Wish, now_chosen: ModelChoices, by: str, at: datetime) -> Plan:
    """The plan for `wish`. Raises ModelError: in words, when a check fails."""
    root, before = settings.model.root, now_chosen.find(wish.line)
    if wish.line != ALL_LINES and wish.line not in {line.name for line in settings.lines}:
        raise ModelError(f"There is no line {wish.line[:40]!r}.")
    if wish.action == "roll-back":
        record = now_chosen.make_roll_back(wish.line, by, at)
        verify(root, record.version)
    elif wish.action == "shadow":
        beside = None if wish.version == NO_SHADOW else verify(root, wish.version).version
        if beside == before.version:
            raise ModelError(f"{beside} is in force there already: a shadow must be another version.")
        record = now_chosen.make_shadow_choice(wish.line, beside, by, at)
    else:
        chosen = verify(root, wish.version)
        if not wish.force:
            _expect_same_classes(settings, root, chosen.version, now_chosen, wish.line)
        record = now_chosen.make_choice(wish.line, chosen.version, by, at, wish.force)
    return Plan(wish, record, before.version, before.shadow)


def carry_out(plan: Plan, user: User) -> None:
    """Tells the inspectors and writes it into the audit log. Raises KafkaUnavailableError: then nothing has changed."""
    record = plan.record
    out = make_json_record(TopicNames(current_settings().topics.prefix).models, record.line.encode(), record, "station")
    send_record(out.topic, record.line, record.encode(), out.headers)
    AuditEntry.record(
        user,
        f"model {plan.wish.action}",
        record.line,
        version=record.version,
        shadow=record.shadow,
        before=plan.before,
        before_shadow=plan.before_shadow,
        forced=record.forced,
    )


def _expect_same_classes(settings: Settings, root: Path, version: str, now_chosen: ModelChoices, key: str) -> None:
    chosen = read(root, version)
    lines = [key] if key != ALL_LINES else [line.name for line in settings.lines if line.name not in now_chosen.by_key]
    for line in lines:
        try:
            present = read(root, now_chosen.find(line).version)
        except ModelError as error:
            raise OtherClassesError(f"The classes of the version in force on {line} cannot be compared: {error}") from None
        if present.kinds() != chosen.kinds():
            raise OtherClassesError(
                f"{chosen.version} judges {chosen.kinds_in_words()}; "
                f"{present.version}, in force on {line}, judges {present.kinds_in_words()}."
            )
