"""Loads and checks the settings of a role, and sets up its log. Every command that runs a role calls `start_role` first."""

from __future__ import annotations

from pathlib import Path

from streams.kafka_users import ROLES
from streams.logs import configure_logs
from streams.private_files import refuse_exposed_files
from streams.settings import Settings, find_settings_file, load_settings
from streams.signatures import check_keys
from streams.supervision import end_if_a_thread_cannot_begin


def start_role(file: Path | None, role: str) -> Settings:
    """Loads and checks the settings of the role, sets up its log, and returns the settings. A thread that cannot begin ends the process.

    Raises SettingsError if the settings are wrong. Also raises SettingsError if the files of the plant are not protected from other users
    of this machine.
    """
    settings = load_settings(file, role=next((each for each in ROLES if each == role), "administrator"))
    refuse_exposed_files(settings, find_settings_file(file))
    check_keys(settings)
    configure_logs(settings.service, role)
    end_if_a_thread_cannot_begin()
    return settings
