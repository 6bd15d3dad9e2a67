"""Finds a process of another installation that must not run beside this process. Reads the lists of group members from Kafka.

Two processes with the same name have the same `group.instance.id`. Each time that one of them joins the consumer group, Kafka removes the
other one. Both processes join again and again. They look healthy, but they write the same verdicts repeatedly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient

from streams.errors import DuplicateProcessError
from streams.kafka import make_client_id
from streams.settings import Settings

# A killed process stays a member of its group until its session times out. After the time-out, the broker needs up to 2 s to remove the
# member.
_REMOVAL_S = 2.0
_POLL_S = 0.5


@dataclass(frozen=True)
class GroupMember:
    """A member of a consumer group, as the broker describes it. `host` is the address from which the member connects."""

    instance_id: str
    client_id: str
    host: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the member's installation. It is the last part of the client id."""
        return self.client_id.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.client_id} at {self.host.lstrip('/')}"


@dataclass(frozen=True)
class GroupIdentity:
    """The names of a process in a consumer group.

    `is_exclusive` is True if all members of the group must belong to one installation, because their work cannot be shared.
    """

    group: str
    instance_id: str
    client_id: str
    is_exclusive: bool = False

    def find_rival(self, members: Sequence[GroupMember]) -> GroupMember | None:
        """Returns a rival of this process in its consumer group, or None.

        A rival belongs to another installation, and uses the same name as this process. If `is_exclusive` is True, every member of another
        installation is a rival, whatever its name is.
        """
        own = GroupMember(self.instance_id, self.client_id, "")
        for member in members:
            if member.fingerprint != own.fingerprint and (self.is_exclusive or member.instance_id == own.instance_id):
                return member
        return None

    def describe_conflict(self, rival: GroupMember) -> str:
        """Returns a sentence that says why this process cannot run beside `rival`, and what to do."""
        if rival.instance_id == self.instance_id:
            return (
                f"Another process already has the name of this process, {self.instance_id}: the Kafka client {rival}. "
                "Give each machine another name in service.machine, and each installation on a machine, too. Then start this process again."
            )
        return (
            f"The consumer group {self.group} already has a process on another machine or in another folder: the Kafka client {rival}. "
            "The work of this group cannot be shared. Stop one of the two processes."
        )

    def must_yield_to(self, rival: GroupMember) -> bool:
        """Decides which of two processes must end if both joined the group at the same time.

        Returns True if this process must end, and False if `rival` must end.

        - If the names of the processes differ, the process with the larger client id ends.
        - If the names are equal, only one of the two processes finds the other one in Kafka's list. The process that finds a rival ends.
        """
        return rival.instance_id == self.instance_id or self.client_id > rival.client_id


def make_identity(settings: Settings, group: str, instance: str, is_exclusive: bool = False) -> GroupIdentity:
    """Returns the identity of a process in the consumer group `<topic prefix>-<group>`. `instance` is a name such as `inspector-1`."""
    group_id = f"{settings.topics.prefix}-{group}"
    name = settings.service.name_process(instance)
    return GroupIdentity(group_id, f"{group_id}-{name}", make_client_id(settings, instance), is_exclusive)


def list_members(admin: KafkaAdminClient, group: str) -> list[GroupMember]:
    """Returns the members of `group`. A killed process stays in the list until its session times out."""
    return make_members(admin.describe_groups([group])[group])


def make_members(described: Mapping[str, Any]) -> list[GroupMember]:
    """Returns the members of a group that `KafkaAdminClient.describe_groups` has described."""
    return [GroupMember(member["group_instance_id"] or "", member["client_id"], member["client_host"]) for member in described["members"]]


def wait_until_free(
    admin: KafkaAdminClient,
    identity: GroupIdentity,
    session_timeout_s: float,
    report_problem: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    """Waits until no rival of this process is in the consumer group, or until `should_stop` returns True.

    A rival is a process of another installation that must not run beside this process. If it was killed, it leaves the group when its
    session times out. Raises DuplicateProcessError if the rival stays longer.
    """
    give_up_at_s = time.monotonic() + session_timeout_s + _REMOVAL_S
    reported = ""
    while (rival := identity.find_rival(list_members(admin, identity.group))) and not should_stop():
        conflict = identity.describe_conflict(rival)
        if time.monotonic() > give_up_at_s:
            raise DuplicateProcessError(conflict)
        if conflict != reported:
            report_problem(f"{conflict} This process waits up to {session_timeout_s + _REMOVAL_S:g} s for the end of the other one.")
            reported = conflict
        time.sleep(_POLL_S)
