"""The command `castline topics`: creates the topics of the lines and the ACLs of the roles, or compares both with Kafka."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from kafka import KafkaAdminClient
from kafka.errors import KafkaError, SecurityDisabledError

from streams import kafka_access as access
from streams.errors import SettingsError
from streams.kafka import find_unknown_host, make_client_arguments, open_client
from streams.kafka_users import ROLES, find_password_dir, has_users, read_login
from streams.live_line_settings import publish_live_line_settings, read_live_line_settings
from streams.model_choices import publish_model_choice, read_model_choices
from streams.printable import make_printable
from streams.settings import KafkaRole, Settings, load_settings
from streams.signatures import SIGNING_ROLES, create_keys
from streams.topic_creation import create_topics, read_topic_configs
from streams.topics import compute_max_bytes, declare_topics


@click.group("topics")
def command() -> None:
    """Create or describe the topics that the production lines need. The settings name these lines."""
    # SIGTERM ends this command at once, even while it waits for a broker.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@command.command("create")
@click.pass_obj
def create(file: Path | None) -> None:
    """Create missing topics and partitions, and set how long Kafka keeps records. A second call changes nothing."""
    settings = load_settings(file)
    with open_admin(settings) as admin:
        for change in create_topics(admin, settings):
            click.echo(f"{change.name}: {change.description}")
        # The embedded broker makes its ACLs only when it starts. If a line was added later, the topics of this line still need ACLs.
        if settings.kafka.bootstrap == "embedded" and has_users(settings.broker):
            _create_acls(admin, settings)


@command.command("describe")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def describe(file: Path | None, as_json: bool) -> int:
    """Show for each topic what the settings ask for and what Kafka has.

    The exit status is 1 if a topic is missing or has too few partitions.
    """
    settings = load_settings(file)
    specs = declare_topics(settings, compute_max_bytes(settings))
    with open_admin(settings) as admin:
        present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(None)}
        configs = read_topic_configs(admin, [spec.name for spec in specs if spec.name in present])
    if as_json:
        rows = [
            {
                "topic": spec.name,
                "partitions": spec.partitions,
                "found_partitions": present.get(spec.name, 0),
                "configs": spec.configs,
                "found_configs": {name: configs.get(spec.name, {}).get(name) for name in spec.configs},
            }
            for spec in specs
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        for spec in specs:
            declared_configs = ", ".join(f"{name}={value}" for name, value in spec.configs.items())
            click.echo(f"{spec.name}: {present.get(spec.name, 0)} of {spec.partitions} partitions; {declared_configs}")
    return int(any(present.get(spec.name, 0) < spec.partitions for spec in specs))


@command.group("acls")
def acls() -> None:
    """Create, describe or check the ACLs, with which Kafka lets each role do only what its work needs."""


@acls.command("create")
@click.option("--passwords", is_flag=True, help="Also give each Kafka user the password that its file in kafka.password_dir holds.")
@click.option("--remove-others", is_flag=True, help="Also remove the ACLs that a role's Kafka user has but does not need.")
@click.pass_obj
def create_acls(file: Path | None, passwords: bool, remove_others: bool) -> None:
    """Create the missing ACLs of all roles. A second call changes nothing."""
    settings = load_settings(file)
    with open_admin(settings) as admin:
        if passwords:
            access.set_passwords(admin, settings, _read_passwords(settings))
            click.echo(f"{len(ROLES)} users have the passwords of their files")
        _create_acls(admin, settings)
        if remove_others:
            # Keep the ACLs that apply to every Kafka user, because other programs of the plant may need them.
            superfluous = [rule for rule in access.compare_access(admin, settings).superfluous if rule.user != access.EVERYONE]
            access.remove_access(admin, superfluous)
            for rule in superfluous:
                click.echo(make_printable(f"removed: {rule}"))


@acls.command("describe")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def describe_acls(file: Path | None, as_json: bool) -> None:
    """Show the ACLs that the roles need, and whether Kafka has them. Also show ACLs that a role's user has but does not need."""
    settings = load_settings(file)
    declared = access.declare_access(settings)
    with open_admin(settings) as admin:
        found = access.read_access(admin, settings)
    rows = [(rule, "present" if rule in found else "missing") for rule in declared]
    rows += [(rule, "too much") for rule in sorted(found - set(declared))]
    if as_json:
        click.echo(json.dumps([{**asdict(rule), "state": state} for rule, state in rows], indent=2))
        return
    width = max(len(rule.user) for rule, _ in rows)
    for rule, state in rows:
        name = f"{rule.name}{'*' if rule.is_prefix else ''}"
        click.echo(make_printable(f"{rule.user:{width}}  {rule.operation:16}  {rule.resource:7}  {name:44}  {state}"))


@acls.command("check")
@click.pass_obj
def check_acls(file: Path | None) -> int:
    """Show which ACLs are missing, and which ACLs no role needs. The exit status is 1 if there are any."""
    settings = load_settings(file)
    with open_admin(settings) as admin:
        difference = access.compare_access(admin, settings)
    for rule in difference.missing:
        click.echo(make_printable(f"missing: {rule}"))
    for rule in difference.superfluous:
        click.echo(make_printable(f"too much: {rule}"))
    if not difference.missing and not difference.superfluous:
        click.echo(f"{len(access.declare_access(settings))} ACLs as declared")
        return 0
    click.echo('Correct them with "castline topics acls create". With --remove-others, it also removes ACLs that no role needs.', err=True)
    return 1


@command.command("keys")
@click.option("--private", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the private keys.")
@click.option("--public", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the public keys.")
@click.option(
    "--role", "roles", type=click.Choice(SIGNING_ROLES), multiple=True, help="Make keys for this role only. The default is all roles."
)
def keys(private: Path, public: Path, roles: tuple[KafkaRole, ...]) -> None:
    """Make a pair of keys for each role that signs records. A former public key stays valid until you remove it from its file."""
    for role in roles or SIGNING_ROLES:
        create_keys(private, public, role)
        click.echo(f"{role}: {private / role}.key, {public / role}.pub")


@command.command("sign")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def sign(file: Path | None, yes: bool) -> int:
    """Sign the present model choices and line settings. They have no signature if they were written before you made keys.

    The command first shows each record. Look at the records before you confirm, because the command does not check their signatures. If a
    record changes before you confirm, it is not signed, and the exit status is 1.
    """
    settings = load_settings(file)
    if settings.signing.private_keys is None:
        raise SettingsError("signing.private_keys is not set, so nothing can be signed. Make keys with: castline topics keys")
    unchecked = settings.model_copy(update={"signing": settings.signing.model_copy(update={"public_keys": None})})
    choices = read_model_choices(unchecked, "topics").by_key
    lines = read_live_line_settings(unchecked, "topics").by_line
    for record in (*choices.values(), *lines.values()):
        click.echo(make_printable(record.encode().decode()))
    if not yes:
        click.confirm(f"Sign these {len(choices) + len(lines)} records?", abort=True)
    # Read the records again. While the command waited for the answer, another person may have written a newer record, which must stay.
    present_choices = read_model_choices(unchecked, "topics").by_key
    present_lines = read_live_line_settings(unchecked, "topics").by_line
    changed = [f"The model choice of {line}" for line, choice in choices.items() if present_choices.get(line) != choice]
    changed += [f"The record of the settings of {line}" for line, live in lines.items() if present_lines.get(line) != live]
    for line, choice in choices.items():
        if present_choices.get(line) == choice:
            publish_model_choice(settings, choice, "command")
    for line, live in lines.items():
        if present_lines.get(line) == live:
            publish_live_line_settings(settings, live, "command")
    for subject in changed:
        click.echo(make_printable(f"{subject} has changed in the meantime and was not signed. Call the command again."), err=True)
    return int(bool(changed))


def _create_acls(admin: KafkaAdminClient, settings: Settings) -> None:
    created = access.create_access(admin, settings)
    for rule in created:
        click.echo(f"created: {rule}")
    if not created:
        click.echo(f"{len(access.declare_access(settings))} ACLs as declared")


def _read_passwords(settings: Settings) -> list[tuple[KafkaRole, str]]:
    """Returns the password of each role.

    Raises SettingsError if no folder of passwords is set, and KafkaLoginError if the password file of a role cannot be read.
    """
    if find_password_dir(settings) is None:
        raise SettingsError("kafka.password_dir is not set. Make a folder with a password file for each role, and set kafka.password_dir.")
    return [(role, read_login(settings.for_role(role)).password) for role in ROLES]


@contextmanager
def open_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Yields a client of the cluster. Raises SettingsError if Kafka does not answer, or refuses a request in the `with` block."""
    try:
        admin = open_client(KafkaAdminClient, **make_client_arguments(settings, "topics"), bootstrap_timeout_ms=15000)
    except (KafkaError, OSError) as error:
        raise SettingsError(
            f"Kafka does not answer at {settings.bootstrap}: {error}. Start the broker, or correct kafka.bootstrap in the settings."
        ) from None
    try:
        if problem := find_unknown_host(admin):
            raise SettingsError(problem)
        yield admin
    except KafkaError as error:
        if isinstance(error, SecurityDisabledError):
            is_embedded = settings.kafka.bootstrap == "embedded"
            remedy = "broker.access to `roles` and restart the plant" if is_embedded else "authorizer.class.name of its brokers"
            raise SettingsError(
                f"The cluster at {settings.bootstrap} has no authorizer, so every client may do everything. Set {remedy}."
            ) from None
        raise SettingsError(
            f"Kafka at {settings.bootstrap} refused to read or change its topics: {error}. Check the permissions of Castline's Kafka user."
        ) from None
    finally:
        admin.close()
