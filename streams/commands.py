"""Encodes, signs and checks the commands that people send on the topic `castings.commands`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from streams.errors import RecordError
from streams.record_producer import ProducerRecord, make_json_record
from streams.record_reader import read_record
from streams.records import Command
from streams.settings import KafkaRole, Settings
from streams.signatures import check_signature
from streams.topics import TopicNames
from streams.unreadable_batches import check_readable

SIGNATURE_HEADER = "castline-signature"


def make_command_record(settings: Settings, command: Command, source: str) -> ProducerRecord:
    """Returns the Kafka record of a command or of an answer. If the setting `sorter.command_key` is set, the record is signed."""
    topic = TopicNames(settings.topics.prefix).commands
    record = make_json_record(topic, command.line.encode(), command, source, command.command_id)
    if keys := _list_keys(settings):
        record.headers.append((SIGNATURE_HEADER, _sign(keys[0], record.key or b"", record.value or b"")))
    return record


def decode_command(settings: Settings, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> Command:
    """Returns the command or the answer that a Kafka record holds.

    Raises RecordError if the record is malformed, if its Kafka key names another line, or if it has no valid signature and needs one.
    """
    check_readable(value)
    keys, signature = _list_keys(settings), headers.get(SIGNATURE_HEADER, b"")
    if keys and not any(hmac.compare_digest(signature, _sign(each, key or b"", value or b"")) for each in keys):
        raise RecordError(
            "signature", f"The header {SIGNATURE_HEADER} is missing or wrong. Set the same sorter.command_key for station and sorter."
        )
    # A command is valid for at most a minute, so only new commands matter. So `read_record` compares the times in the command with the
    # present time, and does not need the time of the Kafka record.
    command = read_record(Command, value)
    check_signature(settings, TopicNames(settings.topics.prefix).commands, key, value, headers, find_signers(command))
    if command.line.encode() != key:
        raise RecordError("other-line", f"The command is for {command.line}, but its key is {(key or b'')[:80]!r}.")
    return command


def find_signers(command: Command) -> tuple[KafkaRole, ...]:
    """Returns the roles that may sign `command`: the station for a command, and the sorter for an answer.

    Commands and answers are on the same topic. If sorters could sign commands, one sorter could command the boards of all lines.
    """
    return ("sorter",) if command.answer is not None else ("station",)


def _list_keys(settings: Settings) -> list[bytes]:
    """Returns the keys whose signatures are accepted. This process signs with the first key. The list is empty if no key is set."""
    keys = (settings.sorter.command_key, settings.sorter.second_command_key)
    return [key.get_secret_value().encode() for key in keys if key.get_secret_value()]


def _sign(secret: bytes, key: bytes, value: bytes) -> bytes:
    return hmac.new(secret, key + b"\0" + value, hashlib.sha256).hexdigest().encode()
