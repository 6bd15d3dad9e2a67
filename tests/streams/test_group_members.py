"""The names of processes in consumer groups, and the search for another machine with the same name or work."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from streams.errors import DuplicateProcessError, SettingsError
from streams.group_members import GroupMember, list_members, make_identity, wait_until_free
from streams.settings import Settings, load_settings
from tests.conftest import MakeSettings
from tests.group_consumers import make_group_consumer
from tests.image_topics import wait_for


def settings_of(machine: str, run_dir: str, site: str = "north") -> Settings:
    return Settings.model_validate({"service": {"site": site, "machine": machine, "run_dir": run_dir}})


def test_two_machines_never_share_a_name_in_kafka() -> None:
    identities = [
        make_identity(settings_of(machine, "/run/castline", site), "inspector", "inspector-1")
        for site, machine in (("north", "pc1"), ("north", "pc2"), ("south", "pc1"), ("north-pc1", "pc2"))
    ]
    assert len({identity.instance_id for identity in identities}) == 4
    assert len({identity.client_id for identity in identities}) == 4
    assert identities[0].instance_id == "castings-inspector-north.pc1.inspector-1"
    assert {identity.group for identity in identities} == {"castings-inspector"}


def test_without_a_setting_the_machine_has_its_host_name() -> None:
    name = Settings().service.machine_name
    assert name != ""
    assert Settings.model_validate({"service": {"machine": name}}).service.machine == name, "a host name is always a valid setting"


@pytest.mark.parametrize("wrong", ["pc.1", "PC1", "-pc", "pc 1", "ofen-ö", "a" * 64])
def test_a_wrong_machine_name_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CASTLINE_SERVICE__MACHINE", wrong)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"service\.machine"):
        load_settings(None)


def test_only_another_installation_is_a_rival() -> None:
    own = make_identity(settings_of("pc1", "/run/one"), "inspector", "inspector-1")
    same_name = make_identity(settings_of("pc1", "/run/two"), "inspector", "inspector-1")
    colleague = make_identity(settings_of("pc2", "/run/two"), "inspector", "inspector-1")

    def as_member(identity: object) -> GroupMember:
        return GroupMember(identity.instance_id, identity.client_id, "/10.0.0.7")  # type: ignore[attr-defined]

    assert own.find_rival([as_member(own), as_member(colleague)]) is None
    rival = own.find_rival([as_member(own), as_member(same_name)])
    assert rival == as_member(same_name)
    assert "service.machine" in own.describe_conflict(rival)
    assert "10.0.0.7" in own.describe_conflict(rival)
    assert own.must_yield_to(rival), "Kafka lists the name with the client id of the process that joined first"


def test_exclusive_work_is_not_shared_with_another_machine() -> None:
    own = make_identity(settings_of("pc1", "/run/one"), "sorter-line-1", "sorter-line-1-1", is_exclusive=True)
    other = make_identity(settings_of("pc2", "/run/two"), "sorter-line-1", "sorter-line-1-1", is_exclusive=True)
    rival = own.find_rival([GroupMember(other.instance_id, other.client_id, "/10.0.0.7")])
    assert rival is not None
    assert "Stop one of the two" in own.describe_conflict(rival)
    back = GroupMember(own.instance_id, own.client_id, "/10.0.0.8")
    assert own.must_yield_to(rival) != other.must_yield_to(back), "exactly one of the two goes on"
    of_release_0_1_0 = GroupMember("castings-sorter-line-1-sorter-line-1-1", "castline-sorter-line-1-1", "/10.0.0.7")
    assert own.find_rival([of_release_0_1_0]) == of_release_0_1_0


def test_a_process_whose_name_is_taken_does_not_start_and_a_free_name_is_taken_at_once(make_settings: MakeSettings) -> None:
    settings = make_settings(lines=("line-1",))
    identity = make_identity(settings, "inspector", "inspector-1")
    topics = [f"{settings.topics.prefix}.images.line-1"]
    options = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 1000}
    stranger = make_group_consumer(settings, topics, identity, "castline-stranger.00000000", **options)
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap)
    problems: list[str] = []
    try:
        wait_for(lambda: bool(stranger.poll(200) or stranger.assignment()), 30, "expected the stranger to join")
        assert [member.client_id for member in list_members(admin, identity.group)] == ["castline-stranger.00000000"]
        with pytest.raises(DuplicateProcessError, match="already has the name of this process"):
            wait_until_free(admin, identity, 0.5, problems.append, lambda: False)
        assert len(problems) == 1
        wait_until_free(admin, make_identity(settings, "inspector", "inspector-2"), 0.5, problems.append, lambda: False)
        assert len(problems) == 1
    finally:
        admin.close()
        stranger.close()
