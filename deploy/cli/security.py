"""The command `castline security`: looks for security problems of Castline on this machine."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from kafka.errors import SecurityDisabledError
from pydantic import SecretStr

from deploy.cli.topics import open_admin
from deploy.kafka.broker_clock import find_clock_finding
from streams.errors import CastlineError
from streams.kafka import is_reachable
from streams.kafka_access import compare_access
from streams.kafka_users import has_users
from streams.printable import make_printable
from streams.private_files import (
    find_exposed_paths,
    find_replaceable_paths,
    format_closing_command,
    format_protecting_command,
    is_exposed,
)
from streams.secrets import SecretAddress, mask_address
from streams.security_finding import WEIGHTS, SecurityFinding
from streams.settings import Settings, find_settings_file, is_loopback, load_settings

_RENEW_BEFORE = timedelta(days=30)
_MIN_TOKEN_CHARACTERS = 32


@click.group("security")
def command() -> None:
    """Look for security problems of Castline on this machine."""


@command.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding.")
@click.option(
    "--certificate",
    "certificates",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Also check this certificate, such as that of the proxy. You can repeat the option.",
)
@click.pass_obj
def check(file: Path | None, as_json: bool, certificates: tuple[Path, ...]) -> int:
    """Check settings, files, listeners, certificates, ACLs of Kafka, the clock, accounts and Django's deployment settings. Print what to
    correct, the most important first.

    The exit status is 1 if at least one finding has the weight `high`. Run the command as the user that runs Castline. It changes nothing.
    """
    settings = load_settings(file)
    findings = [
        *check_files(settings, find_settings_file(file)),
        *check_listeners(settings),
        *check_keys(settings),
        *check_certificates((*list_certificates(settings), *certificates), datetime.now(UTC)),
        *check_access(settings),
        *check_clock(settings),
        *_check_station(settings),
    ]
    findings.sort(key=lambda finding: WEIGHTS.index(finding.weight))
    for finding in findings:
        click.echo(json.dumps(asdict(finding)) if as_json else format_finding(finding))
    if not findings and not as_json:
        click.echo("Nothing was found.")
    return 1 if any(finding.weight == "high" for finding in findings) else 0


def format_finding(finding: SecurityFinding) -> str:
    """Returns two lines for a terminal. Replaces control characters, because the name of an API token in the finding can contain them."""
    return f"{finding.weight:6}  {make_printable(finding.problem)}\n        {make_printable(finding.remedy)}"


def check_files(settings: Settings, settings_file: Path | None) -> Iterator[SecurityFinding]:
    """Yields a finding for each file or folder that other users of this machine can misuse.

    There are three kinds:

    - a private file of the plant that they can read or write,
    - a file or folder through which they can replace the settings, the public keys or the model versions,
    - `settings_file`, if it contains secrets and they can read it.
    """
    for path in find_exposed_paths(settings):
        remedy = f"Close it with: {format_closing_command(path)}"
        yield SecurityFinding("high", f"Other users of this machine can read or write {path}.", remedy)
    for path in find_replaceable_paths(settings, settings_file):
        problem = f"Other users of this machine can replace the settings, the public keys or the model versions through {path}."
        yield SecurityFinding("high", problem, f"Protect it with: {format_protecting_command(path)}")
    if settings_file is not None and is_exposed(settings_file) and _holds_secrets(settings, tomllib.loads(settings_file.read_text())):
        remedy = f"Close it with: {format_closing_command(settings_file)}"
        yield SecurityFinding("high", f"Other users of this machine can read the secrets in {settings_file}.", remedy)


def check_listeners(settings: Settings) -> Iterator[SecurityFinding]:
    """Yields a finding for each port and each connection that other machines can reach although it is not protected."""
    station, gateway, kafka = settings.station, settings.gateway, settings.kafka
    if not is_loopback(station.host) and not station.behind_tls:
        yield SecurityFinding(
            "high",
            f"The station listens at {station.host} without TLS, so the network can read passwords.",
            "Put a proxy with TLS in front of the station, set station.behind_tls, and let station.host be 127.0.0.1.",
        )
    if "*" in station.hosts:
        yield SecurityFinding(
            "high", "The station accepts requests for every host name.", "Write only the host names of the station into station.hosts."
        )
    for name, server in (("station", station), ("gateway", gateway)):
        if server.proxies and any(ipaddress.ip_network(network, strict=False).prefixlen == 0 for network in server.trusted_proxies):
            yield SecurityFinding(
                "high",
                f"{name}.trusted_proxies contains all addresses, so every client can pretend to have another address.",
                f"Name only your own proxies in {name}.trusted_proxies.",
            )
    if not is_loopback(gateway.host):
        yield SecurityFinding(
            "medium",
            f"The gateway listens at {gateway.host}. The network can read the passwords of cameras if no TLS protects them.",
            "Put a proxy with TLS in front of the gateway, or keep cameras and gateway in a network of their own.",
        )
    if not is_loopback(settings.service.host):
        yield SecurityFinding(
            "medium",
            f"The network can read metrics and health pages at {settings.service.host}.",
            "Set service.host to 127.0.0.1.",
        )
    brokers = kafka.bootstrap.split(",")
    if (
        kafka.bootstrap != "embedded"
        and not kafka.security.endswith("tls")
        and not all(is_loopback(each.rpartition(":")[0]) for each in brokers)
    ):
        yield SecurityFinding("high", "The connection to Kafka is not encrypted.", "Set kafka.security to sasl-tls.")
    if kafka.bootstrap == "embedded" and not has_users(settings.broker):
        yield SecurityFinding(
            "high",
            "Every program on this machine may write verdicts, because the embedded broker asks for no log-in.",
            "Set broker.access to roles, as docs/kafka-access.md describes.",
        )


def check_keys(settings: Settings) -> Iterator[SecurityFinding]:
    """Yields a finding for each short token, for unsigned commands to the sorters, and for a second key.

    Sorters check the signatures of commands with a key. While the key is exchanged, they accept a second key, too. The finding reminds
    people to remove it.
    """
    yield from _find_short_tokens(settings)
    if settings.sorter.second_command_key.get_secret_value():
        yield SecurityFinding(
            "medium",
            "A second key is accepted for commands, because sorter.second_command_key is set.",
            "When all machines sign with the new key, remove sorter.second_command_key, as docs/security.md describes.",
        )
    is_signed = settings.sorter.command_key.get_secret_value() or settings.signing.public_keys
    if any(line.gate for line in settings.lines) and not is_signed:
        yield SecurityFinding(
            "medium",
            "Sorters carry out commands that nobody has signed.",
            "Set CASTLINE_SORTER__COMMAND_KEY or signing.public_keys for station and sorters.",
        )


def _find_short_tokens(settings: Settings) -> Iterator[SecurityFinding]:
    tokens = {
        "gateway.token": settings.gateway.token,
        **{f"The token of the line {line.name}": line.token for line in settings.lines},
    }
    for name, token in tokens.items():
        if 0 < (length := len(token.get_secret_value())) < _MIN_TOKEN_CHARACTERS:
            yield SecurityFinding(
                "medium",
                f"{name} has only {length} characters, so that a program may guess it.",
                f"Set a random text of at least {_MIN_TOKEN_CHARACTERS} characters, such as the output of: openssl rand -hex 32",
            )


def list_certificates(settings: Settings) -> list[Path]:
    """Returns the files of the certificates that the settings name."""
    return [file for file in (settings.kafka.ca_file, settings.kafka.cert_file) if file is not None]


def check_certificates(files: Sequence[Path], now: datetime) -> Iterator[SecurityFinding]:
    """Yields a finding for each certificate in `files` that has expired, expires within 30 days, is not valid yet, or cannot be read."""
    for file in files:
        try:
            certificates = x509.load_pem_x509_certificates(file.read_bytes())
        except (OSError, ValueError) as error:
            yield SecurityFinding("high", f"The certificate {file} cannot be read: {error}.", "Copy the file again, or name another one.")
            continue
        for certificate in certificates:
            name, end = certificate.subject.rfc4514_string(), certificate.not_valid_after_utc
            if end <= now or certificate.not_valid_before_utc > now:
                problem = f"The certificate {name} in {file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {end:%Y-%m-%d}."
                yield SecurityFinding("high", problem, "Replace the certificate. If it is not valid yet, check the clock of this machine.")
            elif end - now < _RENEW_BEFORE:
                yield SecurityFinding(
                    "medium", f"The certificate {name} in {file} ends on {end:%Y-%m-%d}.", "Replace the certificate before this day."
                )


def check_access(settings: Settings) -> Iterator[SecurityFinding]:
    """Yields findings about the ACLs of Kafka. If Kafka does not answer, yields one finding with the level "low"."""
    if settings.kafka.bootstrap == "embedded" and not has_users(settings.broker):
        return  # check_listeners reports that the embedded broker has no users
    if not is_reachable(settings.bootstrap):
        problem = f"The ACLs of Kafka were not checked, because Kafka does not answer at {settings.bootstrap}."
        yield SecurityFinding("low", problem, "Start Kafka, and check again.")
        return
    try:
        with open_admin(settings) as admin:
            try:
                difference = compare_access(admin, settings)
            except SecurityDisabledError:
                remedy = "Give the cluster an authorizer and users, as docs/kafka-access.md describes."
                yield SecurityFinding("high", f"Kafka at {settings.bootstrap} lets every client do everything.", remedy)
                return
    except CastlineError as error:
        yield SecurityFinding("low", f"The ACLs of Kafka were not checked. {error}", "Correct this, and check again.")
        return
    for rule in difference.superfluous:
        remedy = "Remove the permission. For a user of Castline: castline topics acls create --remove-others"
        yield SecurityFinding("high", f"In Kafka, {rule}, and no role needs that.", remedy)
    for rule in difference.missing:
        yield SecurityFinding("low", f"A permission is missing in Kafka: {rule}.", "Add it with: castline topics acls create")


def _holds_secrets(settings: object, content: object) -> bool:
    """Returns whether `content` has a value for a secret setting. `content` comes from a settings file."""
    if isinstance(content, dict):
        return any(_holds_secrets(getattr(settings, name, None), value) for name, value in content.items())
    if isinstance(content, list):
        return any(map(_holds_secrets, settings if isinstance(settings, tuple) else (), content))
    if isinstance(settings, SecretStr):
        return bool(content)
    return isinstance(settings, (SecretAddress, Path)) and isinstance(content, str) and mask_address(content) != content


def check_clock(settings: Settings) -> Iterator[SecurityFinding]:
    """Yields a finding if the embedded broker would not trust the clock of this machine."""
    if settings.kafka.bootstrap == "embedded" and (finding := find_clock_finding(settings.broker.data_dir)):
        yield finding


def _check_station(settings: Settings) -> Iterator[SecurityFinding]:
    from station.configuration import configure

    try:
        configure(_with_some_key(settings))
    except CastlineError as error:
        yield SecurityFinding("low", f"The station was not checked. {error}", "Correct this, and check again.")
        return
    from station.archive.database import find_database_fault, migrate_database
    from station.security_check import check_accounts, check_deployment

    yield from check_deployment(is_loopback(settings.station.host))
    database = settings.station.database
    if "://" not in database and not Path(database).exists():
        return
    if fault := find_database_fault():
        yield SecurityFinding("low", f"The accounts were not checked, because {fault}.", "Start the database, and check again.")
        return
    try:
        migrate_database(apply=False)
    except CastlineError as error:
        yield SecurityFinding("low", f"The accounts were not checked. {error}", "Correct this, and check again.")
        return
    yield from check_accounts()


def _with_some_key(settings: Settings) -> Settings:
    """Returns `settings` with a random secret key of the station, if neither a key nor a key file exists.

    Without a key, the code of the station would create the key file. If root runs this check, the station could later not read this file.
    """
    station = settings.station
    if station.secret_key.get_secret_value() or os.path.lexists(station.secret_key_file):
        return settings
    some_key = SecretStr(secrets.token_urlsafe(64))
    return settings.model_copy(update={"station": station.model_copy(update={"secret_key": some_key})})
