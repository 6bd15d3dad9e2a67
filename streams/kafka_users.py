"""Determines the Kafka user of a process and the folder with the passwords of the users.

Each role has a user of its own, such as `castline-inspector`, so that Kafka can refuse everything that the role does not need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from streams.errors import BrokerError
from streams.secrets import remember_secret
from streams.settings import BrokerSettings, KafkaRole, Settings

ROLES: tuple[KafkaRole, ...] = get_args(KafkaRole)
# The embedded broker writes a file with this name into its data folder when it makes the Kafka users. While the file exists, a broker with
# the setting broker.access = auto asks for passwords. It asks even after somebody has deleted the password files.
ACCESS_MARKER = "access"
PASSWORD_FOLDER = "passwords"
_EMBEDDED_ADVICE = (
    "The embedded broker makes this file when it starts. Only the account that runs Castline can read it. If broker.data_dir is relative, "
    "call the command in the folder in which Castline runs. If the broker is open, set CASTLINE_BROKER__ACCESS=open."
)


class KafkaLoginError(BrokerError, OSError):
    """The password of a Kafka user cannot be read. A worker that waits for Kafka handles this like any OSError and tries again."""


@dataclass(frozen=True)
class KafkaLogin:
    """How a process connects to Kafka. `security` is a value of the setting `kafka.security`.

    `username` and `password` are both "" if Kafka needs no log-in.
    """

    security: str
    username: str = ""
    password: str = field(default="", repr=False)


def has_users(broker: BrokerSettings) -> bool:
    """Returns whether the embedded broker with these settings asks its clients for a user and a password."""
    if broker.access != "auto":
        return broker.access == "roles"
    return _is_visible(broker.data_dir / ACCESS_MARKER) or not _is_visible(broker.data_dir / "log" / "meta.properties")


def _is_visible(file: Path) -> bool:
    try:
        return file.exists()
    except PermissionError:
        # If a broker has Kafka users, only the broker's own account may read its data folder, in which `file` lies. If this process runs
        # under another account, treat `file` as missing.
        return False


def broker_password_dir(settings: Settings) -> Path:
    """Returns the folder in which the embedded broker keeps the password files of the roles."""
    return settings.kafka.password_dir or settings.broker.data_dir / PASSWORD_FOLDER


def find_password_dir(settings: Settings) -> Path | None:
    """Returns the folder with the password files of the roles. Returns None if all roles use one user name, or if Kafka needs no log-in."""
    if settings.kafka.bootstrap == "embedded":
        return broker_password_dir(settings) if has_users(settings.broker) else None
    return settings.kafka.password_dir


def name_user(settings: Settings, role: KafkaRole) -> str:
    """Returns the name of the Kafka user of `role`."""
    return settings.kafka.user_prefix + role


def read_login(settings: Settings) -> KafkaLogin:
    """Returns how this process connects to Kafka. Reads only the password of its own role.

    Raises KafkaLoginError if the password file cannot be read or is empty.
    """
    kafka = settings.kafka
    folder = find_password_dir(settings)
    if folder is None:
        is_sasl = kafka.security.startswith("sasl")
        return KafkaLogin(kafka.security, kafka.username, kafka.read_password()) if is_sasl else KafkaLogin(kafka.security)
    security = "sasl-plaintext" if kafka.bootstrap == "embedded" else kafka.security
    file = folder.resolve() / settings.role
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        advice = _EMBEDDED_ADVICE if kafka.bootstrap == "embedded" else "Write the password into this file, or correct kafka.password_dir."
        raise KafkaLoginError(
            f"The password of the Kafka user {name_user(settings, settings.role)} cannot be read from {file}: {error.strerror}. {advice}"
        ) from None
    if not password:
        raise KafkaLoginError(
            f"The file {file}, which must hold the password of a Kafka user, is empty. Delete it, and restart the broker."
        )
    remember_secret(password)
    return KafkaLogin(security, name_user(settings, settings.role), password)
