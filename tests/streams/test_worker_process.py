"""The wait for Kafka at the start of a process, on a real broker that fails once."""

from __future__ import annotations

import threading

import pytest
from kafka.errors import KafkaTimeoutError

from streams import worker_process
from streams.group_members import GroupIdentity, make_identity
from streams.health import ProcessHealth, ProgressWatchdog
from streams.topics import TopicNames
from streams.worker_process import StartSpans, WorkerProcess
from tests.conftest import MakeSettings


def test_the_check_for_a_second_process_is_repeated_after_an_error_of_kafka(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    checked: list[str] = []

    def fail_once(_admin: object, identity: GroupIdentity, *_: object) -> None:
        checked.append(identity.instance_id)
        if len(checked) == 1:
            raise KafkaTimeoutError

    monkeypatch.setattr(worker_process, "wait_until_free", fail_once)
    health = ProcessHealth("sorter", ProgressWatchdog(30))
    process = WorkerProcess(settings, "sorter", "sorter-1", health, threading.Event(), 0, StartSpans("sorter"))
    identity = make_identity(settings, "sorter", "sorter-1")
    assert process.wait_for_topics([TopicNames(settings.topics.prefix).commands], [identity])
    assert checked == [identity.instance_id] * 2
