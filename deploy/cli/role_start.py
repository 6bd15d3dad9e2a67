"""The first steps of every command that runs a role of the plant."""

from __future__ import annotations

from pathlib import Path

from streams.kafka_users import ROLES
from streams.logs import configure_logs
from streams.private_files import refuse_exposed_files
from streams.settings import Settings, load_settings
from streams.signatures import check_keys


def start_role(file: Path | None, role: str) -> Settings:
    """Returns the settings of the role, after its log is set up.

    Raises SettingsError if the settings are wrong, or if other users of this machine can read the files of the plant.
    """
    settings = load_settings(file, role=next((each for each in ROLES if each == role), "administrator"))
    refuse_exposed_files(settings)
    check_keys(settings)
    configure_logs(settings.service, role)
    return settings
