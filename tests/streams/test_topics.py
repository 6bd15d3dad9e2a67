"""Topics on a real broker: they are created as declared, and follow the settings when these change."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import InvalidPartitionsError

from streams.settings import Settings
from streams.topic_creation import create_topics, read_topic_configs
from streams.topics import can_have_gaps, declare_topics
from tests.conftest import MakeSettings
from tests.image_topics import wait_for


def test_every_topic_exists_as_declared_and_a_second_call_changes_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1", "line-2"))
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    assert {change.description for change in create_topics(admin, settings)} == {"as declared"}
    specs = declare_topics(settings)
    assert len(specs) == 2 * 4 + 5
    present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics([spec.name for spec in specs])}
    assert present == {spec.name: spec.partitions for spec in specs}
    configs = read_topic_configs(admin, [spec.name for spec in specs])
    for spec in specs:
        assert {name: configs[spec.name][name] for name in spec.configs} == spec.configs
    admin.close()


def test_exactly_the_compacted_topics_and_topics_of_other_programs_can_have_gaps() -> None:
    for spec in declare_topics(Settings()):
        assert can_have_gaps(spec.name) == (spec.configs["cleanup.policy"] == "compact"), spec.name
    assert can_have_gaps("inspector-__assignor-__leader")


def test_existing_topics_get_more_partitions_and_a_new_retention(make_settings: MakeSettings) -> None:
    settings = make_settings()
    images = f"{settings.topics.prefix}.images.line-1"
    wider = settings.model_copy(update={"topics": settings.topics.model_copy(update={"image_partitions": 6, "image_hours": 1.0})})
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    changes = {change.name: change.description for change in create_topics(admin, wider)}
    assert changes[images] == "partitions 4 -> 6, retention.ms 86400000 -> 3600000"
    # The broker shows the changes a little later than it answers.
    wait_for(lambda: {change.description for change in create_topics(admin, wider)} == {"as declared"}, 20, "expected no more changes")
    # A smaller number of partitions changes nothing, because Kafka cannot remove partitions.
    assert "partitions" not in {change.name: change.description for change in create_topics(admin, settings)}[images]
    admin.close()


class RepeatingAdmin(KafkaAdminClient):  # type: ignore[misc]  # kafka-python ships no types
    """Sends each change of topics twice and returns the second answer, as kafka-python does if the first answer is late."""

    def create_topics(self, *arguments: Any, **options: Any) -> Any:
        super().create_topics(*arguments, **options)
        return super().create_topics(*arguments, **options)

    def create_partitions(self, *arguments: Any, **options: Any) -> Any:
        super().create_partitions(*arguments, **options)
        return super().create_partitions(*arguments, **options)


class RefusedAdmin(KafkaAdminClient):  # type: ignore[misc]  # kafka-python ships no types
    def create_partitions(self, *arguments: Any, **options: Any) -> Any:
        raise InvalidPartitionsError("the cluster has too many partitions")


def test_a_change_that_kafka_got_twice_is_no_error(make_settings: MakeSettings) -> None:
    settings = make_settings()
    names = settings.topics.model_copy(update={"prefix": f"t{uuid.uuid4().hex[:12]}"})
    with closing(RepeatingAdmin(bootstrap_servers=settings.bootstrap)) as admin:
        created = create_topics(admin, settings.model_copy(update={"topics": names}))
        assert {change.description for change in created} == {"created"}
        grown = create_topics(
            admin, settings.model_copy(update={"topics": names.model_copy(update={"image_partitions": names.image_partitions + 1})})
        )
    assert [change.description for change in grown if ".images." in change.name] == ["partitions 4 -> 5"]


def test_a_refused_change_is_an_error(make_settings: MakeSettings) -> None:
    settings = make_settings()
    wider = settings.model_copy(update={"topics": settings.topics.model_copy(update={"image_partitions": 6})})
    with closing(RefusedAdmin(bootstrap_servers=settings.bootstrap)) as admin, pytest.raises(InvalidPartitionsError):
        create_topics(admin, wider)
