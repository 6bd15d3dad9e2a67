"""Declares what each Kafka user may do, and compares the declaration with the ACLs of a cluster.

Each role may read and write only the topics, and join only the consumer groups, that its work needs. Kafka refuses everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from streams.errors import BrokerError
from streams.kafka_users import ROLES, name_user
from streams.settings import KafkaRole, Settings
from streams.topics import TopicNames

Resource = Literal["topic", "group", "cluster"]
# In Kafka's ACLs, the sign * stands for all users, or for all addresses.
EVERYONE = EVERYWHERE = "*"
# The name that Kafka's ACLs use for the whole cluster.
_CLUSTER = "kafka-cluster"
_CLUSTER_OPERATIONS = ("ALTER", "ALTER_CONFIGS", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS")
# The smallest number of SCRAM iterations that Kafka accepts. More iterations are not needed, because a password of 32 random bytes cannot
# be guessed.
_ITERATIONS = 4096


@dataclass(frozen=True, order=True)
class AccessRule:
    """A permission of one Kafka user. If `is_prefix` is True, the permission applies to all resources whose names begin with `name`.

    - `user`: EVERYONE stands for all users.
    - `host`: the address from which the user has the permission. EVERYWHERE stands for all addresses.
    """

    user: str
    resource: Resource
    name: str
    operation: str
    is_prefix: bool = False
    host: str = EVERYWHERE

    def __str__(self) -> str:
        user = "everyone" if self.user == EVERYONE else self.user
        place = "" if self.host == EVERYWHERE else f" from {self.host}"
        return f"{user} may {self.operation} {self.resource} {self.name}{'*' if self.is_prefix else ''}{place}"


@dataclass(frozen=True)
class AccessDifference:
    """The difference between the declared permissions and the permissions of a cluster.

    - `missing`: declared permissions that the cluster does not have.
    - `superfluous`: permissions of the cluster that are not declared.
    """

    missing: tuple[AccessRule, ...]
    superfluous: tuple[AccessRule, ...]


def declare_access(settings: Settings) -> list[AccessRule]:
    """Returns the permissions that the roles need for the topics of all lines in the settings."""
    return [rule for role in ROLES for rule in _declare_role(settings, role)]


def _declare_role(settings: Settings, role: KafkaRole) -> Iterator[AccessRule]:
    user, prefix = name_user(settings, role), settings.topics.prefix
    if role == "administrator":
        yield AccessRule(user, "topic", f"{prefix}.", "ALL", is_prefix=True)
        yield AccessRule(user, "group", f"{prefix}-", "ALL", is_prefix=True)
        yield from (AccessRule(user, "cluster", _CLUSTER, operation) for operation in _CLUSTER_OPERATIONS)
        return
    if role == "analyst":
        yield AccessRule(user, "topic", f"{prefix}.", "READ", is_prefix=True)
        yield AccessRule(user, "group", f"{prefix}-analyst", "READ", is_prefix=True)
        return
    yield from (AccessRule(user, "topic", topic, "READ") for topic in _list_read(settings, role))
    yield from (AccessRule(user, "topic", topic, "WRITE") for topic in list_written(settings, role))
    yield from (AccessRule(user, "group", group, "READ") for group in _list_groups(settings, role))


def _list_read(settings: Settings, role: KafkaRole) -> list[str]:
    names, lines = TopicNames(settings.topics.prefix), [line.name for line in settings.lines]
    images, verdicts = [names.images(line) for line in lines], [names.verdicts(line) for line in lines]
    sortings, findings = [names.sorted(line) for line in lines], [names.findings(line) for line in lines]
    choices = [names.models, names.lines]
    read: dict[KafkaRole, list[str]] = {
        "inspector": [*images, *choices],
        "localiser": [*images, *verdicts, *choices],
        "sorter": [*verdicts, *sortings, names.commands],
        "archivist": [*images, *verdicts, *sortings, *findings, names.reviews, *choices, names.commands],
        "station": [*images, *verdicts, *sortings, *findings, names.dead_letters, names.reviews, *choices, names.commands],
    }
    return read.get(role, [])


def list_written(settings: Settings, role: KafkaRole) -> list[str]:
    """Returns the topics to which `role` writes. The administrator may write to all topics, and the analyst to none."""
    names, lines = TopicNames(settings.topics.prefix), [line.name for line in settings.lines]
    uploads = settings.station.upload_line
    written: dict[KafkaRole, list[str]] = {
        "gateway": [names.images(line) for line in lines if line != uploads],
        "inspector": [*(names.verdicts(line) for line in lines), names.dead_letters],
        "localiser": [*(names.findings(line) for line in lines), names.dead_letters],
        "sorter": [*(names.sorted(line) for line in lines), names.commands, names.dead_letters],
        "archivist": [names.dead_letters],
        "station": [names.reviews, names.models, names.lines, names.commands, *(names.images(line) for line in lines if line == uploads)],
    }
    return written.get(role, [])


def _list_groups(settings: Settings, role: KafkaRole) -> list[str]:
    prefix = settings.topics.prefix
    if role == "sorter":
        return [f"{prefix}-sorter-{line.name}" for line in settings.lines if line.gate is not None]
    return [f"{prefix}-{role}"] if role in ("inspector", "localiser", "archivist") else []


def read_access(admin: KafkaAdminClient, settings: Settings) -> set[AccessRule]:
    """Returns the permissions that the cluster gives to the users of the roles, or to everyone.

    Raises KafkaError if the cluster has no authorizer, or if the Kafka user of this process may not read its ACLs.
    """
    users = {EVERYONE, *(name_user(settings, role) for role in ROLES)}
    anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    found, _ = admin.describe_acls(ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ALLOW, anything))
    return {_rule_of(acl) for acl in found if acl.principal.removeprefix("User:") in users}


def compare_access(admin: KafkaAdminClient, settings: Settings) -> AccessDifference:
    """Compares the permissions of the cluster with the declared permissions. Raises KafkaError like `read_access`."""
    declared, found = set(declare_access(settings)), read_access(admin, settings)
    return AccessDifference(tuple(sorted(declared - found)), tuple(sorted(found - declared)))


def create_access(admin: KafkaAdminClient, settings: Settings) -> tuple[AccessRule, ...]:
    """Gives the roles the permissions that are missing, and returns these permissions. Removes no permissions.

    Raises KafkaError like `read_access`, and BrokerError if the cluster refuses a permission.
    """
    missing = compare_access(admin, settings).missing
    if missing:
        failed = admin.create_acls([_acl_of(rule) for rule in missing])["failed"]
        if failed:
            raise BrokerError(
                f"Kafka refused {len(failed)} of {len(missing)} ACLs: {failed[0].__name__}. Check the permissions of your Kafka user."
            )
    return missing


def remove_access(admin: KafkaAdminClient, rules: Sequence[AccessRule]) -> None:
    """Removes the permissions `rules`. Raises BrokerError if the cluster refuses this."""
    if not rules:
        return
    for _, _, error in admin.delete_acls([_filter_of(rule) for rule in rules]):
        if error.errno:
            raise BrokerError(f"Kafka did not remove an ACL: {error.__name__}. Check the permissions of your Kafka user.")


def set_passwords(admin: KafkaAdminClient, settings: Settings, passwords: Iterable[tuple[KafkaRole, str]]) -> None:
    """Sets the passwords of the roles' Kafka users, and creates missing users. Raises BrokerError if Kafka refuses a password."""
    changes = [
        UserScramCredentialUpsertion(name_user(settings, role), ScramMechanism.SCRAM_SHA_512, password, iterations=_ITERATIONS)
        for role, password in passwords
    ]
    refused = {user: reason for user, reason in admin.alter_user_scram_credentials(changes).items() if reason is not None}
    if refused:
        raise BrokerError(f"Kafka did not accept the passwords of these users: {refused}. Check the permissions of your Kafka user.")


def _acl_of(rule: AccessRule) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if rule.is_prefix else ACLResourcePatternType.LITERAL
    resource = ResourcePattern(ResourceType[rule.resource.upper()], rule.name, pattern)
    return ACL(f"User:{rule.user}", rule.host, ACLOperation[rule.operation], ACLPermissionType.ALLOW, resource)


def _filter_of(rule: AccessRule) -> ACLFilter:
    acl = _acl_of(rule)
    return ACLFilter(acl.principal, acl.host, acl.operation, acl.permission_type, acl.resource_pattern)


def _rule_of(acl: ACL) -> AccessRule:
    pattern = acl.resource_pattern
    resource: dict[ResourceType, Resource] = {
        ResourceType.TOPIC: "topic",
        ResourceType.GROUP: "group",
        ResourceType.CLUSTER: "cluster",
    }
    return AccessRule(
        acl.principal.removeprefix("User:"),
        resource.get(pattern.resource_type, pattern.resource_type.name.lower()),
        pattern.resource_name,
        acl.operation.name,
        pattern.pattern_type is ACLResourcePatternType.PREFIXED,
        acl.host,
    )
