"""Topics on a real broker: they are created as declared, and follow the settings when these change."""

from __future__ import annotations

from kafka import KafkaAdminClient

from streams.topics import create_topics, declare_topics, read_topic_configs
from tests.conftest import MakeSettings


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


def test_existing_topics_get_more_partitions_and_a_new_retention(make_settings: MakeSettings) -> None:
    settings = make_settings()
    images = f"{settings.topics.prefix}.images.line-1"
    wider = settings.model_copy(update={"topics": settings.topics.model_copy(update={"image_partitions": 6, "image_hours": 1.0})})
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    changes = {change.name: change.description for change in create_topics(admin, wider)}
    assert changes[images] == "partitions 4 -> 6, retention.ms 86400000 -> 3600000"
    assert {change.description for change in create_topics(admin, wider)} == {"as declared"}
    # A smaller number of partitions changes nothing, because Kafka cannot remove partitions.
    assert "partitions" not in {change.name: change.description for change in create_topics(admin, settings)}[images]
    admin.close()
