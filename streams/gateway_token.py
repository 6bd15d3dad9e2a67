"""Makes the secret token that a sorter sends to the gateway with each report about a part, if the setting gateway.token is empty."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import SecretStr

from streams.atomic_file import create_once, make_public_folder
from streams.errors import SettingsError
from streams.secrets import remember_secret
from streams.settings import Settings


def gateway_token_file(settings: Settings) -> Path:
    """Returns the path of the file with the gateway token of this machine. The file is used only if the setting gateway.token is empty."""
    return settings.service.run_dir / "gateway.token"


def make_gateway_token(settings: Settings) -> SecretStr:
    """Returns the secret token that a sorter sends to the gateway with each report about a part.

    The token is the setting gateway.token. If the setting is empty, the token comes from a file, which is created if it is missing.
    The gateway and the sorters call this function at their start. Raises SettingsError if the file cannot be created or read.
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
    """Returns the secret token that a sorter sends to the gateway with each report about a part, or an empty token if none exists yet.

    The first gateway or sorter that starts on this machine creates the token. Raises SettingsError if its file cannot be read.
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
