"""Makes the token with which the sorters of a machine report parts to its gateway, if the settings hold no token."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import SecretStr

from streams.atomic_file import create_once, make_public_folder
from streams.errors import SettingsError
from streams.secrets import remember_secret
from streams.settings import Settings


def gateway_token_file(settings: Settings) -> Path:
    """Returns the file with the token of this machine. The file is used only if the setting gateway.token is empty."""
    return settings.service.run_dir / "gateway.token"


def make_gateway_token(settings: Settings) -> SecretStr:
    """Returns the token for part reports: the setting gateway.token, or the token in the file, which is created if it is missing.

    Gateway and sorters call this function at their start. Raises SettingsError if the file cannot be created or read.
    """
    file = gateway_token_file(settings)
    if settings.gateway.token.get_secret_value():
        return settings.gateway.token
    try:
        make_public_folder(file.parent)
        create_once(file, secrets.token_hex(32), mode=0o600)
    except OSError as error:
        raise SettingsError(f"gateway.token: {file} cannot be created: {error.strerror}. Set gateway.token.") from None
    return read_gateway_token(settings)


def read_gateway_token(settings: Settings) -> SecretStr:
    """Returns the token for part reports, but creates no file. The token is empty if no gateway and no sorter has run on this machine.

    Raises SettingsError if the file cannot be read.
    """
    file = gateway_token_file(settings)
    if settings.gateway.token.get_secret_value():
        return settings.gateway.token
    try:
        token = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return SecretStr("")
    except OSError as error:
        raise SettingsError(f"gateway.token: {file} cannot be read: {error.strerror}. Run this command as the user of Castline.") from None
    remember_secret(token)
    return SecretStr(token)
