"""Sends commands such as `acknowledge` to the sorter of a line, and returns the sorter's answers as JSON."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe
from pydantic import ValidationError

from station.accounts.access import RIGHT_DESCRIPTIONS, Right, get_rights, right_required
from station.accounts.models import AuditEntry
from station.configuration import current_settings
from station.kafka_producer import KafkaUnavailableError, send_record
from streams.commands import decode_command, make_command_record
from streams.errors import CastlineError, RecordError
from streams.identity import make_header_map
from streams.kafka import is_reachable, read_to_end
from streams.records import MAX_COMMAND_VALIDITY, Command, CommandAction, make_command
from streams.topics import TopicNames

# The sorter does not execute a command that is older than 10 s. The person who sent the command may have walked to the gate, and a moving
# gate is dangerous.
_VALID_S = 10.0
_RIGHTS: dict[CommandAction, Right] = {
    "acknowledge": "acknowledge faults",
    "clear": "acknowledge faults",
    "status": "look",
    "settings": "look",
    "monitor": "look",
    "test": "move gates",
    "pause": "move gates",
    "resume": "move gates",
}
_FIELDS = ("code", "what", "lane")
_MAX_PROBLEM_CHARACTERS = 400


@require_POST
@right_required("look")
def send_command(request: HttpRequest, line: str) -> HttpResponse:
    """Sends a command to the sorter of `line`.

    The form field `action` names the command. Some actions also need one of the fields `code`, `what` and `lane`.

    Returns status 202 and the URL under which the answer of the sorter can be read. Writes an audit entry before it sends the command.
    """
    if _has_no_gate(line):
        return _problem(404, f"The line {line} has no gate, so there is no sorter that takes commands.")
    action = next((known for known in _RIGHTS if known == request.POST.get("action")), None)
    if action is None:
        return _problem(400, f"The field action is missing or wrong. Send one of {', '.join(_RIGHTS)}.")
    right = _RIGHTS[action]
    if right not in get_rights(request.user):
        return _problem(
            403, f"This account is not allowed to {RIGHT_DESCRIPTIONS[right]}. Ask an administrator for a role that is allowed to."
        )
    assert isinstance(request.user, User)
    fields = {name: request.POST[name] for name in _FIELDS if request.POST.get(name)}
    try:
        command = make_command(line, action, request.user.get_username(), _VALID_S, **fields)
    except ValidationError as error:
        problems = "; ".join(problem["msg"] for problem in error.errors())
        return _problem(400, f"The command is not valid: {problems[:_MAX_PROBLEM_CHARACTERS]}")
    AuditEntry.record(request.user, "line command", line, command=action, id=str(command.command_id), **fields)
    record = make_command_record(current_settings(), command, "station")
    try:
        send_record(record.topic, line, record.value, record.headers)
    except KafkaUnavailableError as error:
        AuditEntry.record(request.user, "line command not sent", line, id=str(command.command_id))
        return _problem(503, str(error))
    address = reverse("line-command", args=[line, command.command_id])
    return JsonResponse({"command_id": str(command.command_id), "answer": address}, status=202)


@require_safe
@right_required("look")
def show_answer(request: HttpRequest, line: str, command_id: uuid.UUID) -> HttpResponse:
    """Returns the command as JSON. The field `answer` holds the answer of the sorter. The status is 202 until the sorter has answered."""
    settings = current_settings()
    if _has_no_gate(line):
        return _problem(404, f"The line {line} has no gate, so there is no sorter that takes commands.")
    if not is_reachable(settings.bootstrap):
        return _problem(503, "Kafka does not answer, so the answer of the sorter cannot be read. Try again in a moment.")
    found: Command | None = None
    topic = TopicNames(settings.topics.prefix).commands
    try:
        for record in read_to_end(settings, "station", [topic], since=datetime.now(UTC) - 2 * MAX_COMMAND_VALIDITY):
            try:
                command = decode_command(settings, record.key, record.value, make_header_map(record.headers))
            except RecordError:
                # Only skip an invalid record here. The sorter reports it as a dead letter.
                continue
            if command.command_id == command_id and command.line == line:
                found = command
    except CastlineError as error:
        return _problem(503, str(error))
    if found is None:
        return _problem(404, "There is no such command in the last two minutes. Read the audit log, or send the command again.")
    return JsonResponse(found.model_dump(mode="json"), status=200 if found.answer else 202)


def _has_no_gate(line: str) -> bool:
    return not any(known.name == line and known.gate is not None for known in current_settings().lines)


def _problem(status: int, sentence: str) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status)
