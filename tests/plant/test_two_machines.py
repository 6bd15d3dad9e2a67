"""Inspectors of two machines at one Kafka: they share the work, and a machine with a taken name disturbs nobody."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import FencedInstanceIdError

from streams.group_members import GroupMember, list_members, make_identity
from streams.settings import Settings
from streams.topics import TopicNames
from tests.conftest import MakeSettings
from tests.group_consumers import make_group_consumer
from tests.image_topics import PictureProducer, count_by_part, wait_for, wait_for_verdicts
from tests.processes import CastlineProcess

DUPLICATE = 4  # the exit status


@pytest.fixture
def settings(make_settings: MakeSettings, models_root: Path) -> Settings:
    return make_settings(
        lines=("line-1", "line-2"),
        model={"root": models_root, "version": "tiny", "runtime": "openvino"},
        batch={"size": 16, "shapes": (1, 4, 16)},
    )


def on_machine(settings: Settings, machine: str, run_dir: Path, lines: tuple[str, ...] = ("line-1", "line-2")) -> Settings:
    """Returns the settings of one machine. Its processes have a short session, so that a killed process is forgotten soon."""
    return settings.model_copy(
        update={
            "service": settings.service.model_copy(update={"machine": machine, "run_dir": run_dir}),
            "kafka": settings.kafka.model_copy(update={"session_timeout_s": 6}),
            "lines": tuple(line for line in settings.lines if line.name in lines),
        }
    )


def test_two_machines_with_different_lines_share_the_pictures_and_judge_each_one_once(settings: Settings, tmp_path: Path) -> None:
    first, second = on_machine(settings, "pc1", tmp_path / "run1"), on_machine(settings, "pc2", tmp_path / "run2", ("line-2",))
    with (
        CastlineProcess(first, tmp_path / "log1", "inspector") as one,
        CastlineProcess(second, tmp_path / "log2", "inspector") as two,
    ):
        one.wait_ready()
        two.wait_ready()
        # Feed only when the partitions are divided, because a division repeats the pictures in hand.
        wait_for(lambda: "was assigned 6 partitions" in (tmp_path / "log1").read_text(), 60, "expected 4 + 2 partitions")
        wait_for(lambda: "was assigned 2 partitions" in (tmp_path / "log2").read_text(), 60, "expected half of line-2")
        feed = PictureProducer(settings, rate_per_s=40)
        time.sleep(8)
        parts = feed.finish()
        assert count_by_part(wait_for_verdicts(settings, len(parts))) == dict.fromkeys(parts, 1)
        judged = [int(process.metric("castline_verdicts_total")) for process in (one, two)]
        assert sum(judged) == len(parts)
        assert min(judged) > 0
        for process in (one, two):
            assert process.page("/healthz") == (200, "ok\n")
            assert process.stop() == 0


def test_a_process_with_a_taken_name_is_refused_before_and_after_its_joining(settings: Settings, tmp_path: Path) -> None:
    first, copied = on_machine(settings, "pc1", tmp_path / "run1"), on_machine(settings, "pc1", tmp_path / "run2")
    with CastlineProcess(first, tmp_path / "log1", "inspector") as one:
        one.wait_ready()
        feed = PictureProducer(settings, rate_per_s=20)
        with CastlineProcess(copied, tmp_path / "log2", "inspector") as two:
            assert two.process.wait(60) == DUPLICATE
        assert "Give each machine another name in service.machine" in (tmp_path / "log2").read_text()
        parts = feed.finish()
        assert count_by_part(wait_for_verdicts(settings, len(parts))) == dict.fromkeys(parts, 1), "the refused process disturbed nobody"
        assert one.process.poll() is None
        assert one.stop() == 0
        # Another machine takes the name between the check of the process and its joining.
        names, identity = TopicNames(settings.topics.prefix), make_identity(first, "inspector", "inspector-1")
        wait_for(lambda: not list_group(settings, identity.group), 30, "expected the stopped process to leave the group")
        before = len((tmp_path / "log1").read_text())
        rival = make_group_consumer(
            settings,
            [names.images("line-1"), names.images("line-2")],
            identity,
            "castline-copied.00000000",
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )
        one.start()
        wait_for(lambda: "Start: finding Kafka took" in (tmp_path / "log1").read_text()[before:], 60, "expected the check to pass")
        with suppress(FencedInstanceIdError), closing(rival):
            wait_for(lambda: bool(rival.poll(100)) or one.process.poll() is not None, 60, "expected one of the two to have the partitions")
        assert one.process.wait(60) == DUPLICATE
        assert "castline-copied.00000000" in (tmp_path / "log1").read_text()[before:]


@pytest.mark.parametrize(("role", "group", "topic"), [("sorter", "sorter-line-1", "verdicts"), ("archivist", "archivist", "sorted")])
def test_a_second_machine_does_not_take_over_work_that_cannot_be_shared(
    make_settings: MakeSettings, role: str, group: str, topic: str, tmp_path: Path
) -> None:
    settings = on_machine(make_settings(lines=({"name": "line-1", "gate": {"port": "/dev/absent"}},)), "pc2", tmp_path / "run2")
    settings = settings.model_copy(update={"station": settings.station.model_copy(update={"database": str(tmp_path / "station.sqlite3")})})
    identity = make_identity(on_machine(settings, "pc1", tmp_path / "run1"), group, f"{role}-1")
    working = make_group_consumer(settings, [f"{settings.topics.prefix}.{topic}.line-1"], identity, identity.client_id)
    with closing(working):
        wait_for(lambda: bool(working.poll(100) or working.assignment()), 90, "expected the process of the first machine to work")
        with CastlineProcess(settings, tmp_path / "log", role) as second:
            wait_for(lambda: bool(working.poll(100)) or second.process.poll() is not None, 90, "expected the second process to end")
            assert second.process.wait() == DUPLICATE
        assert (
            f"{identity.client_id} at 127.0.0.1. The work of this group cannot be shared. Stop one of the two processes."
            in (tmp_path / "log").read_text()
        )
        assert [member.client_id for member in list_group(settings, identity.group)] == [identity.client_id]


def list_group(settings: Settings, group: str) -> list[GroupMember]:
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    try:
        return list_members(admin, group)
    finally:
        admin.close()
