"""Hides the passwords and tokens of the settings in logs and other output.

A setting that is only a password or a token has pydantic's type SecretStr. An address that can contain a password has the type
SecretAddress, which shows the address without its secret parts. The function `mask_secrets` removes the secrets from any other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, Secret, SecretStr

MASK = "***"
# A secret with fewer characters is not removed from output, because it would also match harmless words.
_MIN_SECRET_CHARACTERS = 8

# Finds user and password in an address: everything up to the last @ before the path, because a password may contain an @.
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
# Finds the query of an address (the part after the ?), because queries for cameras and stores can contain passwords and signatures.
_QUERY = re.compile(r"(?<=\S)\?[^\s\"']+")
# Finds named secrets in the path of an address, because some cameras expect them there: rtsp://camera/user=admin_password=secret_channel=1.
_NAMED = re.compile(r"(?i)(?<![a-z])(user|username|password|passwd|pwd|pass|token|secret|key)=([^&;_/\s\"']+)")

_known: set[str] = set()


class SecretAddress(Secret[str]):
    """An address that may hold a password, such as rtsp://user:password@camera/stream. Its text shows no password."""

    def _display(self) -> str:
        return mask_address(self.get_secret_value())


def reveal(address: str | SecretAddress) -> str:
    """Returns the address with its secrets, for the library that opens it. Never put the result into a message."""
    return address.get_secret_value() if isinstance(address, SecretAddress) else address


def mask_address(address: str) -> str:
    """Returns `address` without its secrets: user, password, query, and values such as `token=…`. Returns a path without :// unchanged."""
    if "://" not in address:
        return address
    return _NAMED.sub(rf"\1={MASK}", _QUERY.sub(f"?{MASK}", _USER.sub(f"{MASK}@", address)))


def remember_secrets(settings: BaseModel) -> None:
    """Remembers all passwords and tokens in `settings`, so that `mask_secrets` removes them from texts."""
    for secret in _list_secrets(settings):
        remember_secret(secret)


def remember_secret(secret: str) -> None:
    """Remembers `secret`, such as the content of a password file, so that `mask_secrets` removes it from texts."""
    # The secret is remembered with and without URL encoding, because an error message may contain either form.
    _known.update(text for text in (secret, unquote(secret), quote(secret, safe="")) if len(text) >= _MIN_SECRET_CHARACTERS)


def mask_secrets(text: str) -> str:
    """Returns `text`, such as a line of a log, without the secrets that were remembered, and without passwords in addresses."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _USER.sub(f"{MASK}@", text)


def _list_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _list_secrets(getattr(value, name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _list_secrets(item)
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretAddress):
        yield from _list_secrets_in_address(value.get_secret_value())


def _list_secrets_in_address(address: str) -> Iterator[str]:
    if found := _USER.search(address):
        user, separator, password = found[0][:-1].partition(":")
        yield password if separator else user
    if "://" in address:
        yield from (found[2] for found in _NAMED.finditer(address) if found[1].lower() not in ("user", "username"))
