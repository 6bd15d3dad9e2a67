"""A person's request on the Models page to change the model of a line.

The station makes the same checks as the command `castline models choose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from django.contrib.auth.models import User

from models.inference.line_outlook import VersionComparison, compare_versions
from models.registry import Manifest, Registry, open_plant_registry
from station.accounts.models import AuditEntry
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError, send_record
from streams.errors import CastlineError, ModelError
from streams.kafka import is_reachable
from streams.live_line_settings import LiveSettingsByLine, read_live_line_settings
from streams.model_choices import ALL_LINES, ModelChoices, read_model_choices
from streams.record_producer import make_json_record
from streams.records import ModelChoice
from streams.settings import Settings
from streams.topics import TopicNames

ModelAction = Literal["choose", "shadow", "roll-back"]
NO_SHADOW = "none"


@dataclass(frozen=True)
class ModelChoiceRequest:
    """A person's request to change the model of `line`. The line "*" stands for all lines without a model choice of their own.

    For a roll-back to the previous version, `version` is empty. If `force` is true, the new version is allowed to have other classes than
    the version in force.
    """

    action: ModelAction
    line: str
    version: str = ""
    force: bool = False


@dataclass(frozen=True)
class CheckedModelChoice:
    """A request that passed all checks, and the record that will be sent to Kafka. `changed_lines` are the lines that the change affects.

    `before` is the version before the change, and `before_shadow` is the shadow before the change.
    """

    request: ModelChoiceRequest
    record: ModelChoice
    before: str
    before_shadow: str | None
    changed_lines: tuple[str, ...] = ()


class DifferentClassesError(ModelError):
    """Raised if the requested version has other classes than the version in force. A request with `force` can still choose this version."""


def read_current_choices() -> ModelChoices:
    """Returns the model choices that Kafka holds now. Raises KafkaUnavailableError if they cannot be read."""
    settings = current_settings()
    if not is_reachable(settings.bootstrap):
        raise KafkaUnavailableError("Kafka does not answer, so no model can be chosen now. Try again in a moment.")
    try:
        return read_model_choices(settings, "station")
    except CastlineError as error:
        raise KafkaUnavailableError(f"The current model choices cannot be read from Kafka: {error}") from error


def check_request(
    settings: Settings, request: ModelChoiceRequest, current: ModelChoices, requested_by: str, at: datetime
) -> CheckedModelChoice:
    """Checks `request` and the files of its version. Returns the request with the record to be sent.

    Raises DifferentClassesError if the version has other classes than the version in force. If `request.force` is True, other classes are
    allowed. Raises ModelError if another check fails.
    """
    registry, before = open_plant_registry(settings, reuse_checksums=True), current.find(request.line)
    if request.line != ALL_LINES and request.line not in {line.name for line in settings.lines}:
        raise ModelError(f"There is no line {request.line[:40]!r}. Choose one of the lines on the Models page.")
    if request.action == "roll-back":
        record = current.make_roll_back(request.line, requested_by, at)
        registry.open_version(record.version)
    elif request.action == "shadow":
        shadow = None if request.version == NO_SHADOW else registry.open_version(request.version).name
        if shadow == before.version:
            raise ModelError(f"{shadow} already judges the parts. Choose another version as the shadow.")
        record = current.make_shadow_choice(request.line, shadow, requested_by, at)
    else:
        version = registry.open_version(request.version)
        if not request.force:
            _check_classes(settings, registry, version.manifest, current, request.line)
        record = current.make_choice(request.line, version.name, requested_by, at, request.force)
    changed_lines = tuple(_find_changed_lines(settings, current, request.line))
    return CheckedModelChoice(request, record, before.version, before.shadow, changed_lines)


def compare_on_lines(settings: Settings, choice: CheckedModelChoice) -> list[VersionComparison]:
    """Returns the expected errors and reviews before and after the change, for each line whose model `choice` changes.

    Returns an empty list if the manifest of a version cannot be read.
    """
    registry = open_plant_registry(settings, reuse_checksums=True)
    try:
        live = read_live_line_settings(settings, "station")
    except CastlineError:
        live = LiveSettingsByLine()
    try:
        after = registry.read_manifest(choice.record.version)
        before = registry.read_manifest(choice.before)
    except ModelError:
        return []
    return [compare_versions(line, before, after, live.find(line)) for line in choice.changed_lines]


def publish_choice(choice: CheckedModelChoice, user: User) -> None:
    """Sends the record to the inspectors and writes an entry into the audit log.

    If Kafka does not confirm the record, writes no entry and raises KafkaUnavailableError.
    """
    record = choice.record
    message = make_json_record(TopicNames(current_settings().topics.prefix).models, record.line.encode(), record, "station")
    send_record(message.topic, record.line, record.encode(), message.headers)
    AuditEntry.record(
        user,
        f"model {choice.request.action}",
        record.line,
        version=record.version,
        shadow=record.shadow,
        before=choice.before,
        before_shadow=choice.before_shadow,
        forced=record.forced,
    )


def _find_changed_lines(settings: Settings, current: ModelChoices, key: str) -> list[str]:
    """Returns the names of the lines whose model changes if a model is chosen for `key`.

    `key` is the name of a line, or "*". The key "*" stands for all lines without a model choice of their own.
    """
    return [key] if key != ALL_LINES else [line.name for line in settings.lines if line.name not in current.by_key]


def _check_classes(settings: Settings, registry: Registry, requested: Manifest, current: ModelChoices, key: str) -> None:
    """Compares the classes of `requested` with the classes of the version in force. Raises DifferentClassesError if they differ.

    `key` is the name of a line, or "*" for all lines without a model choice of their own. The classes are compared on each of these lines.
    """
    for line in _find_changed_lines(settings, current, key):
        try:
            present = registry.read_manifest(current.find(line).version)
        except ModelError as error:
            raise DifferentClassesError(
                f"The version in force on {line} cannot be read, so its classes cannot be compared with the classes of "
                f"{requested.version}: {error}"
            ) from None
        if not present.has_same_classes(requested):
            raise DifferentClassesError(
                f"The classes differ: {requested.version} has the classes {requested.describe_classes()}, "
                f"but {present.version}, which is in force on {line}, has the classes {present.describe_classes()}."
            )
