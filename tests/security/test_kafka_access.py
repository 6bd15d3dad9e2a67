"""Attacks on the embedded broker: a stranger without a password, and each role beyond its rights."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError
from kafka.structs import OffsetAndMetadata

from deploy.cli.main import castline
from deploy.cli.security import check_access
from deploy.kafka.broker import EmbeddedBroker
from deploy.supervisor.ports import free_ports
from streams.kafka import make_client_arguments, open_client
from streams.kafka_access import AccessRule, compare_access, declare_access, remove_access
from streams.kafka_users import ROLES, KafkaLoginError, broker_password_dir, name_user
from streams.settings import KafkaRole, Settings
from streams.topic_creation import create_topics
from streams.topics import TopicNames, declare_topics
from tests.security.conftest import StrangerRuns

pytestmark = pytest.mark.real

NAMES = TopicNames("castings")
LINES = (
    {"name": "line-1", "gate": {"port": "/dev/ttyACM0", "travel_mm": 1000}},
    {"name": "line-2"},
    {"name": "uploads"},
)


@pytest.fixture(scope="module")
def plant() -> Iterator[Settings]:
    """The settings of a running broker with the default access, whose topics hold a record each.

    All accounts may look into the folder around the data folder, so that only the rights of the data folder itself protect it.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        settings = Settings.model_validate({"broker": {"port": free_ports(2), "data_dir": f"{folder}/kafka"}, "lines": LINES})
        broker = EmbeddedBroker(settings)
        broker.start()
        try:
            admin = connect(settings)
            create_topics(admin, settings)
            admin.close()
            producer = open_client(KafkaProducer, **make_client_arguments(settings, "test"))
            for topic in all_topics(settings):
                producer.send(topic, key=b"*", value=b"{}").get(10)
            producer.close()
            yield settings
        finally:
            broker.stop(20)


def all_topics(settings: Settings) -> list[str]:
    return [spec.name for spec in declare_topics(settings)]


def connect(settings: Settings) -> KafkaAdminClient:
    return open_client(KafkaAdminClient, **make_client_arguments(settings, "test"), bootstrap_timeout_ms=5000)


def is_allowed(attempt: Callable[[], object]) -> bool:
    """Returns whether the broker allows `attempt`. If the attempt fails for another reason, raises its error."""
    try:
        attempt()
    except KafkaError as error:
        # A user who may write nothing gets no producer id. kafka-python names this refusal only in the text of its error.
        if "AuthorizationFailed" not in repr(error):
            raise
        return False
    return True


def write(settings: Settings, topic: str) -> None:
    # Each attempt has a client of its own, because kafka-python remembers a refused topic and refuses the next one, too.
    producer = open_client(KafkaProducer, **make_client_arguments(settings, "test"), max_block_ms=5000)
    try:
        producer.send(topic, key=b"*", value=b"{}").get(5)
    finally:
        producer.close()


def read(settings: Settings, topic: str) -> None:
    admin = connect(settings)
    try:
        # kafka-python waits for ever for the partitions of a topic that its user may not see.
        if topic not in admin.list_topics():
            raise TopicAuthorizationFailedError(topic)
    finally:
        admin.close()
    consumer = open_client(KafkaConsumer, **make_client_arguments(settings, "test"), group_id=None)
    try:
        partition = TopicPartition(topic, find_partition(settings, topic))
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        assert consumer.poll(timeout_ms=5000), f"{topic} gave no record"
    finally:
        consumer.close()


def find_partition(settings: Settings, topic: str) -> int:
    """Returns a partition that holds a record. The record has the same key on each topic, and image topics have four partitions."""
    admin = connect(settings.for_role("administrator"))
    try:
        (described,) = admin.describe_topics([topic])
        return 0 if len(described["partitions"]) == 1 else _partition_of_key(settings, topic)
    finally:
        admin.close()


def _partition_of_key(settings: Settings, topic: str) -> int:
    consumer = open_client(KafkaConsumer, **make_client_arguments(settings.for_role("administrator"), "test"), group_id=None)
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        return int(next(place.partition for place, end in consumer.end_offsets(places).items() if end))
    finally:
        consumer.close()


def commit(settings: Settings, topic: str, group: str) -> None:
    consumer = open_client(KafkaConsumer, **make_client_arguments(settings, "test"), group_id=group, enable_auto_commit=False)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.commit({partition: OffsetAndMetadata(0, "", -1)})
    finally:
        consumer.close()


def test_a_client_without_a_password_can_neither_list_topics_nor_write_a_verdict(plant: Settings) -> None:
    options: dict[str, Any] = {"bootstrap_servers": plant.bootstrap, "bootstrap_timeout_ms": 2000}
    with pytest.raises(KafkaError):
        open_client(KafkaAdminClient, **options)
    with pytest.raises(KafkaError):
        open_client(KafkaProducer, **options).send(NAMES.verdicts("line-1"), key=b"line-1:1:1", value=b"{}").get(5)


@pytest.mark.parametrize("port", [0, 1], ids=["broker", "controller"])
def test_a_client_without_a_password_gets_no_answer_from_a_port(plant: Settings, port: int) -> None:
    with pytest.raises(KafkaError):
        open_client(KafkaAdminClient, bootstrap_servers=f"127.0.0.1:{plant.broker.port + port}", bootstrap_timeout_ms=2000)


def test_another_unix_account_reads_no_file_of_the_broker(plant: Settings, as_stranger: StrangerRuns) -> None:
    folder = plant.broker.data_dir
    open_file = folder.parent / "open"
    open_file.write_text("everyone may read this")
    open_file.chmod(0o644)
    found = as_stranger(f"find {folder.parent} -type f -readable 2>/dev/null").stdout.split()
    assert found == [str(open_file)], "the stranger reads the open file and no file of the broker"
    assert len([file for file in folder.rglob("*") if file.is_file()]) > 20
    for role in ROLES:
        file = broker_password_dir(plant) / role
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(file.read_text().strip()) >= 40
    assert (folder / "server.properties").stat().st_mode & 0o777 == 0o600


# What each role writes and reads, as the documents say. The sets are not taken from the declaration, because the test checks it.
WRITES: dict[KafkaRole, set[str]] = {
    "gateway": {NAMES.images("line-1"), NAMES.images("line-2")},
    "inspector": {*map(NAMES.verdicts, ("line-1", "line-2", "uploads")), NAMES.dead_letters},
    "localiser": {*map(NAMES.findings, ("line-1", "line-2", "uploads")), NAMES.dead_letters},
    "sorter": {*map(NAMES.sorted, ("line-1", "line-2", "uploads")), NAMES.dead_letters, NAMES.commands},
    "archivist": {NAMES.dead_letters},
    "station": {NAMES.images("uploads"), NAMES.reviews, NAMES.models, NAMES.lines, NAMES.commands},
    "analyst": set(),
}
_IMAGES, _VERDICTS, _SORTED, _FINDINGS = (
    {kind(line) for line in ("line-1", "line-2", "uploads")} for kind in (NAMES.images, NAMES.verdicts, NAMES.sorted, NAMES.findings)
)
_CHOICES = {NAMES.models, NAMES.lines}
READS: dict[KafkaRole, set[str]] = {
    "gateway": set(),
    "inspector": _IMAGES | _CHOICES,
    "localiser": _IMAGES | _VERDICTS | _CHOICES,
    "sorter": _VERDICTS | _SORTED | {NAMES.commands},
    "archivist": _IMAGES | _VERDICTS | _SORTED | _FINDINGS | _CHOICES | {NAMES.reviews, NAMES.commands},
    "station": _IMAGES | _VERDICTS | _SORTED | _FINDINGS | _CHOICES | {NAMES.reviews, NAMES.commands, NAMES.dead_letters},
}
GROUPS: dict[KafkaRole, str] = {
    "inspector": "castings-inspector",
    "localiser": "castings-localiser",
    "sorter": "castings-sorter-line-1",
    "archivist": "castings-archivist",
    "analyst": "castings-analyst-of-the-foundry",
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_and_writes_its_own_topics_and_no_others(plant: Settings, role: KafkaRole) -> None:
    settings, topics = plant.for_role(role), set(all_topics(plant))
    written = {topic for topic in topics if is_allowed(lambda topic=topic: write(settings, topic))}  # type: ignore[misc]
    read_topics = {topic for topic in topics if is_allowed(lambda topic=topic: read(settings, topic))}  # type: ignore[misc]
    assert written == WRITES.get(role, topics)
    assert read_topics == READS.get(role, topics)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_commits_only_offsets_of_its_own_groups(plant: Settings, role: KafkaRole) -> None:
    settings, topic = plant.for_role(role), NAMES.verdicts("line-1")
    if role == "inspector":
        topic = NAMES.models
    groups = {*GROUPS.values(), "castings-station", "castings-gateway", "somebody-else"}
    committed = {group for group in groups if is_allowed(lambda group=group: commit(settings, topic, group))}  # type: ignore[misc]
    own = {GROUPS[role]} if role in GROUPS else set()
    assert committed == ({group for group in groups if group.startswith("castings-")} if role == "administrator" else own)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "administrator"])
def test_no_role_changes_the_cluster(plant: Settings, role: KafkaRole) -> None:
    topic = NAMES.verdicts("line-1")
    arguments = make_client_arguments(plant.for_role(role), "test") | {"request_timeout_ms": 4000}
    admin = open_client(KafkaAdminClient, **arguments, bootstrap_timeout_ms=5000)
    try:
        attempts: list[Callable[[], object]] = [
            lambda: admin.create_topics({"castings.new": {"num_partitions": 1}}),
            lambda: admin.delete_topics([topic]),
            lambda: admin.create_partitions({topic: 9}),
            lambda: admin.describe_user_scram_credentials(),
        ]
        for attempt in attempts:
            # kafka-python repeats some refused requests until their time is over.
            with pytest.raises(KafkaError, match=r"(?i)authoriz|timed out"):
                attempt()
    finally:
        admin.close()
    check = connect(plant)
    assert len(check.describe_topics([topic])[0]["partitions"]) == 1
    assert "castings.new" not in check.list_topics()
    check.close()


def run_command(settings: Settings, *arguments: str) -> tuple[int, str]:
    environment = {
        "CASTLINE_BROKER": json.dumps(settings.broker.model_dump(mode="json", exclude_none=True)),
        "CASTLINE_LINES": json.dumps([line.model_dump(mode="json", exclude_none=True, exclude_unset=True) for line in settings.lines]),
    }
    result = CliRunner().invoke(castline, ["topics", "acls", *arguments], env=environment, standalone_mode=False)
    assert result.exception is None, result.exception
    return int(result.return_value or 0), result.stdout


def test_the_command_says_what_is_missing_and_what_is_too_much_and_mends_both(plant: Settings) -> None:
    count = len(declare_access(plant))
    assert run_command(plant, "check") == (0, f"{count} ACLs as declared\n")
    grown = plant.model_copy(update={"lines": (*plant.lines, plant.lines[1].model_copy(update={"name": "line-3"}))})
    status, text = run_command(grown, "check")
    assert status == 1
    assert "missing: castline-inspector may READ topic castings.images.line-3" in text
    assert run_command(grown, "create")[0] == 0
    assert run_command(grown, "check")[0] == 0
    status, text = run_command(plant, "check")
    assert status == 1
    assert "too much: castline-gateway may WRITE topic castings.images.line-3" in text
    rows = json.loads(run_command(plant, "describe", "--json")[1])
    assert {row["state"] for row in rows} == {"present", "too much"}
    assert "removed: castline-gateway may WRITE topic castings.images.line-3" in run_command(plant, "create", "--remove-others")[1]
    assert run_command(plant, "check") == (0, f"{count} ACLs as declared\n")
    assert run_command(plant, "create") == (0, f"{count} ACLs as declared\n")


def test_the_check_of_the_machine_finds_permissions_that_no_role_needs(plant: Settings) -> None:
    assert list(check_access(plant)) == []
    rule = AccessRule("castline-gateway", "topic", NAMES.verdicts("line-1"), "WRITE")
    admin = connect(plant)
    try:
        resource = ResourcePattern(ResourceType.TOPIC, rule.name)
        admin.create_acls([ACL(f"User:{rule.user}", "*", ACLOperation.WRITE, ACLPermissionType.ALLOW, resource)])
        (finding,) = check_access(plant)
        assert (finding.weight, str(rule) in finding.problem) == ("high", True)
    finally:
        remove_access(admin, [rule])
        admin.close()
    away = plant.model_copy(update={"broker": plant.broker.model_copy(update={"port": 9})})
    (finding,) = check_access(away)
    assert (finding.weight, "were not checked" in finding.problem) == ("low", True)


def test_the_command_finds_what_everyone_may_do_and_what_a_role_may_do_only_from_one_address(plant: Settings) -> None:
    topic = NAMES.verdicts("line-1")
    everyone = AccessRule("*", "topic", topic, "WRITE")
    elsewhere = AccessRule("castline-inspector", "topic", topic, "WRITE", host="192.0.2.1")
    own = AccessRule("castline-inspector", "topic", topic, "WRITE")
    admin = connect(plant)
    try:
        resource = ResourcePattern(ResourceType.TOPIC, topic)
        for rule in (everyone, elsewhere):
            admin.create_acls([ACL(f"User:{rule.user}", rule.host, ACLOperation.WRITE, ACLPermissionType.ALLOW, resource)])
        remove_access(admin, [own])
        status, text = run_command(plant, "check")
        assert status == 1
        assert f"missing: {own}\n" in text
        assert f"too much: everyone may WRITE topic {topic}\n" in text
        assert f"too much: {own} from 192.0.2.1\n" in text
        text = run_command(plant, "create", "--remove-others")[1]
        assert f"removed: {own} from 192.0.2.1\n" in text
        assert "everyone" not in text
        assert compare_access(admin, plant).superfluous == (everyone,)
    finally:
        remove_access(admin, [everyone, elsewhere])
        admin.close()
    assert run_command(plant, "check")[0] == 0


def test_each_process_reads_only_the_password_of_its_role(plant: Settings, tmp_path: Path) -> None:
    (tmp_path / "inspector").write_text("a password")
    settings = plant.model_copy(update={"kafka": plant.kafka.model_copy(update={"password_dir": tmp_path})})
    assert make_client_arguments(settings.for_role("inspector"), "test")["sasl_plain_username"] == name_user(plant, "inspector")
    with pytest.raises(KafkaLoginError, match="castline-sorter cannot be read"):
        make_client_arguments(settings.for_role("sorter"), "test")


def test_a_deleted_password_is_made_anew_and_the_old_one_is_refused(tmp_path: Path) -> None:
    settings = Settings.model_validate({"broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka"}, "lines": LINES})
    inspector = settings.for_role("inspector")
    broker = EmbeddedBroker(settings)
    broker.start()
    old = make_client_arguments(inspector, "test")
    open_client(KafkaAdminClient, **old).close()
    broker.stop(20)
    (broker_password_dir(settings) / "inspector").unlink()
    broker = EmbeddedBroker(settings)
    broker.start()
    try:
        connect(inspector).close()
        connect(settings.for_role("sorter")).close()
        with pytest.raises(KafkaError):
            open_client(KafkaAdminClient, **old, bootstrap_timeout_ms=2000)
    finally:
        broker.stop(20)


class SlowBroker(EmbeddedBroker):
    """A broker that does not answer in time when it gets its users for the first time, as on a machine that is still starting."""

    is_slow = True

    def connect(self) -> KafkaAdminClient:
        admin = super().connect()
        if self.is_slow:
            admin.alter_user_scram_credentials = self._time_out
        return admin

    def _time_out(self, *_: object) -> None:
        self.is_slow = False
        raise KafkaTimeoutError


def test_a_broker_that_is_slow_to_take_its_users_starts_nevertheless(tmp_path: Path) -> None:
    settings = Settings.model_validate({"broker": {"port": free_ports(2), "data_dir": tmp_path / "kafka"}, "lines": LINES})
    broker = SlowBroker(settings)
    broker.start()
    try:
        assert not broker.is_slow
        connect(settings.for_role("inspector")).close()
    finally:
        broker.stop(20)


def test_the_data_folder_of_an_older_release_stays_open_until_the_setting_says_otherwise(tmp_path: Path) -> None:
    values = {"port": free_ports(2), "data_dir": tmp_path / "kafka"}

    def start(access: str) -> tuple[Settings, EmbeddedBroker]:
        settings = Settings.model_validate({"broker": {**values, "access": access}, "lines": LINES})
        broker = EmbeddedBroker(settings)
        broker.start()
        return settings, broker

    settings, broker = start("open")
    create_topics(connect(settings), settings)
    write(settings, NAMES.models)
    broker.stop(20)
    settings, broker = start("auto")
    read(settings, NAMES.models)
    open_client(KafkaAdminClient, bootstrap_servers=settings.bootstrap).close()
    broker.stop(20)
    for access in ("roles", "auto"):
        settings, broker = start(access)
        read(settings.for_role("inspector"), NAMES.models)
        started_s = time.monotonic()
        with pytest.raises(KafkaError):
            open_client(KafkaAdminClient, bootstrap_servers=settings.bootstrap, bootstrap_timeout_ms=2000)
        assert time.monotonic() - started_s < 10
        broker.stop(20)
