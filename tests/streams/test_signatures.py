"""Signatures of records: what they cover, who may sign what, and the files of the keys."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.cli.main import castline
from station.kafka_producer import ConfirmedProducer
from streams.commands import decode_command
from streams.errors import RecordError, SettingsError
from streams.identity import make_header_map
from streams.model_choices import publish_model_choice, read_model_choices
from streams.records import Command, ModelChoice, make_answer, make_command
from streams.settings import KafkaRole, Settings
from streams.signatures import SIGNED_HEADER, SIGNERS, SIGNING_ROLES, check_keys, check_signature, create_keys, sign_headers
from streams.topics import TopicNames
from tests.conftest import MakeSettings

VERDICTS, KEY, VALUE = "castings.verdicts.line-1", b"line-1:1:1", b'{"label": "ok"}'


@dataclass(frozen=True)
class Keys:
    """The folders of the keys of all roles."""

    folder: Path

    @property
    def public(self) -> Path:
        return self.folder / "public"

    def settings(self, role: KafkaRole) -> Settings:
        return Settings.model_validate({"signing": {"private_keys": self.folder, "public_keys": self.public}}).for_role(role)

    def sign(self, role: KafkaRole, topic: str = VERDICTS, key: bytes | None = KEY, value: bytes | None = VALUE) -> dict[str, bytes]:
        return make_header_map(sign_headers(self.settings(role), topic, key, value, [("ce_id", b"1")]))

    def accepts(self, headers: dict[str, bytes], topic: str = VERDICTS, key: bytes | None = KEY, value: bytes | None = VALUE) -> bool:
        try:
            check_signature(self.settings("sorter"), topic, key, value, headers)
        except RecordError:
            return False
        return True


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    for role in SIGNING_ROLES:
        create_keys(tmp_path, tmp_path / "public", role)
    return Keys(tmp_path)


def test_a_signed_record_is_accepted_and_an_unsigned_one_is_refused(keys: Keys) -> None:
    headers = keys.sign("inspector")
    assert headers["ce_id"] == b"1"
    assert keys.accepts(headers)
    with pytest.raises(RecordError, match="it has no signature") as refusal:
        check_signature(keys.settings("sorter"), VERDICTS, KEY, VALUE, {"ce_id": b"1"})
    assert refusal.value.reason == "signature"
    for damaged in (b"inspector:", b"inspector:####", b"", b"inspector", b"\xff\xfe", headers[SIGNED_HEADER][:-8]):
        assert not keys.accepts({SIGNED_HEADER: damaged})


def test_a_record_cannot_be_sent_again_on_another_topic_for_another_part_or_with_another_value(keys: Keys) -> None:
    headers = keys.sign("inspector")
    assert not keys.accepts(headers, topic="castings.verdicts.line-2")
    assert not keys.accepts(headers, topic="other.verdicts.line-1")
    assert not keys.accepts(headers, key=b"line-1:1:2")
    assert not keys.accepts(headers, key=None)
    assert not keys.accepts(headers, value=VALUE + b" ")
    # Without the lengths, moving a byte from the key to the value would give the same message.
    assert not keys.accepts(headers, key=KEY + VALUE[:1], value=VALUE[1:])


def test_the_absence_of_a_value_is_signed_too(keys: Keys) -> None:
    topic = "castings.reviews"
    withdrawal = keys.sign("station", topic, KEY, None)
    assert keys.accepts(withdrawal, topic, KEY, None)
    assert not keys.accepts(withdrawal, topic, KEY, b"")
    assert not keys.accepts({}, topic, KEY, None)


@pytest.mark.parametrize("kind", SIGNERS)
def test_only_the_writers_of_a_topic_may_sign_on_it(keys: Keys, kind: str) -> None:
    topic = f"castings.{kind}.line-1"
    for role in SIGNING_ROLES:
        headers = keys.sign(role, topic)
        assert (SIGNED_HEADER in headers) == (role in SIGNERS[kind])
        assert keys.accepts(headers, topic) == (role in SIGNERS[kind])
    # A true signature of the localiser, in the name of the role that may sign on the topic.
    stolen = keys.sign("localiser", "castings.findings.line-1")[SIGNED_HEADER].partition(b":")[2]
    assert keys.accepts({SIGNED_HEADER: SIGNERS[kind][0].encode() + b":" + stolen}, topic) == (kind == "findings")


def test_a_sorter_cannot_sign_a_command_and_the_station_cannot_sign_an_answer(keys: Keys) -> None:
    topic = "castings.commands"
    command = make_command("line-2", "pause", "anna", 30)
    answer = command.model_copy(update={"answer": make_answer("done", "")})

    def is_accepted(role: KafkaRole, record: Command) -> bool:
        value = record.encode()
        try:
            decode_command(keys.settings("sorter"), b"line-2", value, keys.sign(role, topic, b"line-2", value))
        except RecordError:
            return False
        return True

    assert [is_accepted(role, command) for role in ("station", "sorter")] == [True, False]
    assert [is_accepted(role, answer) for role in ("station", "sorter")] == [False, True]


def test_topics_of_pictures_and_dead_letters_are_not_signed(keys: Keys) -> None:
    for topic in ("castings.images.line-1", "castings.dead-letters"):
        assert SIGNED_HEADER not in keys.sign("inspector", topic)
        assert keys.accepts({}, topic)


def test_without_the_settings_nothing_is_signed_and_nothing_refused() -> None:
    settings = Settings().for_role("inspector")
    assert sign_headers(settings, VERDICTS, KEY, VALUE, [("ce_id", b"1")]) == [("ce_id", b"1")]
    check_signature(settings, VERDICTS, KEY, VALUE, {})


def test_a_second_key_is_accepted_beside_the_first_until_the_first_is_removed(tmp_path: Path) -> None:
    first, second = Keys(tmp_path / "first"), Keys(tmp_path / "second")
    public = tmp_path / "public"
    create_keys(first.folder, public, "inspector")
    create_keys(second.folder, public, "inspector")
    both = Settings.model_validate({"signing": {"public_keys": public}})
    for keys in (first, second):
        check_signature(both, VERDICTS, KEY, VALUE, keys.sign("inspector"))
    blocks = (public / "inspector.pub").read_text().split("-----BEGIN")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "inspector.pub").write_text("-----BEGIN" + blocks[2])
    new = Settings.model_validate({"signing": {"public_keys": tmp_path / "new"}})
    check_signature(new, VERDICTS, KEY, VALUE, second.sign("inspector"))
    with pytest.raises(RecordError, match="wrong signature"):
        check_signature(new, VERDICTS, KEY, VALUE, first.sign("inspector"))


def test_keys_that_cannot_be_used_are_reported_at_the_start(keys: Keys, tmp_path: Path) -> None:
    check_keys(keys.settings("inspector"))
    assert (tmp_path / "inspector.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "sorter.key").chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        check_keys(keys.settings("sorter"))
    (tmp_path / "localiser.key").unlink()
    with pytest.raises(SettingsError, match="castline topics keys"):
        check_keys(keys.settings("localiser"))
    check_keys(keys.settings("gateway"))
    (tmp_path / "station.key").write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    (tmp_path / "station.key").chmod(0o600)
    with pytest.raises(SettingsError, match="cannot be used"):
        check_keys(keys.settings("station"))


def test_the_broker_needs_no_key_of_the_administrator(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "administrator.key").unlink()
    check_keys(keys.settings("administrator"))


@pytest.mark.parametrize("role", SIGNING_ROLES)
def test_a_role_without_a_key_writes_nothing_that_all_readers_would_refuse(keys: Keys, role: KafkaRole) -> None:
    settings = Settings.model_validate({"signing": {"public_keys": keys.public}}).for_role(role)
    topic = next(f"castings.{kind}" for kind, signers in SIGNERS.items() if role in signers)
    with pytest.raises(SettingsError, match=r"Set signing\.private_keys"):
        sign_headers(settings, topic, KEY, VALUE)
    if role != "administrator":
        with pytest.raises(SettingsError, match=r"Set signing\.private_keys"):
            check_keys(settings)


class AnsweringAfter(io.StringIO):
    """A person's answer "y" at a prompt. Before the answer, `work` is called, as if somebody else worked at the same time."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work = work

    def readline(self, *arguments: object) -> str:  # type: ignore[override]
        self._work()
        return "y\n"


def test_a_choice_that_is_made_while_the_command_waits_for_an_answer_is_kept(
    make_settings: MakeSettings, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_settings()
    secured = plain.model_copy(update={"signing": keys.settings("administrator").signing})
    old, other = (ModelChoice(line=line, version="old", chosen_by="somebody", chosen_at=datetime.now(UTC)) for line in ("*", "line-1"))
    publish_model_choice(plain, old, "command")
    publish_model_choice(plain, other, "command")
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps(secured.model_dump(mode="json", exclude_none=True, include={"kafka", "topics", "signing"})))
    new = old.model_copy(update={"version": "new"})
    monkeypatch.setattr(sys, "stdin", AnsweringAfter(lambda: publish_model_choice(secured, new, "command")))
    assert castline.main(["--settings", str(file), "topics", "sign"], standalone_mode=False) == 1
    assert read_model_choices(secured, "test").by_key == {"*": new, "line-1": other}


def test_forged_model_choices_and_deletions_have_no_effect_and_old_ones_can_be_signed(
    make_settings: MakeSettings, keys: Keys, tmp_path: Path
) -> None:
    plain = make_settings()
    secured = plain.model_copy(update={"signing": keys.settings("administrator").signing})
    topic, at = TopicNames(plain.topics.prefix).models, datetime.now(UTC)
    old = ModelChoice(line="*", version="old", chosen_by="somebody", chosen_at=at)
    publish_model_choice(plain, old, "command")
    assert read_model_choices(secured, "test").by_key == {}, "the choice from before the keys has no signature"
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps(secured.model_dump(mode="json", exclude_none=True, include={"kafka", "topics", "signing"})))
    result = CliRunner().invoke(castline, ["--settings", str(file), "topics", "sign", "--yes"], standalone_mode=False)
    assert result.exception is None
    assert read_model_choices(secured, "test").by_key == {"*": old}
    publish_model_choice(plain, old.model_copy(update={"version": "forged"}), "command")
    producer = ConfirmedProducer(plain)
    producer.send(topic, "*", None)
    producer.close()
    assert read_model_choices(secured, "test").by_key == {"*": old}
    new = old.model_copy(update={"version": "new"})
    producer = ConfirmedProducer(secured.for_role("station"))
    producer.send(topic, "*", new.encode())
    producer.close()
    assert read_model_choices(secured, "test").by_key == {"*": new}


def test_a_record_that_is_shown_before_it_is_signed_cannot_control_the_terminal(
    make_settings: MakeSettings, keys: Keys, tmp_path: Path
) -> None:
    plain = make_settings()
    # U+009B begins an escape sequence, and U+202E reverses the letters behind it. JSON leaves both as they are.
    odd = ModelChoice(line="*", version="old", chosen_by="\u009b2Janna\u202e", chosen_at=datetime.now(UTC))
    publish_model_choice(plain, odd, "command")
    file = tmp_path / "castline.toml"
    secured = plain.model_copy(update={"signing": keys.settings("administrator").signing})
    sections = {"kafka", "topics", "signing", "lines"}
    file.write_text(tomli_w.dumps(secured.model_dump(mode="json", exclude_none=True, include=sections)))
    for command in (("topics", "sign", "--yes"), ("models", "status")):
        output = CliRunner().invoke(castline, ["--settings", str(file), *command], standalone_mode=False).output
        assert "\ufffd" in output, command
        assert all(letter.isprintable() for line in output.split("\n") for letter in line), (command, output)
