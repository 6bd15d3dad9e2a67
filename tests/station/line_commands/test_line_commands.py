"""Commands from the station: the roles that may send them, their audit entries, and their records on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.test import Client
from django.test.utils import override_settings
from kafka import KafkaProducer

from station.accounts.models import AuditEntry
from streams.commands import make_command_record
from streams.records import Command, CommandAnswer
from streams.settings import Settings
from tests.conftest import MakeSettings

URL = "/lines/line-1/commands/"
KEY = "key of the plant, only for tests"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(lines=({"name": "line-1", "gate": {"port": "/dev/ttyACM0"}}, "line-2"), sorter={"command_key": KEY})


def test_a_command_is_sent_signed_with_an_audit_entry_and_its_answer_is_shown(operator: Client, settings: Settings) -> None:
    with override_settings(CASTLINE=settings):
        sent = operator.post(URL, {"action": "clear", "code": "45"})
        assert sent.status_code == 202
        waiting = operator.get(sent.json()["answer"])
        assert waiting.status_code == 202
        command = Command.model_validate(waiting.json())
        assert (command.action, command.code, command.asked_by) == ("clear", 45, "operator")
        assert (command.valid_until - command.asked_at).total_seconds() == 10
        answer = CommandAnswer(outcome="done", message="fault 45: cleared", answered_at=datetime.now(UTC))
        answered = command.model_copy(update={"answer": answer})
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        for key in ("of a stranger".ljust(32, "."), KEY):
            other = settings.model_copy(update={"sorter": type(settings.sorter).model_validate({"command_key": key})})
            text = {"message": key}
            record = make_command_record(other, answered.model_copy(update={"answer": answer.model_copy(update=text)}), "sorter")
            producer.send(record.topic, record.value, record.key, record.headers).get(10)
        producer.close()
        shown = operator.get(sent.json()["answer"])
        assert (shown.status_code, shown.json()["answer"]["message"]) == (200, KEY)
    entry = AuditEntry.objects.get(action="line command")
    assert (entry.who, entry.subject, entry.detail["command"], entry.detail["code"]) == ("operator", "line-1", "clear", "45")


@pytest.mark.parametrize(
    ("role", "fields", "status", "sentence"),
    [
        ("operator", {"action": "test", "what": "gate"}, 403, "not allowed to test gates and pause lines"),
        ("reviewer", {"action": "pause"}, 403, "not allowed to test gates and pause lines"),
        ("engineer", {"action": "open"}, 400, "Send one of acknowledge"),
        ("engineer", {"action": "clear"}, 400, "needs the code of a fault"),
        ("engineer", {"action": "test", "what": "everything"}, 400, "The command is not valid"),
    ],
)
def test_a_wrong_command_is_refused_in_a_sentence(
    browser: Callable[[str], Client], settings: Settings, role: str, fields: dict[str, str], status: int, sentence: str
) -> None:
    with override_settings(CASTLINE=settings):
        refused = browser(role).post(URL, fields)
        assert (refused.status_code, sentence in refused.json()["error"]) == (status, True)
        assert browser(role).post("/lines/line-2/commands/", {"action": "acknowledge"}).status_code == 404
    assert not AuditEntry.objects.filter(action="line command").exists()


def test_a_visitor_is_sent_to_the_log_in_page(visitor: Client) -> None:
    assert visitor.post(URL, {"action": "acknowledge"}).status_code == 302
